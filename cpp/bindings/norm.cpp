#include "bindings/bindings.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

using Given = std::optional<Array>;

const Array* pointer(const Given& array) { return array ? &*array : nullptr; }

}  // namespace

void bind_norm(py::module_& m) {
  m.def(
      "batch_norm_training",
      [](const Array& x, const Given& weight, const Given& bias, double eps) {
        BatchNormed result;
        {
          const py::gil_scoped_release no_gil;
          result = batch_norm_training("batch_norm", x, pointer(weight), pointer(bias), eps);
        }
        return py::make_tuple(result.y, result.mean, result.var);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("eps"));
  m.def(
      "batch_norm_eval",
      [](const Array& x, const Array& mean, const Array& var, const Given& weight, const Given& bias, double eps) {
        return batch_norm_eval("batch_norm", x, mean, var, pointer(weight), pointer(bias), eps);
      },
      py::arg("x"), py::arg("mean"), py::arg("var"), py::arg("weight"), py::arg("bias"), py::arg("eps"), NoGil());
  m.def(
      "batch_norm_grad",
      [](const Array& grad_y, const Array& x, const Given& weight, const Array& mean, const Array& var, double eps,
         bool training) {
        NormGradients result;
        {
          const py::gil_scoped_release no_gil;
          result = batch_norm_grad("batch_norm_grad", grad_y, x, pointer(weight), mean, var, eps, training);
        }
        return py::make_tuple(result.grad_x, result.grad_weight, result.grad_bias);
      },
      py::arg("grad_y"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("var"), py::arg("eps"),
      py::arg("training"));
  m.def(
      "batch_norm_update",
      [](const Array& running_mean, const Array& running_var, const Array& mean, const Array& var, std::ptrdiff_t n,
         double momentum) { batch_norm_update("batch_norm", running_mean, running_var, mean, var, n, momentum); },
      py::arg("running_mean"), py::arg("running_var"), py::arg("mean"), py::arg("var"), py::arg("n"), py::arg("momentum"),
      NoGil());
}

}  // namespace striate
