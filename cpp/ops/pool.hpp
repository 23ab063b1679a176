// What max and mean pooling share: checks, and the map of each axis.
#pragma once

#include "ops/gather.hpp"
#include "ops/image.hpp"
#include "striate/ops.hpp"

namespace striate {

struct PoolMaps {
  GatherPlan forward;         // outputs read inputs
  std::ptrdiff_t stride = 1;  // of the last axis: the step in which inputs repeat
  Window window;              // what the maps came from, unless adaptive
  Extents y_shape;

  // Inputs read the outputs they went into.
  [[nodiscard]] GatherPlan backward() const;
};

// Throws ShapeError naming `op` when x_shape is not (N, C, *spatial) or the windows do not fit.
[[nodiscard]] PoolMaps make_pool_maps(const char* op, const Extents& x_shape, const PoolParams& params);

}  // namespace striate
