"""The oracle itself, once, against PyTorch in float64. Needs torch and none of striate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cases import CASES, Case, geometry
from oracle import norm

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.needs_peers


def _torch_function(op: str) -> Any:
    functional = torch.nn.functional

    def convolve(x: Any, weight: Any, bias: Any = None, padding: Any = 0, **attributes: Any) -> Any:
        if isinstance(padding, tuple) and isinstance(padding[0], tuple):
            flat = [cell for pair in reversed(padding) for cell in pair]
            x, padding = functional.pad(x, flat), 0
        return getattr(functional, op)(x, weight, bias, padding=padding, **attributes)

    def reduce_axes(name: str) -> Any:
        def call(x: Any, dim: Any = None, keepdim: bool = False, **attributes: Any) -> Any:
            axes = tuple(range(x.ndim)) if dim is None else dim
            if name == "prod":
                return x.prod() if dim is None and not keepdim else _each(x, axes, keepdim)
            return getattr(torch, name)(x, dim=axes, keepdim=keepdim, **attributes)

        def _each(x: Any, axes: Any, keepdim: bool) -> Any:
            for axis in sorted(axes if isinstance(axes, tuple) else (axes,), reverse=True):
                x = x.prod(dim=axis, keepdim=keepdim)
            return x

        return call

    def norm_first(x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, **attributes: Any) -> Any:
        return functional.batch_norm(x, running_mean.clone(), running_var.clone(), weight, bias, **attributes)

    named = {
        **{f"conv{n}d": convolve for n in (1, 2, 3)},
        "concat": torch.cat,
        "clip": torch.clamp,
        "std": reduce_axes("std"),
        "amax": reduce_axes("amax"),
        "amin": reduce_axes("amin"),
        "batch_norm": norm_first,
        "max": reduce_axes("amax"),
        "min": reduce_axes("amin"),
        "prod": reduce_axes("prod"),
        "sum": reduce_axes("sum"),
        "mean": reduce_axes("mean"),
        "var": reduce_axes("var"),
        "logsumexp": reduce_axes("logsumexp"),
        "instance_norm": lambda x, weight, bias: functional.instance_norm(x, weight=weight, bias=bias),
        "relayout": lambda x, channels_last: x.contiguous(memory_format=torch.channels_last),
        "require_finite": torch.clone,
        "broadcast_to": lambda x, shape: x.broadcast_to(shape),
        "expand": lambda x, shape: x.expand(shape),
        "repeat": lambda x, repeats: x.repeat(repeats),
        "squeeze": lambda x, dim=None: x.squeeze() if dim is None else x.squeeze(dim),
        "scatter_add": lambda x, index, src, dim: torch.scatter_add(x, dim, index, src),
        "gather": lambda x, index, dim: torch.gather(x, dim, index),
    }
    return named.get(op) or getattr(functional, op, None) or getattr(torch, op)


class _Torch:
    def __getattr__(self, op: str) -> Any:
        return _torch_function(op)


def _as_tuple(y: Any) -> tuple[Any, ...]:
    return tuple(y) if isinstance(y, tuple | list) else (y,)


#: Torch has no slices with a negative step, and in three dimensions no average over a window larger than the image.
_NOT_IN_TORCH = {("index", "reversed"), ("avg_pool3d", "ceil-over-image")}
_CASES = [case for case in CASES if not case.large and (case.op, case.label) not in _NOT_IN_TORCH]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("kind", ["real", "integer"])
def test_oracle_agrees_with_torch(case: Case, kind: str) -> None:
    arrays = case.draw(np.random.default_rng(7), kind)
    tensors = [None if a is None else torch.from_numpy(np.array(a)) for a in arrays]
    got = _as_tuple(case.run(_Torch(), tensors))
    expected = case.expected(arrays)
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert tuple(g.shape) == e.shape
        np.testing.assert_allclose(g.numpy(), e, rtol=1e-11, atol=1e-12)


def test_oracle_updates_running_statistics_as_torch() -> None:
    rng = np.random.default_rng(0)
    x, mean, var = rng.normal(size=(4, 3, 5)), rng.normal(size=3), rng.uniform(1, 2, 3)
    got_mean, got_var = torch.tensor(mean), torch.tensor(var)
    torch.nn.functional.batch_norm(torch.tensor(x), got_mean, got_var, training=True, momentum=0.2)
    expected = norm.batch_norm_running(x, mean, var, momentum=0.2)
    np.testing.assert_allclose(got_mean.numpy(), expected[0], rtol=1e-12)
    np.testing.assert_allclose(got_var.numpy(), expected[1], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("family", [geometry.conv_cases, geometry.conv_transpose_cases, geometry.pool_cases])
@given(data=st.data())
def test_oracle_agrees_with_torch_on_drawn_geometry(family: Any, n_axes: int, data: st.DataObject) -> None:
    case = data.draw(family(n_axes))
    try:
        test_oracle_agrees_with_torch(case, "integer")
    except RuntimeError as error:  # torch's avg_pool3d forgets the padding when it compares image and kernel
        assume("smaller than kernel size" not in str(error))
        raise


@pytest.mark.parametrize(
    "family",
    [geometry.product_cases, geometry.broadcast_cases, geometry.reduce_cases, geometry.move_cases, geometry.row_cases],
    ids=lambda family: family.__name__,
)
@given(data=st.data())
def test_oracle_agrees_with_torch_on_drawn_shapes(family: Any, data: st.DataObject) -> None:
    test_oracle_agrees_with_torch(data.draw(family()), "real")
