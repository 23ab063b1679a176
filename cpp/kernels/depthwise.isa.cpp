// Depthwise convolution: rows of pixels, all three passes. Contracts: depthwise.hpp.
//
// Register budget of `row`: 8 pixels of accumulators + 1 vector of weights + 1 of x = 10 of 16: 9 loads for 8 multiply-adds.
// Windows of 3 or 5 neighbouring taps a line at stride 1 or 2 keep a line's weights in registers as well, and use each
// loaded pixel for every window it lies in: 8 + 5 + 1 = 14 of 16, and 12 + 5 loads for 40 multiply-adds. Both add in order
// of t. Register budget of `grad_weight`: 8 taps of accumulators + 1 of g + 1 of x.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

constexpr int kPixels = 8;
constexpr int kTaps = 8;

template <class T, int NJ>
STRIATE_INLINE void finish(Vec<T> (&sum)[NJ], std::ptrdiff_t c, T* y, std::ptrdiff_t y_step,
                           const DepthwiseEpilogue<T>* epilogue) {
  if (epilogue != nullptr) {
    const Vec<T> bias = epilogue->bias != nullptr ? load(epilogue->bias + c) : Vec<T>{};
#pragma GCC unroll 8
    for (int j = 0; j < NJ; ++j) {
      sum[j] += bias;
      if (epilogue->clamps) {
        sum[j] = at_most<T>(at_least<T>(sum[j], broadcast(epilogue->lo)), broadcast(epilogue->hi));
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NJ; ++j) {
    store(y + j * y_step, sum[j]);
  }
}

template <class T, int NJ>
STRIATE_INLINE void pixels(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                           std::ptrdiff_t in, std::ptrdiff_t c, T* y, std::ptrdiff_t y_step, bool continues,
                           const DepthwiseEpilogue<T>* epilogue) {
  Vec<T> sum[NJ];
#pragma GCC unroll 8
  for (int j = 0; j < NJ; ++j) {
    sum[j] = continues ? load(y + j * y_step) : Vec<T>{};
  }
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    const Vec<T> weight = load(w[t] + c);
    const T* const tap = x[t] + in;
#pragma GCC unroll 8
    for (int j = 0; j < NJ; ++j) {
      sum[j] = fma<T>(load(tap + j * x_step), weight, sum[j]);
    }
  }
  finish<T, NJ>(sum, c, y, y_step, epilogue);
}

// Lines of K taps, `pixel` apart in x, and windows S of those apart.
template <class T, int K, int S>
STRIATE_INLINE void lines(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t pixel,
                          std::ptrdiff_t in, std::ptrdiff_t c, T* y, std::ptrdiff_t y_step,
                          const DepthwiseEpilogue<T>* epilogue) {
  Vec<T> sum[kPixels];
#pragma GCC unroll 8
  for (int j = 0; j < kPixels; ++j) {
    sum[j] = Vec<T>{};
  }
  for (std::ptrdiff_t t = 0; t < n_taps; t += K) {
    Vec<T> weight[K];
#pragma GCC unroll 5
    for (int q = 0; q < K; ++q) {
      weight[q] = load(w[t + q] + c);
    }
    const T* column = x[t] + in;
#pragma GCC unroll 24
    for (int i = 0; i < (kPixels - 1) * S + K; ++i) {
      const Vec<T> value = load(column);
      column += pixel;
#pragma GCC unroll 5
      for (int q = 0; q < K; ++q) {
        if (i >= q && (i - q) % S == 0 && (i - q) / S < kPixels) {
          sum[(i - q) / S] = fma<T>(value, weight[q], sum[(i - q) / S]);
        }
      }
    }
  }
  finish<T, kPixels>(sum, c, y, y_step, epilogue);
}

// Whether the taps are lines of k neighbours, windows s of them apart.
template <class T>
bool are_lines(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, int k, int s) {
  if (n_taps == 0 || n_taps % k != 0) {
    return false;
  }
  const std::ptrdiff_t pixel = x[1] - x[0];
  bool fits = pixel * s == x_step;
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    fits = fits && x[t] - x[t / k * k] == t % k * pixel;
  }
  return fits;
}

// Channels below a vector.
template <class T>
void pixel_tail(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t in, std::ptrdiff_t first,
                std::ptrdiff_t channels, T* y, bool continues, const DepthwiseEpilogue<T>* epilogue) {
  for (std::ptrdiff_t c = first; c < channels; ++c) {
    T sum = continues ? y[c] : T(0);
    for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
      sum = madd(x[t][in + c], w[t][c], sum);
    }
    if (epilogue != nullptr) {
      sum += epilogue->bias != nullptr ? epilogue->bias[c] : T(0);
      if (epilogue->clamps) {
        sum = sum < epilogue->lo ? epilogue->lo : sum;
        sum = sum > epilogue->hi ? epilogue->hi : sum;
      }
    }
    y[c] = sum;
  }
}

template <class T, int NJ>
STRIATE_INLINE void pixel_block(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                                std::ptrdiff_t in, std::ptrdiff_t channels, T* y, std::ptrdiff_t y_step, bool continues,
                                const DepthwiseEpilogue<T>* epilogue) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t c = 0;
  for (; c + W <= channels; c += W) {
    pixels<T, NJ>(x, w, n_taps, x_step, in + c, c, y + c, y_step, continues, epilogue);
  }
  if (c < channels && channels >= W && !continues) {
    c = channels - W;  // overlaps the vector before, and computes the same there
    pixels<T, NJ>(x, w, n_taps, x_step, in + c, c, y + c, y_step, continues, epilogue);
    c = channels;
  }
  if (c < channels) {
    for (int j = 0; j < NJ; ++j) {
      pixel_tail(x, w, n_taps, in + j * x_step, c, channels, y + j * y_step, continues, epilogue);
    }
  }
}

template <class T, int K, int S>
void line_blocks(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n,
                 std::ptrdiff_t channels, T* y, std::ptrdiff_t y_step, const DepthwiseEpilogue<T>* epilogue) {
  constexpr int W = kWidth<T>;
  const std::ptrdiff_t pixel = x[1] - x[0];
  for (std::ptrdiff_t first = 0; first < n; first += kPixels) {
    const std::ptrdiff_t j = first + kPixels <= n ? first : n - kPixels;  // overlaps the block before, and computes the same
    T* const out = y + j * y_step;
    std::ptrdiff_t c = 0;
    for (; c + W <= channels; c += W) {
      lines<T, K, S>(x, w, n_taps, pixel, j * x_step + c, c, out + c, y_step, epilogue);
    }
    if (c < channels) {
      c = channels - W;
      lines<T, K, S>(x, w, n_taps, pixel, j * x_step + c, c, out + c, y_step, epilogue);
    }
  }
}

template <class T>
void row(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n,
         std::ptrdiff_t channels, T* y, std::ptrdiff_t y_step, bool continues, const DepthwiseEpilogue<T>* epilogue) {
  std::ptrdiff_t j = 0;
  if (n >= kPixels && channels >= kWidth<T> && !continues) {
    if (are_lines(x, n_taps, x_step, 3, 1)) {
      line_blocks<T, 3, 1>(x, w, n_taps, x_step, n, channels, y, y_step, epilogue);
      j = n;
    } else if (are_lines(x, n_taps, x_step, 5, 1)) {
      line_blocks<T, 5, 1>(x, w, n_taps, x_step, n, channels, y, y_step, epilogue);
      j = n;
    } else if (are_lines(x, n_taps, x_step, 3, 2)) {
      line_blocks<T, 3, 2>(x, w, n_taps, x_step, n, channels, y, y_step, epilogue);
      j = n;
    } else if (are_lines(x, n_taps, x_step, 5, 2)) {
      line_blocks<T, 5, 2>(x, w, n_taps, x_step, n, channels, y, y_step, epilogue);
      j = n;
    }
  }
  for (; j + kPixels <= n; j += kPixels) {
    pixel_block<T, kPixels>(x, w, n_taps, x_step, j * x_step, channels, y + j * y_step, y_step, continues, epilogue);
  }
  for (; j + 3 <= n; j += 3) {
    pixel_block<T, 3>(x, w, n_taps, x_step, j * x_step, channels, y + j * y_step, y_step, continues, epilogue);
  }
  for (; j < n; ++j) {
    pixel_block<T, 1>(x, w, n_taps, x_step, j * x_step, channels, y + j * y_step, y_step, continues, epilogue);
  }
}

template <class T, int NT>
STRIATE_INLINE void taps(const T* const* x, std::ptrdiff_t x_step, const T* g, std::ptrdiff_t g_step, std::ptrdiff_t n,
                         std::ptrdiff_t channels, T* const* grad_w) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t c = 0;
  for (; c + W <= channels; c += W) {
    Vec<T> sum[NT];
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) {
      sum[t] = Vec<T>{};
    }
    for (std::ptrdiff_t j = 0; j < n; ++j) {
      const Vec<T> grad = load(g + j * g_step + c);
#pragma GCC unroll 8
      for (int t = 0; t < NT; ++t) {
        sum[t] = fma<T>(load(x[t] + j * x_step + c), grad, sum[t]);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) {
      store(grad_w[t] + c, load(grad_w[t] + c) + sum[t]);
    }
  }
  for (; c < channels; ++c) {
    for (int t = 0; t < NT; ++t) {
      T sum = T(0);
      for (std::ptrdiff_t j = 0; j < n; ++j) {
        sum = madd(x[t][j * x_step + c], g[j * g_step + c], sum);
      }
      grad_w[t][c] += sum;
    }
  }
}

template <class T>
void grad_weight(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, const T* g, std::ptrdiff_t g_step,
                 std::ptrdiff_t n, std::ptrdiff_t channels, T* const* grad_w) {
  std::ptrdiff_t t = 0;
  for (; t + kTaps <= n_taps; t += kTaps) {
    taps<T, kTaps>(x + t, x_step, g, g_step, n, channels, grad_w + t);
  }
  for (; t + 3 <= n_taps; t += 3) {
    taps<T, 3>(x + t, x_step, g, g_step, n, channels, grad_w + t);
  }
  for (; t < n_taps; ++t) {
    taps<T, 1>(x + t, x_step, g, g_step, n, channels, grad_w + t);
  }
}

template <class T>
void fill(DepthwiseKernels<T>& table) {
  table.row = row<T>;
  table.grad_weight = grad_weight<T>;
}

}  // namespace

void fill_depthwise(KernelTable& table) {
  fill(table.depthwise_f32);
  fill(table.depthwise_f64);
}

}  // namespace striate::STRIATE_TARGET
