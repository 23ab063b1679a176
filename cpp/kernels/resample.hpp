// What the kernels of resizing compute: weighted sums of pixels of contiguous channels.
#pragma once

#include <cstddef>

namespace striate {

template <class T>
struct ResampleTap {
  std::ptrdiff_t source;  // pixel of the line
  T weight;
};

template <class T>
struct ResampleKernels {
  // y[c] = Σ_t w[t]·x[t][c] in order of t; with `continues` it starts at y. `streams`: stored past the caches; y is aligned
  // to 64 bytes and channels fill whole lines.
  void (*blend)(const T* const* x, const T* w, std::ptrdiff_t n_taps, std::ptrdiff_t channels, T* y, bool continues,
                bool streams);
  // y[i][c] = Σ_t taps[t].weight·x[taps[t].source − first_source][c], t from first[i] to first[i + 1], for i < n; both lines
  // are dense. `streams` as above.
  void (*resize_line)(const T* x, std::ptrdiff_t first_source, const ResampleTap<T>* taps, const std::ptrdiff_t* first,
                      std::ptrdiff_t n, std::ptrdiff_t channels, T* y, bool streams);
};

}  // namespace striate
