#include "ops/map.hpp"

namespace striate {
namespace {

struct Axes {
  int rank = 0;
  int axis[kMaxRank] = {};
};

// Axes of x of more than one element, from the slowest to the fastest in memory; equal strides keep logical order.
Axes memory_order(const Array& x) {
  Axes axes;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (x.shape(axis) != 1) {
      int at = axes.rank++;
      for (; at > 0 && x.stride(axes.axis[at - 1]) < x.stride(axis); --at) {
        axes.axis[at] = axes.axis[at - 1];
      }
      axes.axis[at] = axis;
    }
  }
  return axes;
}

// No gaps, in some order of axes.
bool is_dense_in_memory(const Array& x) {
  const Axes axes = memory_order(x);
  std::ptrdiff_t step = 1;
  for (int i = axes.rank - 1; i >= 0; --i) {
    if (x.stride(axes.axis[i]) != step) {
      return false;
    }
    step *= x.shape(axes.axis[i]);
  }
  return true;
}

}  // namespace

StridedLoop make_loop(std::span<const Array* const> operands) {
  StridedLoop loop;
  loop.n_operands = static_cast<int>(operands.size());
  const Array& model = *operands[0];
  loop.size = model.size();
  const Axes axes = memory_order(model);
  for (int i = 0; i < axes.rank; ++i) {
    const int axis = axes.axis[i];
    bool merges = loop.rank > 0;
    for (int k = 0; merges && k < loop.n_operands; ++k) {
      const Array& x = *operands[static_cast<std::size_t>(k)];
      merges = loop.stride[k][loop.rank - 1] == x.stride(axis) * x.shape(axis);
    }
    if (!merges) {
      loop.shape[loop.rank++] = 1;
    }
    loop.shape[loop.rank - 1] *= model.shape(axis);
    for (int k = 0; k < loop.n_operands; ++k) {
      loop.stride[k][loop.rank - 1] = operands[static_cast<std::size_t>(k)]->stride(axis);
    }
  }
  if (loop.rank == 0) {
    loop.rank = 1;
    loop.shape[0] = 1;
    for (int k = 0; k < loop.n_operands; ++k) {
      loop.stride[k][0] = 1;
    }
  }
  return loop;
}

Array empty_for(DType dtype, const Extents& shape, std::span<const Array* const> operands) {
  const Array* ambiguous = nullptr;
  for (const Array* x : operands) {
    if (x->shape() == shape && is_dense_in_memory(*x)) {
      return Array::empty_like(dtype, *x);
    }
    if (x->rank() == shape.rank() && x->rank() >= 3 && !x->is_dense(Layout::row_major)) {
      ambiguous = x;
    }
  }
  const bool has_images = shape.rank() == 4 || shape.rank() == 5;
  return Array::empty(dtype, shape, has_images || ambiguous != nullptr ? Layout::channels_last : Layout::row_major);
}

Extents broadcast_shape(const char* op, std::span<const Array* const> operands) {
  int rank = 0;
  for (const Array* x : operands) {
    rank = std::max(rank, x->rank());
  }
  Extents shape(rank, 1);
  for (const Array* x : operands) {
    for (int axis = 0; axis < x->rank(); ++axis) {
      std::ptrdiff_t& extent = shape[axis + rank - x->rank()];
      if (x->shape(axis) != 1 && x->shape(axis) != extent) {
        if (extent != 1) {
          std::string shapes;
          for (const Array* y : operands) {
            shapes += (shapes.empty() ? "" : " and ") + to_string(y->shape());
          }
          throw ShapeError(text(op, ": expected shapes that broadcast, got ", shapes,
                                "; sizes must be equal or 1, aligned at the last axis"));
        }
        extent = x->shape(axis);
      }
    }
  }
  return shape;
}

}  // namespace striate
