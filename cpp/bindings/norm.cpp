#include "bindings/bindings.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

using Given = std::optional<Array>;

const Array* pointer(const Given& array) { return array ? &*array : nullptr; }

py::tuple to_tuple(const GroupNormed& result) { return py::make_tuple(result.y, result.mean, result.invstd); }
py::tuple to_tuple(const NormGradients& result) {
  return py::make_tuple(result.grad_x, result.grad_weight, result.grad_bias);
}

// Runs f without the GIL and makes a tuple of what it returns.
template <class F>
py::tuple tuple_of(F&& f) {
  const auto result = [&] {
    const py::gil_scoped_release no_gil;
    return f();
  }();
  return to_tuple(result);
}

void bind_group_norm(py::module_& m) {
  m.def(
      "group_norm",
      [](const std::string& op, const Array& x, const Given& weight, const Given& bias, std::ptrdiff_t num_groups,
         double eps) {
        return tuple_of([&] { return group_norm(op.c_str(), x, num_groups, pointer(weight), pointer(bias), eps); });
      },
      py::arg("op"), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("num_groups"), py::arg("eps"));
  m.def(
      "group_norm_grad",
      [](const std::string& op, const Array& grad_y, const Array& x, const Given& weight, const Array& mean,
         const Array& invstd, std::ptrdiff_t num_groups) {
        return tuple_of([&] { return group_norm_grad(op.c_str(), grad_y, x, pointer(weight), mean, invstd, num_groups); });
      },
      py::arg("op"), py::arg("grad_y"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("invstd"),
      py::arg("num_groups"));
  m.def(
      "layer_norm",
      [](const Array& x, const Given& weight, const Given& bias, int n_axes, double eps) {
        return tuple_of([&] { return layer_norm("layer_norm", x, n_axes, pointer(weight), pointer(bias), eps); });
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("n_axes"), py::arg("eps"));
  m.def(
      "layer_norm_grad",
      [](const Array& grad_y, const Array& x, const Given& weight, const Array& mean, const Array& invstd, int n_axes) {
        return tuple_of(
            [&] { return layer_norm_grad("layer_norm_grad", grad_y, x, n_axes, pointer(weight), mean, invstd); });
      },
      py::arg("grad_y"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("invstd"), py::arg("n_axes"));
}

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
  bind_group_norm(m);
}

}  // namespace striate
