// What the kernels of normalisation compute: n rows of contiguous channels, statistics per channel.
#pragma once

#include <cstddef>

namespace striate {

inline constexpr std::ptrdiff_t kMostStreamed = 2048;  // values of a row that is stored past the caches

template <class T>
struct NormKernels {
  // mean[c] = Σ_r x[r][c] / n, m2[c] = Σ_r (x[r][c] − mean[c])², in two passes: the caller gives blocks that stay in L1.
  void (*moments)(const T* x, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels, T* mean, T* m2);
  // The same in one pass, with sums of x − pivot: exact enough where that is the mean of rows that are merged with these.
  void (*moments_about)(const T* x, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels, const T* pivot,
                        T* mean, T* m2);
  // (mean, m2, n) of a ∪ b into a (Chan, Golub, LeVeque 1983, eq. 2.1).
  void (*merge)(T* mean_a, T* m2_a, std::ptrdiff_t n_a, const T* mean_b, const T* m2_b, std::ptrdiff_t n_b,
                std::ptrdiff_t channels);
  // y[r][c] = f((x[r][c] − mean[c])·scale[c] + bias[c] + z[r][c]), without z where it is null; f is nothing or
  // min(max(·, 0), most), where a NaN for most is none. `streams`: y is stored past the caches; its rows follow one another,
  // whole lines of memory of at most kMostStreamed values.
  void (*apply)(const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n, std::ptrdiff_t channels, const T* mean,
                const T* scale, const T* bias, const T* z, std::ptrdiff_t z_stride, bool has_relu, T most, T* y,
                std::ptrdiff_t y_stride, bool streams);
  // sum_g[c] += Σ_r g[r][c], sum_gx[c] += Σ_r g[r][c]·(x[r][c] − mean[c]). Where scale is given, g passed such an f:
  // it counts as 0 unless 0 < (x − mean)·scale + bias < most.
  void (*sums)(const T* g, std::ptrdiff_t g_stride, const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n,
               std::ptrdiff_t channels, const T* mean, const T* scale, const T* bias, T most, T* sum_g, T* sum_gx);
  // grad_x[r][c] = a[c]·g[r][c] + b[c]·(x[r][c] − mean[c]) + k[c], g and `streams` as above
  void (*grad)(const T* g, std::ptrdiff_t g_stride, const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n,
               std::ptrdiff_t channels, const T* mean, const T* scale, const T* bias, T most, const T* a, const T* b,
               const T* k, T* grad_x, std::ptrdiff_t grad_x_stride, bool streams);
  void (*add)(T* a, const T* b, std::ptrdiff_t n);  // a += b
};

}  // namespace striate
