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

// ---- pooling (ops/max_pool.cpp, ops/avg_pool.cpp) ----

// x (N, C, *spatial) → y (N, C, *out), channels-last. Padding counts as −∞ for a maximum and as 0 for a mean.
struct PoolParams {
  WindowParams window;
  std::vector<std::ptrdiff_t> output_size;  // adaptive pooling, which ignores `window`: −1 keeps an axis
  bool count_include_pad = true;            // mean: padding is counted
  std::ptrdiff_t divisor_override = 0;      // mean: divide by this instead of the count; 0 is off
};

struct MaxPooled {
  Array y;
  Array taps;  // uint8 or int32, laid out as y: which tap each maximum came from
};

[[nodiscard]] Array max_pool(const char* op, const Array& x, const PoolParams& params);
[[nodiscard]] MaxPooled max_pool_taps(const char* op, const Array& x, const PoolParams& params);
// grad_y → grad_x: each gradient goes to the place its maximum came from, sums in rising order of outputs.
[[nodiscard]] Array max_pool_grad(const char* op, const Array& grad_y, const Array& taps, const Extents& x_shape,
                                  const PoolParams& params);
// The adjoint of max_pool_grad: reads x where the maxima came from.
[[nodiscard]] Array max_pool_pick(const char* op, const Array& x, const Array& taps, const PoolParams& params);
// int64 positions in the flattened spatial axes of x.
[[nodiscard]] Array max_pool_indices(const char* op, const Array& taps, const Extents& x_shape, const PoolParams& params);

}  // namespace striate
