// What the kernels of convolutions whose lanes are pixels compute: for results of fewer channels than a vector has lanes.
// A plane holds one channel, line by line.
#pragma once

#include <cstddef>

namespace striate {

inline constexpr int kMostPlanes = 14;

// y[o·y_plane + i] = clamp(bias[o] + Σ_t w[t][o] · x[term[t] + i]) for the kernel's planes o and i < n_vectors · width.
template <class T>
struct PlanarSum {
  const T* x;  // whole vectors are read
  const std::ptrdiff_t* term;
  const T* w;  // [n_terms][planes]
  std::ptrdiff_t n_terms;
  T* y;
  std::ptrdiff_t y_plane;
  std::ptrdiff_t n_vectors;
  const T* bias;  // or null
  bool clamps;
  T lo, hi;
};

// sums[o][t][·] += Σ over lines l and vectors v of g[l·g_line + o·g_plane + v] · x[l·x_line + term[t] + v], lane by lane,
// for the kernel's planes o and two terms t.
template <class T>
struct PlanarDot {
  const T* x;
  std::ptrdiff_t x_line;
  std::ptrdiff_t term[2];
  const T* g;
  std::ptrdiff_t g_line;
  std::ptrdiff_t g_plane;
  std::ptrdiff_t n_lines;
  std::ptrdiff_t n_vectors;
  T* sums;  // [planes][2][width]
};

template <class T>
struct PlanarKernels {
  int width;
  int planes;                                     // at once, at most
  void (*sum[kMostPlanes])(const PlanarSum<T>&);  // [planes − 1]
  void (*dot[kMostPlanes])(const PlanarDot<T>&);  // likewise
  // y[i·planes + o] = x[o·plane + i] for i < n; of fewer than four planes, four may be read.
  void (*to_pixels)(const T* x, std::ptrdiff_t plane, std::ptrdiff_t planes, std::ptrdiff_t n, T* y);
  // y[o·plane + i] = x[i·pixel + o] for i < n; of fewer than four planes, four may be written.
  void (*to_planes)(const T* x, std::ptrdiff_t pixel, std::ptrdiff_t planes, std::ptrdiff_t n, T* y, std::ptrdiff_t plane);
};

}  // namespace striate
