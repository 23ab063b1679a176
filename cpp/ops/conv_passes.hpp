// The three passes of a convolution as products: what conv.cpp, which checks and finishes, has them do.
#pragma once

#include "ops/conv2d_choose.hpp"
#include "ops/indirect.hpp"

namespace striate {

struct ConvGeometry {
  Window window;
  std::ptrdiff_t n;
  std::ptrdiff_t groups;
  std::ptrdiff_t c;                                    // input channels of a group
  std::ptrdiff_t o;                                    // output channels of a group
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;  // that the call names
};

inline ConvShape shape_of(const ConvGeometry& geometry, int rank, DType dtype) {
  return {.window = geometry.window,
          .n = geometry.n,
          .groups = geometry.groups,
          .c = geometry.c,
          .o = geometry.o,
          .dtype = rank == 4 ? dtype : DType::float64,
          .algorithm = geometry.algorithm};
}

inline Position spatial(const Window& window, std::ptrdiff_t WindowAxis::*field) {
  return {window.axis[0].*field, window.axis[1].*field, window.axis[2].*field};
}

// Strides of the spatial axes, absent ones first with stride 0.
inline Position spatial_strides(const Array& x) {
  Position strides{0, 0, 0};
  for (int axis = 2; axis < x.rank(); ++axis) {
    strides[static_cast<std::size_t>(axis + 3 - x.rank())] = x.stride(axis);
  }
  return strides;
}

// y = tail(the forward pass of x).
template <class T>
void run_forward(const Array& x, const Array& weight, const Array& y, const GemmTail& tail, const ConvGeometry& geometry);

// y = tail(the forward pass of a pointwise convolution) over pixels that a source makes.
template <class T>
void run_pointwise(const RowSource<T>& pixels, const Array& weight, const Array& y, const GemmTail& tail,
                   const ConvGeometry& geometry);

// grad_x = tail(the data gradient), which is the transposed convolution, too.
template <class T>
void run_grad_input(const Array& grad_y, const Array& weight, const Array& grad_x, const GemmTail& tail,
                    const ConvGeometry& geometry);

// Whether the data gradient goes by lines of the kernel: where channels alone fill little of a vector (the first layers of
// a network), and those of a line fill it better. Its tail is bias and clamp alone.
template <class T>
[[nodiscard]] bool goes_by_lines(const ConvGeometry& geometry);

template <class T>
void run_grad_weight(const Array& grad_y, const Array& x, const Array& grad_weight, const ConvGeometry& geometry);

// Runs the forward pass or the data gradient by Winograd where that is chosen; `y` is the result.
template <class T>
[[nodiscard]] bool ran_winograd(ConvPass pass, const Array& x, const Array& weight, const Array& y, const GemmTail& tail,
                                const ConvGeometry& geometry);

}  // namespace striate
