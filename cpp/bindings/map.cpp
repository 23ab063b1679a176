// Copies, element-wise operators and reductions.
#include "bindings/bindings.hpp"

#include "striate/ops.hpp"

namespace striate {
namespace {

// One Python function per operator, named as in the list, its parameters keywords named there.
template <class... Inputs>
void bind_map_op(py::module_& m, int op) {
  const MapInfo info = map_info(op);
  const auto call = [op](const Inputs&... x, double a, double b) {
    const Array* const inputs[] = {&x...};
    return map(op, inputs, a, b);
  };
  if (info.parameters[0] == nullptr) {
    m.def(info.name, [call](const Inputs&... x) { return call(x..., 0, 0); }, NoGil());
  } else if (info.parameters[1] == nullptr) {
    m.def(
        info.name, [call](const Inputs&... x, double a) { return call(x..., a, 0); },
        (static_cast<void>(sizeof(Inputs)), py::arg())..., py::kw_only(), py::arg(info.parameters[0]), NoGil());
  } else {
    m.def(info.name, call, (static_cast<void>(sizeof(Inputs)), py::arg())..., py::kw_only(), py::arg(info.parameters[0]),
          py::arg(info.parameters[1]), NoGil());
  }
}

// A number as an array of no axes. Numbers are weak: they take the tensor's dtype unless theirs is of a higher category.
Array scalar(const py::object& value, DType like) {
  DType dtype = like;
  if (PyBool_Check(value.ptr())) {
    // keeps `like`
  } else if (PyLong_Check(value.ptr())) {
    dtype = like == DType::boolean ? DType::int64 : like;
  } else {
    dtype = is_floating(like) ? like : DType::float32;
  }
  const Array y = Array::empty(dtype, {});
  if (is_floating(dtype)) {
    const double number = value.cast<double>();
    if (dtype == DType::float64) {
      *y.data<double>() = number;
    } else if (dtype == DType::float32) {
      *y.data<float>() = static_cast<float>(number);
    } else {
      const Array wide = Array::empty(DType::float64, {});
      *wide.data<double>() = number;
      return convert(wide, dtype);
    }
    return y;
  }
  const Array wide = Array::empty(DType::int64, {});
  *wide.data<std::int64_t>() = value.cast<std::int64_t>();
  return convert(wide, dtype);
}

}  // namespace

void bind_map(py::module_& m) {
  m.def("clone", &clone, NoGil());
  m.def("require_finite", &require_finite, py::arg("x"), py::kw_only(), py::arg("what"), NoGil());
  m.def("convert", &convert, py::arg("x"), py::arg("dtype"), NoGil());
  m.def(
      "relayout",
      [](const Array& x, bool channels_last) {
        return relayout(x, channels_last ? Layout::channels_last : Layout::row_major);
      },
      py::arg("x"), py::kw_only(), py::arg("channels_last"), NoGil());
  m.def("scalar", &scalar, py::arg("value"), py::arg("like"));
  m.def("result_type", [](const Array& a, const Array& b) {
    const Array* const operands[] = {&a, &b};
    return result_type("result_type", operands);
  });
  for (int op = 0; op < n_map_ops(); ++op) {
    switch (map_info(op).n_inputs) {
      case 1:
        bind_map_op<Array>(m, op);
        break;
      case 2:
        bind_map_op<Array, Array>(m, op);
        break;
      case 3:
        bind_map_op<Array, Array, Array>(m, op);
        break;
      default:
        bind_map_op<Array, Array, Array, Array>(m, op);
    }
  }
  constexpr const char* reductions[] = {"sum", "prod", "max", "min"};
  for (int op = 0; op < 4; ++op) {
    m.def(
        reductions[op],
        [op](const Array& x, const std::vector<int>& dim, bool keepdim) { return reduce(op, x, dim, keepdim); },
        py::arg("x"), py::kw_only(), py::arg("dim"), py::arg("keepdim"), NoGil());
  }
  m.def(
      "mean", [](const Array& x, const std::vector<int>& dim, bool keepdim) { return mean(x, dim, keepdim); }, py::arg("x"),
      py::kw_only(), py::arg("dim"), py::arg("keepdim"), NoGil());
  m.def(
      "mean_grad",
      [](const Array& grad_y, const Sizes& kept, const Sizes& shape) {
        return mean_grad(grad_y, extents(kept), extents(shape));
      },
      py::arg("grad_y"), py::kw_only(), py::arg("kept"), py::arg("shape"), NoGil());
}

}  // namespace striate
