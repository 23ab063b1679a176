// Convolutions with pixels in the lanes.
//
// Register budget, planes × vectors accumulators + vectors of x + one broadcast weight: 6 × 2 + 2 + 1 = 15 of 16,
// 14 × 2 + 2 + 1 = 31 of 32.
// Rounding: one chain of fused multiply-adds per element over the terms, γ_terms; dot products one chain per lane and call,
// which is added to the sum once: a shallow tree.
#include "kernels/block.hpp"
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

#if defined(__AVX512F__) || defined(STRIATE_VEC_BYTES) || defined(__aarch64__)
inline constexpr int kRegisters = 32;
#else
inline constexpr int kRegisters = 16;
#endif
inline constexpr int kPlanes = (kRegisters - 3) / 2;
static_assert(kPlanes <= kMostPlanes);

constexpr int most_vectors(int planes) {
  for (int n = 4; n > 1; --n) {
    if (planes * n + n + 1 <= kRegisters) {
      return n;
    }
  }
  return 1;
}

// Vectors [first, n_vectors), kVectors at a time, and the rest half as many at a time.
template <class T, int kO, int kVectors>
STRIATE_INLINE void sum_from(const PlanarSum<T>& how, std::ptrdiff_t first) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t v = first;
  for (; v + kVectors <= how.n_vectors; v += kVectors) {
    Vec<T> acc[kO][kVectors];
#pragma GCC unroll 16
    for (int o = 0; o < kO; ++o) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[o][i] = Vec<T>{};
      }
    }
    const T* const x = how.x + v * W;
    const T* w = how.w;
    for (std::ptrdiff_t t = 0; t < how.n_terms; ++t, w += kO) {
      const T* const at = x + how.term[t];
      Vec<T> pixels[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        pixels[i] = load(at + i * W);
      }
#pragma GCC unroll 16
      for (int o = 0; o < kO; ++o) {
        const Vec<T> weight = broadcast(w[o]);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) {
          acc[o][i] = fma<T>(weight, pixels[i], acc[o][i]);
        }
      }
    }
    const Vec<T> lo = broadcast(how.lo);
    const Vec<T> hi = broadcast(how.hi);
#pragma GCC unroll 16
    for (int o = 0; o < kO; ++o) {
      const Vec<T> bias = how.bias == nullptr ? Vec<T>{} : broadcast(how.bias[o]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        Vec<T> sum = acc[o][i] + bias;
        if (how.clamps) {
          sum = at_most<T>(at_least<T>(sum, lo), hi);
        }
        store(how.y + o * how.y_plane + (v + i) * W, sum);
      }
    }
  }
  if constexpr (kVectors > 1) {
    if (v < how.n_vectors) {
      sum_from<T, kO, kVectors / 2>(how, v);
    }
  }
}

template <class T, int kO>
void sum(const PlanarSum<T>& how) {
  sum_from<T, kO, most_vectors(kO)>(how, 0);
}

// v, loaded once: GCC makes of a load with two uses two operands in memory, and loads are what dot() has least of.
template <class T>
STRIATE_INLINE Vec<T> in_register(Vec<T> v) {
#if defined(__AVX2__)
  __asm__("" : "+v"(v));
#endif
  return v;
}

template <class T, int kO>
void dot(const PlanarDot<T>& how) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[kO][2];
#pragma GCC unroll 16
  for (int o = 0; o < kO; ++o) {
    acc[o][0] = Vec<T>{};
    acc[o][1] = Vec<T>{};
  }
  const T* x_line = how.x + how.term[0];
  const std::ptrdiff_t to_second = how.term[1] - how.term[0];
  const T* g_line = how.g;
  for (std::ptrdiff_t line = 0; line < how.n_lines; ++line) {
    const T* x = x_line;
    const T* g = g_line;
    for (std::ptrdiff_t v = 0; v < how.n_vectors; ++v) {
      const Vec<T> first = load(x);
      const Vec<T> second = load(x + to_second);
      const T* from = g;
#pragma GCC unroll 16
      for (int o = 0; o < kO; ++o) {
        const Vec<T> value = in_register<T>(load(from));
        from += how.g_plane;
        acc[o][0] = fma<T>(value, first, acc[o][0]);
        acc[o][1] = fma<T>(value, second, acc[o][1]);
      }
      x += W;
      g += W;
    }
    x_line += how.x_line;
    g_line += how.g_line;
  }
#pragma GCC unroll 16
  for (int o = 0; o < kO; ++o) {
    T* const sums = how.sums + 2 * o * W;
    store(sums, load(sums) + acc[o][0]);
    store(sums + W, load(sums + W) + acc[o][1]);
  }
}

// f(o, i) for blocks of channels and of pixels. The last block of channels overlaps the one before it; where there are fewer
// than a block has, it reaches into the next pixel, or plane, which comes later. Returns where the pixels end that blocks
// cover.
template <class T, class F>
STRIATE_INLINE std::ptrdiff_t for_blocks(std::ptrdiff_t planes, std::ptrdiff_t n, const F& f) {
  constexpr int kSide = Block<T>::kSide;
  const std::ptrdiff_t end = planes == 1 || n == 0 ? 0 : (planes < kSide ? n - 1 : n) / kSide * kSide;
  for (std::ptrdiff_t i = 0; i < end; i += kSide) {
    for (std::ptrdiff_t o = 0; o + kSide <= planes; o += kSide) {
      f(o, i);
    }
    if (planes % kSide != 0) {
      f(planes < kSide ? 0 : planes - kSide, i);
    }
  }
  return end;
}

template <class T>
void to_pixels(const T* x, std::ptrdiff_t plane, std::ptrdiff_t planes, std::ptrdiff_t n, T* y) {
  std::ptrdiff_t i = for_blocks<T>(planes, n, [&](std::ptrdiff_t o, std::ptrdiff_t at) {
    Block<T>(x + o * plane + at, plane).store_transposed(y + at * planes + o, planes);
  });
  for (; i < n; ++i) {
    for (std::ptrdiff_t o = 0; o < planes; ++o) {
      y[i * planes + o] = x[o * plane + i];
    }
  }
}

template <class T>
void to_planes(const T* x, std::ptrdiff_t pixel, std::ptrdiff_t planes, std::ptrdiff_t n, T* y, std::ptrdiff_t plane) {
  // Pixels that lie on one another, as an expanded array's do, have no room for what a block reads beyond its channels.
  const std::ptrdiff_t n_apart = planes < Block<T>::kSide && pixel < planes ? 0 : n;
  std::ptrdiff_t i = for_blocks<T>(planes, n_apart, [&](std::ptrdiff_t o, std::ptrdiff_t at) {
    Block<T>(x + at * pixel + o, pixel).store_transposed(y + o * plane + at, plane);
  });
  for (; i < n; ++i) {
    for (std::ptrdiff_t o = 0; o < planes; ++o) {
      y[o * plane + i] = x[i * pixel + o];
    }
  }
}

template <class T, int kO>
void fill_planes(PlanarKernels<T>& table) {
  table.sum[kO - 1] = sum<T, kO>;
  table.dot[kO - 1] = dot<T, kO>;
  if constexpr (kO > 1) {
    fill_planes<T, kO - 1>(table);
  }
}

template <class T>
void fill(PlanarKernels<T>& table) {
  table.width = kWidth<T>;
  table.planes = kPlanes;
  table.to_pixels = to_pixels<T>;
  table.to_planes = to_planes<T>;
  fill_planes<T, kPlanes>(table);
}

}  // namespace

void fill_planar(KernelTable& table) {
  fill(table.planar_f32);
  fill(table.planar_f64);
}

}  // namespace striate::STRIATE_TARGET
