#include "ops/pool.hpp"

#include <limits>

namespace striate {
namespace {

PoolMaps make_adaptive_maps(const char* op, const Extents& x_shape, const std::vector<std::ptrdiff_t>& output_size) {
  PoolMaps maps;
  std::vector<std::ptrdiff_t> out = output_size;
  const int shift = 5 - x_shape.rank();
  for (int i = 0; i < 3; ++i) {
    if (i < shift) {
      maps.forward.axis[i] = adaptive_map(1, 1);
      continue;
    }
    const std::ptrdiff_t in = x_shape[i - shift + 2];
    std::ptrdiff_t& wanted = out[static_cast<std::size_t>(i - shift)];
    wanted = wanted == -1 ? in : wanted;
    check(wanted >= 0 && (in >= 1 || wanted == 0), op,
          ": expected output_size of at least 0 and an image of at least one pixel, got ", wanted, " for size ", in,
          " on spatial axis ", i - shift, "; use other sizes");
    maps.forward.axis[i] = adaptive_map(in, wanted);
  }
  maps.forward.cut(1);
  maps.y_shape = image_shape(x_shape[0], x_shape[1], out);
  return maps;
}

}  // namespace

GatherPlan PoolMaps::backward() const {
  GatherPlan plan;
  for (int i = 0; i < 3; ++i) {
    plan.axis[i] = transposed(forward.axis[i]);
  }
  plan.cut(stride);
  return plan;
}

PoolMaps make_pool_maps(const char* op, const Extents& x_shape, const PoolParams& params) {
  const bool is_adaptive = !params.output_size.empty();
  const std::size_t n_axes = is_adaptive ? params.output_size.size() : params.window.kernel_size.size();
  check(x_shape.rank() == static_cast<int>(n_axes) + 2, op, ": expected x with ", n_axes + 2, " axes (batch, channels, and ",
        n_axes, " spatial), got shape ", x_shape, "; add or remove axes with reshape");
  PoolMaps maps;
  if (is_adaptive) {
    maps = make_adaptive_maps(op, x_shape, params.output_size);
  } else {
    maps.window = make_window(op, spatial(x_shape), params.window);
    std::vector<std::ptrdiff_t> out;
    for (std::size_t i = 0; i < 3; ++i) {
      const WindowAxis& axis = maps.window.axis[i];
      check(2 * axis.pad_begin <= axis.reach() && 2 * axis.pad_end <= axis.reach(), op,
            ": expected padding of at most half the dilated kernel size ", axis.reach(), ", got (", axis.pad_begin, ", ",
            axis.pad_end, "); use less padding, or pad() first");
      maps.forward.axis[i] = window_map(axis);
      if (i + n_axes >= 3) {
        out.push_back(axis.out);
      }
    }
    maps.stride = maps.window.axis[2].stride;
    maps.forward.cut(1);
    maps.y_shape = image_shape(x_shape[0], x_shape[1], out);
  }
  std::ptrdiff_t n_labels = 1;
  for (const AxisMap& map : maps.forward.axis) {
    check(!__builtin_mul_overflow(n_labels, std::max<std::ptrdiff_t>(map.n_taps, 1), &n_labels) &&
              n_labels <= std::numeric_limits<std::int32_t>::max(),
          op, ": expected windows of fewer than 2^31 elements, got x of shape ", x_shape, "; use smaller windows");
  }
  return maps;
}

}  // namespace striate
