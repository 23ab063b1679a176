// Depthwise convolution, where every group has one input channel, and convolution of small groups. conv.cpp branches here.
#pragma once

#include <memory>

#include "ops/conv2d_choose.hpp"
#include "ops/finish.hpp"
#include "ops/indirect.hpp"
#include "ops/row_sums.hpp"
#include "striate/ops.hpp"

namespace striate {

// Whether a convolution of x with this weight has one input channel a group: groups == C > 1, any number of outputs a
// channel; or groups of up to 64 channels. (A single channel is left to the GEMM, whose tiles it fills with taps.)
[[nodiscard]] bool depthwise_applies(DType dtype, std::ptrdiff_t channels, const Extents& weight_shape,
                                     std::ptrdiff_t groups);

// What one core at its peak could do in the time predicted of the kernels for single channels and for groups that share
// vectors; 0 where these run no such kernel.
[[nodiscard]] double depthwise_flops(ConvPass pass, const ConvShape& shape);

// y = the convolution with bias and clamp, then `finish`, which goes over rows that were just made.
void depthwise_conv(const char* op, const Array& x, const Array& weight, const Array& y, const Fused& fused,
                    const ConvParams& params, RowSums* sums, const Finish& finish);
// The pixels of such a result, with what `fused` says behind it except an addend, as they are needed; null where channels
// are not groups of their own or no kernel goes over these lines. x and weight outlive it.
template <class T>
[[nodiscard]] std::unique_ptr<const RowSource<T>> depthwise_pixels(const char* op, const Array& x, const Array& weight,
                                                                   const Fused& fused, const ConvParams& params);
// As conv_grad_input and conv_grad_weight (ops.hpp).
[[nodiscard]] Array depthwise_conv_grad_input(const char* op, const Array& grad_y, const Array& weight,
                                              const Extents& x_shape, const ConvParams& params);
[[nodiscard]] Array depthwise_conv_grad_weight(const char* op, const Array& grad_y, const Array& x,
                                               const Extents& weight_shape, const ConvParams& params);

}  // namespace striate
