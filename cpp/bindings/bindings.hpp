// One function per file of bindings; module.cpp calls them all.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "striate/tensor.hpp"

// Sizes arrive as tuples and lists of plain ints, a few for every operator: read without an iterator for each.
template <>
struct pybind11::detail::type_caster<std::vector<std::ptrdiff_t>>
    : pybind11::detail::list_caster<std::vector<std::ptrdiff_t>, std::ptrdiff_t> {
  using Base = pybind11::detail::list_caster<std::vector<std::ptrdiff_t>, std::ptrdiff_t>;

  bool load(handle source, bool converts) {
    PyObject* const object = source.ptr();
    if (object == nullptr || (!PyTuple_CheckExact(object) && !PyList_CheckExact(object))) {
      return Base::load(source, converts);
    }
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(object);
    PyObject* const* const items = PySequence_Fast_ITEMS(object);
    value.resize(static_cast<std::size_t>(n));
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (!PyLong_CheckExact(items[i])) {
        return Base::load(source, converts);
      }
      value[static_cast<std::size_t>(i)] = PyLong_AsSsize_t(items[i]);
      if (PyErr_Occurred() != nullptr) {  // beyond 64 bits: the error is pybind's
        PyErr_Clear();
        return Base::load(source, converts);
      }
    }
    return true;
  }
};

namespace striate {

namespace py = pybind11;

// Every op runs without the GIL.
using NoGil = py::call_guard<py::gil_scoped_release>;
using Sizes = std::vector<std::ptrdiff_t>;

[[nodiscard]] inline Extents extents(const Sizes& sizes) { return Extents(std::span<const std::ptrdiff_t>(sizes)); }
[[nodiscard]] py::tuple to_tuple(const Extents& extents);

void bind_machine(py::module_& m);
void bind_array(py::module_& m);
void bind_conv(py::module_& m);
void bind_state(py::module_& m);
void bind_safetensors(py::module_& m);
void bind_norm(py::module_& m);
void bind_pool(py::module_& m);
void bind_resample(py::module_& m);
void bind_shape(py::module_& m);
void bind_graph(py::module_& m);
void bind_program(py::module_& m);
void bind_map(py::module_& m);
void bind_optim(py::module_& m);
void bind_rows(py::module_& m);

}  // namespace striate
