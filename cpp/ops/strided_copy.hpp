// Copies elements between arrays of any strides: the one loop behind reshape, concat, flip, pixel_shuffle and slices.
#pragma once

#include "striate/tensor.hpp"

namespace striate {

// to[i…] = from[i…] for arrays of equal shape and dtype that do not overlap; strides may be zero or negative in `from`.
void strided_copy(const Array& from, const Array& to);

// Sets every byte of a dense array to zero.
void fill_zero(const Array& dense);

// The layout that an op which keeps its operand's layout gives its result: channels-last when channels are innermost in `x`.
[[nodiscard]] Layout layout_of(const Array& x);

}  // namespace striate
