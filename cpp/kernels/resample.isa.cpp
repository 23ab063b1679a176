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

}  // namespace

void fill_resample(KernelTable& table) {
  table.resample_f32.blend = blend<float>;
  table.resample_f64.blend = blend<double>;
}

}  // namespace striate::STRIATE_TARGET
