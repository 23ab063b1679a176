// What this core can do at best, measured with the vectors that the kernels use: multiply-adds out of registers, and
// streams.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

// 14 independent chains hide the latency of two multiply-add units (4 to 5 cycles each) and leave registers for the
// operands.
inline constexpr int kChains = 14;

// Runs n · kChains vector multiply-adds and returns their floating-point operations. `sink` holds kChains values, which the
// compiler can't know to be equal: else it would compute one chain for all.
template <class T>
double fma_chains(std::ptrdiff_t n, T* sink) {
  Vec<T> acc[kChains];
  const Vec<T> scale = broadcast(T(0.5)) + broadcast(sink[0]);
  const Vec<T> shift = broadcast(T(1));
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) {
    acc[i] = broadcast(sink[i]);
  }
  for (std::ptrdiff_t step = 0; step < n; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      acc[i] = fma<T>(acc[i], scale, shift);
    }
  }
  Vec<T> total = acc[0];
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) {
    total += acc[i];
  }
  sink[0] = total[0] * T(0);
  return 2.0 * static_cast<double>(n) * kChains * kWidth<T>;
}

void stream_copy(const float* x, const float*, float* y, std::ptrdiff_t n) {
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    y[i] = x[i];
  }
}

// Stores past the caches: no line is read before it is written.
void stream_copy_nt(const float* x, const float*, float* y, std::ptrdiff_t n) {
  constexpr std::ptrdiff_t W = kWidth<float>;
  for (std::ptrdiff_t i = 0; i + W <= n; i += W) {
    store_stream(y + i, load(x + i));
  }
  store_fence();
}

void stream_triad(const float* x, const float* z, float* y, std::ptrdiff_t n) {
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    y[i] = x[i] + 3.0F * z[i];
  }
}

void stream_read(const float* x, const float*, float* y, std::ptrdiff_t n) {
  constexpr std::ptrdiff_t W = kWidth<float>;
  Vec<float> sum[4] = {};
  for (std::ptrdiff_t i = 0; i + 4 * W <= n; i += 4 * W) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      sum[v] += load(x + i + v * W);
    }
  }
  store_partial(y, sum[0] + sum[1] + sum[2] + sum[3], 1);
}

}  // namespace

void fill_probe(KernelTable& table) {
  table.probe.fma_f32 = fma_chains<float>;
  table.probe.fma_f64 = fma_chains<double>;
  table.probe.copy = stream_copy;
  table.probe.copy_nt = stream_copy_nt;
  table.probe.triad = stream_triad;
  table.probe.read = stream_read;
}

}  // namespace striate::STRIATE_TARGET
