"""Tensors, the record of what was done to them, and gradients read from that record backwards."""

from striate.autograd.check import GradientError, gradcheck
from striate.autograd.dim import Dim
from striate.autograd.op import Op, first_order_only, functions, public, register, registry
from striate.autograd.record import RecordError, Recording, record
from striate.autograd.tape import Node, backward, enable_grad, grad, is_grad_enabled, is_recording, no_grad
from striate.autograd.tensor import Tensor

__all__ = [
    "Dim",
    "GradientError",
    "Node",
    "Op",
    "RecordError",
    "Recording",
    "Tensor",
    "backward",
    "enable_grad",
    "first_order_only",
    "functions",
    "grad",
    "gradcheck",
    "is_grad_enabled",
    "is_recording",
    "no_grad",
    "public",
    "record",
    "register",
    "registry",
]
