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
#define STRIATE_MAP_OPS(X)                 \
  X(add, 2, numeric, 1, nullptr, nullptr)  \
  X(sub, 2, numeric, 1, nullptr, nullptr)  \
  X(mul, 2, numeric, 1, nullptr, nullptr)  \
  X(div, 2, floating, 1, nullptr, nullptr) \
  X(neg, 1, numeric, 1, nullptr, nullptr)  \
  X(relu, 1, numeric, 1, nullptr, nullptr) \
  X(relu_grad, 2, floating, 1, nullptr, nullptr)

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

struct MapKernels {
  MapFn map[kMapOps][kMapTypes];  // null where the operator has no such type
  CopyFn copy[9][9];              // [DType of x][DType of y]
  TransposeFn transpose[4];       // [log2 of the item's bytes]
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
