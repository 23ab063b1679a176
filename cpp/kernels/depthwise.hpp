// What the kernels of depthwise convolution compute. A row of n pixels; every tap reads a row of its own; channels are
// contiguous.
#pragma once

#include <cstddef>

namespace striate {

template <class T>
struct DepthwiseEpilogue {
  const T* bias;  // [channels], or null
  bool clamps;
  T lo;
  T hi;
};

template <class T>
struct DepthwiseKernels {
  // y[j][c] = Σ_t x[t][j][c]·w[t][c], one chain of fused multiply-adds in order of t. With `continues` it starts at y; with
  // an epilogue the result is clamp(Σ + bias).
  void (*row)(const T* const* x,  // [n_taps] pointers to n pixels, x_step apart
              const T* const* w,  // [n_taps] pointers to channels
              std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n, std::ptrdiff_t channels,
              T* y,  // n pixels, y_step apart
              std::ptrdiff_t y_step, bool continues, const DepthwiseEpilogue<T>* epilogue);
  // grad_w[t][c] += Σ_j x[t][j][c]·g[j][c]
  void (*grad_weight)(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, const T* g, std::ptrdiff_t g_step,
                      std::ptrdiff_t n, std::ptrdiff_t channels, T* const* grad_w);
};

}  // namespace striate
