"""Tensors, the record of what was done to them, and gradients read from that record backwards."""

from striate.autograd.check import GradientError, gradcheck
from striate.autograd.dim import Dim
from striate.autograd.host import HostCall, host_call
from striate.autograd.op import Op, first_order_only, functions, public, register, registry
from striate.autograd.record import ReadError, RecordError, Recording, record
from striate.autograd.tape import Node, backward, enable_grad, grad, is_grad_enabled, is_recording, no_grad
from striate.autograd.tensor import Tensor

__all__ = [
    "Dim",
    "GradientError",
    "HostCall",
    "Node",
    "Op",
    "ReadError",
    "RecordError",
    "Recording",
    "Tensor",
    "backward",
    "enable_grad",
    "first_order_only",
    "functions",
    "grad",
    "gradcheck",
    "host_call",
    "is_grad_enabled",
    "is_recording",
    "no_grad",
    "public",
    "record",
    "register",
    "registry",
]
