// Reductions of one axis: sum, product, maximum, minimum. Contract: ReduceRun in map.hpp.
//
// Order, a function of geometry and vector width only: rows of q ≥ a vector are taken eight at a time in a tree; runs of q =
// 1 go to 4 vectors of partial results that are folded in a tree. Callers cut r so that chains stay short.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

struct Sum {
  template <class V>
  static STRIATE_INLINE V of(V a, V b) {
    return a + b;
  }
};
struct Prod {
  template <class V>
  static STRIATE_INLINE V of(V a, V b) {
    return a * b;
  }
};
// A NaN wins on either side.
struct Max {
  template <class V>
  static STRIATE_INLINE V of(V a, V b) {
    return (a > b) || (a != a) ? a : b;
  }
};
struct Min {
  template <class V>
  static STRIATE_INLINE V of(V a, V b) {
    return (a < b) || (a != a) ? a : b;
  }
};

inline constexpr int kPartial = 4 * kVecBytes;  // bytes of partial results of a run

// ⊕ of n ≥ 1 values.
template <class Op, class T>
STRIATE_INLINE T reduce_run(const T* x, std::ptrdiff_t n) {
  constexpr std::ptrdiff_t L = kPartial / static_cast<std::ptrdiff_t>(sizeof(T));
  if (n < L) {
    // Halves, not a chain: short rows (classes, channels) are the common case.
    T part[L];
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      part[i] = x[i];
    }
    while (n > 1) {
      const std::ptrdiff_t half = n / 2;
      const std::ptrdiff_t rest = n - half;
      for (std::ptrdiff_t i = 0; i < half; ++i) {
        part[i] = Op::of(part[i], part[rest + i]);
      }
      n = rest;
    }
    return part[0];
  }
  T part[L];
  for (std::ptrdiff_t i = 0; i < L; ++i) {
    part[i] = x[i];
  }
  std::ptrdiff_t at = L;
  for (; at + L <= n; at += L) {
    for (std::ptrdiff_t i = 0; i < L; ++i) {
      part[i] = Op::of(part[i], x[at + i]);
    }
  }
  for (std::ptrdiff_t i = 0; at + i < n; ++i) {
    part[i] = Op::of(part[i], x[at + i]);
  }
  for (std::ptrdiff_t half = L / 2; half > 0; half /= 2) {
    for (std::ptrdiff_t i = 0; i < half; ++i) {
      part[i] = Op::of(part[i], part[half + i]);
    }
  }
  return part[0];
}

// y[i] = ⊕_r x[r][i] for i < n.
template <class Op, class T>
STRIATE_INLINE void reduce_rows(std::ptrdiff_t n_r, std::ptrdiff_t n, const T* __restrict x, std::ptrdiff_t x_r,
                                T* __restrict y) {
  std::ptrdiff_t r = 0;
  if (n_r >= 8) {
    for (; r + 8 <= n_r; r += 8) {
      const T* x0 = x + r * x_r;
      if (r == 0) {
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          y[i] = Op::of(Op::of(Op::of(x0[i], x0[x_r + i]), Op::of(x0[2 * x_r + i], x0[3 * x_r + i])),
                        Op::of(Op::of(x0[4 * x_r + i], x0[5 * x_r + i]), Op::of(x0[6 * x_r + i], x0[7 * x_r + i])));
        }
      } else {
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          y[i] = Op::of(y[i],
                        Op::of(Op::of(Op::of(x0[i], x0[x_r + i]), Op::of(x0[2 * x_r + i], x0[3 * x_r + i])),
                               Op::of(Op::of(x0[4 * x_r + i], x0[5 * x_r + i]), Op::of(x0[6 * x_r + i], x0[7 * x_r + i]))));
        }
      }
    }
  } else {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      y[i] = x[i];
    }
    r = 1;
  }
  for (; r < n_r; ++r) {
    const T* x0 = x + r * x_r;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      y[i] = Op::of(y[i], x0[i]);
    }
  }
}

template <class Op, class T>
void reduce(const ReduceRun& run) {
  constexpr std::ptrdiff_t kWide = 128;
  for (std::ptrdiff_t p = 0; p < run.p; ++p) {
    const T* const x = static_cast<const T*>(run.x) + p * run.x_p;
    T* const y = static_cast<T*>(run.y) + p * run.y_p;
    if (run.q == 1 && run.x_r == 1) {
      *y = reduce_run<Op>(x, run.r);
    } else if (run.q < 16 && run.x_r == run.q && run.r >= 2 * kWide / run.q) {
      // Few columns: fold several rows side by side first, so that lanes are full.
      const std::ptrdiff_t m = kWide / run.q;
      const std::ptrdiff_t width = m * run.q;
      const std::ptrdiff_t n_r = run.r / m;
      T part[kWide];
      reduce_rows<Op>(n_r, width, x, width, part);
      const T* const tail = x + n_r * width;
      for (std::ptrdiff_t i = 0; i < run.r * run.q - n_r * width; ++i) {
        part[i] = Op::of(part[i], tail[i]);
      }
      reduce_rows<Op>(m, run.q, part, run.q, y);
    } else {
      reduce_rows<Op>(run.r, run.q, x, run.x_r, y);
    }
  }
}

template <class T>
void fill(ReduceKernels& table, int type) {
  table.reduce[static_cast<int>(ReduceOp::sum)][type] = reduce<Sum, T>;
  table.reduce[static_cast<int>(ReduceOp::prod)][type] = reduce<Prod, T>;
  table.reduce[static_cast<int>(ReduceOp::max)][type] = reduce<Max, T>;
  table.reduce[static_cast<int>(ReduceOp::min)][type] = reduce<Min, T>;
}

}  // namespace

void fill_reduce(KernelTable& table) {
  fill<float>(table.reductions, 0);
  fill<double>(table.reductions, 1);
  fill<std::int64_t>(table.reductions, 2);
}

}  // namespace striate::STRIATE_TARGET
