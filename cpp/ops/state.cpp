#include "striate/state.hpp"

#include "ops/map.hpp"
#include "striate/ops.hpp"

namespace striate {

void assign(const Array& state, const Array& value) {
  check<DTypeError>(state.dtype() == value.dtype(), "assign: expected a value of dtype ", dtype_name(state.dtype()),
                    ", got ", dtype_name(value.dtype()), "; convert it with .to(", dtype_name(state.dtype()), ")");
  check(state.shape() == value.shape(), "assign: expected a value of shape ", state.shape(), ", got ", value.shape(),
        "; the shape of a state never changes");
  if (state.storage().is_read_only()) {
    throw std::invalid_argument("assign: expected memory that may be written, got a read-only array; clone it first");
  }
  for (int axis = 0; axis < state.rank(); ++axis) {
    check(state.stride(axis) != 0 || state.shape(axis) <= 1 || state.size() == 0,
          "assign: expected a state without broadcast axes, got axis ", axis, " of shape ", state.shape(),
          " with stride 0; clone it first");
  }
  if (state.storage_ref().get() == value.storage_ref().get()) {
    copy_into(state, clone(value));  // the two may overlap
  } else {
    copy_into(state, value);
  }
  state.storage().raise_version();
}

}  // namespace striate
