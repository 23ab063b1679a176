// Optimizer steps: each reads and writes every parameter and state once. Formulas and their order of operations are those of
// torch.optim (sgd, adam, adamw, rmsprop), so that a run can be compared step by step.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

STRIATE_INLINE float root(float x) { return __builtin_sqrtf(x); }
STRIATE_INLINE double root(double x) { return __builtin_sqrt(x); }

// param −= lr · (grad + weight_decay · param)
template <class T>
void sgd(std::ptrdiff_t n, T* __restrict param, const T* __restrict grad, T* const*, const OptimStep& step) {
  const T lr = static_cast<T>(step.lr);
  const T sign = static_cast<T>(step.sign);
  const T decay = static_cast<T>(step.weight_decay);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    param[i] = param[i] - lr * (sign * grad[i] + decay * param[i]);
  }
}

// m = momentum · m + (1 − dampening) · g (m = g at first); param −= lr · (m, or g + momentum · m with Nesterov)
template <class T>
void sgd_momentum(std::ptrdiff_t n, T* __restrict param, const T* __restrict grad, T* const* state, const OptimStep& step) {
  T* __restrict moment = state[0];
  const T lr = static_cast<T>(step.lr);
  const T sign = static_cast<T>(step.sign);
  const T decay = static_cast<T>(step.weight_decay);
  const T keep = static_cast<T>(step.is_first ? 0.0 : step.momentum);
  const T take = static_cast<T>(step.is_first ? 1.0 : 1.0 - step.dampening);
  const T momentum = static_cast<T>(step.momentum);
  if (step.is_nesterov) {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const T g = sign * grad[i] + decay * param[i];
      const T m = keep * moment[i] + take * g;
      moment[i] = m;
      param[i] = param[i] - lr * (g + momentum * m);
    }
  } else {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const T g = sign * grad[i] + decay * param[i];
      const T m = keep * moment[i] + take * g;
      moment[i] = m;
      param[i] = param[i] - lr * m;
    }
  }
}

// m += (1 − β₁)(g − m); v = β₂ v + (1 − β₂) g²; param −= lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)
template <class T, bool kIsMax>
STRIATE_INLINE void adam_loop(std::ptrdiff_t n, T* __restrict param, const T* __restrict grad, T* const* state,
                              const OptimStep& step) {
  T* __restrict mean = state[0];
  T* __restrict square = state[1];
  T* __restrict largest = kIsMax ? state[2] : nullptr;
  const T sign = static_cast<T>(step.sign);
  const T decay = static_cast<T>(step.is_decoupled ? 0.0 : step.weight_decay);
  const T shrink = static_cast<T>(step.is_decoupled ? 1.0 - step.lr * step.weight_decay : 1.0);
  const T take1 = static_cast<T>(1.0 - step.beta1);
  const T keep2 = static_cast<T>(step.beta2);
  const T take2 = static_cast<T>(1.0 - step.beta2);
  const T size = static_cast<T>(step.lr / step.correction1);
  const T correction2 = static_cast<T>(step.correction2);
  const T eps = static_cast<T>(step.eps);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const T g = sign * grad[i] + decay * param[i];
    const T m = mean[i] + take1 * (g - mean[i]);
    const T v = keep2 * square[i] + take2 * (g * g);
    mean[i] = m;
    square[i] = v;
    T scale = v;
    if constexpr (kIsMax) {
      scale = largest[i] > v ? largest[i] : v;
      largest[i] = scale;
    }
    param[i] = param[i] * shrink - size * (m / (root(scale) / correction2 + eps));
  }
}

template <class T>
void adam(std::ptrdiff_t n, T* param, const T* grad, T* const* state, const OptimStep& step) {
  if (step.has_extra) {
    adam_loop<T, true>(n, param, grad, state, step);
  } else {
    adam_loop<T, false>(n, param, grad, state, step);
  }
}

// s = α s + (1 − α) g²; centered: a += (1 − α)(g − a), s − a² instead of s; u = g / (√s + eps);
// param −= lr · u, or m = momentum · m + u; param −= lr · m.   States: s, then a, then m, those that are used.
template <class T, bool kIsCentered, bool kHasMomentum>
STRIATE_INLINE void rmsprop_loop(std::ptrdiff_t n, T* __restrict param, const T* __restrict grad, T* const* state,
                                 const OptimStep& step) {
  T* __restrict square = state[0];
  T* __restrict mean = kIsCentered ? state[1] : nullptr;
  T* __restrict moment = kHasMomentum ? state[kIsCentered ? 2 : 1] : nullptr;
  const T lr = static_cast<T>(step.lr);
  const T sign = static_cast<T>(step.sign);
  const T decay = static_cast<T>(step.weight_decay);
  const T keep = static_cast<T>(step.beta1);
  const T take = static_cast<T>(1.0 - step.beta1);
  const T momentum = static_cast<T>(step.momentum);
  const T eps = static_cast<T>(step.eps);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const T g = sign * grad[i] + decay * param[i];
    const T s = keep * square[i] + take * (g * g);
    square[i] = s;
    T spread = s;
    if constexpr (kIsCentered) {
      const T a = mean[i] + take * (g - mean[i]);
      mean[i] = a;
      spread = s - a * a;
    }
    T u = g / (root(spread) + eps);
    if constexpr (kHasMomentum) {
      u = momentum * moment[i] + u;
      moment[i] = u;
    }
    param[i] = param[i] - lr * u;
  }
}

template <class T, bool kHasMomentum>
void rmsprop(std::ptrdiff_t n, T* param, const T* grad, T* const* state, const OptimStep& step) {
  if (step.has_extra) {
    rmsprop_loop<T, true, kHasMomentum>(n, param, grad, state, step);
  } else {
    rmsprop_loop<T, false, kHasMomentum>(n, param, grad, state, step);
  }
}

template <class T>
void fill(OptimKernels<T>& table) {
  table.update[static_cast<int>(OptimOp::sgd)] = sgd<T>;
  table.update[static_cast<int>(OptimOp::sgd_momentum)] = sgd_momentum<T>;
  table.update[static_cast<int>(OptimOp::adam)] = adam<T>;
  table.update[static_cast<int>(OptimOp::rmsprop)] = rmsprop<T, false>;
  table.update[static_cast<int>(OptimOp::rmsprop_momentum)] = rmsprop<T, true>;
}

}  // namespace

void fill_optim(KernelTable& table) {
  fill(table.optim_f32);
  fill(table.optim_f64);
}

}  // namespace striate::STRIATE_TARGET
