// State: what changes in place (parameters, running statistics, moments, counters).
#pragma once

#include "striate/tensor.hpp"

namespace striate {

// Overwrites the elements of `state` with those of `value` (same shape and dtype, any layouts) and raises its version.
void assign(const Array& state, const Array& value);

}  // namespace striate
