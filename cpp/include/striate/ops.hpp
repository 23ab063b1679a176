// Operators: pure functions of Arrays. Each checks its arguments once, allocates its result and runs in parallel.
#pragma once

#include "striate/tensor.hpp"
#include "striate/window.hpp"

namespace striate {

// ---- convolution (ops/conv.cpp) ----

struct ConvParams {
  WindowParams window;  // kernel_size is taken from the weight
  std::ptrdiff_t groups = 1;
};

// What may be fused behind a convolution or a linear layer: y = clamp(acc + bias + add, lo, hi).
struct Fused {
  const Array* bias = nullptr;
  bool clamps = false;
  double lo = 0;
  double hi = 0;
};

// x (N, C, *spatial), weight (O, C / groups, *kernel), bias (O,) → y (N, O, *out), channels-last.
[[nodiscard]] Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params);
// grad_y (N, O, *out) → grad_x (N, C, *spatial).
[[nodiscard]] Array conv_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                                    const ConvParams& params);
// → grad_weight (O, C / groups, *kernel), stored like a weight.
[[nodiscard]] Array conv_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                                     const ConvParams& params);

// ---- matrix products (ops/linear.cpp) ----

// x (…, K), weight (N, K), bias (N,) → y (…, N).
[[nodiscard]] Array linear(const Array& x, const Array& weight, const Fused& fused);
// a (…, M, K), b (…, K, N) → (…, M, N); leading axes broadcast; rank-1 operands as in NumPy's matmul.
[[nodiscard]] Array matmul(const Array& a, const Array& b);

}  // namespace striate
