// Pointwise convolutions of pixels that are made just before they are multiplied, so that their image never is in memory.
#pragma once

#include <algorithm>

#include "ops/indirect.hpp"
#include "striate/ops.hpp"

namespace striate {

// Of a convolution that reads every pixel once.
[[nodiscard]] inline ConvParams pointwise_params(const Array& weight) {
  const auto n_axes = static_cast<std::size_t>(std::max(0, weight.rank() - 2));
  ConvParams params;
  params.window.stride.assign(n_axes, 1);
  params.window.dilation.assign(n_axes, 1);
  params.window.pad_begin.assign(n_axes, 0);
  params.window.pad_end.assign(n_axes, 0);
  return params;
}

// As conv (ops.hpp) of an x of this shape, whose pixels the source makes in order: sample, depth, height, width.
template <class T>
[[nodiscard]] Array pointwise_conv(const char* op, const Extents& x_shape, const RowSource<T>& pixels, const Array& weight,
                                   const Fused& fused);

}  // namespace striate
