// Group normalisation of images: each group of channels of each image is normalised by its own mean and variance. An
// instance norm has one channel a group.
//
// Statistics per channel come from one pass over memory; a group merges those of its channels.
#include <cmath>

#include "kernels/table.hpp"
#include "machine/memory.hpp"
#include "ops/moments.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

void check_groups(const char* op, const Array& x, std::ptrdiff_t groups, const Array* weight, const Array* bias) {
  check(x.rank() >= 2 && x.rank() <= 5, op, ": expected x of shape (N, C, *spatial) with up to 3 spatial axes, got ",
        x.shape(), "; add or remove axes with reshape");
  check(groups >= 1 && x.shape(1) % groups == 0, op, ": expected groups that divide the ", x.shape(1),
        " channels of x, got ", groups, "; use a divisor");
  for (const Array* values : {weight, bias}) {
    if (values == nullptr) {
      continue;
    }
    check(values->rank() == 1 && values->shape(0) == x.shape(1), op, ": expected weight and bias of shape (", x.shape(1),
          ",), got ", values->shape(), "; pass one value per channel");
    check<DTypeError>(values->dtype() == x.dtype(), op, ": expected weight and bias of x's dtype ", dtype_name(x.dtype()),
                      ", got ", dtype_name(values->dtype()), "; convert them");
  }
}

template <class T>
T at(const Array* values, std::ptrdiff_t c, T otherwise) {
  return values == nullptr ? otherwise : values->data<T>()[c * values->stride(0)];
}

}  // namespace

GroupNormed group_norm(const char* op, const Array& x, std::ptrdiff_t groups, const Array* weight, const Array* bias,
                       double eps) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_groups(op, x, groups, weight, bias);
    const PixelRows rows = pixel_rows(x, true);
    const std::ptrdiff_t channels = rows.channels;
    const std::ptrdiff_t n_values = rows.n_segments * channels;
    const std::ptrdiff_t width = channels / groups;
    const Array y = Array::empty(x.dtype(), x.shape(), Layout::channels_last);
    const Array mean = Array::empty(x.dtype(), {x.shape(0), groups});
    const Array invstd = Array::empty(x.dtype(), {x.shape(0), groups});
    const Buffer<T> means(n_values);
    const Buffer<T> scales(n_values);  // M2 first
    const Buffer<T> shifts(n_values);
    channel_moments(rows, means.data(), scales.data());
    const auto merge = kernels().norm<T>().merge;
    for (std::ptrdiff_t group = 0; group < rows.n_segments * groups; ++group) {
      T* const m = means.data() + group * width;
      T* const s = scales.data() + group * width;
      for (std::ptrdiff_t step = 1; step < width; step *= 2) {
        for (std::ptrdiff_t c = 0; c + step < width; c += 2 * step) {
          const std::ptrdiff_t end = std::min(c + 2 * step, width);
          merge(m + c, s + c, step * rows.n_rows, m + c + step, s + c + step, (end - c - step) * rows.n_rows, 1);
        }
      }
      const T count = static_cast<T>(rows.n_rows * width);
      const T deviation = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s[0] / count) + eps));
      mean.data<T>()[group] = m[0];
      invstd.data<T>()[group] = deviation;
      for (std::ptrdiff_t i = width - 1; i >= 0; --i) {
        const std::ptrdiff_t c = group % groups * width + i;
        m[i] = mean.data<T>()[group];
        s[i] = deviation * at(weight, c, T(1));
        shifts[group * width + i] = at(bias, c, T(0));
      }
    }
    apply_channels(rows, means.data(), scales.data(), shifts.data(), pixel_rows(y, true));
    return GroupNormed{y, mean, invstd};
  });
}

// With s = invstd, w = weight and sums over the n values of a group:
//   grad_x = w·s·g − s·(Σ w·g)/n − (x − mean)·s³·(Σ w·g·(x − mean))/n.
NormGradients group_norm_grad(const char* op, const Array& grad_y, const Array& x, const Array* weight, const Array& mean,
                              const Array& invstd, std::ptrdiff_t groups) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_groups(op, x, groups, weight, nullptr);
    check(grad_y.shape() == x.shape() && grad_y.dtype() == x.dtype(), op, ": expected grad_y of shape ", x.shape(),
          " and x's dtype, got ", grad_y.shape(), " of ", dtype_name(grad_y.dtype()), "; pass the gradient of y");
    const PixelRows rows = pixel_rows(x, true);
    const PixelRows grad_rows = pixel_rows(grad_y, true);
    const std::ptrdiff_t channels = rows.channels;
    const std::ptrdiff_t n_values = rows.n_segments * channels;
    const std::ptrdiff_t width = channels / groups;
    const Array grad_x = Array::empty(x.dtype(), x.shape(), Layout::channels_last);
    const Array grad_weight = Array::empty(x.dtype(), {channels});
    const Array grad_bias = Array::empty(x.dtype(), {channels});
    const Buffer<T> buffer(6 * n_values);
    T* const means = buffer.data();
    T* const sum_g = means + n_values;
    T* const sum_gx = sum_g + n_values;
    T* const a = sum_gx + n_values;
    T* const b = a + n_values;
    T* const k = b + n_values;
    for (std::ptrdiff_t i = 0; i < n_values; ++i) {
      means[i] = mean.data<T>()[i / width];
    }
    channel_sums(grad_rows, rows, means, sum_g, sum_gx);
    const T count = static_cast<T>(rows.n_rows * width);
    for (std::ptrdiff_t group = 0; group < rows.n_segments * groups; ++group) {
      const T s = invstd.data<T>()[group];
      T total_g = T(0);
      T total_gx = T(0);
      for (std::ptrdiff_t i = group * width; i < (group + 1) * width; ++i) {
        const T w = at(weight, i % channels, T(1));
        total_g += w * sum_g[i];
        total_gx += w * sum_gx[i];
      }
      for (std::ptrdiff_t i = group * width; i < (group + 1) * width; ++i) {
        a[i] = s * at(weight, i % channels, T(1));
        b[i] = -s * s * s * (total_gx / count);
        k[i] = -s * (total_g / count);
      }
    }
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      T by_weight = T(0);
      T by_bias = T(0);
      for (std::ptrdiff_t i = c; i < n_values; i += channels) {
        by_weight += sum_gx[i] * invstd.data<T>()[i / width];
        by_bias += sum_g[i];
      }
      grad_weight.data<T>()[c] = by_weight;
      grad_bias.data<T>()[c] = by_bias;
    }
    grad_channels(grad_rows, rows, means, a, b, k, pixel_rows(grad_x, true));
    return NormGradients{grad_x, grad_weight, grad_bias};
  });
}

}  // namespace striate
