// The loops behind element-wise kernels: a formula, given as a captureless lambda, becomes a MapFn that the compiler
// vectorises.
#pragma once

#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

// The parameters of an operator, as every formula receives them.
struct Parameters {
  double a;
  double b;
};

template <class T>
STRIATE_INLINE const T* row_of(const MapRun& run, int k, std::ptrdiff_t r) {
  return static_cast<const T*>(run.x[k]) + r * run.x_row[k];
}

template <class Y, class X, class F>
void map1(const MapRun& run) {
  const Parameters p{run.a, run.b};
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const X* __restrict x = row_of<X>(run, 0, r);
    Y* __restrict y = static_cast<Y*>(run.y) + r * run.y_row;
    for (std::ptrdiff_t i = 0; i < run.n; ++i) {
      y[i] = F{}(x[i], p);
    }
  }
}

template <class Y, class X, class F>
void map2(const MapRun& run) {
  const Parameters p{run.a, run.b};
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const X* __restrict x0 = row_of<X>(run, 0, r);
    const X* __restrict x1 = row_of<X>(run, 1, r);
    Y* __restrict y = static_cast<Y*>(run.y) + r * run.y_row;
    if (run.x_step[0] == 1 && run.x_step[1] == 1) {
      for (std::ptrdiff_t i = 0; i < run.n; ++i) {
        y[i] = F{}(x0[i], x1[i], p);
      }
    } else if (run.x_step[0] == 1) {
      const X value = *x1;
      for (std::ptrdiff_t i = 0; i < run.n; ++i) {
        y[i] = F{}(x0[i], value, p);
      }
    } else if (run.x_step[1] == 1) {
      const X value = *x0;
      for (std::ptrdiff_t i = 0; i < run.n; ++i) {
        y[i] = F{}(value, x1[i], p);
      }
    } else {
      const Y value = F{}(*x0, *x1, p);
      for (std::ptrdiff_t i = 0; i < run.n; ++i) {
        y[i] = value;
      }
    }
  }
}

template <class Y, class X0, class X, class F>
void map3(const MapRun& run) {
  const Parameters p{run.a, run.b};
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const X0* __restrict x0 = row_of<X0>(run, 0, r);
    const X* __restrict x1 = row_of<X>(run, 1, r);
    const X* __restrict x2 = row_of<X>(run, 2, r);
    Y* __restrict y = static_cast<Y*>(run.y) + r * run.y_row;
    for (std::ptrdiff_t i = 0; i < run.n; ++i) {
      y[i] = F{}(x0[i], x1[i], x2[i], p);
    }
  }
}

template <class T, class F>
void map4(const MapRun& run) {
  const Parameters p{run.a, run.b};
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const T* __restrict x0 = row_of<T>(run, 0, r);
    const T* __restrict x1 = row_of<T>(run, 1, r);
    const T* __restrict x2 = row_of<T>(run, 2, r);
    const T* __restrict x3 = row_of<T>(run, 3, r);
    T* __restrict y = static_cast<T*>(run.y) + r * run.y_row;
    for (std::ptrdiff_t i = 0; i < run.n; ++i) {
      y[i] = F{}(x0[i], x1[i], x2[i], x3[i], p);
    }
  }
}

// y = the mask is set ? f(x) : 0
template <class T, class F>
void map_masked(const MapRun& run) {
  const Parameters p{run.a, run.b};
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const std::uint8_t* __restrict mask = row_of<std::uint8_t>(run, 0, r);
    const T* __restrict x = row_of<T>(run, 1, r);
    T* __restrict y = static_cast<T*>(run.y) + r * run.y_row;
    for (std::ptrdiff_t i = 0; i < run.n; ++i) {
      y[i] = mask[i] != 0 ? F{}(x[i], p) : T(0);
    }
  }
}

template <class T>
inline constexpr int kMapTypeOf = 0;
template <>
inline constexpr int kMapTypeOf<double> = 1;
template <>
inline constexpr int kMapTypeOf<std::int64_t> = 2;
template <>
inline constexpr int kMapTypeOf<std::uint8_t> = 3;

// Puts formula F, for inputs and result of type T, into the table.
template <class T, class F>
void set1(MapKernels& table, MapOp op, F /*formula*/) {
  table.map[static_cast<int>(op)][kMapTypeOf<T>] = map1<T, T, F>;
}
template <class T, class F>
void set2(MapKernels& table, MapOp op, F /*formula*/) {
  table.map[static_cast<int>(op)][kMapTypeOf<T>] = map2<T, T, F>;
}
template <class T, class F>
void set3(MapKernels& table, MapOp op, F /*formula*/) {
  table.map[static_cast<int>(op)][kMapTypeOf<T>] = map3<T, T, T, F>;
}

// Predicates: inputs of type T, one byte out.
template <class T, class F>
void set_test1(MapKernels& table, MapOp op, F /*formula*/) {
  table.map[static_cast<int>(op)][kMapTypeOf<T>] = map1<std::uint8_t, T, F>;
}
template <class T, class F>
void set_test2(MapKernels& table, MapOp op, F /*formula*/) {
  table.map[static_cast<int>(op)][kMapTypeOf<T>] = map2<std::uint8_t, T, F>;
}

}  // namespace
}  // namespace striate::STRIATE_TARGET
