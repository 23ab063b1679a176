"""Layers: torch's names, argument names, defaults and initial values."""

from striate.nn import init
from striate.nn.activation import *  # noqa: F403
from striate.nn.activation import __all__ as _activation
from striate.nn.block import *  # noqa: F403
from striate.nn.block import __all__ as _block
from striate.nn.container import *  # noqa: F403
from striate.nn.container import __all__ as _container
from striate.nn.conv import *  # noqa: F403
from striate.nn.conv import __all__ as _conv
from striate.nn.linear import *  # noqa: F403
from striate.nn.linear import __all__ as _linear
from striate.nn.loss import *  # noqa: F403
from striate.nn.loss import __all__ as _loss
from striate.nn.module import Handle, IncompatibleKeys, Module, Parameter
from striate.nn.norm import *  # noqa: F403
from striate.nn.norm import __all__ as _norm
from striate.nn.pool import *  # noqa: F403
from striate.nn.pool import __all__ as _pool
from striate.nn.shape import *  # noqa: F403
from striate.nn.shape import __all__ as _shape
from striate.nn.summary import Summary

__all__ = [
    "Handle",
    "IncompatibleKeys",
    "Module",
    "Parameter",
    "Summary",
    "init",
    *_activation,
    *_block,
    *_container,
    *_conv,
    *_linear,
    *_loss,
    *_norm,
    *_pool,
    *_shape,
]
