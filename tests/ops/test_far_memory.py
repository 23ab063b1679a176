"""Convolutions of images that no core's caches hold: memory is asked for ahead, and work is cut for it.

The laws look at small shapes. Here a few elements of large results are compared with float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import striate

N_SAMPLES = 96
#: Winograd rounds most: 1e-5 of the largest element in the tiles' sums, more in those of whole images.
TOLERANCE = 3e-5
Array = np.ndarray


@dataclass(frozen=True)
class Layer:
    """One convolution."""

    n: int
    c: int
    o: int
    size: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.n}x{self.c}to{self.o}at{self.size}_{self.kernel}x{self.kernel}_{self.stride}_{self.groups}"


LAYERS = [
    # Depthwise: channels at once, and in blocks that take turns, whose rows are cut for the memory asked for.
    Layer(2, 144, 144, 84, 3, 1, 144),
    Layer(8, 96, 96, 112, 3, 2, 96),
    Layer(9, 384, 384, 28, 3, 1, 384),
    Layer(40, 392, 392, 14, 3, 1, 392),
    Layer(8, 576, 576, 41, 3, 2, 576),
    Layer(4, 240, 240, 57, 5, 1, 240),
    # Winograd: the next block of tiles is asked for, by parts of the sum and by points in a weight gradient.
    Layer(3, 64, 64, 90, 3),
    Layer(2, 40, 32, 150, 3),
    Layer(6, 128, 96, 51, 3),
    Layer(3, 64, 96, 128, 3, 2),
    Layer(8, 96, 64, 79, 3, 2),
    # Products that ask while a tile is computed, for the rows that are read and for those that are summed over.
    Layer(4, 96, 16, 112),
    Layer(4, 16, 96, 112),
    Layer(3, 144, 24, 101),
    Layer(9, 257, 64, 40),
    # Weight gradients whose tiles pack what they read and ask for the next block: of near rows; of rows so far apart that a
    # pass packs those of tiles; of unevenly spaced ones; of channels that end inside a vector; of taps outside the image;
    # and of groups.
    Layer(7, 512, 128, 29),
    Layer(5, 136, 264, 41),
    Layer(5, 648, 96, 29),
    Layer(3, 264, 256, 71, 1, 2),
    Layer(4, 129, 136, 65),
    Layer(5, 128, 192, 57, 5, 2),
    Layer(4, 288, 288, 43, 1, 1, 2),
]


def _window(image: Array, i: int, j: int, layer: Layer) -> Array:
    """What output (i, j) reads of a padded (C, H, W)."""
    h, w = i * layer.stride, j * layer.stride
    return image[:, h : h + layer.kernel, w : w + layer.kernel]


def _places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Some places, and the first and the last of every axis."""
    rng = np.random.default_rng(1)
    drawn = [tuple(int(rng.integers(size)) for size in shape) for _ in range(N_SAMPLES)]
    return [tuple(0 for _ in shape), tuple(size - 1 for size in shape), *drawn]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_convolution_of_far_memory(layer: Layer) -> None:
    rng = np.random.default_rng(0)
    pad = layer.kernel // 2
    x = rng.standard_normal((layer.n, layer.c, layer.size, layer.size), np.float32)
    weight = rng.standard_normal((layer.o, layer.c // layer.groups, layer.kernel, layer.kernel), np.float32)
    own_x, own_weight = (
        striate.ops.clone(striate.ops.relayout(striate.tensor(a))).requires_grad_() for a in (x, weight)
    )
    y = striate.conv2d(own_x, own_weight, stride=layer.stride, padding=pad, groups=layer.groups)
    grad = rng.standard_normal(y.shape, np.float32)
    found = striate.autograd.grad(y, (own_x, own_weight), striate.ops.clone(striate.ops.relayout(striate.tensor(grad))))
    assert x.nbytes + grad.nbytes > 8 << 20

    exact_x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    exact_w, exact_g = weight.astype(np.float64), grad.astype(np.float64)
    inputs, outputs = layer.c // layer.groups, layer.o // layer.groups  # of a group

    def forward(n: int, o: int, i: int, j: int) -> float:
        first = o // outputs * inputs
        return float((_window(exact_x[n], i, j, layer)[first : first + inputs] * exact_w[o]).sum())

    def grad_input(n: int, c: int, h: int, w: int) -> float:
        group, own = divmod(c, inputs)
        first, total = group * outputs, 0.0
        for p in range(layer.kernel):
            for q in range(layer.kernel):
                (i, rest_i), (j, rest_j) = divmod(h + pad - p, layer.stride), divmod(w + pad - q, layer.stride)
                if rest_i == rest_j == 0 and 0 <= i < grad.shape[2] and 0 <= j < grad.shape[3]:
                    total += float(
                        exact_g[n, first : first + outputs, i, j] @ exact_w[first : first + outputs, own, p, q]
                    )
        return total

    def grad_weight(o: int, c: int, p: int, q: int) -> float:
        rows = slice(p, p + layer.stride * (grad.shape[2] - 1) + 1, layer.stride)
        columns = slice(q, q + layer.stride * (grad.shape[3] - 1) + 1, layer.stride)
        return float(np.vdot(exact_g[:, o], exact_x[:, o // outputs * inputs + c, rows, columns]))

    for result, exact in zip((y, *found), (forward, grad_input, grad_weight), strict=True):
        values = result.detach().numpy()
        places = _places(values.shape)
        error = max(abs(float(values[at]) - exact(*at)) for at in places)
        assert error <= TOLERANCE * np.abs(values).max(), exact.__name__
