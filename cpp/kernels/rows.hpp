// Kernels over rows: the axis of a softmax, the classes of a loss, the elements of a random draw.
#pragma once

#include <cstddef>
#include <cstdint>

namespace striate {

// rows × n, dense. a is x or grad_y; b is y for gradients, else null.
using RowsFn = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void* b, void* y);
enum class RowsOp : int { softmax, log_softmax, softmax_grad, log_softmax_grad };
inline constexpr int kRowsOps = 4;

// −Σ_c q[c]·log p[c] of each row, q[c] = w[c]·((1 − smoothing)·[c = target] + smoothing / n); 0 for ignored targets.
template <class T>
struct ClassRows {
  std::ptrdiff_t rows;
  std::ptrdiff_t n;            // classes
  const T* x;                  // [rows][n] logits, or log-probabilities
  const std::int64_t* target;  // [rows], in [0, n) or ignored
  const T* weight;             // [n], or null for ones
  double smoothing;
  std::int64_t ignore_index;
  bool is_logits;
  T* loss;         // [rows]
  T* total;        // [rows] w[target], 0 when ignored: what a mean divides by
  T* log_sum;      // [rows] ln Σ eˣ, for the gradient
  const T* scale;  // gradient: [rows], or one value when scale_step is 0
  std::ptrdiff_t scale_step;
  T* grad_x;  // gradient: [rows][n]
};

enum class RandomKind : int { uniform_f32, uniform_f64, normal_f32, normal_f64, integer, bernoulli };
// Elements [first, first + n) of draw number `call` of a generator; first is a multiple of 4.
struct RandomRun {
  std::ptrdiff_t first;
  std::ptrdiff_t n;
  std::uint64_t seed;
  std::uint64_t call;
  std::int64_t low;     // integer
  std::uint64_t range;  // integer: low … low + range − 1; bernoulli: true where 32 bits are at least this
  void* y;              // of the first of the n
};

struct RowsKernels {
  RowsFn rows[kRowsOps][2];  // [op][f32, f64]
  void (*classes_f32)(const ClassRows<float>& run);
  void (*classes_f64)(const ClassRows<double>& run);
  void (*classes_grad_f32)(const ClassRows<float>& run);
  void (*classes_grad_f64)(const ClassRows<double>& run);
  void (*random)(RandomKind kind, const RandomRun& run);

  template <class T>
  [[nodiscard]] auto classes(bool is_grad) const {
    if constexpr (sizeof(T) == 4) {
      return is_grad ? classes_grad_f32 : classes_f32;
    } else {
      return is_grad ? classes_grad_f64 : classes_f64;
    }
  }
};

}  // namespace striate
