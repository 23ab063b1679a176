// Ops that move elements and compute nothing: views where strides allow, else one strided copy.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/shape.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kZeroBytes = 256 * 1024;  // of one task

int axis_of(const char* op, int dim, int rank) {
  check<std::out_of_range>(dim >= -rank && dim < rank, op, ": expected dim from ", -rank, " to ", rank - 1,
                           " for a tensor of ", rank, " axes, got ", dim, "; check the number of axes");
  return dim < 0 ? dim + rank : dim;
}

Array part(const Array& x, int axis, std::ptrdiff_t begin, std::ptrdiff_t size) {
  Extents shape = x.shape();
  shape[axis] = size;
  return Array::view(x.storage_ref(), x.dtype(), shape, x.strides(), x.offset() + begin * x.stride(axis));
}

// Dense, of another shape, its axes in memory in the order of those of `model` (same rank).
Array empty_ordered(const Extents& shape, const Array& model) {
  int order[kMaxRank];
  for (int axis = 0; axis < shape.rank(); ++axis) {
    order[axis] = axis;
  }
  std::stable_sort(order, order + shape.rank(), [&](int a, int b) {
    return model.shape(a) > 1 && model.shape(b) > 1 && model.stride(a) > model.stride(b);
  });
  Array y = Array::empty(model.dtype(), shape);
  Extents strides(shape.rank(), 0);
  std::ptrdiff_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[order[i]] = step;
    step *= shape[order[i]];
  }
  return Array::view(y.storage_ref(), y.dtype(), shape, strides, 0);
}

void check_slice(const char* op, const Extents& shape, const Extents& begin, const Extents& size, const Extents& step) {
  check(begin.rank() == shape.rank() && size.rank() == shape.rank() && step.rank() == shape.rank(), op,
        ": expected a begin, size and step for each axis of ", shape, ", got ", begin.rank(), ", ", size.rank(), " and ",
        step.rank(), "; name every axis");
  for (int axis = 0; axis < shape.rank(); ++axis) {
    check(step[axis] >= 1 && size[axis] >= 0 && begin[axis] >= 0 &&
              (size[axis] == 0 || begin[axis] + (size[axis] - 1) * step[axis] < shape[axis]),
          op, ": expected a range inside axis ", axis, " of ", shape, ", got begin ", begin[axis], ", size ", size[axis],
          ", step ", step[axis], "; shorten the slice");
  }
}

// Where all tensors lie as y does, each of its rows is one run of each of them; false where they do not, or where rows are
// so long that tensors are better copied one after another.
bool join_rows(const Array& y, int axis, std::span<const Array> tensors) {
  const std::ptrdiff_t n_row = y.stride(axis) * y.shape(axis);
  if (y.size() == 0 || n_row > kGrain / 2) {
    return false;
  }
  const std::ptrdiff_t item = item_bytes(y.dtype());
  std::vector<const std::byte*> x;
  std::vector<std::ptrdiff_t> n_bytes;
  bool has_whole_lines = true;
  for (const Array& tensor : tensors) {
    if (!tensor.is_dense(layout_of(y))) {
      return false;
    }
    x.push_back(tensor.bytes());
    n_bytes.push_back(y.stride(axis) * tensor.shape(axis) * item);
    has_whole_lines = has_whole_lines && n_bytes.back() % static_cast<std::ptrdiff_t>(kAlignment) == 0;
  }
  const bool streams = has_whole_lines && y.size() * item > kStreamBytes;
  const Partition rows(y.size() / n_row, kGrain / 2 / n_row);
  parallel_for(rows.n_parts, [&](std::ptrdiff_t part) {
    kernels().maps.join(rows.begin(part), rows.end(part), static_cast<std::ptrdiff_t>(x.size()), x.data(), n_bytes.data(),
                        y.bytes(), streams);
  });
  return true;
}

Array strided_part(const Array& x, const Extents& begin, const Extents& size, const Extents& step) {
  Extents strides = x.strides();
  std::ptrdiff_t offset = x.offset();
  for (int axis = 0; axis < x.rank(); ++axis) {
    offset += size[axis] > 0 ? begin[axis] * strides[axis] : 0;
    strides[axis] *= step[axis];
  }
  return Array::view(x.storage_ref(), x.dtype(), size, strides, offset);
}

}  // namespace

void fill_zero(const Array& dense) {
  const Partition parts(dense.size() * item_bytes(dense.dtype()), kZeroBytes);
  std::byte* data = dense.bytes();
  parallel_for(parts.n_parts, [&](std::ptrdiff_t i) {
    std::memset(data + parts.begin(i), 0, static_cast<std::size_t>(parts.end(i) - parts.begin(i)));
  });
}

Layout layout_of(const Array& x) {
  if (x.rank() < 3 || x.rank() > 5) {
    return Layout::row_major;
  }
  if (x.is_dense(Layout::row_major)) {
    // Both at once (one channel, or one pixel): images are rank 4 and 5.
    return x.rank() > 3 && x.is_dense(Layout::channels_last) ? Layout::channels_last : Layout::row_major;
  }
  return x.is_dense(Layout::channels_last) || (x.shape(1) > 1 && x.stride(1) == 1) ? Layout::channels_last
                                                                                   : Layout::row_major;
}

Array reshape(const Array& x, const Extents& shape, bool to_channels_last) {
  check(shape.product() == x.size() && std::all_of(shape.begin(), shape.end(), [](std::ptrdiff_t n) { return n >= 0; }),
        "reshape: expected a shape of ", x.size(), " elements as in ", x.shape(), ", got ", shape,
        "; use -1 for one size to be worked out");
  Array y;
  if (x.try_reshape(shape, y) && (!to_channels_last || layout_of(y) == Layout::channels_last)) {
    return y;
  }
  y = Array::empty(x.dtype(), shape, to_channels_last ? Layout::channels_last : Layout::row_major);
  Array as_x;
  if (y.try_reshape(x.shape(), as_x)) {
    copy_into(as_x, x);
  } else if (x.try_reshape(shape, as_x)) {
    copy_into(y, as_x);
  } else {
    copy_into(y, reshape(x, shape, false));
  }
  return y;
}

Array slice(const Array& x, const Extents& begin, const Extents& size, const Extents& step) {
  check_slice("slice", x.shape(), begin, size, step);
  return strided_part(x, begin, size, step);
}

Array slice_grad(const Array& grad_y, const Extents& shape, const Extents& begin, const Extents& step) {
  check(grad_y.rank() == shape.rank(), "slice_grad: expected a gradient of ", shape.rank(), " axes, got ", grad_y.shape(),
        "; pass the gradient of the slice");
  check_slice("slice_grad", shape, begin, grad_y.shape(), step);
  const Array grad_x = empty_ordered(shape, grad_y);
  fill_zero(grad_x);
  copy_into(strided_part(grad_x, begin, grad_y.shape(), step), grad_y);
  return grad_x;
}

std::vector<Array> split(const Array& x, std::span<const std::ptrdiff_t> sizes, int dim) {
  const int axis = axis_of("split", dim, x.rank());
  std::vector<Array> pieces;
  std::ptrdiff_t begin = 0;
  for (const std::ptrdiff_t size : sizes) {
    check(size >= 0, "split: expected sizes of at least 0, got ", size, "; check split_size");
    if (begin + size <= x.shape(axis)) {
      pieces.push_back(part(x, axis, begin, size));
    }
    begin += size;
  }
  check(begin == x.shape(axis), "split: expected sizes that add up to axis ", axis, " of ", x.shape(), ", got a sum of ",
        begin, "; check split_size");
  return pieces;
}

Array concat(std::span<const Array> tensors, int dim) {
  check(!tensors.empty(), "concat: expected at least one tensor, got none; check the list");
  const Array& first = tensors[0];
  const int axis = axis_of("concat", dim, first.rank());
  Extents shape = first.shape();
  const Array* largest = &first;
  shape[axis] = 0;
  for (const Array& x : tensors) {
    check<DTypeError>(x.dtype() == first.dtype(), "concat: expected tensors of dtype ", dtype_name(first.dtype()), ", got ",
                      dtype_name(x.dtype()), "; convert with .to(...)");
    bool fits = x.rank() == first.rank();
    for (int a = 0; fits && a < x.rank(); ++a) {
      fits = a == axis || x.shape(a) == shape[a];
    }
    check(fits, "concat: expected shapes equal to ", first.shape(), " except at axis ", axis, ", got ", x.shape(),
          "; reshape or pad it first");
    shape[axis] += x.shape(axis);
    if (x.size() > largest->size()) {
      largest = &x;
    }
  }
  const Array y = Array::empty(first.dtype(), shape, layout_of(*largest));
  if (join_rows(y, axis, tensors)) {
    return y;
  }
  std::ptrdiff_t begin = 0;
  for (const Array& x : tensors) {
    copy_into(part(y, axis, begin, x.shape(axis)), x);
    begin += x.shape(axis);
  }
  return y;
}

Array flip(const Array& x, std::span<const int> dims) {
  Extents strides = x.strides();
  std::ptrdiff_t offset = x.offset();
  for (const int dim : dims) {
    const int axis = axis_of("flip", dim, x.rank());
    check(strides[axis] == x.stride(axis) || x.shape(axis) < 2, "flip: expected each axis once, got ", dim,
          " again; name it once");
    if (x.shape(axis) > 0) {
      offset += (x.shape(axis) - 1) * x.stride(axis);
      strides[axis] = -x.stride(axis);
    }
  }
  Array y = empty_ordered(x.shape(), x);
  copy_into(y, Array::view(x.storage_ref(), x.dtype(), x.shape(), strides, offset));
  return y;
}

// Both directions are one copy between two views of six axes: (N, C, r, r, H, W) and (N, C, H, r, W, r).
Array pixel_shuffle(const Array& x, std::ptrdiff_t factor) {
  const std::ptrdiff_t r = factor;
  check(r >= 1 && x.rank() == 4 && x.shape(1) % (r * r) == 0, "pixel_shuffle: expected a shape (N, C·", r, "², H, W), got ",
        x.shape(), "; check upscale_factor");
  const std::ptrdiff_t n = x.shape(0);
  const std::ptrdiff_t c = x.shape(1) / (r * r);
  const std::ptrdiff_t h = x.shape(2);
  const std::ptrdiff_t w = x.shape(3);
  const Array y = Array::empty(x.dtype(), {n, c, h * r, w * r}, Layout::channels_last);
  const std::ptrdiff_t s = x.stride(1);
  const Array from = Array::view(x.storage_ref(), x.dtype(), {n, c, h, r, w, r},
                                 {x.stride(0), s * r * r, x.stride(2), s * r, x.stride(3), s}, x.offset());
  const Array to = Array::view(y.storage_ref(), y.dtype(), {n, c, h, r, w, r},
                               {y.stride(0), y.stride(1), y.stride(2) * r, y.stride(2), y.stride(3) * r, y.stride(3)}, 0);
  copy_into(to, from);
  return y;
}

Array pixel_unshuffle(const Array& x, std::ptrdiff_t factor) {
  const std::ptrdiff_t r = factor;
  check(r >= 1 && x.rank() == 4 && x.shape(2) % r == 0 && x.shape(3) % r == 0, "pixel_unshuffle: expected a shape (N, C, H·",
        r, ", W·", r, "), got ", x.shape(), "; check downscale_factor");
  const std::ptrdiff_t n = x.shape(0);
  const std::ptrdiff_t c = x.shape(1);
  const std::ptrdiff_t h = x.shape(2) / r;
  const std::ptrdiff_t w = x.shape(3) / r;
  const Array y = Array::empty(x.dtype(), {n, c * r * r, h, w}, Layout::channels_last);
  const std::ptrdiff_t s = y.stride(1);
  const Array from =
      Array::view(x.storage_ref(), x.dtype(), {n, c, h, r, w, r},
                  {x.stride(0), x.stride(1), x.stride(2) * r, x.stride(2), x.stride(3) * r, x.stride(3)}, x.offset());
  const Array to = Array::view(y.storage_ref(), y.dtype(), {n, c, h, r, w, r},
                               {y.stride(0), s * r * r, y.stride(2), s * r, y.stride(3), s}, 0);
  copy_into(to, from);
  return y;
}

Array triangle(const Array& x, std::ptrdiff_t diagonal, bool is_upper) {
  check(x.rank() >= 2, is_upper ? "triu" : "tril", ": expected a tensor of at least 2 axes, got ", x.shape(),
        "; add an axis");
  const Array y = Array::empty(x.dtype(), x.shape());
  copy_into(y, x);
  const std::ptrdiff_t rows = x.shape(x.rank() - 2);
  const std::ptrdiff_t columns = x.shape(x.rank() - 1);
  const std::ptrdiff_t item = item_bytes(x.dtype());
  const std::ptrdiff_t n_rows = columns > 0 ? y.size() / columns : 0;
  const Partition parts(n_rows, std::max<std::ptrdiff_t>(65536 / (columns * item + 1), 1));
  parallel_for(parts.n_parts, [&](std::ptrdiff_t i) {
    for (std::ptrdiff_t row = parts.begin(i); row < parts.end(i); ++row) {
      const std::ptrdiff_t first_above = std::clamp<std::ptrdiff_t>(row % rows + diagonal + (is_upper ? 0 : 1), 0, columns);
      std::byte* begin = y.bytes() + row * columns * item;
      std::fill(is_upper ? begin : begin + first_above * item, begin + (is_upper ? first_above : columns) * item,
                std::byte{0});
    }
  });
  return y;
}

}  // namespace striate
