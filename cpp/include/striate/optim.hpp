// Optimizer steps: parameters and states change in place, all tensors in one parallel pass.
#pragma once

#include <span>

#include "striate/tensor.hpp"

namespace striate {

// Lists hold one entry per parameter: its gradient and states have its shape and dtype; parameters and states are dense in
// one order of axes (make states with zeros_like). Storage versions rise. Throws ShapeError, DTypeError,
// std::invalid_argument.
using Tensors = std::span<const Array>;

struct SgdParams {
  double lr;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool is_nesterov = false;
  bool maximizes = false;
  bool is_first = false;  // the moments are undefined yet and become the gradient
};
void sgd(Tensors params, Tensors grads, Tensors moments, const SgdParams& step);  // no moments without momentum

struct AdamParams {
  double lr;
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  bool is_decoupled;  // AdamW: decay shrinks the parameter instead of joining the gradient
  bool maximizes;
  double n_steps;  // this one included
};
void adam(Tensors params, Tensors grads, Tensors means, Tensors squares, Tensors largest,  // largest: only for AMSGrad
          const AdamParams& step);

struct RmspropParams {
  double lr;
  double alpha;
  double eps;
  double weight_decay;
  double momentum;
  bool maximizes;
};
void rmsprop(Tensors params, Tensors grads, Tensors squares, Tensors means,
             Tensors moments,  // means: centered; moments: momentum
             const RmspropParams& step);

}  // namespace striate
