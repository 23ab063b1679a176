// Max pooling: y[n,c,i] = max over the taps inside the image of x[n,c, i·s + p·d − pad]. NaN wins, of equal values the
// first.
#include <algorithm>

#include "kernels/table.hpp"
#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/pool.hpp"

namespace striate {
namespace {

template <class T>
struct RowPointers {
  const T* x[kMaxRowTaps];

  RowPointers(const GatherRow& row, const T* base, const Image& source) {
    for (std::ptrdiff_t t = 0; t < row.n_taps; ++t) {
      const GatherTap& tap = row.taps[t];
      x[t] = base + source.at(row.image, tap.source[0], tap.source[1], tap.source[2]);
    }
  }
};

struct RowLabels {
  std::int32_t labels[kMaxRowTaps];

  explicit RowLabels(const GatherRow& row) {
    for (std::ptrdiff_t t = 0; t < row.n_taps; ++t) {
      labels[t] = row.taps[t].label;
    }
  }
};

// Index is void (only the maximum), uint8 or int32.
template <class T, class Index>
void run_max(MaxRow<T, Index> kernel, const PoolMaps& maps, const Array& x, const Array& y, Index* index) {
  const Image source(x);
  const Image target(y);
  const T* const from = x.data<T>();
  T* const to = y.data<T>();
  gather_rows<kMaxRowTaps>(maps.forward, source.n, source.channels, [&](const GatherRow& row) {
    const RowPointers<T> pointers(row, from, source);
    const RowLabels labels(row);
    const std::ptrdiff_t offset = target.at(row.image, row.d, row.h, row.run.first);
    Index* taken = index;
    if constexpr (!std::is_void_v<Index>) {
      taken += offset;
    }
    kernel(pointers.x, labels.labels, row.n_taps, row.run.source_step * source.stride[2], row.run.n, source.channels,
           to + offset, taken, row.run.step * target.stride[2], row.continues);
  });
}

// Y reads X where index says: forward maps pick, backward maps scatter a gradient.
template <class T, class Index>
void run_select(SelectRow<T, Index> kernel, const GatherPlan& plan, const Array& x, const Array& index, bool index_is_target,
                const Array& y) {
  const Image source(x);
  const Image target(y);
  const Image taken(index);
  const T* const from = x.data<T>();
  const Index* const at = index.data<Index>();
  T* const to = y.data<T>();
  gather_rows<kMaxRowTaps>(plan, source.n, source.channels, [&](const GatherRow& row) {
    const RowPointers<T> pointers(row, from, source);
    const RowLabels labels(row);
    const Index* index_rows[kMaxRowTaps];
    for (std::ptrdiff_t t = 0; t < row.n_taps; ++t) {
      const GatherTap& tap = row.taps[t];
      index_rows[t] = at + (index_is_target ? taken.at(row.image, row.d, row.h, row.run.first)
                                            : taken.at(row.image, tap.source[0], tap.source[1], tap.source[2]));
    }
    const std::ptrdiff_t index_step = (index_is_target ? row.run.step : row.run.source_step) * taken.stride[2];
    kernel(pointers.x, index_rows, labels.labels, row.n_taps, row.run.source_step * source.stride[2], index_step, row.run.n,
           source.channels, to + target.at(row.image, row.d, row.h, row.run.first), row.run.step * target.stride[2],
           row.continues);
  });
}

void select(const char* op, const GatherPlan& plan, const Array& x, const Array& taps, bool index_is_target,
            const Array& y) {
  dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (taps.dtype() == DType::uint8) {
      run_select<T, std::uint8_t>(kernels().pool<T>().select_u8, plan, x, taps, index_is_target, y);
    } else {
      run_select<T, std::int32_t>(kernels().pool<T>().select_i32, plan, x, taps, index_is_target, y);
    }
  });
}

// Whether windows follow one another and share nothing: window i reads the sources from i · n_taps on.
bool are_tiles(const AxisMap& map) {
  for (std::ptrdiff_t i = 0; i < map.n_targets(); ++i) {
    const std::span<const AxisMap::Entry> entries = map.at(i);
    if (static_cast<std::ptrdiff_t>(entries.size()) != map.n_taps || entries.front().source != i * map.n_taps ||
        entries.back().source != (i + 1) * map.n_taps - 1) {
      return false;
    }
  }
  return true;
}

// The gradient where windows are tiles: each is written once, from one read of its gradient.
template <class T, class Index>
void run_spread(SpreadRow<T, Index> kernel, const GatherPlan& forward, const Array& grad_y, const Array& taps,
                const Array& grad_x) {
  const Image source(grad_y);
  const Image taken(taps);
  const Image target(grad_x);
  const AxisMap* const axis = forward.axis;
  const std::ptrdiff_t line = target.size[2] * target.channels;
  const std::ptrdiff_t written = axis[2].n_targets() * axis[2].n_taps * target.channels;  // of a line
  const std::ptrdiff_t n_d = Partition(target.size[0], axis[0].n_taps).n_parts;
  const std::ptrdiff_t n_h = Partition(target.size[1], axis[1].n_taps).n_parts;
  constexpr std::ptrdiff_t kValues = 1 << 14;  // of a task
  const Partition rows(
      target.n * n_d * n_h,
      std::max<std::ptrdiff_t>(1, kValues / std::max<std::ptrdiff_t>(1, axis[0].n_taps * axis[1].n_taps * line)));
  parallel_for(rows.n_parts, [&](std::ptrdiff_t part) {
    std::vector<T*> y(static_cast<std::size_t>(axis[0].n_taps * axis[1].n_taps));
    for (std::ptrdiff_t row = rows.begin(part); row < rows.end(part); ++row) {
      const std::ptrdiff_t h = row % n_h;
      const std::ptrdiff_t d = row / n_h % n_d;
      const std::ptrdiff_t image = row / n_h / n_d;
      const bool has_window = d < axis[0].n_targets() && h < axis[1].n_targets();
      std::ptrdiff_t n_lines = 0;
      for (std::ptrdiff_t p = d * axis[0].n_taps; p < std::min((d + 1) * axis[0].n_taps, target.size[0]); ++p) {
        for (std::ptrdiff_t q = h * axis[1].n_taps; q < std::min((h + 1) * axis[1].n_taps, target.size[1]); ++q) {
          T* const to = grad_x.data<T>() + target.at(image, p, q, 0);
          std::fill(to + (has_window ? written : 0), to + line, T(0));
          y[static_cast<std::size_t>(n_lines++)] = to;
        }
      }
      if (has_window) {
        kernel(grad_y.data<T>() + source.at(image, d, h, 0), source.stride[2], taps.data<Index>() + taken.at(image, d, h, 0),
               taken.stride[2], axis[2].n_targets(), target.channels, y.data(), n_lines, axis[2].n_taps);
      }
    }
  });
}

void spread(const char* op, const GatherPlan& forward, const Array& grad_y, const Array& taps, const Array& grad_x) {
  dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (taps.dtype() == DType::uint8) {
      run_spread<T, std::uint8_t>(kernels().pool<T>().spread_u8, forward, grad_y, taps, grad_x);
    } else {
      run_spread<T, std::int32_t>(kernels().pool<T>().spread_i32, forward, grad_y, taps, grad_x);
    }
  });
}

void check_taps(const char* op, const Array& taps, const Extents& y_shape) {
  check(taps.shape() == y_shape && (taps.dtype() == DType::uint8 || taps.dtype() == DType::int32), op,
        ": expected taps of shape ", y_shape, " and dtype uint8 or int32, got ", taps.shape(), " of ",
        dtype_name(taps.dtype()), "; pass what the forward pass returned");
}

}  // namespace

Array max_pool(const char* op, const Array& x, const PoolParams& params) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const PoolMaps maps = make_pool_maps(op, x.shape(), params);
    Array y = Array::empty(x.dtype(), maps.y_shape, Layout::channels_last);
    run_max<T, void>(kernels().pool<T>().max, maps, unit_channels(x), y, nullptr);
    return y;
  });
}

MaxPooled max_pool_taps(const char* op, const Array& x, const PoolParams& params) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const PoolMaps maps = make_pool_maps(op, x.shape(), params);
    std::ptrdiff_t n_labels = 1;
    for (const AxisMap& map : maps.forward.axis) {
      n_labels *= map.n_taps;
    }
    const DType index_type = n_labels <= 256 ? DType::uint8 : DType::int32;
    const Array y = Array::empty(x.dtype(), maps.y_shape, Layout::channels_last);
    const Array taps = Array::empty(index_type, maps.y_shape, Layout::channels_last);
    const Array source = unit_channels(x);
    if (index_type == DType::uint8) {
      run_max<T, std::uint8_t>(kernels().pool<T>().max_u8, maps, source, y, taps.data<std::uint8_t>());
    } else {
      run_max<T, std::int32_t>(kernels().pool<T>().max_i32, maps, source, y, taps.data<std::int32_t>());
    }
    return MaxPooled{y, taps};
  });
}

Array max_pool_grad(const char* op, const Array& grad_y, const Array& taps, const Extents& x_shape,
                    const PoolParams& params) {
  const PoolMaps maps = make_pool_maps(op, x_shape, params);
  check(grad_y.shape() == maps.y_shape, op, ": expected grad_y of shape ", maps.y_shape, ", got ", grad_y.shape(),
        "; pass the gradient of this pooling's result");
  check_taps(op, taps, maps.y_shape);
  const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
  const AxisMap* const axis = maps.forward.axis;
  if (std::all_of(axis, axis + 3, are_tiles)) {
    spread(op, maps.forward, unit_channels(grad_y), taps, grad_x);
  } else {
    select(op, maps.backward(), unit_channels(grad_y), taps, false, grad_x);
  }
  return grad_x;
}

Array max_pool_pick(const char* op, const Array& x, const Array& taps, const PoolParams& params) {
  const PoolMaps maps = make_pool_maps(op, x.shape(), params);
  check_taps(op, taps, maps.y_shape);
  const Array y = Array::empty(x.dtype(), maps.y_shape, Layout::channels_last);
  select(op, maps.forward, unit_channels(x), taps, true, y);
  return y;
}

Array max_pool_indices(const char* op, const Array& taps, const Extents& x_shape, const PoolParams& params) {
  const PoolMaps maps = make_pool_maps(op, x_shape, params);
  check_taps(op, taps, maps.y_shape);
  const Array indices = Array::empty(DType::int64, maps.y_shape, Layout::channels_last);
  const Image target(indices);
  const AxisMap* const axis = maps.forward.axis;
  const bool is_narrow = taps.dtype() == DType::uint8;
  const auto source = [&](int i, std::ptrdiff_t at, std::ptrdiff_t tap) {
    for (const AxisMap::Entry& entry : axis[i].at(at)) {
      if (entry.tap == tap) {
        return entry.source;
      }
    }
    return std::ptrdiff_t{0};  // a window without taps
  };
  parallel_for(target.n * target.size[0] * target.size[1], [&](std::ptrdiff_t row) {
    const std::ptrdiff_t h = row % target.size[1];
    const std::ptrdiff_t d = row / target.size[1] % target.size[0];
    for (std::ptrdiff_t w = 0; w < target.size[2]; ++w) {
      const std::ptrdiff_t offset = (row * target.size[2] + w) * target.channels;
      for (std::ptrdiff_t c = offset; c < offset + target.channels; ++c) {
        const std::ptrdiff_t tap = is_narrow ? taps.data<std::uint8_t>()[c] : taps.data<std::int32_t>()[c];
        const std::ptrdiff_t in_h = tap / axis[2].n_taps;
        const std::ptrdiff_t at_d = source(0, d, in_h / axis[1].n_taps);
        const std::ptrdiff_t at_h = source(1, h, in_h % axis[1].n_taps);
        const std::ptrdiff_t at_w = source(2, w, tap % axis[2].n_taps);
        indices.data<std::int64_t>()[c] = (at_d * axis[1].n_sources + at_h) * axis[2].n_sources + at_w;
      }
    }
  });
  return indices;
}

}  // namespace striate
