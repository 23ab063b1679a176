// What the kernel of the weight gradient of groups computes; forward and data gradient run the tiles of gemm.isa.cpp.
#pragma once

#include <cstddef>

namespace striate {

inline constexpr int kMostGroupedRows = 16;
inline constexpr int kMostGroupedVectors = 2;

// y[m·ld + n] += Σ_l Σ_j x[l·x_line + j·x_pixel + m]·g[l·g_line + j·g_pixel + n] for the tile's rows m and lanes n: an outer
// product per pixel of n_lines lines of n pixels, in one chain of fused multiply-adds that is added to y once.
template <class T>
struct GroupedLines {
  const T* x;
  std::ptrdiff_t x_line;
  std::ptrdiff_t x_pixel;
  const T* g;  // whole vectors are read
  std::ptrdiff_t g_line;
  std::ptrdiff_t g_pixel;
  std::ptrdiff_t n_lines;
  std::ptrdiff_t n;
  T* y;  // whole vectors are written
  std::ptrdiff_t ld;
};

template <class T>
struct GroupedKernels {
  int rows[kMostGroupedVectors];  // of the full tile, by its vectors − 1
  int vectors;                    // of the full tile
  void (*outer[kMostGroupedRows][kMostGroupedVectors])(const GroupedLines<T>& lines) noexcept;  // [rows − 1][vectors − 1]
};

}  // namespace striate
