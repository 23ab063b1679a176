// Files of tensors.
#include "bindings/bindings.hpp"

#include <system_error>

#include "striate/safetensors.hpp"

namespace striate {

void bind_safetensors(py::module_& m) {
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const std::system_error& e) {
      py::set_error(PyExc_OSError, py::make_tuple(e.code().value(), e.what()));  // becomes FileNotFoundError and the like
    }
  });
  m.def(
      "read_safetensors",
      [](const std::string& path) {
        SafetensorsFile file;
        {
          const py::gil_scoped_release released;
          file = read_safetensors(path);
        }
        py::dict tensors;
        for (auto& [key, array] : file.tensors) {
          tensors[py::str(key)] = py::cast(std::move(array));
        }
        return py::make_tuple(std::move(tensors), py::cast(file.metadata));
      },
      py::arg("path"));
  m.def("write_safetensors", &write_safetensors, py::arg("path"), py::arg("tensors"), py::arg("metadata"), NoGil());
}

}  // namespace striate
