// What element-wise and copying kernels look like, and the list of element-wise operators.
#pragma once

#include <cstddef>
#include <cstdint>

namespace striate {

inline constexpr int kMapInputs = 4;

// `rows` runs of n elements: y[r][i] = f(x[0][r][i], x[1][r][i], …).
struct MapRun {
  std::ptrdiff_t rows;
  std::ptrdiff_t n;
  const void* x[kMapInputs];
  std::ptrdiff_t x_row[kMapInputs];   // elements from row to row
  std::ptrdiff_t x_step[kMapInputs];  // 1, or 0 for one value a row (only kernels of two inputs are given 0)
  void* y;                            // overlaps no x
  std::ptrdiff_t y_row;
  double a;  // parameters of the operator
  double b;
};
using MapFn = void (*)(const MapRun& run);

// The types that kernels compute in; other dtypes are converted strip by strip on the way in and out.
enum class MapType : int { f32, f64, i64, b8 };
inline constexpr int kMapTypes = 4;

// How the dtype of a result follows from its inputs.
enum class MapRule : int {
  numeric,   // promoted; any real dtype
  floating,  // promoted; integers and bool become float32
  compares,  // computed as promoted, the result is bool
  logical,   // computed as bool, the result is bool
  chooses,   // the first input is bool, the others are promoted
};

// X(name, inputs, rule, cost, parameter a, parameter b): cost in loads and adds, 1 is memory bound.
// clang-format off
#define STRIATE_MAP_OPS(X)                                      \
  X(add, 2, numeric, 1, nullptr, nullptr)                       \
  X(sub, 2, numeric, 1, nullptr, nullptr)                       \
  X(mul, 2, numeric, 1, nullptr, nullptr)                       \
  X(div, 2, floating, 1, nullptr, nullptr)                      \
  X(maximum, 2, numeric, 1, nullptr, nullptr)                   \
  X(minimum, 2, numeric, 1, nullptr, nullptr)                   \
  X(pow, 2, numeric, 8, nullptr, nullptr)                       \
  X(neg, 1, numeric, 1, nullptr, nullptr)                       \
  X(abs, 1, numeric, 1, nullptr, nullptr)                       \
  X(square, 1, numeric, 1, nullptr, nullptr)                    \
  X(sign, 1, numeric, 1, nullptr, nullptr)                      \
  X(floor, 1, numeric, 1, nullptr, nullptr)                     \
  X(ceil, 1, numeric, 1, nullptr, nullptr)                      \
  X(round, 1, numeric, 1, nullptr, nullptr)                     \
  X(relu, 1, numeric, 1, nullptr, nullptr)                      \
  X(clip, 1, numeric, 1, "lo", "hi")                            \
  X(reciprocal, 1, floating, 1, nullptr, nullptr)               \
  X(sqrt, 1, floating, 1, nullptr, nullptr)                     \
  X(rsqrt, 1, floating, 2, nullptr, nullptr)                    \
  X(exp, 1, floating, 8, nullptr, nullptr)                      \
  X(expm1, 1, floating, 8, nullptr, nullptr)                    \
  X(log, 1, floating, 8, nullptr, nullptr)                      \
  X(log1p, 1, floating, 8, nullptr, nullptr)                    \
  X(sin, 1, floating, 8, nullptr, nullptr)                      \
  X(cos, 1, floating, 8, nullptr, nullptr)                      \
  X(erf, 1, floating, 8, nullptr, nullptr)                      \
  X(tanh, 1, floating, 8, nullptr, nullptr)                     \
  X(eq, 2, compares, 1, nullptr, nullptr)                       \
  X(ne, 2, compares, 1, nullptr, nullptr)                       \
  X(lt, 2, compares, 1, nullptr, nullptr)                       \
  X(le, 2, compares, 1, nullptr, nullptr)                       \
  X(gt, 2, compares, 1, nullptr, nullptr)                       \
  X(ge, 2, compares, 1, nullptr, nullptr)                       \
  X(isnan, 1, compares, 1, nullptr, nullptr)                    \
  X(isinf, 1, compares, 1, nullptr, nullptr)                    \
  X(isfinite, 1, compares, 1, nullptr, nullptr)                 \
  X(logical_and, 2, logical, 1, nullptr, nullptr)               \
  X(logical_or, 2, logical, 1, nullptr, nullptr)                \
  X(logical_xor, 2, logical, 1, nullptr, nullptr)               \
  X(logical_not, 1, logical, 1, nullptr, nullptr)               \
  X(where, 3, chooses, 1, nullptr, nullptr)                     \
  X(relu_grad, 2, floating, 1, nullptr, nullptr)                \
  X(clip_grad, 2, floating, 1, "lo", "hi")                      \
  X(maximum_grad, 3, floating, 1, nullptr, nullptr)             \
  X(minimum_grad, 3, floating, 1, nullptr, nullptr)             \
  X(relu6, 1, numeric, 1, nullptr, nullptr)                     \
  X(relu6_grad, 2, floating, 1, nullptr, nullptr)               \
  X(leaky_relu, 1, floating, 1, "negative_slope", nullptr)      \
  X(leaky_relu_grad, 2, floating, 1, "negative_slope", nullptr) \
  X(prelu, 2, floating, 1, nullptr, nullptr)                    \
  X(prelu_grad, 3, floating, 1, nullptr, nullptr)               \
  X(prelu_grad_weight, 2, floating, 1, nullptr, nullptr)        \
  X(hardswish, 1, floating, 1, nullptr, nullptr)                \
  X(hardswish_grad, 2, floating, 1, nullptr, nullptr)           \
  X(hardsigmoid, 1, floating, 1, nullptr, nullptr)              \
  X(hardsigmoid_grad, 2, floating, 1, nullptr, nullptr)         \
  X(elu, 1, floating, 8, "alpha", nullptr)                      \
  X(elu_grad, 2, floating, 8, "alpha", nullptr)                 \
  X(selu, 1, floating, 8, nullptr, nullptr)                     \
  X(selu_grad, 2, floating, 8, nullptr, nullptr)                \
  X(gelu, 1, floating, 8, nullptr, nullptr)                     \
  X(gelu_grad, 2, floating, 8, nullptr, nullptr)                \
  X(gelu_tanh, 1, floating, 8, nullptr, nullptr)                \
  X(gelu_tanh_grad, 2, floating, 8, nullptr, nullptr)           \
  X(silu, 1, floating, 4, nullptr, nullptr)                     \
  X(silu_grad, 2, floating, 4, nullptr, nullptr)                \
  X(mish, 1, floating, 8, nullptr, nullptr)                     \
  X(mish_grad, 2, floating, 8, nullptr, nullptr)                \
  X(sigmoid, 1, floating, 4, nullptr, nullptr)                  \
  X(sigmoid_grad, 2, floating, 1, nullptr, nullptr)             \
  X(tanh_grad, 2, floating, 1, nullptr, nullptr)                \
  X(softplus, 1, floating, 8, "beta", "threshold")              \
  X(softplus_grad, 2, floating, 8, "beta", "threshold")         \
  X(mask_scale, 2, chooses, 1, "scale", nullptr)                \
  X(huber, 1, floating, 1, "delta", nullptr)                    \
  X(huber_grad, 2, floating, 1, "delta", nullptr)               \
  X(bce_logits, 3, floating, 8, nullptr, nullptr)               \
  X(bce_logits_grad, 4, floating, 8, nullptr, nullptr)
// clang-format on

enum class MapOp : int {
#define STRIATE_ENUMERATE(name, inputs, rule, cost, a, b) name,
  STRIATE_MAP_OPS(STRIATE_ENUMERATE)
#undef STRIATE_ENUMERATE
};
#define STRIATE_COUNT(name, inputs, rule, cost, a, b) +1
inline constexpr int kMapOps = 0 STRIATE_MAP_OPS(STRIATE_COUNT);
#undef STRIATE_COUNT

// y[r][i] = x[r][i], converted: floats round to nearest even, to integers they truncate; bool is x != 0.
using CopyFn = void (*)(std::ptrdiff_t rows, std::ptrdiff_t n, const void* x, std::ptrdiff_t x_row, std::ptrdiff_t x_step,
                        void* y, std::ptrdiff_t y_row, std::ptrdiff_t y_step);
// y[k][i] = x[i][k] for i < n_i, k < n_k; both inner steps are 1.
using TransposeFn = void (*)(std::ptrdiff_t n_i, std::ptrdiff_t n_k, const void* x, std::ptrdiff_t x_row, void* y,
                             std::ptrdiff_t y_row);

// Copies bytes past the caches; y is aligned to 64 and n_bytes a multiple of it.
using StreamFn = void (*)(const void* x, void* y, std::ptrdiff_t n_bytes);

// Row r of y is row r of x[0], of x[1], …: n_bytes[k] each. `streams`: past the caches; y is aligned to 64 and all n_bytes
// are multiples of it.
using JoinFn = void (*)(std::ptrdiff_t row, std::ptrdiff_t end_row, std::ptrdiff_t n_inputs, const std::byte* const* x,
                        const std::ptrdiff_t* n_bytes, std::byte* y, bool streams);

struct MapKernels {
  MapFn map[kMapOps][kMapTypes];  // null where the operator has no such type
  CopyFn copy[9][9];              // [DType of x][DType of y]
  TransposeFn transpose[4];       // [log2 of the item's bytes]
  StreamFn stream;
  JoinFn join;
};

// x (P, R, Q) → y (P, Q), y[p][q] = ⊕_r x[p][r][q]. Fixed order for a given geometry and instruction set.
struct ReduceRun {
  std::ptrdiff_t p, r, q;
  const void* x;
  std::ptrdiff_t x_p, x_r;  // elements from p to p and from r to r; q has step 1
  void* y;
  std::ptrdiff_t y_p;
};
using ReduceFn = void (*)(const ReduceRun& run);
enum class ReduceOp : int { sum, prod, max, min };
inline constexpr int kReduceOps = 4;

struct ReduceKernels {
  ReduceFn reduce[kReduceOps][3];  // [op][f32, f64, i64]
};

}  // namespace striate
