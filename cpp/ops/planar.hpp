// Convolutions of fewer results a pixel than a vector has lanes: lanes are pixels, of planes that hold one channel each.
#pragma once

#include <vector>

#include "ops/indirect.hpp"
#include "striate/window.hpp"

namespace striate {

// A convolution over two axes, whose pixels have their channels side by side.
template <class T>
struct PlanarConv {
  const T* x;
  std::ptrdiff_t stride_n;
  std::ptrdiff_t stride_h;
  std::ptrdiff_t stride_w;
  std::ptrdiff_t n;
  std::ptrdiff_t c;
  std::ptrdiff_t o;
  WindowAxis h;
  WindowAxis w;
};

// y = tail(the forward pass), where y has `o` values side by side along its lines; `filters` are [h][w][c][o]. The tail is
// bias, clamp and what finishes lines.
template <class T>
void planar_forward(const PlanarConv<T>& conv, const std::vector<T>& filters, const Scatter<T>& y, const GemmTail& tail);

// grad_weight [o][h][w][c]; zeros beyond an edge of the image take part.
template <class T>
void planar_grad_weight(const PlanarConv<T>& conv, const Scatter<const T>& grad_y, T* grad_weight);

}  // namespace striate
