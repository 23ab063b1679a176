// What the kernels of depthwise convolution, and of convolution of small groups, compute. A row of n pixels; every tap reads
// a row of its own; channels are contiguous. Formulas are for groups of one channel. With groups of G channels, read and
// written, a weight is [G][channels] instead of [channels]: for output channel c, its weights for the channels of c's group;
// `channels` is then a multiple of the vector.
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

// What the next row needs and this one does not, asked for evenly while this one is computed: lines of x and a row of y, or
// of g. Kernels go by a few pixels and a vector of channels at a time: more streams than a processor sees ahead by itself.
struct Ahead {
  const void* x;
  std::ptrdiff_t x_bytes;  // 0 for none
  const void* y;
  std::ptrdiff_t y_bytes;
};

// A row of n outputs, stride pixels apart in x, each a window of `taps` neighbours in every line:
// y[j][c] = clamp(Σ_t Σ_q x[t][j·stride + q − pad][c]·w[t][q][c] + bias), in order of t, then q. Pixels outside [0, in) are
// left out.
template <class T>
struct DepthwiseLines {
  const T* const* x;  // [n_lines] pointers to pixel 0 of a line; pixels are `pixel` apart
  const T* const* w;  // [n_lines] pointers to tap 0; taps are w_step apart, the channels of a group w_turn
  std::ptrdiff_t n_lines;
  std::ptrdiff_t w_step;
  std::ptrdiff_t w_turn;
  std::ptrdiff_t taps;
  std::ptrdiff_t stride;
  std::ptrdiff_t pad;
  std::ptrdiff_t in;
  std::ptrdiff_t pixel;
  std::ptrdiff_t n;
  std::ptrdiff_t channels;
  T* y;
  std::ptrdiff_t y_step;
  const DepthwiseEpilogue<T>* epilogue;
  // For groups of one channel: stores past the caches. y and y_step are multiples of 64 bytes, and channels fill whole ones.
  bool streams;
  Ahead ahead;
};

// The weights' gradient from a row of n pixels of g; the windows are those of DepthwiseLines:
// grad_w[t][q][c] += Σ_j x[t][j·stride + q − pad][c]·g[j][c]
template <class T>
struct DepthwiseGradients {
  const T* const* x;  // [n_lines] pointers to pixel 0 of a line; pixels are `pixel` apart
  std::ptrdiff_t n_lines;
  std::ptrdiff_t taps;
  std::ptrdiff_t stride;
  std::ptrdiff_t pad;
  std::ptrdiff_t in;
  std::ptrdiff_t pixel;
  std::ptrdiff_t n;
  std::ptrdiff_t channels;
  const T* g;
  std::ptrdiff_t g_step;
  T* const* grad_w;  // [n_lines] pointers to tap 0; taps are w_step apart
  std::ptrdiff_t w_step;
  Ahead ahead;
};

template <class T>
struct DepthwiseKernels {
  // Whether `lines` takes rows of n outputs.
  bool (*has_lines)(std::ptrdiff_t taps, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels);
  void (*lines)(const DepthwiseLines<T>& lines);
  // The transpose of stride 2, where has_lines holds: y[j][c] = Σ_t Σ_q x[t][(j + pad − q) / 2][c]·w[t][q][c] over the taps
  // q for which that is a pixel.
  void (*lines_transposed)(const DepthwiseLines<T>& lines);
  // For groups of one channel, 3 or 5 taps and stride 1 or 2, any number of channels from a vector on; null for others.
  void (*lines_grad_weight)(const DepthwiseGradients<T>& lines);
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
