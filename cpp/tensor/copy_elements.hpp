// Copying elements between layouts, byte by byte: no conversion, no arithmetic.
#pragma once

#include "striate/tensor.hpp"

namespace striate {

// Writes the elements of `from` into `to`, which has the same shape and dtype and no broadcast axes. Layouts may differ;
// memory may not overlap. Does not raise the version of `to`.
void copy_elements(const Array& from, const Array& to);

}  // namespace striate
