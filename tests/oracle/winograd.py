"""A-priori error bounds of Winograd convolution F(m×m, r×r), per element, in float64 (DESIGN §6).

With Bᵀ, G, Aᵀ of the points, {0, ±a, …} with or without ∞, one tile gives y = Aᵀ[Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B)]A. Replacing every number by
its magnitude bounds what each rounding may do: an element of the result carries the roundings of two passes of each
transform and of the sum, and each is at most u of the magnitudes' result:

    |ŷ − y| ≤ γ_K · |Aᵀ|[Σ_c (|G||g_c||Gᵀ|) ⊙ (|Bᵀ||d_c||B|)]|A|

The same holds for the weight gradient Gᵀ[Σ_tiles (A gy Aᵀ) ⊙ (Bᵀ d B)]G. The data gradient of stride 1 is a forward pass with
flipped filters. A pass of a transform over n elements rounds at most n + 1 times in a row (coefficients are rounded too).

Of stride 2, with r = 3, even pixels meet the outer two taps by F(m, 2), odd ones the middle tap as they are: the matrices
have both side by side. The data gradient interleaves two phases likewise, of a padding that begins with 1: pixel 2i of grad_x
meets the middle tap and y's pixel i, pixel 2i + 1 the flipped outer taps and y's pixels i and i + 1.
"""

from __future__ import annotations

import numpy as np

from oracle import bound

Array = np.ndarray

#: The finite ones, by the number of all: one less, where ∞ is another.
POINTS = {
    4: (0, 1, -1),
    5: (0, 0.6875, -0.6875, 2.25),
    6: (0, 0.625, -0.625, 1.5, -1.5),
    7: (0, 0.484375, -0.484375, 1.21875, -1.21875, 4.5, -4.5),
    8: (0, 1, -1, 2, -2, 0.5, -0.5),
}
Pads = tuple[tuple[int, int], tuple[int, int]]


def matrices(m: int, r: int, stride: int = 1) -> tuple[Array, Array, Array]:
    """Return Bᵀ (n, n), G (n, r) and Aᵀ (m, n), n = stride·(m − 1) + r, by Lagrange interpolation at the points."""
    if stride == 2:
        inner_b, inner_g, inner_a = matrices(m, 2)
        n = 2 * m + 1
        b, g, a = np.zeros((n, n)), np.zeros((n, r)), np.zeros((m, n))
        b[: m + 1, ::2], b[m + 1 :, 1::2] = inner_b, np.eye(m)
        g[: m + 1, ::2], g[m + 1 :, 1] = inner_g, 1
        a[:, : m + 1], a[:, m + 1 :] = inner_a, np.eye(m)
        return b, g, a
    n = m + r - 1
    points = POINTS[n]
    b, g, a = np.zeros((n, n)), np.zeros((n, r)), np.zeros((m, n))
    for i, p in enumerate(points):
        others = [q for k, q in enumerate(points) if k != i]
        b[i, : len(points)] = np.poly(others)[::-1]
        g[i] = np.array([p**k for k in range(r)]) / np.prod([p - q for q in others])
        a[:, i] = [p**j for j in range(m)]
    if len(points) < n:
        b[-1] = np.poly(points)[::-1]
        g[-1, -1] = 1
        a[-1, -1] = 1
    return b, g, a


def back_matrices(m: int) -> tuple[Array, Array]:
    """Return what Bᵀ (n, m + 1) and Aᵀ (2m, n) are in the data gradient of stride 2."""
    inner_b, _, inner_a = matrices(m, 2)
    b, a = np.zeros((2 * m + 1, m + 1)), np.zeros((2 * m, 2 * m + 1))
    b[: m + 1], b[m + 1 :] = inner_b, np.eye(m, m + 1)
    a[1::2, : m + 1], a[::2, m + 1 :] = inner_a, np.eye(m)
    return b, a


def growth(m: int, r: int = 3, stride: int = 1) -> float:
    """Return the largest element of the bound for tiles and filters of ones, relative to the r² products."""
    b, g, a = (np.abs(matrix) for matrix in matrices(m, r, stride))
    product = np.outer(g.sum(1), g.sum(1)) * np.outer(b.sum(1), b.sum(1))
    return float((a @ product @ a.T).max() / r**2)


def _tiles(x: Array, counts: tuple[int, int], size: int, step: int, pad: tuple[int, int] = (0, 0)) -> Array:
    """Cut (N, C, H, W) into (N, rows, columns, C, size, size), `step` apart, zeros outside."""
    n, c, h, w = x.shape
    rows, columns = counts
    padded = np.zeros((n, c, rows * step + size + pad[0] + h, columns * step + size + pad[1] + w))
    padded[:, :, pad[0] : pad[0] + h, pad[1] : pad[1] + w] = x
    tiles = np.zeros((n, rows, columns, c, size, size))
    for i in range(rows):
        for j in range(columns):
            tiles[:, i, j] = padded[:, :, i * step : i * step + size, j * step : j * step + size]
    return tiles


def _out(x: Array, padding: Pads, r: int, stride: int) -> tuple[int, int]:
    out_h, out_w = ((n + sum(p) - r) // stride + 1 for n, p in zip(x.shape[2:], padding, strict=True))
    return out_h, out_w


def _roundings(n: int, n_terms: int) -> int:
    return 3 * 2 * (n + 1) + n_terms


def _product(v: Array, weight: Array, g: Array, a: Array) -> Array:
    """Σ over channels of tiles and (O, C, r, r) filters, back in pixels: (N, O, rows·size, columns·size)."""
    u = g @ np.abs(weight) @ g.T
    y = a @ np.einsum("nrscij,ocij->nrsoij", v, u) @ a.T
    n, rows, columns, o, size, _ = y.shape
    return y.transpose(0, 3, 1, 4, 2, 5).reshape(n, o, rows * size, columns * size)


def forward_bound(x: Array, weight: Array, padding: Pads, m: int, bias: Array | None = None, stride: int = 1) -> Array:
    """Bound conv2d(x, weight, bias): ((top, bottom), (left, right)) padding."""
    r = weight.shape[2]
    b, g, a = (np.abs(matrix) for matrix in matrices(m, r, stride))
    out_h, out_w = _out(x, padding, r, stride)
    counts = (-(-out_h // m), -(-out_w // m))
    v = b @ _tiles(np.abs(x), counts, len(b), stride * m, (padding[0][0], padding[1][0])) @ b.T
    y = _product(v, weight, g, a)[:, :, :out_h, :out_w]
    if bias is not None:
        y = y + np.abs(bias).reshape(1, -1, 1, 1)
    return bound.dot(bound.FLOAT32, _roundings(len(b), x.shape[1] + 1), y)


def grad_input_bound(
    grad_y: Array, weight: Array, padding: Pads, m: int, stride: int = 1, size: tuple[int, int] = (0, 0)
) -> Array:
    """Bound the data gradient, a forward pass over grad_y with flipped, transposed filters; of stride 2, `size` is grad_x's."""
    flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    if stride == 1:
        reach = weight.shape[2] - 1
        mirrored = tuple((reach - begin, reach - end) for begin, end in padding)
        return forward_bound(grad_y, flipped, mirrored, m)  # type: ignore[arg-type]  # a tuple of two pairs
    _, g, _ = matrices(m, 3, 2)
    b, a = (np.abs(matrix) for matrix in back_matrices(m))
    counts = (-(-size[0] // (2 * m)), -(-size[1] // (2 * m)))
    v = b @ _tiles(np.abs(grad_y), counts, m + 1, m) @ b.T
    grad_x = _product(v, flipped, np.abs(g), a)[:, :, : size[0], : size[1]]
    return bound.dot(bound.FLOAT32, _roundings(len(b), grad_y.shape[1] + 1), grad_x)


def grad_weight_bound(grad_y: Array, x: Array, padding: Pads, m: int, r: int, stride: int = 1) -> Array:
    """Bound the weight gradient."""
    b, g, a = (np.abs(matrix) for matrix in matrices(m, r, stride))
    out_h, out_w = _out(x, padding, r, stride)
    counts = (-(-out_h // m), -(-out_w // m))
    v = b @ _tiles(np.abs(x), counts, len(b), stride * m, (padding[0][0], padding[1][0])) @ b.T
    z = a.T @ _tiles(np.abs(grad_y), counts, m, m) @ a
    u = np.einsum("nrsoij,nrscij->ocij", z, v)
    # Points that share a filter are summed, too.
    n_terms = x.shape[0] * counts[0] * counts[1] * (1 if stride == 1 else m * m)
    return bound.dot(bound.FLOAT32, _roundings(len(b), n_terms + 16), g.T @ u @ g)
