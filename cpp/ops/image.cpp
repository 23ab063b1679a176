#include "ops/image.hpp"

#include "striate/ops.hpp"

namespace striate {

Array unit_channels(const Array& x) { return x.has_unit_channels() ? x : relayout(x, Layout::channels_last); }

}  // namespace striate
