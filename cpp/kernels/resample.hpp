// What the kernels of resizing compute: weighted sums of pixels of contiguous channels.
#pragma once

#include <cstddef>

namespace striate {

template <class T>
struct ResampleKernels {
  // y[c] = Σ_t w[t]·x[t][c] in order of t; with `continues` it starts at y. `streams`: stored past the caches; y is aligned
  // to 64 bytes and channels fill whole lines.
  void (*blend)(const T* const* x, const T* w, std::ptrdiff_t n_taps, std::ptrdiff_t channels, T* y, bool continues,
                bool streams);
};

}  // namespace striate
