// What ops that move elements share besides copy_into().
#pragma once

#include "striate/tensor.hpp"

namespace striate {

// Sets every byte of a dense array to zero.
void fill_zero(const Array& dense);

// The layout that an op which keeps its operand's layout gives its result: channels-last when channels are innermost in `x`.
[[nodiscard]] Layout layout_of(const Array& x);

}  // namespace striate
