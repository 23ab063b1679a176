// One function per file of bindings; module.cpp calls them all.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "striate/tensor.hpp"

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
