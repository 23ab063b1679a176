// Softmax and losses over classes, row by row: exponentials of x − max, sums in double lanes.
#include "kernels/math.hpp"
#include "kernels/table.hpp"

namespace striate::STRIATE_TARGET {
namespace {

inline constexpr std::ptrdiff_t kLanes = 16;

// Largest of a row; NaN when there is one.
template <class T>
STRIATE_INLINE T row_max(const T* x, std::ptrdiff_t n) {
  T part[kLanes];
  T spread = T(0);  // becomes NaN with any NaN
  for (std::ptrdiff_t i = 0; i < kLanes; ++i) {
    part[i] = x[i < n ? i : 0];
  }
  std::ptrdiff_t at = 0;
  for (; at + kLanes <= n; at += kLanes) {
    for (std::ptrdiff_t i = 0; i < kLanes; ++i) {
      part[i] = x[at + i] > part[i] || x[at + i] != x[at + i] ? x[at + i] : part[i];
    }
  }
  for (; at < n; ++at) {
    part[0] = x[at] > part[0] || x[at] != x[at] ? x[at] : part[0];
  }
  T top = part[0];
  for (std::ptrdiff_t i = 0; i < kLanes; ++i) {
    top = part[i] > top || part[i] != part[i] ? part[i] : top;
    spread = part[i] != part[i] ? part[i] : spread;
  }
  return spread != spread ? spread : top;
}

// Σ f(i), in lanes of double, folded in a tree.
template <class F>
STRIATE_INLINE double lane_sum(std::ptrdiff_t n, const F& f) {
  double part[kLanes] = {};
  std::ptrdiff_t at = 0;
  for (; at + kLanes <= n; at += kLanes) {
    for (std::ptrdiff_t i = 0; i < kLanes; ++i) {
      part[i] += f(at + i);
    }
  }
  for (std::ptrdiff_t i = 0; at + i < n; ++i) {
    part[i] += f(at + i);
  }
  for (std::ptrdiff_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::ptrdiff_t i = 0; i < half; ++i) {
      part[i] += part[half + i];
    }
  }
  return part[0];
}

// A row of −Inf alone has no largest finite value: shift by 0 and let the sum be 0.
template <class T>
STRIATE_INLINE double shift_of(T top) {
  return top == -static_cast<T>(kInfinity) ? 0.0 : static_cast<double>(top);
}

// y = eˣ / Σ eˣ
template <class T>
void softmax(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void*, void* out) {
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    const T* __restrict x = static_cast<const T*>(a) + r * n;
    T* __restrict y = static_cast<T*>(out) + r * n;
    const double top = row_max(x, n);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      y[i] = static_cast<T>(Math<T>::exp(static_cast<double>(x[i]) - top));
    }
    const double inverse = 1.0 / lane_sum(n, [&](std::ptrdiff_t i) { return static_cast<double>(y[i]); });
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      y[i] = static_cast<T>(static_cast<double>(y[i]) * inverse);
    }
  }
}

template <class T>
STRIATE_INLINE double log_sum_exp(const T* x, std::ptrdiff_t n) {
  const double top = shift_of(row_max(x, n));
  return top + Math<T>::log(lane_sum(n, [&](std::ptrdiff_t i) { return Math<T>::exp(static_cast<double>(x[i]) - top); }));
}

// y = x − ln Σ eˣ
template <class T>
void log_softmax(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void*, void* out) {
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    const T* __restrict x = static_cast<const T*>(a) + r * n;
    T* __restrict y = static_cast<T*>(out) + r * n;
    const double total = log_sum_exp(x, n);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      y[i] = static_cast<T>(static_cast<double>(x[i]) - total);
    }
  }
}

// grad_x = y·(g − Σ g·y)
template <class T>
void softmax_grad(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void* b, void* out) {
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    const T* __restrict g = static_cast<const T*>(a) + r * n;
    const T* __restrict y = static_cast<const T*>(b) + r * n;
    T* __restrict grad_x = static_cast<T*>(out) + r * n;
    const double dot = lane_sum(n, [&](std::ptrdiff_t i) { return static_cast<double>(g[i]) * static_cast<double>(y[i]); });
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      grad_x[i] = static_cast<T>(static_cast<double>(y[i]) * (static_cast<double>(g[i]) - dot));
    }
  }
}

// grad_x = g − e^y·Σ g
template <class T>
void log_softmax_grad(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void* b, void* out) {
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    const T* __restrict g = static_cast<const T*>(a) + r * n;
    const T* __restrict y = static_cast<const T*>(b) + r * n;
    T* __restrict grad_x = static_cast<T*>(out) + r * n;
    const double sum = lane_sum(n, [&](std::ptrdiff_t i) { return static_cast<double>(g[i]); });
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      grad_x[i] = static_cast<T>(static_cast<double>(g[i]) - Math<T>::exp(y[i]) * sum);
    }
  }
}

// Contract: ClassRows in rows.hpp.
template <class T>
void classes(const ClassRows<T>& run) {
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const T* const x = run.x + r * run.n;
    const std::int64_t target = run.target[r];
    const bool is_ignored = target == run.ignore_index;
    const double log_sum = run.is_logits ? log_sum_exp(x, run.n) : 0.0;
    run.log_sum[r] = static_cast<T>(log_sum);
    if (is_ignored) {
      run.loss[r] = T(0);
      run.total[r] = T(0);
      continue;
    }
    const double w = run.weight == nullptr ? 1.0 : static_cast<double>(run.weight[target]);
    double loss = (1.0 - run.smoothing) * w * (log_sum - static_cast<double>(x[target]));
    if (run.smoothing != 0.0) {
      const T* const weight = run.weight;
      const double spread = weight == nullptr
                                ? lane_sum(run.n, [&](std::ptrdiff_t c) { return log_sum - static_cast<double>(x[c]); })
                                : lane_sum(run.n, [&](std::ptrdiff_t c) {
                                    return static_cast<double>(weight[c]) * (log_sum - static_cast<double>(x[c]));
                                  });
      loss += run.smoothing / static_cast<double>(run.n) * spread;
    }
    run.loss[r] = static_cast<T>(loss);
    run.total[r] = static_cast<T>(w);
  }
}

// grad_x[c] = scale·(p[c]·Σ q − q[c]); for log-probabilities −scale·q[c].
template <class T>
void classes_grad(const ClassRows<T>& run) {
  double weight_sum = static_cast<double>(run.n);
  if (run.weight != nullptr) {
    weight_sum = lane_sum(run.n, [&](std::ptrdiff_t c) { return static_cast<double>(run.weight[c]); });
  }
  const double even = run.smoothing / static_cast<double>(run.n);
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const T* __restrict x = run.x + r * run.n;
    const T* __restrict weight = run.weight;
    T* __restrict grad_x = run.grad_x + r * run.n;
    const std::int64_t target = run.target[r];
    if (target == run.ignore_index) {
      for (std::ptrdiff_t c = 0; c < run.n; ++c) {
        grad_x[c] = T(0);
      }
      continue;
    }
    const double scale = run.scale[r * run.scale_step];
    const double w = weight == nullptr ? 1.0 : static_cast<double>(weight[target]);
    const double hit = (1.0 - run.smoothing) * w;
    const double total = run.is_logits ? scale * (hit + even * weight_sum) : 0.0;
    const double log_sum = run.log_sum[r];
    const double rest = scale * even;
    if (run.is_logits) {
      for (std::ptrdiff_t c = 0; c < run.n; ++c) {
        grad_x[c] = static_cast<T>(total * Math<T>::exp(static_cast<double>(x[c]) - log_sum));
      }
    } else {
      for (std::ptrdiff_t c = 0; c < run.n; ++c) {
        grad_x[c] = T(0);
      }
    }
    if (rest != 0.0) {
      for (std::ptrdiff_t c = 0; c < run.n; ++c) {
        grad_x[c] -= static_cast<T>(rest * (weight == nullptr ? 1.0 : static_cast<double>(weight[c])));
      }
    }
    grad_x[target] -= static_cast<T>(scale * hit);
  }
}

template <class T>
void fill(RowsKernels& table, int type) {
  table.rows[static_cast<int>(RowsOp::softmax)][type] = softmax<T>;
  table.rows[static_cast<int>(RowsOp::log_softmax)][type] = log_softmax<T>;
  table.rows[static_cast<int>(RowsOp::softmax_grad)][type] = softmax_grad<T>;
  table.rows[static_cast<int>(RowsOp::log_softmax_grad)][type] = log_softmax_grad<T>;
}

}  // namespace

void fill_softmax(KernelTable& table) {
  fill<float>(table.rows, 0);
  fill<double>(table.rows, 1);
  table.rows.classes_f32 = classes<float>;
  table.rows.classes_f64 = classes<double>;
  table.rows.classes_grad_f32 = classes_grad<float>;
  table.rows.classes_grad_f64 = classes_grad<double>;
}

}  // namespace striate::STRIATE_TARGET
