// Layer normalisation: rows of contiguous values, each normalised by its own mean and variance, then scaled and shifted
// element by element.
//
// A row is taken as lines of kLane values, so the kernels that work per channel find a row's statistics in kLane partial
// ones.
#include <cmath>

#include "kernels/table.hpp"
#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/image.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kLane = 64;
constexpr std::ptrdiff_t kTile = 16 * 4096;  // elements of a task
constexpr std::ptrdiff_t kMaxParts = 64;     // partial gradients of weight and bias

// x as n_rows × length, contiguous. Images normalised over all but the batch keep their channels-last order, and weights
// follow.
struct Rows {
  bool is_image = false;  // values lie as *spatial, C
  Array array;
  std::ptrdiff_t n_rows = 1;
  std::ptrdiff_t length = 1;
};

Rows make_rows(const Array& x, int n_axes) {
  Rows rows;
  rows.is_image = x.rank() >= 3 && x.rank() <= 5 && n_axes == x.rank() - 1 && x.has_unit_channels();
  rows.array = relayout(x, rows.is_image ? Layout::channels_last : Layout::row_major);
  for (int axis = 0; axis < x.rank(); ++axis) {
    (axis < x.rank() - n_axes ? rows.n_rows : rows.length) *= x.shape(axis);
  }
  return rows;
}

// weight or bias in the order of a row's values.
Array in_order(const Array& values, bool is_image) {
  if (!is_image) {
    return relayout(values, Layout::row_major);
  }
  int axes[kMaxRank] = {};
  for (int axis = 1; axis < values.rank(); ++axis) {
    axes[axis - 1] = axis;
  }
  axes[values.rank() - 1] = 0;
  return relayout(values.permute({axes, static_cast<std::size_t>(values.rank())}), Layout::row_major);
}

void check_rows(const char* op, const Array& x, int n_axes, const Array* weight, const Array* bias) {
  check(n_axes >= 1 && n_axes <= x.rank(), op, ": expected normalized_shape to be the last axes of x, got ", n_axes,
        " axes for shape ", x.shape(), "; pass fewer");
  Extents inner;
  for (int axis = x.rank() - n_axes; axis < x.rank(); ++axis) {
    inner.push_back(x.shape(axis));
  }
  for (const Array* values : {weight, bias}) {
    if (values == nullptr) {
      continue;
    }
    check(values->shape() == inner, op, ": expected weight and bias of shape ", inner, ", got ", values->shape(),
          "; it must be normalized_shape");
    check<DTypeError>(values->dtype() == x.dtype(), op, ": expected weight and bias of x's dtype ", dtype_name(x.dtype()),
                      ", got ", dtype_name(values->dtype()), "; convert them");
  }
}

// mean and M2 of one row; `lanes` holds 4·kLane values.
template <class T>
void row_moments(const NormKernels<T>& kernel, const T* x, std::ptrdiff_t length, T* lanes) {
  T* const mean = lanes;
  T* const m2 = lanes + kLane;
  const std::ptrdiff_t n_lines = length / kLane;
  if (n_lines > 0) {
    kernel.moments(x, kLane, n_lines, kLane, mean, m2);
    std::ptrdiff_t count = n_lines;
    for (std::ptrdiff_t half = kLane / 2; half >= 1; half /= 2, count *= 2) {
      kernel.merge(mean, m2, count, mean + half, m2 + half, count, half);
    }
  }
  const std::ptrdiff_t left = length - n_lines * kLane;
  if (left > 0) {
    T* const rest = n_lines > 0 ? lanes + 2 * kLane : lanes;
    kernel.moments(x + n_lines * kLane, 1, left, 1, rest, rest + kLane);
    if (n_lines > 0) {
      kernel.merge(mean, m2, n_lines * kLane, rest, rest + kLane, left, 1);
    }
  }
}

// Σ g and Σ g·x of one row into lanes[0] and lanes[kLane]; lanes[2·kLane …] is zero.
template <class T>
void row_sums(const NormKernels<T>& kernel, const T* g, const T* x, std::ptrdiff_t length, T* lanes) {
  std::fill_n(lanes, 3 * kLane, T(0));
  const std::ptrdiff_t n_lines = length / kLane;
  const T* const zero = lanes + 2 * kLane;
  kernel.sums(g, kLane, x, kLane, n_lines, kLane, zero, nullptr, nullptr, T(0), lanes, lanes + kLane);
  for (std::ptrdiff_t half = kLane / 2; half >= 1; half /= 2) {
    kernel.add(lanes, lanes + half, half);
    kernel.add(lanes + kLane, lanes + kLane + half, half);
  }
  const std::ptrdiff_t done = n_lines * kLane;
  kernel.sums(g + done, 1, x + done, 1, length - done, 1, zero, nullptr, nullptr, T(0), lanes, lanes + kLane);
}

}  // namespace

GroupNormed layer_norm(const char* op, const Array& x, int n_axes, const Array* weight, const Array* bias, double eps) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_rows(op, x, n_axes, weight, bias);
    const Rows rows = make_rows(x, n_axes);
    const std::ptrdiff_t length = rows.length;
    const Array y = Array::empty(x.dtype(), x.shape(), rows.is_image ? Layout::channels_last : Layout::row_major);
    const Array mean = Array::empty(x.dtype(), {rows.n_rows});
    const Array invstd = Array::empty(x.dtype(), {rows.n_rows});
    const Array w = weight != nullptr ? in_order(*weight, rows.is_image) : Array();
    const Buffer<T> shift(length);
    const Array b = bias != nullptr ? in_order(*bias, rows.is_image) : Array();
    for (std::ptrdiff_t i = 0; i < length; ++i) {
      shift[i] = bias != nullptr ? b.data<T>()[i] : T(0);
    }
    const NormKernels<T>& kernel = kernels().norm<T>();
    const Partition tiles(rows.n_rows, kTile / std::max<std::ptrdiff_t>(length, 1));
    const std::ptrdiff_t scratch_size = 2 * length + 4 * kLane;
    const WorkerBuffer<T> scratch(thread_count(), scratch_size);
    parallel_for(tiles.n_parts, [&](std::ptrdiff_t tile, int worker) {
      T* const means = scratch.of(worker);
      T* const scales = means + length;
      T* const lanes = scales + length;
      for (std::ptrdiff_t row = tiles.begin(tile); row < tiles.end(tile); ++row) {
        const T* const in = rows.array.data<T>() + row * length;
        lanes[0] = lanes[kLane] = T(0);
        row_moments(kernel, in, length, lanes);
        const T m = lanes[0];
        const T s = static_cast<T>(1.0 / std::sqrt(static_cast<double>(lanes[kLane] / static_cast<T>(length)) + eps));
        mean.data<T>()[row] = m;
        invstd.data<T>()[row] = s;
        std::fill_n(means, length, m);
        for (std::ptrdiff_t i = 0; i < length; ++i) {
          scales[i] = weight != nullptr ? s * w.data<T>()[i] : s;
        }
        kernel.apply(in, length, 1, length, means, scales, shift.data(), nullptr, 0, false, T(0), y.data<T>() + row * length,
                     length, false);
      }
    });
    return GroupNormed{y, mean, invstd};
  });
}

// With x̂ = (x − mean)·invstd and n values a row: grad_x = invstd·(w·g − Σ w·g / n − x̂·Σ w·g·x̂ / n), grad_weight = Σ_rows
// g·x̂.
NormGradients layer_norm_grad(const char* op, const Array& grad_y, const Array& x, int n_axes, const Array* weight,
                              const Array& mean, const Array& invstd) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_rows(op, x, n_axes, weight, nullptr);
    check(grad_y.shape() == x.shape() && grad_y.dtype() == x.dtype(), op, ": expected grad_y of shape ", x.shape(),
          " and x's dtype, got ", grad_y.shape(), " of ", dtype_name(grad_y.dtype()), "; pass the gradient of y");
    const Rows rows = make_rows(x, n_axes);
    const std::ptrdiff_t length = rows.length;
    const Array g = relayout(grad_y, rows.is_image ? Layout::channels_last : Layout::row_major);
    const Array w = weight != nullptr ? in_order(*weight, rows.is_image) : Array();
    const Array grad_x = Array::empty(x.dtype(), x.shape(), rows.is_image ? Layout::channels_last : Layout::row_major);
    const NormKernels<T>& kernel = kernels().norm<T>();
    const Partition tiles(rows.n_rows,
                          std::max(kTile / std::max<std::ptrdiff_t>(length, 1), (rows.n_rows + kMaxParts - 1) / kMaxParts));
    const Buffer<T> partial(std::max<std::ptrdiff_t>(tiles.n_parts, 1) * 2 * length);  // [tile][grad_bias, grad_weight]
    std::fill_n(partial.data(), 2 * length, T(0));
    const std::ptrdiff_t scratch_size = 6 * length + 3 * kLane;
    const WorkerBuffer<T> scratch(thread_count(), scratch_size);
    parallel_for(tiles.n_parts, [&](std::ptrdiff_t tile, int worker) {
      T* const normal = scratch.of(worker);  // x̂
      T* const zeros = normal + length;
      T* const a = zeros + length;
      T* const b = a + length;
      T* const k = b + length;
      T* const wg = k + length;
      T* const lanes = wg + length;
      T* const sums = partial.data() + tile * 2 * length;
      std::fill_n(sums, 2 * length, T(0));
      std::fill_n(zeros, length, T(0));
      for (std::ptrdiff_t row = tiles.begin(tile); row < tiles.end(tile); ++row) {
        const T* const g_row = g.data<T>() + row * length;
        const T s = invstd.data<T>()[row];
        std::fill_n(a, length, mean.data<T>()[row]);
        std::fill_n(b, length, s);
        kernel.apply(rows.array.data<T>() + row * length, length, 1, length, a, b, zeros, nullptr, 0, false, T(0), normal,
                     length, false);
        kernel.sums(g_row, length, normal, length, 1, length, zeros, nullptr, nullptr, T(0), sums, sums + length);
        for (std::ptrdiff_t i = 0; i < length; ++i) {
          wg[i] = weight != nullptr ? w.data<T>()[i] * g_row[i] : g_row[i];
        }
        row_sums(kernel, wg, normal, length, lanes);
        const T n = static_cast<T>(length);
        std::fill_n(a, length, s);
        std::fill_n(b, length, -s * (lanes[kLane] / n));
        std::fill_n(k, length, -s * (lanes[0] / n));
        kernel.grad(wg, length, normal, length, 1, length, zeros, nullptr, nullptr, T(0), a, b, k,
                    grad_x.data<T>() + row * length, length, false);
      }
    });
    for (std::ptrdiff_t step = 1; step < tiles.n_parts; step *= 2) {
      for (std::ptrdiff_t i = 0; i + step < tiles.n_parts; i += 2 * step) {
        kernel.add(partial.data() + i * 2 * length, partial.data() + (i + step) * 2 * length, 2 * length);
      }
    }
    Extents inner;
    for (int axis = x.rank() - n_axes; axis < x.rank(); ++axis) {
      inner.push_back(x.shape(axis));
    }
    // Row-major, of the shape of weight, seen through the order that the values have in a row.
    const auto unfold = [&](const T* values) {
      Extents strides = dense_strides(inner, Layout::row_major);
      if (rows.is_image) {
        for (int axis = 1; axis < inner.rank(); ++axis) {
          strides[axis] *= inner[0];
        }
        strides[0] = 1;
      }
      const Array dense = Array::empty(x.dtype(), {length});
      std::copy_n(values, length, dense.data<T>());
      return Array::view(dense.storage_ref(), x.dtype(), inner, strides, 0);
    };
    return NormGradients{grad_x, unfold(partial.data() + length), unfold(partial.data())};
  });
}

}  // namespace striate
