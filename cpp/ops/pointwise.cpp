// Pointwise convolutions of what a batch-norm, a gate or a depthwise convolution makes.
#include "ops/pointwise.hpp"

#include <algorithm>

#include "ops/depthwise.hpp"
#include "ops/moments.hpp"
#include "ops/shape.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

void check_channels(const char* op, const char* name, const Array* values, const Array& x) {
  check<DTypeError>(values == nullptr || values->dtype() == x.dtype(), op, ": expected ", name, " of x's dtype, got ",
                    values == nullptr ? "" : dtype_name(values->dtype()), "; convert it with .to()");
  check(values == nullptr || (values->rank() == 1 && values->shape(0) == x.shape(1)), op, ": expected ", name, " of shape (",
        x.shape(1), ",), one per channel of x; check the channels");
}

// The values of a channel each, or `otherwise` for all.
template <class T>
void copy_channels(const Array* values, T otherwise, const Buffer<T>& to, std::ptrdiff_t n) {
  for (std::ptrdiff_t c = 0; c < n; ++c) {
    to[c] = values == nullptr ? otherwise : values->data<T>()[c * values->stride(0)];
  }
}

// Pixels of x behind a batch-norm or a gate.
template <class T>
class NormedPixels final : public RowSource<T> {
 public:
  NormedPixels(const Array& x, const Prologue& first)
      : rows_(pixel_rows(x, true)),
        n_scales_(first.gate == nullptr ? 1 : x.shape(0)),
        mean_(rows_.channels),
        scale_(n_scales_ * rows_.channels),
        shift_(rows_.channels),
        has_relu_(first.has_relu),
        most_(static_cast<T>(first.most)) {
    copy_channels(first.mean, T(0), mean_, rows_.channels);
    copy_channels(first.shift, T(0), shift_, rows_.channels);
    if (first.gate == nullptr) {
      copy_channels(first.scale, T(1), scale_, rows_.channels);
      return;
    }
    const Array gate = relayout(*first.gate, Layout::row_major);
    std::copy_n(gate.data<T>(), n_scales_ * rows_.channels, scale_.data());
  }

  void make(std::ptrdiff_t begin, std::ptrdiff_t end, T* rows) const override {
    while (begin < end) {
      const std::ptrdiff_t sample = n_scales_ == 1 ? 0 : begin / rows_.n_rows;
      const std::ptrdiff_t stop = n_scales_ == 1 ? end : std::min(end, (sample + 1) * rows_.n_rows);
      kernels().norm<T>().apply(at(begin), rows_.stride, stop - begin, rows_.channels, mean_.data(),
                                scale_.data() + sample * rows_.channels, shift_.data(), nullptr, 0, has_relu_, most_, rows,
                                rows_.channels, false);
      rows += (stop - begin) * rows_.channels;
      begin = stop;
    }
  }

  [[nodiscard]] std::ptrdiff_t line() const override { return 1; }

  [[nodiscard]] Piece ahead(std::ptrdiff_t begin, std::ptrdiff_t end) const override {
    if (2 * rows_.channels < rows_.stride) {
      return {};  // most of what lies there is not read
    }
    return {at(begin), (end - begin) * rows_.stride * static_cast<std::ptrdiff_t>(sizeof(T))};
  }

 private:
  [[nodiscard]] const T* at(std::ptrdiff_t row) const { return rows_.array.template data<T>() + row * rows_.stride; }

  PixelRows rows_;
  std::ptrdiff_t n_scales_;
  Buffer<T> mean_;
  Buffer<T> scale_;
  Buffer<T> shift_;
  bool has_relu_;
  T most_;
};

bool is_pointwise(const Array& weight, const ConvParams& params) {
  const auto is_all = [](const std::vector<std::ptrdiff_t>& sizes, std::ptrdiff_t value) {
    return std::all_of(sizes.begin(), sizes.end(), [&](std::ptrdiff_t size) { return size == value; });
  };
  bool has_one_tap = weight.rank() >= 3;
  for (int axis = 2; axis < weight.rank(); ++axis) {
    has_one_tap = has_one_tap && weight.shape(axis) == 1;
  }
  return has_one_tap && params.groups == 1 && is_all(params.window.stride, 1) && is_all(params.window.pad_begin, 0) &&
         is_all(params.window.pad_end, 0);
}

// Whether making pixels where they are multiplied is faster: where a good part of L2 would hold what lies between, or more,
// and a worker keeps all filters, so that every pixel is made once. (Zen 4, AVX2, MobileNetV2: batch 16 0.68 to 0.95 of the
// time, batch 1 from 0.3 MB on 0.82 to 1.0; less than that, up to 1.08, filters of more than half of L2 up to 1.2.)
bool pays(const Extents& between, DType dtype, const Array& weight) {
  const std::ptrdiff_t l2 = cache_sizes().l2_bytes;
  return 4 * between.product() * item_bytes(dtype) > l2 && 2 * weight.size() * item_bytes(dtype) <= l2;
}

}  // namespace

Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
           const Prologue& first) {
  check(x.rank() >= 3 && x.rank() <= 5, op, ": expected x of 3 to 5 axes (N, C, *spatial), got ", x.shape(),
        "; add or remove axes with reshape");
  check(is_pointwise(weight, params), op, ": expected a pointwise convolution behind a batch-norm or gate, got weight ",
        weight.shape(), "; use two operators");
  check_channels(op, "a mean", first.mean, x);
  check_channels(op, "a scale", first.scale, x);
  check_channels(op, "a shift", first.shift, x);
  if (first.gate != nullptr) {
    Extents expected(x.rank(), 1);
    expected[0] = x.shape(0);
    expected[1] = x.shape(1);
    check(first.gate->shape() == expected && first.gate->dtype() == x.dtype() && first.scale == nullptr, op,
          ": expected a gate of shape ", expected, " and x's dtype, without a scale, got ", first.gate->shape(), " of ",
          dtype_name(first.gate->dtype()), "; one value per sample and channel");
  }
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    return pointwise_conv<T>(op, x.shape(), NormedPixels<T>(x, first), weight, fused);
  });
}

Array separable_conv(const char* op, const Array& x, const Array& depthwise_weight, const Fused& first,
                     const ConvParams& params, const Array& pointwise_weight, const Fused& fused) {
  check(is_pointwise(pointwise_weight, pointwise_params(pointwise_weight)), op,
        ": expected a pointwise weight (O, C, 1, ...), got ", pointwise_weight.shape(), "; use two convolutions");
  const Extents between = conv_shape(op, x.shape(), depthwise_weight.shape(), params);
  if (x.shape(1) == between[1]) {
    check_channels(op, "a depthwise bias", first.bias, x);
  }
  if (pays(between, x.dtype(), pointwise_weight)) {
    const Array y = dispatch_float(op, x.dtype(), [&](auto zero) {
      const auto pixels = depthwise_pixels<decltype(zero)>(op, x, depthwise_weight, first, params);
      return pixels == nullptr ? Array{} : pointwise_conv(op, between, *pixels, pointwise_weight, fused);
    });
    if (y.rank() > 0) {
      return y;
    }
  }
  return conv(op, conv(op, x, depthwise_weight, first, params), pointwise_weight, fused, pointwise_params(pointwise_weight));
}

}  // namespace striate
