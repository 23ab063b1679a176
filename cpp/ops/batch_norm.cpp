// Batch normalisation: y = (x − mean)·invstd·weight + bias, invstd = 1/√(var + eps), per channel over batch and pixels.
//
// Statistics are merged (mean, M2) pairs in a tree fixed by geometry; forward and backward each go over memory twice.
#include <algorithm>
#include <cmath>

#include "machine/memory.hpp"
#include "ops/moments.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

void check_image(const char* op, const Array& x) {
  check(x.rank() >= 2 && x.rank() <= 5, op,
        ": expected x of shape (N, C) or (N, C, *spatial) with up to 3 spatial axes, got ", x.shape(),
        "; add or remove axes with reshape");
}

void check_channels(const char* op, const char* name, const Array* values, const Array& x) {
  if (values == nullptr) {
    return;
  }
  check(values->rank() == 1 && values->shape(0) == x.shape(1), op, ": expected ", name, " of shape (", x.shape(1),
        ",), one per channel of x, got ", values->shape(), "; check num_features");
  check<DTypeError>(values->dtype() == x.dtype(), op, ": expected ", name, " of x's dtype ", dtype_name(x.dtype()), ", got ",
                    dtype_name(values->dtype()), "; convert with .to(", dtype_name(x.dtype()), ")");
}

void check_enough(const char* op, std::ptrdiff_t n_values, const Array& x) {
  check(n_values != 1, op, ": expected more than one value per channel in training, got x of shape ", x.shape(),
        "; use a larger batch or eval()");
}

// M2 of n values becomes their variance.
template <class T>
void to_variance(const Array& m2, std::ptrdiff_t n) {
  for (std::ptrdiff_t c = 0; c < m2.shape(0) && n > 0; ++c) {
    m2.data<T>()[c] /= static_cast<T>(n);
  }
}

template <class T>
T at(const Array* values, std::ptrdiff_t c, T otherwise) {
  return values == nullptr ? otherwise : values->data<T>()[c * values->stride(0)];
}

template <class T>
T inverse_deviation(T var, double eps) {
  return static_cast<T>(1.0 / std::sqrt(static_cast<double>(var) + eps));
}

// y from statistics held in plain memory.
template <class T>
Array normalise(const char* op, const PixelRows& x, const T* mean, const Array& var, const Array* weight, const Array* bias,
                double eps, const NormTail& tail) {
  const Array scale = batch_norm_scale(var, weight, eps);
  const Buffer<T> shift(x.channels);
  for (std::ptrdiff_t c = 0; c < x.channels; ++c) {
    shift[c] = at(bias, c, T(0));
  }
  const Array y = Array::empty(x.array.dtype(), x.array.shape(), Layout::channels_last);
  PixelRows addend;
  if (tail.add != nullptr) {
    check(tail.add->shape() == y.shape() && tail.add->dtype() == y.dtype(), op, ": expected an addend of shape ", y.shape(),
          " and dtype ", dtype_name(y.dtype()), ", got ", tail.add->shape(), " of ", dtype_name(tail.add->dtype()),
          "; broadcast or convert it first");
    addend = pixel_rows(*tail.add, false);
  }
  apply_channels(x, mean, scale.data<T>(), shift.data(), pixel_rows(y, false), tail.add == nullptr ? nullptr : &addend,
                 tail.has_relu, static_cast<T>(tail.most));
  return y;
}

}  // namespace

Array batch_norm_scale(const Array& var, const Array* weight, double eps) {
  check(var.rank() == 1 && (weight == nullptr || (weight->shape() == var.shape() && weight->dtype() == var.dtype())),
        "batch_norm: expected a variance of shape (C,) and a weight like it, got ", var.shape(), " and ",
        weight == nullptr ? Extents{} : weight->shape(), "; check num_features");
  const Array scale = Array::empty(var.dtype(), var.shape());
  dispatch_float("batch_norm", var.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for (std::ptrdiff_t c = 0; c < var.shape(0); ++c) {
      scale.data<T>()[c] = inverse_deviation(at(&var, c, T(1)), eps) * at(weight, c, T(1));
    }
  });
  return scale;
}

BatchNormed batch_norm_training(const char* op, const Array& x, const Array* weight, const Array* bias, double eps,
                                const NormTail& tail) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_image(op, x);
    check_channels(op, "weight", weight, x);
    check_channels(op, "bias", bias, x);
    const PixelRows rows = pixel_rows(x, false);
    check_enough(op, rows.n_rows, x);
    const Array mean = Array::empty(x.dtype(), {rows.channels});
    const Array var = Array::empty(x.dtype(), {rows.channels});
    channel_moments(rows, mean.data<T>(), var.data<T>());
    to_variance<T>(var, rows.n_rows);
    return BatchNormed{normalise(op, rows, mean.data<T>(), var, weight, bias, eps, tail), mean, var};
  });
}

Array batch_norm_eval(const char* op, const Array& x, const Array& mean, const Array& var, const Array* weight,
                      const Array* bias, double eps, const NormTail& tail) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_image(op, x);
    check_channels(op, "running_mean", &mean, x);
    check_channels(op, "running_var", &var, x);
    check_channels(op, "weight", weight, x);
    check_channels(op, "bias", bias, x);
    const Buffer<T> means(x.shape(1));
    for (std::ptrdiff_t c = 0; c < x.shape(1); ++c) {
      means[c] = at(&mean, c, T(0));
    }
    return normalise(op, pixel_rows(x, false), means.data(), var, weight, bias, eps, tail);
  });
}

BatchNormed conv_moments(const char* op, const Array& x, const Array& weight, const Array* bias, const ConvParams& params) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    RowMoments<T> moments;
    Fused fused;
    fused.bias = bias;
    const Array y = conv(op, x, weight, fused, params, &moments);
    const std::ptrdiff_t n = y.size() / std::max<std::ptrdiff_t>(y.shape(1), 1);
    check_enough(op, n, y);
    const Array mean = Array::empty(y.dtype(), {y.shape(1)});
    const Array var = Array::empty(y.dtype(), {y.shape(1)});
    moments.finish(y, mean.data<T>(), var.data<T>());
    to_variance<T>(var, n);
    return BatchNormed{y, mean, var};
  });
}

// With a = weight·invstd, Σg and Σgx over all n pixels, Σgx = Σ g·(x − mean):
//   grad_bias = Σg, grad_weight = invstd·Σgx,
//   grad_x = a·g in eval; a·(g − Σg/n − (x − mean)·invstd²·Σgx/n) in training.
NormGradients batch_norm_grad(const char* op, const Array& grad_y, const Array& x, const Array* weight, const Array& mean,
                              const Array& var, double eps, bool is_training, const NormTail& tail, const Array* bias) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_image(op, x);
    check(grad_y.shape() == x.shape() && grad_y.dtype() == x.dtype(), op, ": expected grad_y of shape ", x.shape(),
          " and dtype ", dtype_name(x.dtype()), ", got ", grad_y.shape(), " of ", dtype_name(grad_y.dtype()),
          "; pass the gradient of y");
    check_channels(op, "weight", weight, x);
    check_channels(op, "mean", &mean, x);
    check_channels(op, "var", &var, x);
    check_channels(op, "bias", bias, x);
    const PixelRows rows = pixel_rows(x, false);
    const PixelRows grad_rows = pixel_rows(grad_y, false);
    const std::ptrdiff_t channels = rows.channels;
    const Array grad_weight = Array::empty(x.dtype(), {channels});
    const Array grad_bias = Array::empty(x.dtype(), {channels});
    const Array grad_x = Array::empty(x.dtype(), x.shape(), Layout::channels_last);
    const Buffer<T> means(channels);
    const Buffer<T> sum_gx(channels);
    const Buffer<T> coefficients(5 * channels);
    T* const a = coefficients.data();
    T* const b = a + channels;
    T* const k = b + channels;
    T* const scale = k + channels;
    T* const shift = scale + channels;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      means[c] = at(&mean, c, T(0));
      scale[c] = inverse_deviation(at(&var, c, T(1)), eps) * at(weight, c, T(1));
      shift[c] = at(bias, c, T(0));
    }
    const ReluMask<T> mask{.scale = tail.has_relu ? scale : nullptr,
                           .bias = tail.has_relu ? shift : nullptr,
                           .most = static_cast<T>(tail.most)};
    channel_sums(grad_rows, rows, means.data(), grad_bias.data<T>(), sum_gx.data(), mask);
    const T n = static_cast<T>(rows.n_rows);
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T invstd = inverse_deviation(at(&var, c, T(1)), eps);
      grad_weight.data<T>()[c] = invstd * sum_gx[c];
      a[c] = invstd * at(weight, c, T(1));
      b[c] = is_training ? -a[c] * invstd * invstd * (sum_gx[c] / n) : T(0);
      k[c] = is_training ? -a[c] * (grad_bias.data<T>()[c] / n) : T(0);
    }
    if (is_training || tail.has_relu) {
      grad_channels(grad_rows, rows, means.data(), a, b, k, pixel_rows(grad_x, false), mask);
    } else {
      apply_channels(grad_rows, b, a, k, pixel_rows(grad_x, false));
    }
    return NormGradients{grad_x, grad_weight, grad_bias};
  });
}

void batch_norm_update(const char* op, const Array& running_mean, const Array& running_var, const Array& mean,
                       const Array& var, std::ptrdiff_t n, double momentum) {
  if (n == 0) {
    return;
  }
  for (const Array* running : {&running_mean, &running_var}) {
    check(running->shape() == mean.shape(), op, ": expected running statistics of shape ", mean.shape(), ", got ",
          running->shape(), "; check num_features");
    check<DTypeError>(running->dtype() == mean.dtype(), op, ": expected running statistics of x's dtype ",
                      dtype_name(mean.dtype()), ", got ", dtype_name(running->dtype()), "; convert them");
    check<std::invalid_argument>(
        !running->storage().is_read_only(), op,
        ": expected running statistics in memory that may be written, got read-only memory; clone them");
  }
  dispatch_float(op, mean.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const double unbiased = n > 1 ? static_cast<double>(n) / static_cast<double>(n - 1) : 1.0;
    const auto mix = [&](const Array& running, const Array& value, double factor) {
      for (std::ptrdiff_t c = 0; c < value.shape(0); ++c) {
        T& state = running.data<T>()[c * running.stride(0)];
        state = static_cast<T>((1 - momentum) * static_cast<double>(state) +
                               momentum * factor * static_cast<double>(at(&value, c, T(0))));
      }
      running.storage().raise_version();
    };
    mix(running_mean, mean, 1.0);
    mix(running_var, var, unbiased);
  });
}

}  // namespace striate
