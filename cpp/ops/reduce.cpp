// Reductions over any axes: the axes are taken in memory order, merged, and reduced innermost group first, each group as
// (P, R, Q) → (P, Q). Long R is cut into blocks whose results are reduced again: a tree that depends on geometry only.
#include "ops/map.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

// Blocks of R: at least 64 steps, so that partial results are few.
std::ptrdiff_t block_of(std::ptrdiff_t r, std::ptrdiff_t q) {
  const std::ptrdiff_t block = std::max<std::ptrdiff_t>(64, kGrain / 4 / q);
  return r < 2 * block ? r : block;
}

// x (P, R, Q), of which Q are neighbours and rows of them `row` apart → y dense (P, Q).
void reduce_axis(ReduceFn fn, DType dtype, std::ptrdiff_t p, std::ptrdiff_t r, std::ptrdiff_t q, const std::byte* x,
                 std::ptrdiff_t row, std::byte* y) {
  const std::ptrdiff_t item = item_bytes(dtype);
  const Partition r_parts(r, block_of(r, q));
  const Partition q_parts(q, q > 8192 ? 4096 : q);
  const std::ptrdiff_t block = r_parts.part * q_parts.part;
  const Partition p_parts(p, std::max<std::ptrdiff_t>(1, kGrain / block));
  Array partial;
  std::byte* out = y;
  if (r_parts.n_parts > 1) {
    partial = Array::empty(dtype, {p, r_parts.n_parts, q});
    out = partial.bytes();
  }
  const std::ptrdiff_t tile_size = std::min(p_parts.part, p) * block;
  const Partition tasks(p_parts.n_parts * r_parts.n_parts * q_parts.n_parts,
                        kGrain / std::max<std::ptrdiff_t>(tile_size, 1));
  const auto reduce_tile = [&](std::ptrdiff_t tile) {
    const std::ptrdiff_t q_part = tile % q_parts.n_parts;
    const std::ptrdiff_t r_part = tile / q_parts.n_parts % r_parts.n_parts;
    const std::ptrdiff_t p_part = tile / (q_parts.n_parts * r_parts.n_parts);
    const std::ptrdiff_t p0 = p_parts.begin(p_part);
    const std::ptrdiff_t q0 = q_parts.begin(q_part);
    fn(ReduceRun{.p = p_parts.end(p_part) - p0,
                 .r = r_parts.end(r_part) - r_parts.begin(r_part),
                 .q = q_parts.end(q_part) - q0,
                 .x = x + ((p0 * r + r_parts.begin(r_part)) * row + q0) * item,
                 .x_p = r * row,
                 .x_r = row,
                 .y = out + ((p0 * r_parts.n_parts + r_part) * q + q0) * item,
                 .y_p = r_parts.n_parts * q});
  };
  parallel_for(tasks.n_parts, [&](std::ptrdiff_t task) {
    for (std::ptrdiff_t tile = tasks.begin(task); tile < tasks.end(task); ++tile) {
      reduce_tile(tile);
    }
  });
  if (r_parts.n_parts > 1) {
    reduce_axis(fn, dtype, p, r_parts.n_parts, q, out, q, y);
  }
}

}  // namespace

unsigned reduced_axes(const char* op, const Array& x, std::span<const int> dims) {
  if (dims.empty()) {
    return (1U << x.rank()) - 1U;
  }
  unsigned axes = 0;
  for (const int dim : dims) {
    const int axis = dim < 0 ? dim + x.rank() : dim;
    check((axis >= 0 && axis < x.rank()) || (x.rank() == 0 && (dim == 0 || dim == -1)), op, ": expected dim from ",
          -x.rank(), " to ", x.rank() - 1, " for shape ", x.shape(), ", got ", dim, "; name an existing axis");
    if (x.rank() > 0) {
      check((axes >> axis & 1U) == 0, op, ": expected each axis once, got ", dim, " again; name an axis once");
      axes |= 1U << axis;
    }
  }
  return axes;
}

Array reduce(int op, const Array& x, std::span<const int> dims, bool keepdim) {
  constexpr const char* names[] = {"sum", "prod", "max", "min"};
  const char* name = names[op];
  const bool accumulates = op <= static_cast<int>(ReduceOp::prod);
  const unsigned axes = reduced_axes(name, x, dims);
  check<DTypeError>(x.dtype() != DType::float16 && x.dtype() != DType::bfloat16, name,
                    ": expected float32, float64, an integer type or bool, got ", dtype_name(x.dtype()),
                    "; convert with .to(float32)");
  const DType computed = is_floating(x.dtype()) ? x.dtype() : DType::int64;
  const DType result_dtype = accumulates ? computed : x.dtype();

  Extents kept_shape(x.rank(), 1);
  for (int axis = 0; axis < x.rank(); ++axis) {
    if ((axes >> axis & 1U) == 0) {
      kept_shape[axis] = x.shape(axis);
    }
  }
  const std::ptrdiff_t n_kept = kept_shape.product();
  check(accumulates || x.size() > 0 || n_kept == 0, name, ": expected at least one element, got shape ", x.shape(),
        "; an empty tensor has no ", name);

  // Dense and in the computing type, in its own memory order. Or evenly spaced rows of what is kept, as a slice of an
  // image's channels is.
  const Array* const self[] = {&x};
  Array dense = x;
  const StridedLoop loop = make_loop(self);
  const bool is_dense = loop.rank == 1 && (loop.size <= 1 || loop.step(0) == 1);
  bool is_rows = loop.rank == 2 && loop.step(0) == 1 && loop.row(0) > loop.n() && n_kept == loop.n();
  for (int axis = 0; axis < x.rank(); ++axis) {
    is_rows = is_rows && (kept_shape[axis] == 1 || x.stride(axis) * x.shape(axis) <= loop.n());
  }
  if (x.dtype() != computed || (!is_dense && !is_rows)) {
    dense = x.dtype() == computed ? clone(x) : convert(x, computed);
    is_rows = false;
  }

  // Axes of `dense` in memory order, neighbours of one kind merged.
  struct Group {
    std::ptrdiff_t size;
    bool is_reduced;
  };
  std::vector<int> order;
  for (int axis = 0; axis < dense.rank(); ++axis) {
    if (dense.shape(axis) != 1) {
      order.push_back(axis);
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return dense.stride(a) > dense.stride(b); });
  std::vector<Group> groups;
  for (const int axis : order) {
    const bool is_reduced = (axes >> axis & 1U) != 0;
    if (!groups.empty() && groups.back().is_reduced == is_reduced) {
      groups.back().size *= dense.shape(axis);
    } else {
      groups.push_back({dense.shape(axis), is_reduced});
    }
  }

  // The result, laid out as x without its reduced axes.
  Extents strides(x.rank(), 1);
  std::ptrdiff_t step = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    const int axis = order[i];
    strides[axis] = step;
    step *= kept_shape[axis];
  }
  Array y = Array::view(Array::empty(computed, {n_kept}).storage_ref(), computed, kept_shape, strides, 0);

  if (x.size() == 0) {
    const Array neutral = Array::empty(DType::int64, {});
    *neutral.data<std::int64_t>() = op == static_cast<int>(ReduceOp::prod) ? 1 : 0;
    copy_into(y, neutral);
  } else {
    const int type = computed == DType::float32 ? 0 : computed == DType::float64 ? 1 : 2;
    const ReduceFn fn = kernels().reductions.reduce[op][type];
    const std::byte* from = dense.bytes();
    Array held;
    std::ptrdiff_t q = 1;
    bool is_done = false;
    for (std::size_t i = groups.size(); i-- > 0;) {
      if (!groups[i].is_reduced) {
        q *= groups[i].size;
        continue;
      }
      std::ptrdiff_t p = 1;
      bool is_last = true;
      for (std::size_t j = 0; j < i; ++j) {
        p *= groups[j].size;
        is_last = is_last && !groups[j].is_reduced;
      }
      Array stage = is_last ? y : Array::empty(computed, {p * q});
      reduce_axis(fn, computed, p, groups[i].size, q, from, is_rows ? loop.row(0) : q, stage.bytes());
      held = stage;
      from = held.bytes();
      is_done = true;
    }
    if (!is_done) {
      copy_into(y, dense);
    }
  }

  if (!keepdim) {
    Extents shape;
    Extents kept_strides;
    for (int axis = 0; axis < x.rank(); ++axis) {
      if ((axes >> axis & 1U) == 0) {
        shape.push_back(x.shape(axis));
        kept_strides.push_back(y.stride(axis));
      }
    }
    y = Array::view(y.storage_ref(), computed, shape, kept_strides, 0);
  }
  if (y.rank() <= 2 && !y.is_dense(Layout::row_major)) {
    Array row_major = Array::empty(computed, y.shape());
    copy_into(row_major, y);
    y = row_major;
  }
  return result_dtype == computed ? y : convert(y, result_dtype);
}

namespace {

Array divided(const Array& x, std::ptrdiff_t n) {
  static const int op = find_map_op("div");
  const Array count = Array::empty(DType::float64, {});
  *count.data<double>() = static_cast<double>(n);
  const Array divisor = convert(count, x.dtype());
  const Array* const operands[] = {&x, &divisor};
  return map(op, operands);
}

}  // namespace

Array mean(const Array& x, std::span<const int> dims, bool keepdim) {
  check<DTypeError>(x.dtype() == DType::float32 || x.dtype() == DType::float64, "mean: expected float32 or float64, got ",
                    dtype_name(x.dtype()), "; convert with .to(float32)");
  const unsigned axes = reduced_axes("mean", x, dims);
  std::ptrdiff_t n = 1;
  for (int axis = 0; axis < x.rank(); ++axis) {
    n *= (axes >> axis & 1U) != 0 ? x.shape(axis) : 1;
  }
  return divided(reduce(static_cast<int>(ReduceOp::sum), x, dims, keepdim), n);
}

Array mean_grad(const Array& grad_y, const Extents& kept, const Extents& shape) {
  std::ptrdiff_t n = 1;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    n *= kept[axis] == shape[axis] ? 1 : shape[axis];
  }
  return reshape(divided(grad_y, n), kept).broadcast_to(shape);
}

}  // namespace striate
