// Convolutions of fewer results a pixel than a vector has lanes: lanes are pixels, of planes that hold one channel each.
#pragma once

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

// The filters of dense w [o][h][w][c], in panels of as many results as a kernel sums at once.
template <class T>
[[nodiscard]] std::shared_ptr<const Packed<T>> pack_planar(const T* w, std::ptrdiff_t o, std::ptrdiff_t n_terms);

// y = tail(the forward pass), where y has `o` values side by side along its lines. The tail is bias, clamp and what finishes
// lines.
template <class T>
void planar_forward(const PlanarConv<T>& conv, const Packed<T>& filters, const Scatter<T>& y, const GemmTail& tail);

// grad_weight [o][h][w][c]; zeros beyond an edge of the image take part.
template <class T>
void planar_grad_weight(const PlanarConv<T>& conv, const Scatter<const T>& grad_y, T* grad_weight);

}  // namespace striate
