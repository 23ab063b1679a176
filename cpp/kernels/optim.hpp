// One step of an optimizer over a run of parameters.
#pragma once

#include <cstddef>

namespace striate {

// Hyper-parameters of all optimizers; each reads its own.
struct OptimStep {
  double lr = 0;
  double sign = 0;          // −1 to maximize
  double weight_decay = 0;  // added to the gradient, or decoupled (adamw)
  double momentum = 0;      // sgd, rmsprop
  double dampening = 0;     // sgd
  double beta1 = 0;         // adam; rmsprop: alpha
  double beta2 = 0;         // adam
  double eps = 0;
  double correction1 = 0;  // adam: 1 − β₁ᵗ
  double correction2 = 0;  // adam: √(1 − β₂ᵗ)
  bool is_nesterov = false;
  bool is_first = false;      // sgd: the moment is not there yet
  bool is_decoupled = false;  // adam: adamw
  bool has_extra = false;     // adam: amsgrad; rmsprop: centered
};

// param and state[k] are overwritten; no two of the runs overlap.
template <class T>
using OptimFn = void (*)(std::ptrdiff_t n, T* param, const T* grad, T* const* state, const OptimStep& step);

enum class OptimOp : int { sgd, sgd_momentum, adam, rmsprop, rmsprop_momentum };
inline constexpr int kOptimOps = 5;

template <class T>
struct OptimKernels {
  OptimFn<T> update[kOptimOps];
};

}  // namespace striate
