#include "striate/ops.hpp"
namespace striate { Array relayout(const Array&, Layout) { throw ShapeError("tmp: no relayout"); } }
