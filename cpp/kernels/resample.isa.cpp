// Weighted sums of pixels. Contract: resample.hpp. Four vectors of channels stay in registers while the taps go by.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

template <class T, int NV, bool kStreams = false>
STRIATE_INLINE void block(const T* const* x, const T* w, std::ptrdiff_t n_taps, std::ptrdiff_t c, T* y, bool continues) {
  constexpr int W = kWidth<T>;
  Vec<T> sum[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    sum[v] = continues ? load(y + c + v * W) : Vec<T>{};
  }
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    const Vec<T> weight = broadcast(w[t]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      sum[v] = fma<T>(load(x[t] + c + v * W), weight, sum[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    if constexpr (kStreams) {
      store_stream<T>(y + c + v * W, sum[v]);
    } else {
      store(y + c + v * W, sum[v]);
    }
  }
}

template <class T>
void blend(const T* const* x, const T* w, std::ptrdiff_t n_taps, std::ptrdiff_t channels, T* y, bool continues,
           bool streams) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t c = 0;
  if (streams) {
    for (; c + 4 * W <= channels; c += 4 * W) {
      block<T, 4, true>(x, w, n_taps, c, y, continues);
    }
    for (; c < channels; c += W) {
      block<T, 1, true>(x, w, n_taps, c, y, continues);
    }
    return;
  }
  for (; c + 4 * W <= channels; c += 4 * W) {
    block<T, 4>(x, w, n_taps, c, y, continues);
  }
  for (; c + W <= channels; c += W) {
    block<T, 1>(x, w, n_taps, c, y, continues);
  }
  if (c < channels && channels >= W && !continues) {
    block<T, 1>(x, w, n_taps, channels - W, y, continues);  // overlaps the vector before, and computes the same there
    return;
  }
  for (; c < channels; ++c) {
    T sum = continues ? y[c] : T(0);
    for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
      sum = madd(x[t][c], w[t], sum);
    }
    y[c] = sum;
  }
}

// Channels c … c + NV·W of a pixel of kTaps taps, or n_taps where that is 0.
template <class T, int NV, int kTaps, bool kStreams>
STRIATE_INLINE void mix(const T* x, std::ptrdiff_t first_source, const ResampleTap<T>* taps, std::ptrdiff_t n_taps,
                        std::ptrdiff_t channels, T* y) {
  constexpr int W = kWidth<T>;
  Vec<T> sum[NV] = {};
  const std::ptrdiff_t n = kTaps > 0 ? kTaps : n_taps;
#pragma GCC unroll 2
  for (std::ptrdiff_t t = 0; t < n; ++t) {
    const T* const from = x + (taps[t].source - first_source) * channels;
    const Vec<T> weight = broadcast(taps[t].weight);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      sum[v] = fma<T>(load(from + v * W), weight, sum[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    if constexpr (kStreams) {
      store_stream<T>(y + v * W, sum[v]);
    } else {
      store(y + v * W, sum[v]);
    }
  }
}

template <class T, int kTaps, bool kStreams>
STRIATE_INLINE void mix_pixel(const T* x, std::ptrdiff_t first_source, const ResampleTap<T>* taps, std::ptrdiff_t n_taps,
                              std::ptrdiff_t channels, T* y) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) {
    mix<T, 4, kTaps, kStreams>(x + c, first_source, taps, n_taps, channels, y + c);
  }
  for (; c + W <= channels; c += W) {
    mix<T, 1, kTaps, kStreams>(x + c, first_source, taps, n_taps, channels, y + c);
  }
  if (c < channels && channels >= W) {
    mix<T, 1, kTaps, false>(x + channels - W, first_source, taps, n_taps, channels, y + channels - W);
    return;
  }
  for (; c < channels; ++c) {
    T sum{};
    for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
      sum = madd(x[(taps[t].source - first_source) * channels + c], taps[t].weight, sum);
    }
    y[c] = sum;
  }
}

template <class T, bool kStreams>
STRIATE_INLINE void resize_pixels(const T* x, std::ptrdiff_t first_source, const ResampleTap<T>* taps,
                                  const std::ptrdiff_t* first, std::ptrdiff_t n, std::ptrdiff_t channels, T* y) {
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const std::ptrdiff_t n_taps = first[i + 1] - first[i];
    if (n_taps == 1) {
      mix_pixel<T, 1, kStreams>(x, first_source, taps + first[i], 1, channels, y + i * channels);
    } else if (n_taps == 2) {
      mix_pixel<T, 2, kStreams>(x, first_source, taps + first[i], 2, channels, y + i * channels);
    } else {
      mix_pixel<T, 0, kStreams>(x, first_source, taps + first[i], n_taps, channels, y + i * channels);
    }
  }
}

template <class T>
void resize_line(const T* x, std::ptrdiff_t first_source, const ResampleTap<T>* taps, const std::ptrdiff_t* first,
                 std::ptrdiff_t n, std::ptrdiff_t channels, T* y, bool streams) {
  if (streams) {
    resize_pixels<T, true>(x, first_source, taps, first, n, channels, y);
  } else {
    resize_pixels<T, false>(x, first_source, taps, first, n, channels, y);
  }
}

}  // namespace

void fill_resample(KernelTable& table) {
  table.resample_f32.blend = blend<float>;
  table.resample_f32.resize_line = resize_line<float>;
  table.resample_f64.blend = blend<double>;
  table.resample_f64.resize_line = resize_line<double>;
}

}  // namespace striate::STRIATE_TARGET
