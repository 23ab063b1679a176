"""striate: train and run convolutional neural networks on the CPU you have."""

from striate import autograd, machine, memory, ops
from striate._core import DType, DTypeError, ShapeError, __version__
from striate.autograd import RecordError, Tensor, enable_grad, is_grad_enabled, no_grad
from striate.compile import compile, compile_step, load_program
from striate.machine import isa, precision, threads
from striate.ops import *  # noqa: F403
from striate.ops import __all__ as _ops_all

float32 = DType.float32
float64 = DType.float64
float16 = DType.float16
bfloat16 = DType.bfloat16
int8 = DType.int8
uint8 = DType.uint8
int32 = DType.int32
int64 = DType.int64
bool = DType.bool  # torch's name

__all__ = [
    "DType",
    "DTypeError",
    "RecordError",
    "ShapeError",
    "Tensor",
    "__version__",
    "autograd",
    "bfloat16",
    "bool",
    "compile",
    "compile_step",
    "enable_grad",
    "float16",
    "float32",
    "float64",
    "int8",
    "int32",
    "int64",
    "is_grad_enabled",
    "isa",
    "load_program",
    "machine",
    "memory",
    "no_grad",
    "ops",
    "precision",
    "threads",
    "uint8",
    *_ops_all,
]
