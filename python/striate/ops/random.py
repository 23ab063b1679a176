"""Random numbers that depend on a seed, the number of the draw and the element: never on threads, nor on what ran before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Tensor
from striate.ops.create import Size, _shape

DType = _core.DType
_MASK = 2**64 - 1


class Generator:
    """A stream of random draws: Philox4x32-10 of (seed, number of the draw, element).

    Each call that draws takes one number. The state is two integers; set them back and the same draws come again.

    Parameters
    ----------
    seed : int
        Any integer; taken modulo 2⁶⁴.

    References
    ----------
    Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
    """

    __slots__ = ("_call", "_lock", "_seed")

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._seed = seed & _MASK
        self._call = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of another seed and return self."""
        with self._lock:
            self._seed, self._call = seed & _MASK, 0
        return self

    @property
    def seed(self) -> int:
        """The seed, from 0 to 2⁶⁴ − 1."""
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """Return (seed, draws taken)."""
        with self._lock:
            return self._seed, self._call

    def set_state(self, state: tuple[int, int]) -> None:
        """Go to a state that `get_state` returned."""
        seed, call = state
        with self._lock:
            self._seed, self._call = int(seed) & _MASK, int(call) & _MASK

    def take(self) -> dict[str, int]:
        """Return the seed and the number of the next draw, and count it."""
        with self._lock:
            call = self._call
            self._call = call + 1 & _MASK
            return {"seed": self._seed, "call": call}

    def state_dict(self) -> dict[str, int]:
        """Return the state under names, for checkpoints."""
        seed, call = self.get_state()
        return {"seed": seed, "draws": call}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a state that `state_dict` returned."""
        self.set_state((state["seed"], state["draws"]))

    def __getstate__(self) -> tuple[int, int]:
        return self.get_state()

    def __setstate__(self, state: tuple[int, int]) -> None:
        self._lock = threading.Lock()
        self._seed, self._call = state

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, draws={self._call})"


_default = Generator(0)


def default_generator() -> Generator:
    """Return the generator that draws without `generator=` take from."""
    return _default


def manual_seed(seed: int) -> Generator:
    """Seed the default generator and return it."""
    return _default.manual_seed(seed)


def _take(generator: Generator | None) -> dict[str, int]:
    return (_default if generator is None else generator).take()


@public
def rand(*size: Size, generator: Generator | None = None, dtype: DType = DType.float32) -> Tensor:
    """Draw uniformly from [0, 1).

    Parameters
    ----------
    *size : int, or one sequence of int
    generator : Generator, optional
        The default generator when None.
    dtype : DType
        float32 (multiples of 2⁻²⁴) or float64 (of 2⁻⁵³).

    Returns
    -------
    Tensor, row-major
    """
    return Tensor._wrap(_core.rand(shape=_shape(size), dtype=dtype, **_take(generator)))


@public
def randn(*size: Size, generator: Generator | None = None, dtype: DType = DType.float32) -> Tensor:
    """Draw from the normal distribution of mean 0 and variance 1; arguments as `rand`."""
    return Tensor._wrap(_core.randn(shape=_shape(size), dtype=dtype, **_take(generator)))


@public
def randint(low: int, high: int | None = None, size: Size = (), *, generator: Generator | None = None) -> Tensor:
    """Draw integers low … high − 1 (0 … low − 1 when high is None), int64.

    Raises
    ------
    ValueError
        An empty interval.
    """
    first, last = (0, low) if high is None else (low, high)
    return Tensor._wrap(_core.randint(shape=_shape((size,)), low=first, high=last, **_take(generator)))


@public
def randperm(n: int, *, generator: Generator | None = None) -> Tensor:
    """Draw a permutation of 0 … n − 1, int64."""
    return Tensor._wrap(_core.randperm(n, **_take(generator)))


def _dropout(x: Any, *, p: float, seed: int, call: int) -> Any:
    mask = _core.random_mask(x, p=p, seed=seed, call=call)
    return _core.mask_scale(mask, x, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0), mask


def _dropout_channels(x: Any, *, p: float, seed: int, call: int) -> Any:
    planes = _core.random_mask(_core.empty(x.shape[:2], DType.bool), p=p, seed=seed, call=call)
    mask = planes.try_reshape(x.shape[:2] + (1,) * (x.ndim - 2))
    assert mask is not None
    return _core.mask_scale(mask, x, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0), mask


def _dropout_vjp(node: Any, g: Tensor, *_: Any) -> tuple[Tensor]:
    p = node.attributes["p"]
    return (_mask_scale(node.results[1].detach(), g, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0),)


def _mask_scale_vjp(node: Any, g: Tensor) -> tuple[None, Tensor]:
    return None, _mask_scale(node.inputs[0], g, **node.attributes)


_dropout_row = register(Op("dropout", _dropout, _dropout_vjp, saves_results=(1,)))
_dropout_channels_row = register(Op("dropout2d", _dropout_channels, _dropout_vjp, saves_results=(1,)))
_mask_scale = register(Op("mask_scale", _core.mask_scale, _mask_scale_vjp, saves_inputs=(0,)))


@public
def dropout(x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Set each element to 0 with probability p and divide the others by 1 − p.

    Parameters
    ----------
    x : Tensor, any shape
    p : float, from 0 to 1
    training : bool
        False returns x.
    generator : Generator, optional

    Returns
    -------
    Tensor, shape of x
        Which elements go depends on the generator and on the order of x in memory, not on threads.

    Raises
    ------
    ValueError
        A probability outside [0, 1].

    References
    ----------
    Srivastava et al. 2014, JMLR 15.
    """
    return _drop(_dropout_row, x, p, training, generator)


@public
def dropout2d(x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Set whole channels of each sample to 0 with probability p and divide the others by 1 − p.

    Parameters
    ----------
    x : Tensor, shape (N, C, ...)
    p, training, generator
        As in `dropout`.

    References
    ----------
    Tompson et al. 2015, arXiv:1411.4280, section 3.2.
    """
    if x.ndim < 2:
        raise _core.ShapeError(f"dropout2d: expected x of shape (N, C, ...), got {x.shape}; use dropout")
    return _drop(_dropout_channels_row, x, p, training, generator)


def _drop(row: Op, x: Tensor, p: float, training: bool, generator: Generator | None) -> Tensor:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{row.name}: expected p from 0 to 1, got {p}; it is a probability")
    if not training or p == 0.0:
        return x
    return row(x, p=float(p), **_take(generator))[0]  # type: ignore[no-any-return]
