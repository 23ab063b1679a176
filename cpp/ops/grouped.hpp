// Convolution of groups of up to kMostGroup channels: what the groups of a pixel share is found once. depthwise.cpp branches
// here.
#pragma once

#include "striate/ops.hpp"

namespace striate {

// Whether a convolution has groups whose weights are small enough to be read again for every few pixels.
[[nodiscard]] bool grouped_applies(const Extents& weight_shape, std::ptrdiff_t groups);

// y = the convolution with bias and clamp.
void grouped_conv(const Array& x, const Array& weight, const Array& y, const Fused& fused, const Window& window,
                  std::ptrdiff_t groups);
// As conv_grad_input and conv_grad_weight of ops.hpp.
[[nodiscard]] Array grouped_conv_grad_input(const Array& grad_y, const Array& weight, const Extents& x_shape,
                                            const Window& window, std::ptrdiff_t groups);
[[nodiscard]] Array grouped_conv_grad_weight(const Array& grad_y, const Array& x, const Extents& weight_shape,
                                             const Window& window, std::ptrdiff_t groups);

}  // namespace striate
