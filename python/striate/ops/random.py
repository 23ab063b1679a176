"""Random numbers that depend on a seed, the number of the draw and the element: never on threads, nor on what ran before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from striate import _core
from striate.autograd import tape
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


def _draw(generator: Generator | None) -> tuple[Tensor | None, dict[str, int]]:
    """Return what an operator's next draw is numbered by: attributes, and in a recording a state they count from."""
    chosen = _default if generator is None else generator
    if tape.recorders:
        recorder = tape.recorder()
        if recorder is not None:
            return recorder.draw(chosen)
    return None, chosen.take()


def _numbers(state: Any, seed: int, call: int) -> dict[str, int]:
    """Return seed and number of the draw; `state` holds (seed, draws) in a recording, and `call` counts on from there."""
    if state is None:
        return {"seed": seed, "call": call}
    first, drawn = state.numpy().tolist()
    return {"seed": first & _MASK, "call": drawn + call & _MASK}


def _drawn(kernel: Any) -> Any:
    def forward(state: Any, *, seed: int, call: int, **attributes: Any) -> Any:
        return kernel(**attributes, **_numbers(state, seed, call))

    return forward


_rand = register(Op("rand", _drawn(_core.rand)))
_randn = register(Op("randn", _drawn(_core.randn)))
_randint = register(Op("randint", _drawn(_core.randint)))
_randperm = register(Op("randperm", _drawn(_core.randperm)))


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
    state, numbers = _draw(generator)
    return _rand(state, shape=tuple(_shape(size)), dtype=dtype, **numbers)  # type: ignore[no-any-return]


@public
def randn(*size: Size, generator: Generator | None = None, dtype: DType = DType.float32) -> Tensor:
    """Draw from the normal distribution of mean 0 and variance 1; arguments as `rand`."""
    state, numbers = _draw(generator)
    return _randn(state, shape=tuple(_shape(size)), dtype=dtype, **numbers)  # type: ignore[no-any-return]


@public
def randint(low: int, high: int | None = None, size: Size = (), *, generator: Generator | None = None) -> Tensor:
    """Draw integers low … high − 1 (0 … low − 1 when high is None), int64.

    Raises
    ------
    ValueError
        An empty interval.
    """
    first, last = (0, low) if high is None else (low, high)
    state, numbers = _draw(generator)
    return _randint(state, shape=tuple(_shape((size,))), low=first, high=last, **numbers)  # type: ignore[no-any-return]


@public
def randperm(n: int, *, generator: Generator | None = None) -> Tensor:
    """Draw a permutation of 0 … n − 1, int64."""
    state, numbers = _draw(generator)
    return _randperm(state, n=n, **numbers)  # type: ignore[no-any-return]


def _dropout(x: Any, state: Any, *, p: float, seed: int, call: int) -> Any:
    mask = _core.random_mask(x, p=p, **_numbers(state, seed, call))
    return _core.mask_scale(mask, x, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0), mask


def _dropout_channels(x: Any, state: Any, *, p: float, seed: int, call: int) -> Any:
    planes = _core.random_mask(_core.empty(x.shape[:2], DType.bool), p=p, **_numbers(state, seed, call))
    mask = planes.try_reshape(x.shape[:2] + (1,) * (x.ndim - 2))
    assert mask is not None
    return _core.mask_scale(mask, x, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0), mask


def _dropout_vjp(node: Any, g: Tensor, *_: Any) -> tuple[Tensor, None]:
    p = node.attributes["p"]
    return _mask_scale(node.results[1].detach(), g, scale=1.0 / (1.0 - p) if p < 1.0 else 0.0), None


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
    state, numbers = _draw(generator)
    return row(x, state, p=float(p), **numbers)[0]  # type: ignore[no-any-return]
