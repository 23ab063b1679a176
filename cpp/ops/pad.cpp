// Padding by a constant: y[i] = x[i − begin] inside, value outside. A negative count crops, so the gradient is a pad as
// well.
#include <algorithm>

#include "ops/map.hpp"
#include "ops/shape.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

template <class T>
Array constant(double value, DType dtype) {
  const Array x = Array::empty(dtype, {});
  *x.data<T>() = static_cast<T>(value);
  return x;
}

Array constant_of(DType dtype, double value) {
  switch (dtype) {
    case DType::float32:
      return constant<float>(value, dtype);
    case DType::float64:
      return constant<double>(value, dtype);
    case DType::int32:
      return constant<std::int32_t>(value, dtype);
    case DType::int64:
      return constant<std::int64_t>(value, dtype);
    case DType::int8:
      return constant<std::int8_t>(value, dtype);
    case DType::uint8:
      return constant<std::uint8_t>(value, dtype);
    case DType::boolean:
      return constant<std::uint8_t>(value != 0 ? 1 : 0, dtype);
    default:
      throw DTypeError(text("pad: expected a dtype that computes, got ", dtype_name(dtype), "; convert with .to(float32)"));
  }
}

}  // namespace

Array pad(const Array& x, const Extents& begin, const Extents& end, double value) {
  check(begin.rank() == x.rank() && end.rank() == x.rank(), "pad: expected a (begin, end) pair per axis of shape ",
        x.shape(), ", got ", begin.rank(), "; pass 0 for axes to keep");
  Extents shape;
  Extents size;  // of what x and y share
  std::ptrdiff_t from = x.offset();
  for (int axis = 0; axis < x.rank(); ++axis) {
    constexpr std::ptrdiff_t kMost = std::ptrdiff_t{1} << 60;  // beyond it sizes could overflow
    check(std::max(begin[axis], end[axis]) < kMost && std::min(begin[axis], end[axis]) > -kMost,
          "pad: expected counts between -2^60 and 2^60, got (", begin[axis], ", ", end[axis], ") on axis ", axis,
          "; use smaller ones");
    const std::ptrdiff_t padded = x.shape(axis) + begin[axis] + end[axis];
    check(padded >= 0, "pad: expected an output of at least size 0, got ", padded, " on axis ", axis, " of shape ",
          x.shape(), "; crop less");
    shape.push_back(padded);
    size.push_back(std::max<std::ptrdiff_t>(
        x.shape(axis) - std::max<std::ptrdiff_t>(-begin[axis], 0) - std::max<std::ptrdiff_t>(-end[axis], 0), 0));
    from += std::max<std::ptrdiff_t>(-begin[axis], 0) * x.stride(axis);
  }
  const Array y = Array::empty(x.dtype(), shape, layout_of(x));
  std::ptrdiff_t to = y.offset();
  for (int axis = 0; axis < x.rank(); ++axis) {
    to += std::max<std::ptrdiff_t>(begin[axis], 0) * y.stride(axis);
  }
  if (size != shape) {
    copy_into(y, constant_of(x.dtype(), value));
  }
  if (size.product() > 0) {
    copy_into(Array::view(y.storage_ref(), y.dtype(), size, y.strides(), to),
              Array::view(x.storage_ref(), x.dtype(), size, x.strides(), from));
  }
  return y;
}

}  // namespace striate
