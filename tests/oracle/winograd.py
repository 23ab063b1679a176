"""A-priori error bounds of Winograd convolution F(m×m, r×r), per element, in float64 (DESIGN §6).

With Bᵀ, G, Aᵀ of the points {0, ±a, …, ∞}, one tile gives y = Aᵀ[Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B)]A. Replacing every number by
its magnitude bounds what each rounding may do: an element of the result carries the roundings of two passes of each
transform and of the sum, and each is at most u of the magnitudes' result:

    |ŷ − y| ≤ γ_K · |Aᵀ|[Σ_c (|G||g_c||Gᵀ|) ⊙ (|Bᵀ||d_c||B|)]|A|

The same holds for the weight gradient Gᵀ[Σ_tiles (A gy Aᵀ) ⊙ (Bᵀ d B)]G. The data gradient is a forward pass with flipped
filters. A pass of a transform over n elements rounds at most n + 1 times in a row (coefficients are rounded too).
"""

from __future__ import annotations

import numpy as np

from oracle import bound

Array = np.ndarray

#: The positive ones, by n = m + r − 1.
POINTS = {4: (1.0,), 6: (0.625, 1.5), 8: (1.0, 2.0, 0.5)}


def matrices(m: int, r: int) -> tuple[Array, Array, Array]:
    """Return Bᵀ (n, n), G (n, r) and Aᵀ (m, n) by Lagrange interpolation at the points."""
    n = m + r - 1
    points = [0.0, *(p for a in POINTS[n] for p in (a, -a))]
    b, g, a = np.zeros((n, n)), np.zeros((n, r)), np.zeros((m, n))
    for i, p in enumerate(points):
        others = [q for k, q in enumerate(points) if k != i]
        b[i, : n - 1] = np.poly(others)[::-1]
        g[i] = np.array([p**k for k in range(r)]) / np.prod([p - q for q in others])
        a[:, i] = [p**j for j in range(m)]
    b[-1] = np.poly(points)[::-1]
    g[-1, -1] = 1
    a[-1, -1] = 1
    return b, g, a


def growth(m: int, r: int = 3) -> float:
    """Return the largest element of the bound for tiles and filters of ones, relative to the r² products."""
    b, g, a = (np.abs(matrix) for matrix in matrices(m, r))
    product = np.outer(g.sum(1), g.sum(1)) * np.outer(b.sum(1), b.sum(1))
    return float((a @ product @ a.T).max() / r**2)


def _tiles(x: Array, m: int, rows: int, columns: int, reach: int, pad: tuple[int, int]) -> Array:
    """Cut (N, C, H, W) into (N, rows, columns, C, m + reach, m + reach), zeros outside."""
    n, c, h, w = x.shape
    padded = np.zeros((n, c, rows * m + reach + pad[0] + h, columns * m + reach + pad[1] + w))
    padded[:, :, pad[0] : pad[0] + h, pad[1] : pad[1] + w] = x
    size = m + reach
    tiles = np.zeros((n, rows, columns, c, size, size))
    for i in range(rows):
        for j in range(columns):
            tiles[:, i, j] = padded[:, :, i * m : i * m + size, j * m : j * m + size]
    return tiles


def _sizes(x: Array, padding: tuple[tuple[int, int], tuple[int, int]], m: int, r: int) -> tuple[int, int, int, int]:
    out_h = x.shape[2] + sum(padding[0]) - (r - 1)
    out_w = x.shape[3] + sum(padding[1]) - (r - 1)
    return out_h, out_w, -(-out_h // m), -(-out_w // m)


def _roundings(m: int, r: int, n_terms: int) -> int:
    return 3 * 2 * (m + r) + n_terms


def forward_bound(
    x: Array, weight: Array, padding: tuple[tuple[int, int], tuple[int, int]], m: int, bias: Array | None = None
) -> Array:
    """Bound conv2d(x, weight, bias): ((top, bottom), (left, right)) padding."""
    r = weight.shape[2]
    b, g, a = (np.abs(matrix) for matrix in matrices(m, r))
    out_h, out_w, rows, columns = _sizes(x, padding, m, r)
    v = b @ _tiles(np.abs(x), m, rows, columns, r - 1, (padding[0][0], padding[1][0])) @ b.T
    u = g @ np.abs(weight) @ g.T
    y = a @ np.einsum("nrscij,ocij->nrsoij", v, u) @ a.T
    y = y.transpose(0, 3, 1, 4, 2, 5).reshape(x.shape[0], weight.shape[0], rows * m, columns * m)[:, :, :out_h, :out_w]
    if bias is not None:
        y = y + np.abs(bias).reshape(1, -1, 1, 1)
    return bound.dot(bound.FLOAT32, _roundings(m, r, x.shape[1] + 1), y)


def grad_input_bound(grad_y: Array, weight: Array, padding: tuple[tuple[int, int], tuple[int, int]], m: int) -> Array:
    """Bound the data gradient, a forward pass over grad_y with flipped, transposed filters."""
    flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    reach = weight.shape[2] - 1
    mirrored = tuple((reach - begin, reach - end) for begin, end in padding)
    return forward_bound(grad_y, flipped, mirrored, m)  # type: ignore[arg-type]  # a tuple of two pairs


def grad_weight_bound(
    grad_y: Array, x: Array, padding: tuple[tuple[int, int], tuple[int, int]], m: int, r: int
) -> Array:
    """Bound the weight gradient."""
    b, g, a = (np.abs(matrix) for matrix in matrices(m, r))
    _, _, rows, columns = _sizes(x, padding, m, r)
    v = b @ _tiles(np.abs(x), m, rows, columns, r - 1, (padding[0][0], padding[1][0])) @ b.T
    z = a.T @ _tiles(np.abs(grad_y), m, rows, columns, 0, (0, 0)) @ a
    u = np.einsum("nrsoij,nrscij->ocij", z, v)
    n_tiles = x.shape[0] * rows * columns
    return bound.dot(bound.FLOAT32, _roundings(m, r, n_tiles + 16), g.T @ u @ g)
