#include "bindings/bindings.hpp"

#include "striate/error.hpp"
#include "striate/program.hpp"

namespace striate {
namespace {

// Exceptions of the core become the Python classes of the same name; they live here so that C++ can raise them.
void bind_errors(py::module_& m) {
  static py::exception<ShapeError> shape_error(m, "ShapeError", PyExc_ValueError);
  static py::exception<DTypeError> dtype_error(m, "DTypeError", PyExc_TypeError);
  static py::exception<GuardError> guard_error(m, "GuardError", PyExc_RuntimeError);
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const OutOfMemory& e) {
      PyErr_SetString(PyExc_MemoryError, e.what());
    } catch (const NonFiniteError& e) {
      PyErr_SetString(PyExc_FloatingPointError, e.what());
    } catch (const ShapeError& e) {
      PyErr_SetString(shape_error.ptr(), e.what());
    } catch (const DTypeError& e) {
      PyErr_SetString(dtype_error.ptr(), e.what());
    } catch (const GuardError& e) {
      PyErr_SetString(guard_error.ptr(), e.what());
    }
  });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of striate. Use the Python package; this module has no stable interface.";
  m.attr("__version__") = STRIATE_VERSION;
  bind_errors(m);
  bind_machine(m);
  bind_array(m);
  bind_conv(m);
  bind_state(m);
  bind_safetensors(m);
  bind_norm(m);
  bind_pool(m);
  bind_resample(m);
  bind_shape(m);
  bind_graph(m);
  bind_program(m);
  bind_map(m);
  bind_optim(m);
  bind_rows(m);
}

}  // namespace striate
