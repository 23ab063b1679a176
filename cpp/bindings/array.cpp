// Array at the border to NumPy: borrow, expose, view.
#include "bindings/bindings.hpp"

#include <pybind11/numpy.h>

#include <array>
#include <cstring>

namespace striate {
namespace {

py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return py::dtype("f4");
    case DType::float64:
      return py::dtype("f8");
    case DType::float16:
      return py::dtype("f2");
    case DType::int8:
      return py::dtype("i1");
    case DType::uint8:
      return py::dtype("u1");
    case DType::int32:
      return py::dtype("i4");
    case DType::int64:
      return py::dtype("i8");
    case DType::boolean:
      return py::dtype("?");
    default:
      throw DTypeError("numpy: expected a dtype that NumPy has, got bfloat16; convert with .to(float32)");
  }
}

DType dtype_from_numpy(const py::dtype& dtype) {
  const char kind = dtype.kind();
  const auto bytes = dtype.itemsize();
  if (kind == 'f' && bytes == 4) return DType::float32;
  if (kind == 'f' && bytes == 8) return DType::float64;
  if (kind == 'f' && bytes == 2) return DType::float16;
  if (kind == 'i' && bytes == 1) return DType::int8;
  if (kind == 'u' && bytes == 1) return DType::uint8;
  if (kind == 'i' && bytes == 4) return DType::int32;
  if (kind == 'i' && bytes == 8) return DType::int64;
  if (kind == 'b') return DType::boolean;
  throw DTypeError(text("from_numpy: expected float32, float64, float16, int8, uint8, int32, int64 or bool, got ",
                        py::cast<std::string>(py::str(dtype)), "; convert with .astype(...)"));
}

// A view of the ndarray's memory that keeps it alive. Byte-swapped, misaligned or oddly strided arrays are copied first.
Array from_numpy(py::array array) {
  const DType dtype = dtype_from_numpy(array.dtype());
  const std::ptrdiff_t item = item_bytes(dtype);
  bool needs_copy = array.dtype().byteorder() == '>' ||
                    reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(item) != 0;
  check(array.ndim() <= kMaxRank, "from_numpy: expected at most ", kMaxRank, " axes, got ", array.ndim(), "; reshape first");
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    needs_copy = needs_copy || array.strides(axis) % item != 0 || array.strides(axis) < 0;
  }
  if (needs_copy) {
    array = py::module_::import("numpy").attr("array")(array, numpy_dtype(dtype), py::arg("order") = "C");
  }
  Extents shape;
  Extents strides;
  std::ptrdiff_t last = 0;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    shape.push_back(array.shape(axis));
    strides.push_back(array.strides(axis) / item);
    last += (array.shape(axis) - 1) * array.strides(axis);
  }
  const std::ptrdiff_t bytes = array.size() > 0 ? last + item : 0;
  PyObject* owner = array.ptr();
  Py_INCREF(owner);
  Storage* storage = Storage::borrow(const_cast<void*>(array.data()), bytes, !array.writeable(), [owner] {
    const py::gil_scoped_acquire gil;
    Py_DECREF(owner);
  });
  return Array::view(StorageRef(storage), dtype, shape, strides, 0);
}

// An ndarray on the Array's memory. Outside code can write it from now on, so the storage is exposed.
py::array to_numpy(const Array& array, bool exposes) {
  const std::ptrdiff_t item = item_bytes(array.dtype());
  std::vector<py::ssize_t> shape(array.shape().begin(), array.shape().end());
  std::vector<py::ssize_t> strides;
  for (const std::ptrdiff_t stride : array.strides()) {
    strides.push_back(stride * item);
  }
  if (exposes) {
    array.storage().expose();
  }
  auto* kept = new Array(array);
  const py::capsule owner(kept, [](void* p) { delete static_cast<Array*>(p); });
  py::array out(numpy_dtype(array.dtype()), shape, strides, array.bytes(), owner);
  if (array.storage().is_read_only()) {
    out.attr("setflags")(py::arg("write") = false);
  }
  return out;
}

}  // namespace

py::handle dtype_object(DType dtype) {
  // Made once and never freed: casting an enum costs half a microsecond, and every recorded operator asks.
  static const std::array<PyObject*, kDTypes> objects = [] {
    std::array<PyObject*, kDTypes> made{};
    const py::object type = py::module_::import("striate._core").attr("DType");
    for (int i = 0; i < kDTypes; ++i) {
      py::object member = type.attr(dtype_name(static_cast<DType>(i)));
      made[static_cast<std::size_t>(i)] = member.release().ptr();
    }
    return made;
  }();
  return objects[static_cast<std::size_t>(dtype)];
}

// (shapes, dtypes) of arrays, None for one not given.
py::tuple signature(const py::sequence& arrays) {
  const std::size_t n = arrays.size();
  py::tuple shapes(n);
  py::tuple dtypes(n);
  for (std::size_t i = 0; i < n; ++i) {
    const py::object item = arrays[i];
    if (item.is_none()) {
      shapes[i] = py::none();
      dtypes[i] = py::none();
    } else {
      const Array& array = item.cast<const Array&>();
      shapes[i] = to_tuple(array.shape());
      dtypes[i] = dtype_object(array.dtype());
    }
  }
  return py::make_tuple(std::move(shapes), std::move(dtypes));
}

py::tuple to_tuple(const Extents& extents) {
  py::tuple out(static_cast<std::size_t>(extents.rank()));
  for (int axis = 0; axis < extents.rank(); ++axis) {
    PyTuple_SET_ITEM(out.ptr(), axis, PyLong_FromSsize_t(extents[axis]));
  }
  return out;
}

void bind_array(py::module_& m) {
  py::enum_<DType> type(m, "DType", "Element type of a tensor.");
  for (int i = 0; i < kDTypes; ++i) {
    type.value(dtype_name(static_cast<DType>(i)), static_cast<DType>(i));
  }
  type.attr("__str__") =
      py::cpp_function([](DType self) { return dtype_name(self); }, py::name("__str__"), py::is_method(type));
  type.attr("__repr__") = py::cpp_function([](DType self) { return std::string("striate.") + dtype_name(self); },
                                           py::name("__repr__"), py::is_method(type));
  type.def_property_readonly("itemsize", &item_bytes);
  type.def_property_readonly("is_floating_point", &is_floating);

  py::class_<Array>(m, "Array", "Strided view of reference-counted memory.")
      .def_property_readonly("shape", [](const Array& self) { return to_tuple(self.shape()); })
      .def_property_readonly("strides", [](const Array& self) { return to_tuple(self.strides()); })
      .def_property_readonly("offset", &Array::offset)
      .def_property_readonly("dtype", [](const Array& self) { return dtype_object(self.dtype()); })
      .def_property_readonly("ndim", &Array::rank)
      .def_property_readonly("size", &Array::size)
      .def_property_readonly("version", [](const Array& self) { return self.storage().version(); })
      .def_property_readonly("is_exposed", [](const Array& self) { return self.storage().is_exposed(); })
      .def_property_readonly("is_channels_last", [](const Array& self) { return self.is_dense(Layout::channels_last); })
      .def_property_readonly("is_row_major", [](const Array& self) { return self.is_dense(Layout::row_major); })
      .def_property_readonly("is_shared", [](const Array& self) { return self.storage().n_references() > 1; })
      .def("shares_storage",
           [](const Array& self, const Array& other) { return self.storage_ref().get() == other.storage_ref().get(); })
      .def("raise_version", [](const Array& self) { self.storage().raise_version(); })
      .def("numpy", [](const Array& self) { return to_numpy(self, true); })
      // For an array that nobody else has seen yet: the view is dropped before the array is used.
      .def("fill_view", [](const Array& self) { return to_numpy(self, false); })
      .def("permute", [](const Array& self, const std::vector<int>& axes) { return self.permute(axes); })
      .def("broadcast_to", [](const Array& self, const Sizes& shape) { return self.broadcast_to(extents(shape)); })
      .def("as_strided",
           [](const Array& self, const Sizes& shape, const Sizes& strides, std::ptrdiff_t offset) {
             return Array::view(self.storage_ref(), self.dtype(), extents(shape), extents(strides), offset);
           })
      .def("try_reshape", [](const Array& self, const Sizes& shape) -> std::optional<Array> {
        Array result;
        return self.try_reshape(extents(shape), result) ? std::optional(result) : std::nullopt;
      });
  m.def("signature", &signature, py::arg("arrays"));
  m.def("from_numpy", &from_numpy, py::arg("array"));
  m.def(
      "empty",
      [](const Sizes& shape, DType dtype, bool channels_last) {
        return Array::empty(dtype, extents(shape), channels_last ? Layout::channels_last : Layout::row_major);
      },
      py::arg("shape"), py::arg("dtype"), py::arg("channels_last") = false);
  m.def(
      "empty_like", [](const Array& model, DType dtype) { return Array::empty_like(dtype, model); }, py::arg("model"),
      py::arg("dtype"));
}

}  // namespace striate
