// Reading and adding at positions that a tensor of integers names.
#include <algorithm>
#include <atomic>
#include <limits>
#include <type_traits>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/shape.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kItems = 16 * 1024;  // elements of one task

template <class F>
decltype(auto) dispatch_number(const char* op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32:
      return f(float{});
    case DType::float64:
      return f(double{});
    case DType::int32:
      return f(std::int32_t{});
    case DType::int64:
      return f(std::int64_t{});
    default:
      throw DTypeError(
          text(op, ": expected float32, float64, int32 or int64, got ", dtype_name(dtype), "; convert with .to(float32)"));
  }
}

// Indices as a dense row-major list of int64, each in [0, n); negative ones count from the end when `wraps`.
class Indices {
 public:
  Indices(const char* op, const Array& index, std::ptrdiff_t n, bool wraps) : values_(index.size()) {
    check<DTypeError>(index.dtype() == DType::int64 || index.dtype() == DType::int32, op,
                      ": expected an index of dtype int64, got ", dtype_name(index.dtype()), "; convert with .to(int64)");
    if (index.size() == 0) {
      return;
    }
    if (index.dtype() == DType::int64) {
      const Array dense = Array::view(StorageRef(Storage::borrow(values_.data(), index.size() * 8, false, nullptr)),
                                      DType::int64, index.shape(), dense_strides(index.shape(), Layout::row_major), 0);
      copy_into(dense, index);
    } else {
      const Array dense = Array::empty(DType::int32, index.shape());
      copy_into(dense, index);
      std::copy_n(dense.data<std::int32_t>(), index.size(), values_.data());
    }
    for (std::ptrdiff_t i = 0; i < index.size(); ++i) {
      std::int64_t& value = values_[i];
      check<std::out_of_range>(value < n && value >= (wraps ? -n : 0), op, ": expected an index from ", wraps ? -n : 0,
                               " to ", n - 1, ", got ", value, " at position ", i, "; check the index");
      value += value < 0 ? n : 0;
    }
  }
  [[nodiscard]] const std::int64_t* data() const { return values_.data(); }

 private:
  Buffer<std::int64_t> values_;
};

// Walks positions of `shape` in row-major order and keeps the element offset of one strided operand.
class Walk {
 public:
  Walk(const Extents& shape, const Extents& strides, std::ptrdiff_t position) : shape_(shape), strides_(strides) {
    at_ = Extents(shape.rank(), 0);
    for (int a = shape.rank() - 1; a >= 0; --a) {
      at_[a] = position % shape[a];
      position /= shape[a];
      offset_ += at_[a] * strides[a];
    }
  }
  [[nodiscard]] std::ptrdiff_t offset() const { return offset_; }
  void next() {
    for (int a = shape_.rank() - 1; a >= 0; --a) {
      offset_ += strides_[a];
      if (++at_[a] < shape_[a]) {
        return;
      }
      offset_ -= strides_[a] * shape_[a];
      at_[a] = 0;
    }
  }

 private:
  Extents shape_;
  Extents strides_;
  Extents at_;
  std::ptrdiff_t offset_ = 0;
};

Extents without(const Extents& all, int axis) {
  Extents rest;
  for (int a = 0; a < all.rank(); ++a) {
    if (a != axis) {
      rest.push_back(all[a]);
    }
  }
  return rest;
}

int checked_gather(const char* op, const Extents& shape, const Extents& index_shape, int dim) {
  const int rank = shape.rank();
  check<std::out_of_range>(dim >= -rank && dim < rank, op, ": expected dim from ", -rank, " to ", rank - 1, ", got ", dim,
                           "; check the number of axes");
  const int axis = dim < 0 ? dim + rank : dim;
  bool fits = index_shape.rank() == rank;
  for (int a = 0; fits && a < rank; ++a) {
    fits = a == axis || index_shape[a] <= shape[a];
  }
  check(fits, op, ": expected an index no larger than ", shape, " except at axis ", axis, ", got ", index_shape,
        "; index has the shape of the result");
  return axis;
}

template <class T>
void gather_items(const Array& x, const std::int64_t* index, const Array& y, int axis) {
  // With the axis itself at stride 0, an element is its walk's offset plus index · stride.
  Extents strides = x.strides();
  strides[axis] = 0;
  const std::ptrdiff_t step = x.stride(axis);
  const Partition parts(y.size(), kItems);
  const T* from = x.data<T>();
  T* to = y.data<T>();
  parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
    Walk walk(y.shape(), strides, parts.begin(part));
    for (std::ptrdiff_t i = parts.begin(part); i < parts.end(part); ++i, walk.next()) {
      to[i] = from[walk.offset() + index[i] * step];
    }
  });
}

// What indexing with k integer tensors of one shape over the first k axes needs.
struct Rows {
  Extents positions;  // shape of the index tensors
  Extents rest;       // shape of what each position names
  std::ptrdiff_t n_positions;
  std::ptrdiff_t rest_size;
  Buffer<std::ptrdiff_t> row;  // [n_positions] element offset in an operand of the given strides

  Rows(const char* op, const Extents& shape, const Extents& strides, std::span<const Array> indices)
      : positions(indices.empty() ? Extents{} : indices[0].shape()),
        n_positions(positions.product()),
        rest_size(1),
        row(n_positions) {
    const int k = static_cast<int>(indices.size());
    check(k >= 1 && k <= shape.rank(), op, ": expected 1 to ", shape.rank(), " index tensors for shape ", shape, ", got ", k,
          "; index fewer axes");
    for (int a = k; a < shape.rank(); ++a) {
      rest.push_back(shape[a]);
      rest_size *= shape[a];
    }
    std::fill_n(row.data(), n_positions, 0);
    for (int a = 0; a < k; ++a) {
      const Array& index = indices[static_cast<std::size_t>(a)];
      check(index.shape() == positions, op, ": expected index tensors of one shape ", positions, ", got ", index.shape(),
            "; broadcast them first");
      const Indices values(op, index, shape[a], true);
      for (std::ptrdiff_t i = 0; i < n_positions; ++i) {
        row[i] += values.data()[i] * strides[a];
      }
    }
  }
  [[nodiscard]] Extents result_shape() const {
    Extents shape = positions;
    for (const std::ptrdiff_t n : rest) {
      shape.push_back(n);
    }
    return shape;
  }
};

Extents tail(const Extents& all, int rank) { return Extents(std::span<const std::ptrdiff_t>(all.end() - rank, all.end())); }

}  // namespace

Array gather(const Array& x, const Array& index, int dim) {
  const int axis = checked_gather("gather", x.shape(), index.shape(), dim);
  const Array y = Array::empty(x.dtype(), index.shape());
  const Indices values("gather", index, x.shape(axis), false);
  switch (item_bytes(x.dtype())) {
    case 1:
      gather_items<std::uint8_t>(x, values.data(), y, axis);
      break;
    case 2:
      gather_items<std::uint16_t>(x, values.data(), y, axis);
      break;
    case 4:
      gather_items<std::uint32_t>(x, values.data(), y, axis);
      break;
    default:
      gather_items<std::uint64_t>(x, values.data(), y, axis);
  }
  return y;
}

// Lines along the axis are the tasks: whatever collides lies in one line and is added in the order of the index.
Array scatter_add(const Array& src, const Array& index, const Extents& shape, int dim) {
  const int axis = checked_gather("scatter_add", shape, index.shape(), dim);
  check(src.shape() == index.shape(), "scatter_add: expected src and index of one shape, got ", src.shape(), " and ",
        index.shape(), "; index names the place of each element of src");
  const Array y = Array::empty(src.dtype(), shape);
  fill_zero(y);
  const Indices values("scatter_add", index, shape[axis], false);
  const std::ptrdiff_t n = index.shape(axis);
  const Extents lines = without(index.shape(), axis);
  const Extents index_strides = dense_strides(index.shape(), Layout::row_major);
  if (src.size() == 0) {
    return y;
  }
  dispatch_number("scatter_add", src.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Partition parts(lines.product(), std::max<std::ptrdiff_t>(kItems / n, 1));
    parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
      Walk at_src(lines, without(src.strides(), axis), parts.begin(part));
      Walk at_index(lines, without(index_strides, axis), parts.begin(part));
      Walk at_y(lines, without(y.strides(), axis), parts.begin(part));
      for (std::ptrdiff_t line = parts.begin(part); line < parts.end(part); ++line) {
        const T* from = src.data<T>() + at_src.offset();
        const std::int64_t* to = values.data() + at_index.offset();
        T* out = y.data<T>() + at_y.offset();
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          T& cell = out[to[i * index_strides[axis]] * y.stride(axis)];
          cell = static_cast<T>(cell + from[i * src.stride(axis)]);
        }
        at_src.next();
        at_index.next();
        at_y.next();
      }
    });
  });
  return y;
}

Array index_rows(const Array& x, std::span<const Array> indices) {
  const Rows rows("index", x.shape(), x.strides(), indices);
  const Array y = Array::empty(x.dtype(), rows.result_shape());
  if (y.size() == 0) {
    return y;
  }
  const Extents rest_strides = tail(x.strides(), rows.rest.rank());
  const Extents dense = dense_strides(rows.rest, Layout::row_major);
  const bool is_run = Array::view(x.storage_ref(), x.dtype(), rows.rest, rest_strides, 0).is_dense(Layout::row_major);
  const std::ptrdiff_t item = item_bytes(x.dtype());
  if (is_run || rows.rest_size < kItems) {
    const Partition parts(rows.n_positions, std::max<std::ptrdiff_t>(kItems / rows.rest_size, 1));
    parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
      for (std::ptrdiff_t i = parts.begin(part); i < parts.end(part); ++i) {
        const std::byte* from = x.bytes() + rows.row[i] * item;
        std::byte* to = y.bytes() + i * rows.rest_size * item;
        if (is_run) {
          std::copy_n(from, rows.rest_size * item, to);
          continue;
        }
        Walk walk(rows.rest, rest_strides, 0);
        for (std::ptrdiff_t j = 0; j < rows.rest_size; ++j, walk.next()) {
          std::copy_n(from + walk.offset() * item, item, to + j * item);
        }
      }
    });
    return y;
  }
  for (std::ptrdiff_t i = 0; i < rows.n_positions; ++i) {
    copy_into(Array::view(y.storage_ref(), y.dtype(), rows.rest, dense, i * rows.rest_size),
              Array::view(x.storage_ref(), x.dtype(), rows.rest, rest_strides, x.offset() + rows.row[i]));
  }
  return y;
}

// Columns of the rest are the tasks: each task adds all positions in order, so equal indices never race.
Array index_add(const Array& grad_y, std::span<const Array> indices, const Extents& shape) {
  const Array y = Array::empty(grad_y.dtype(), shape);
  const Rows rows("index_add", shape, y.strides(), indices);
  check(grad_y.shape() == rows.result_shape(), "index_add: expected a source of shape ", rows.result_shape(), ", got ",
        grad_y.shape(), "; it has the shape of the indices, then the axes that are not indexed");
  fill_zero(y);
  if (grad_y.size() == 0) {
    return y;
  }
  Array source = grad_y;
  if (!grad_y.is_dense(Layout::row_major)) {
    source = Array::empty(grad_y.dtype(), grad_y.shape());
    copy_into(source, grad_y);
  }
  dispatch_number("index_add", grad_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Partition columns(rows.rest_size, 256);
    parallel_for(columns.n_parts, [&](std::ptrdiff_t part) {
      const std::ptrdiff_t n = columns.end(part) - columns.begin(part);
      for (std::ptrdiff_t i = 0; i < rows.n_positions; ++i) {
        T* __restrict to = y.data<T>() + rows.row[i] + columns.begin(part);
        const T* __restrict from = source.data<T>() + i * rows.rest_size + columns.begin(part);
        for (std::ptrdiff_t j = 0; j < n; ++j) {
          to[j] = static_cast<T>(to[j] + from[j]);
        }
      }
    });
  });
  return y;
}

Array nonzero(const Array& mask) {
  check<DTypeError>(mask.dtype() == DType::boolean, "index: expected a mask of dtype bool, got ", dtype_name(mask.dtype()),
                    "; compare first, or convert with .to(bool)");
  const Array dense = Array::empty(DType::boolean, mask.shape());
  copy_into(dense, mask);
  const auto* is_set = dense.data<std::uint8_t>();
  const std::ptrdiff_t count = std::count_if(is_set, is_set + dense.size(), [](std::uint8_t v) { return v != 0; });
  const Array y = Array::empty(DType::int64, {mask.rank(), count});
  std::ptrdiff_t found = 0;
  for (std::ptrdiff_t i = 0; i < dense.size(); ++i) {
    if (is_set[i] == 0) {
      continue;
    }
    std::ptrdiff_t position = i;
    for (int a = mask.rank() - 1; a >= 0; --a) {
      y.data<std::int64_t>()[a * count + found] = position % mask.shape(a);
      position /= mask.shape(a);
    }
    ++found;
  }
  return y;
}

Array one_hot(const Array& x, std::ptrdiff_t n_classes) {
  const Indices values("one_hot", x, n_classes < 0 ? std::numeric_limits<std::ptrdiff_t>::max() : n_classes, false);
  if (n_classes < 0) {
    check(x.size() > 0, "one_hot: expected at least one element to find the number of classes, got ", x.shape(),
          "; pass num_classes");
    n_classes = *std::max_element(values.data(), values.data() + x.size()) + 1;
  }
  Extents shape = x.shape();
  shape.push_back(n_classes);
  const Array y = Array::empty(DType::int64, shape);
  fill_zero(y);
  for (std::ptrdiff_t i = 0; i < x.size(); ++i) {
    y.data<std::int64_t>()[i * n_classes + values.data()[i]] = 1;
  }
  return y;
}

}  // namespace striate
