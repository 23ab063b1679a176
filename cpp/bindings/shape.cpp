#include "bindings/bindings.hpp"

#include "striate/ops.hpp"

namespace striate {

void bind_shape(py::module_& m) {
  m.def(
      "reshape",
      [](const Array& x, const Sizes& shape, bool, bool to_channels_last) {
        return reshape(x, extents(shape), to_channels_last);
      },
      py::arg("x"), py::kw_only(), py::arg("shape"), py::arg("from_channels_last") = false,
      py::arg("to_channels_last") = false, NoGil());
  m.def(
      "permute", [](const Array& x, const std::vector<int>& dims) { return x.permute(dims); }, py::arg("x"), py::kw_only(),
      py::arg("dims"));
  m.def(
      "expand", [](const Array& x, const Sizes& shape) { return x.broadcast_to(extents(shape)); }, py::arg("x"),
      py::kw_only(), py::arg("shape"));
  m.def(
      "slice",
      [](const Array& x, const Sizes& begin, const Sizes& size, const Sizes& step) {
        return slice(x, extents(begin), extents(size), extents(step));
      },
      py::arg("x"), py::kw_only(), py::arg("begin"), py::arg("size"), py::arg("step"));
  m.def(
      "slice_grad",
      [](const Array& grad_y, const Sizes& shape, const Sizes& begin, const Sizes& step) {
        return slice_grad(grad_y, extents(shape), extents(begin), extents(step));
      },
      py::arg("grad_y"), py::kw_only(), py::arg("shape"), py::arg("begin"), py::arg("step"), NoGil());
  m.def(
      "split", [](const Array& x, const Sizes& sizes, int dim) { return py::tuple(py::cast(split(x, sizes, dim))); },
      py::arg("x"), py::kw_only(), py::arg("sizes"), py::arg("dim"));
  m.def(
      "concat",
      [](const py::args& tensors, int dim) {
        const auto arrays = py::cast<std::vector<Array>>(tensors);
        const py::gil_scoped_release release;
        return concat(arrays, dim);
      },
      py::arg("dim"));
  m.def(
      "flip", [](const Array& x, const std::vector<int>& dims) { return flip(x, dims); }, py::arg("x"), py::kw_only(),
      py::arg("dims"), NoGil());
  m.def("pixel_shuffle", &pixel_shuffle, py::arg("x"), py::kw_only(), py::arg("factor"), NoGil());
  m.def("pixel_unshuffle", &pixel_unshuffle, py::arg("x"), py::kw_only(), py::arg("factor"), NoGil());
  m.def("triangle", &triangle, py::arg("x"), py::kw_only(), py::arg("diagonal"), py::arg("is_upper"), NoGil());
  m.def("gather", &gather, py::arg("x"), py::arg("index"), py::kw_only(), py::arg("dim"), NoGil());
  m.def(
      "scatter_add",
      [](const Array& src, const Array& index, const Sizes& shape, int dim) {
        return scatter_add(src, index, extents(shape), dim);
      },
      py::arg("src"), py::arg("index"), py::kw_only(), py::arg("shape"), py::arg("dim"), NoGil());
  m.def("index", [](const Array& x, const py::args& indices) {
    const auto arrays = py::cast<std::vector<Array>>(indices);
    const py::gil_scoped_release release;
    return index_rows(x, arrays);
  });
  m.def(
      "index_add",
      [](const Array& grad_y, const py::args& indices, const Sizes& shape) {
        const auto arrays = py::cast<std::vector<Array>>(indices);
        const py::gil_scoped_release release;
        return index_add(grad_y, arrays, extents(shape));
      },
      py::arg("grad_y"), py::arg("shape"));
  m.def("nonzero", &nonzero, py::arg("mask"), NoGil());
  m.def("one_hot", &one_hot, py::arg("x"), py::kw_only(), py::arg("num_classes"), NoGil());
}

}  // namespace striate
