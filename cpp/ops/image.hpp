// An Array of images as kernels see it: batch, up to three spatial axes, contiguous channels.
#pragma once

#include <cstddef>
#include <span>

#include "striate/tensor.hpp"

namespace striate {

// Spatial axes the array does not have come first and have size 1.
struct Image {
  std::ptrdiff_t n = 0;
  std::ptrdiff_t channels = 0;
  std::ptrdiff_t size[3] = {1, 1, 1};
  std::ptrdiff_t stride_n = 0;
  std::ptrdiff_t stride[3] = {0, 0, 0};

  explicit Image(const Array& x) : n(x.shape(0)), channels(x.shape(1)), stride_n(x.stride(0)) {
    for (int axis = 2; axis < x.rank(); ++axis) {
      size[axis + 3 - x.rank()] = x.shape(axis);
      stride[axis + 3 - x.rank()] = x.stride(axis);
    }
  }
  [[nodiscard]] std::ptrdiff_t at(std::ptrdiff_t image, std::ptrdiff_t d, std::ptrdiff_t h, std::ptrdiff_t w) const {
    return image * stride_n + d * stride[0] + h * stride[1] + w * stride[2];
  }
};

[[nodiscard]] inline std::span<const std::ptrdiff_t> spatial(const Extents& shape) {
  return {shape.begin() + 2, static_cast<std::size_t>(shape.rank() - 2)};
}
// (N, C, *spatial)
[[nodiscard]] inline Extents image_shape(std::ptrdiff_t n, std::ptrdiff_t channels, std::span<const std::ptrdiff_t> sizes) {
  Extents shape{n, channels};
  for (const std::ptrdiff_t size : sizes) {
    shape.push_back(size);
  }
  return shape;
}

// x itself when its channels are contiguous, else a channels-last copy.
[[nodiscard]] Array unit_channels(const Array& x);

}  // namespace striate
