"""Shape operators against NumPy: every element exact, views where promised, for any layout of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import striate
from striate import Tensor
from striate.autograd.op import registry


def _values(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def _laid_out(values: np.ndarray[Any, Any], order: tuple[int, ...]) -> Tensor:
    """Return a tensor of these values whose memory runs in the given order of axes."""
    inverse = tuple(np.argsort(order))
    return striate.tensor(np.ascontiguousarray(values.transpose(order))).permute(inverse)


def _channels_last(values: np.ndarray[Any, Any]) -> Tensor:
    return _laid_out(values, (0, *range(2, values.ndim), 1))


def _grad(y: Tensor, x: Tensor, g: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (grad,) = striate.autograd.grad(y, x, striate.tensor(g))
    assert grad is not None
    return grad.numpy()


sizes = st.integers(0, 5)


@given(shape=st.lists(sizes, min_size=1, max_size=4), data=st.data())
def test_oracle_reshape_of_any_layout(shape: list[int], data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    values = _values(*shape)
    x = _laid_out(values, order)
    for new in ((-1,) if values.size else (0,), (1, *shape), tuple(reversed(shape))):
        np.testing.assert_array_equal(striate.reshape(x, new).numpy(), values.reshape(new))


def test_view_reshape_shares_memory_when_strides_allow() -> None:
    x = striate.tensor(_values(2, 3, 4))
    assert x.reshape(6, -1)._array.shares_storage(x._array)
    image = _channels_last(_values(2, 3, 4, 5))
    assert image.reshape(2, 3, 20)._array.shares_storage(image._array)
    assert not image.flatten(1)._array.shares_storage(image._array)


def test_layout_gradient_of_flatten_is_channels_last() -> None:
    x = _channels_last(_values(2, 3, 4, 5)).requires_grad_()
    (grad,) = striate.autograd.grad(x.flatten(1), x, striate.tensor(_values(2, 60)))
    assert grad is not None
    assert grad._array.is_channels_last
    np.testing.assert_array_equal(grad.numpy(), _values(2, 3, 4, 5))


@pytest.mark.parametrize(
    "key",
    [
        2,
        -1,
        slice(1, 4),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(4, 0, -2),
        slice(3, 1),
        None,
        Ellipsis,
        (),
        (Ellipsis, 1),
        (1, Ellipsis, None, slice(-3, None)),
        (slice(None), None, 1),
        (0, 1, 2),
        [0, 2, 2],
        ([0, 2], [1, 1]),
        (slice(None), [[0, 1], [2, 0]]),
        (slice(1, None), slice(None), [3, -1, 0]),
        ([0, 1], slice(None), [1, 2]),
        (1, slice(None), [1, 2]),
        (slice(None), 1, [1, 2]),
        ([[1], [0]], [0, 2]),
        np.array([], np.int64),
    ],
    ids=str,
)
def test_oracle_index(key: Any) -> None:
    values = _values(5, 3, 4)
    x = _laid_out(values, (1, 0, 2)).requires_grad_()
    y = x[key]
    np.testing.assert_array_equal(y.detach().numpy(), values[key])
    g = _values(*y.shape) + 1
    expected = np.zeros_like(values)
    np.add.at(expected, key, g)
    np.testing.assert_array_equal(_grad(y, x, g), expected)


def test_oracle_index_by_masks() -> None:
    values = _values(4, 3, 2)
    x = striate.tensor(values)
    for mask in (values > 7, values[..., 0] % 4 == 0, values[:, 0, 0] > 100):
        np.testing.assert_array_equal(x[striate.tensor(mask)].numpy(), values[mask])
    last = np.array([True, False])
    np.testing.assert_array_equal(x[:, 1, striate.tensor(last)].numpy(), values[:, 1, last])
    with pytest.raises(IndexError, match="mask of size 4 at an axis of 4, got 3"):
        x[striate.tensor([True, False, True])]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (5, "index from -5 to 4 at axis 0, got 5"),
        ((0, -4), "index from -3 to 2 at axis 1, got -4"),
        ((0, 0, 0, 0), "at most 3 indices"),
        ((Ellipsis, Ellipsis), "one ..., got 0 and 2"),
        ("a", "expected integers, slices, tensors, None or ..., got str"),
        (1.5, "got float"),
        (True, "got a bool"),
        ([7], "expected an index from -5 to 4, got 7"),
    ],
)
def test_refusal_index(key: Any, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        striate.tensor(_values(5, 3, 4))[key]


def test_iteration_stops_at_the_last_row() -> None:
    assert [row.tolist() for row in striate.tensor(_values(3, 2))] == _values(3, 2).tolist()


@given(data=st.data(), layout=st.booleans())
def test_oracle_concat(data: st.DataObject, layout: bool) -> None:
    shape = data.draw(st.lists(st.integers(1, 7), min_size=4, max_size=4))
    dim = data.draw(st.integers(-4, 3))
    pieces = []
    for i in range(data.draw(st.integers(1, 4))):
        shape[dim] = data.draw(st.integers(0, 40))
        pieces.append(_values(*shape) + 1000 * i)
    xs = [(_channels_last(p) if layout else striate.tensor(p)).requires_grad_() for p in pieces]
    y = striate.concat(xs, dim)
    expected = np.concatenate(pieces, dim)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    grads = striate.autograd.grad(y, xs, striate.tensor(expected * 2))
    for g, p in zip(grads, pieces, strict=True):
        assert g is not None
        np.testing.assert_array_equal(g.numpy(), p * 2)


def test_layout_concat_of_channels_last_stays() -> None:
    a, b = _channels_last(_values(2, 8, 3, 3)), _channels_last(_values(2, 4, 3, 3))
    assert striate.cat([a, b], 1)._array.is_channels_last
    assert striate.cat([striate.tensor(_values(2, 8, 3, 3)), b], 1)._array.is_row_major


def test_oracle_stack_split_chunk() -> None:
    values = _values(4, 7)
    x = striate.tensor(values).requires_grad_()
    np.testing.assert_array_equal(striate.stack([x, x], -1).detach().numpy(), np.stack([values, values], -1))
    pieces = x.split(3, 1)
    assert [p.shape for p in pieces] == [(4, 3), (4, 3), (4, 1)]
    assert [p.shape for p in x.chunk(3)] == [(2, 7), (2, 7)]
    g = _values(4, 7)
    np.testing.assert_array_equal(
        _grad(striate.cat(pieces[::-1], 1), x, g), np.concatenate([g[:, 4:], g[:, 1:4], g[:, :1]], 1)
    )
    only_first = _grad(x.split(3, 1)[0], x, np.ones((4, 3), np.float32))
    assert only_first[:, :3].min() == 1
    assert only_first[:, 3:].max() == 0


def test_oracle_squeeze_unsqueeze_expand_repeat() -> None:
    values = _values(1, 3, 1, 2)
    x = striate.tensor(values)
    assert x.squeeze().shape == (3, 2)
    assert x.squeeze(0).shape == (3, 1, 2)
    assert x.squeeze((0, -2, 1)).shape == (3, 2)
    assert x.unsqueeze(-1).shape == (1, 3, 1, 2, 1)
    np.testing.assert_array_equal(x.expand(2, 4, -1, 5, 2).numpy(), np.broadcast_to(values, (2, 4, 3, 5, 2)))
    np.testing.assert_array_equal(striate.broadcast_to(x, (4, 3, 1, 2)).numpy(), np.broadcast_to(values, (4, 3, 1, 2)))
    np.testing.assert_array_equal(x.repeat(2, 1, 1, 3, 2).numpy(), np.tile(values, (2, 1, 1, 3, 2)))
    np.testing.assert_array_equal(striate.tile(x, (2, 3)).numpy(), np.tile(values, (2, 3)))
    np.testing.assert_array_equal(x.flip(1, -1).numpy(), values[:, ::-1, :, ::-1])


@given(shape=st.lists(st.integers(1, 40), min_size=2, max_size=3), data=st.data())
def test_oracle_flip_and_triangles(shape: list[int], data: st.DataObject) -> None:
    values = _values(*shape)
    x = _laid_out(values, tuple(data.draw(st.permutations(range(len(shape))))))
    dims = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    diagonal = data.draw(st.integers(-45, 45))
    np.testing.assert_array_equal(striate.flip(x, tuple(dims)).numpy(), np.flip(values, tuple(dims)))
    np.testing.assert_array_equal(striate.tril(x, diagonal).numpy(), np.tril(values, diagonal))
    np.testing.assert_array_equal(striate.triu(x, diagonal).numpy(), np.triu(values, diagonal))


@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), data=st.data())
def test_oracle_gather_and_scatter_add(shape: list[int], data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, len(shape) - 1))
    smaller = [data.draw(st.integers(1, 9 if a == dim else n)) for a, n in enumerate(shape)]
    rng = np.random.default_rng(0)
    values = _values(*shape)
    index = rng.integers(0, shape[dim], smaller)
    x = striate.tensor(values).requires_grad_()
    y = striate.gather(x, striate.tensor(index), dim)
    inside = values[tuple(slice(0, n if a != dim else None) for a, n in enumerate(smaller))]
    np.testing.assert_array_equal(y.detach().numpy(), np.take_along_axis(inside, index, dim))
    g = _values(*smaller) + 1
    expected = np.zeros_like(values)
    where = list(np.indices(smaller))
    where[dim] = index
    np.add.at(expected, tuple(where), g)
    np.testing.assert_array_equal(_grad(y, x, g), expected)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
def test_threads_index_add(n_threads: int) -> None:
    rng = np.random.default_rng(0)
    index = striate.tensor(rng.integers(0, 5, 200))
    g = striate.tensor(rng.standard_normal((200, 700)).astype(np.float32))
    row = registry["index_add"]
    first = row(g, index, shape=(5, 700)).numpy()
    with striate.threads(n_threads):
        np.testing.assert_array_equal(row(g, index, shape=(5, 700)).numpy(), first)


def test_oracle_pixel_shuffle_round_trip() -> None:
    values = _values(2, 12, 3, 5)
    x = striate.tensor(values)
    y = striate.pixel_shuffle(x, 2)
    expected = values.reshape(2, 3, 2, 2, 3, 5).transpose(0, 1, 4, 2, 5, 3).reshape(2, 3, 6, 10)
    np.testing.assert_array_equal(y.numpy(), expected)
    assert y._array.is_channels_last
    np.testing.assert_array_equal(striate.pixel_unshuffle(y, 2).numpy(), values)


@given(shape=st.lists(st.integers(1, 70), min_size=2, max_size=4), data=st.data())
def test_oracle_copy_between_any_two_layouts(shape: list[int], data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float64", "uint8", "float16"]))
    values = (_values(*shape) % 251).astype(dtype)
    x = _laid_out(values, tuple(data.draw(st.permutations(range(len(shape))))))
    y = x[tuple(slice(data.draw(st.integers(0, n - 1)), None, data.draw(st.integers(1, 3))) for n in shape)]
    np.testing.assert_array_equal(y.reshape(-1).numpy(), y.numpy().reshape(-1))


def test_oracle_one_hot() -> None:
    x = striate.tensor([[0, 2], [1, 0]])
    np.testing.assert_array_equal(striate.one_hot(x).numpy(), np.eye(3, dtype=np.int64)[x.numpy()])
    assert striate.one_hot(x, 5).shape == (2, 2, 5)
    with pytest.raises(IndexError, match="expected an index from 0 to 1, got 2 at position 1"):
        striate.one_hot(x, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.reshape(5, -1), striate.ShapeError, "reshape: expected a shape of 24 elements"),
        (lambda x: x.reshape(4, 5), striate.ShapeError, r"reshape: expected a shape of 24 elements as in \(2, 3, 4\)"),
        (lambda x: x.flatten(2, 1), striate.ShapeError, "flatten: expected start_dim before end_dim"),
        (lambda x: x.permute(0, 1), striate.ShapeError, "permute: expected 3 axes"),
        (lambda x: x.permute(0, 1, 1), striate.ShapeError, "once, got axis 1"),
        (lambda x: x.transpose(0, 3), IndexError, "transpose: expected dim from -3 to 2"),
        (lambda x: x.expand(2, 3, 5), striate.ShapeError, r"broadcasts to \(2, 3, 5\)"),
        (lambda x: x.split(0), striate.ShapeError, "split: expected a split_size of at least 1"),
        (lambda x: x.split([1, 2]), striate.ShapeError, "split: expected sizes that add up to axis 0"),
        (lambda x: x.chunk(0), striate.ShapeError, "chunk: expected at least 1 chunk"),
        (lambda x: x.narrow(1, 2, 2), striate.ShapeError, "slice: expected a range inside axis 1"),
        (lambda x: x.repeat(2, 2), striate.ShapeError, "repeat: expected one repeat"),
        (lambda x: x.flip(0, 0), striate.ShapeError, "flip: expected each axis once"),
        (lambda x: striate.concat([]), striate.ShapeError, "concat: expected at least one tensor"),
        (lambda x: striate.concat([x, x.flip(0)[:1]], 1), striate.ShapeError, r"except at axis 1, got \(1, 3, 4\)"),
        (lambda x: striate.concat([x, striate.one_hot(striate.tensor([[0]]))]), striate.DTypeError, "of dtype float32"),
        (lambda x: striate.stack([x, x[0]]), striate.ShapeError, "stack: expected tensors of one shape"),
        (lambda x: striate.pixel_shuffle(x, 2), striate.ShapeError, "pixel_shuffle: expected a shape"),
        (lambda x: striate.pixel_unshuffle(x, 2), striate.ShapeError, "pixel_unshuffle: expected a shape"),
        (lambda x: striate.gather(x, x, 0), striate.DTypeError, "gather: expected an index of dtype int64"),
        (lambda x: striate.gather(x, striate.tensor([0]), 0), striate.ShapeError, "an index no larger"),
        (lambda x: striate.tril(x[0, 0]), striate.ShapeError, "tril: expected a tensor of at least 2 axes"),
    ],
)  # fmt: skip
def test_refusal_shape(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(striate.tensor(_values(2, 3, 4)))
