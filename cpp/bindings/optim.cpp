// Optimizer steps.
#include "bindings/bindings.hpp"

#include "striate/optim.hpp"

namespace striate {

using List = std::vector<Array>;

void bind_optim(py::module_& m) {
  m.def(
      "sgd",
      [](const List& params, const List& grads, const List& moments, double lr, double momentum, double dampening,
         double weight_decay, bool nesterov, bool maximize, bool is_first) {
        sgd(params, grads, moments,
            {.lr = lr,
             .momentum = momentum,
             .dampening = dampening,
             .weight_decay = weight_decay,
             .is_nesterov = nesterov,
             .maximizes = maximize,
             .is_first = is_first});
      },
      py::arg("params"), py::arg("grads"), py::arg("moments"), py::kw_only(), py::arg("lr"), py::arg("momentum"),
      py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"), py::arg("maximize"), py::arg("is_first"), NoGil());
  m.def(
      "adam",
      [](const List& params, const List& grads, const List& means, const List& squares, const List& largest, double lr,
         double beta1, double beta2, double eps, double weight_decay, bool is_decoupled, bool maximize, double n_steps) {
        adam(params, grads, means, squares, largest,
             {.lr = lr,
              .beta1 = beta1,
              .beta2 = beta2,
              .eps = eps,
              .weight_decay = weight_decay,
              .is_decoupled = is_decoupled,
              .maximizes = maximize,
              .n_steps = n_steps});
      },
      py::arg("params"), py::arg("grads"), py::arg("means"), py::arg("squares"), py::arg("largest"), py::kw_only(),
      py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("is_decoupled"),
      py::arg("maximize"), py::arg("n_steps"), NoGil());
  m.def(
      "rmsprop",
      [](const List& params, const List& grads, const List& squares, const List& means, const List& moments, double lr,
         double alpha, double eps, double weight_decay, double momentum, bool maximize) {
        rmsprop(params, grads, squares, means, moments,
                {.lr = lr,
                 .alpha = alpha,
                 .eps = eps,
                 .weight_decay = weight_decay,
                 .momentum = momentum,
                 .maximizes = maximize});
      },
      py::arg("params"), py::arg("grads"), py::arg("squares"), py::arg("means"), py::arg("moments"), py::kw_only(),
      py::arg("lr"), py::arg("alpha"), py::arg("eps"), py::arg("weight_decay"), py::arg("momentum"), py::arg("maximize"),
      NoGil());
}

}  // namespace striate
