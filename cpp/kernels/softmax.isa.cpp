// Softmax and losses over classes: exponentials of x − max; softmax a block of rows at a time in lanes of T, losses row by
// row with sums in double.
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

// eˣ for x ≤ 88; 0 below the normal numbers.
STRIATE_INLINE Vec<float> exp_down(Vec<float> x) { return exp_of(at_least<float>(x, broadcast(-88.0f))); }
STRIATE_INLINE Vec<double> exp_down(Vec<double> x) {
  for (int i = 0; i < kWidth<double>; ++i) {
    x[i] = __builtin_exp(x[i]);
  }
  return x;
}

// The lanes of a row of n: whole vectors, and a last one of `rest` lanes.
template <class T>
struct Row {
  std::ptrdiff_t whole;
  std::ptrdiff_t rest;
  Mask<T> is_in_rest;

  explicit STRIATE_INLINE Row(std::ptrdiff_t n) : whole(n / kWidth<T> * kWidth<T>), rest(n % kWidth<T>) {
    Vec<T> lane{};
    for (int i = 0; i < kWidth<T>; ++i) {
      lane[i] = static_cast<T>(i);
    }
    is_in_rest = lane < broadcast(static_cast<T>(rest));
  }

  // y = f(x…), lane by lane; the lanes beyond the row read as 0.
  template <class F, class... X>
  STRIATE_INLINE void map(T* y, const F& f, const X*... x) const {
    for (std::ptrdiff_t at = 0; at < whole; at += kWidth<T>) {
      store(y + at, f(load(x + at)...));
    }
    if (rest > 0) {
      store_partial(y + whole, f(load_partial(x + whole, rest)...), rest);
    }
  }
};

template <class T>
STRIATE_INLINE Vec<T> greater(Vec<T> a, Vec<T> b) {  // b where a is NaN
  return a > b ? a : b;
}

// The largest of the numbers of a row, by lanes; NaN is passed over: the sum that follows meets it.
template <class T>
STRIATE_INLINE Vec<T> largest(const Row<T>& row, const T* x) {
  const Vec<T> none = broadcast(-static_cast<T>(kInfinity));
  Vec<T> top[4] = {none, none, none, none};
  std::ptrdiff_t at = 0;
  for (; at + 4 * kWidth<T> <= row.whole; at += 4 * kWidth<T>) {
    for (int i = 0; i < 4; ++i) {
      top[i] = greater<T>(load(x + at + i * kWidth<T>), top[i]);
    }
  }
  for (; at < row.whole; at += kWidth<T>) {
    top[0] = greater<T>(load(x + at), top[0]);
  }
  if (row.rest > 0) {
    top[1] = greater<T>(row.is_in_rest ? load_partial(x + row.whole, row.rest) : none, top[1]);
  }
  return greater<T>(greater<T>(top[0], top[1]), greater<T>(top[2], top[3]));
}

// Σ f(x…) of a row, by lanes.
template <class T, class F, class... X>
STRIATE_INLINE Vec<T> lane_sums(const Row<T>& row, const F& f, const X*... x) {
  Vec<T> sum[2] = {};
  std::ptrdiff_t at = 0;
  for (; at + 2 * kWidth<T> <= row.whole; at += 2 * kWidth<T>) {
    sum[0] += f(load(x + at)...);
    sum[1] += f(load(x + at + kWidth<T>)...);
  }
  if (at < row.whole) {
    sum[0] += f(load(x + at)...);
  }
  if (row.rest > 0) {
    sum[1] += row.is_in_rest ? f(load_partial(x + row.whole, row.rest)...) : Vec<T>{};
  }
  return sum[0] + sum[1];
}

// y = e^(x − shift) of a row; their sum, by lanes.
template <class T>
STRIATE_INLINE Vec<T> exp_row(const Row<T>& row, const T* x, Vec<T> shift, T* y) {
  Vec<T> sum{};
  for (std::ptrdiff_t at = 0; at < row.whole; at += kWidth<T>) {
    const Vec<T> e = exp_down(load(x + at) - shift);
    store(y + at, e);
    sum += e;
  }
  if (row.rest > 0) {
    const Vec<T> e = exp_down(load_partial(x + row.whole, row.rest) - shift);
    store_partial(y + row.whole, e, row.rest);
    sum += row.is_in_rest ? e : Vec<T>{};
  }
  return sum;
}

// Rows at a time: as many as lanes, so that one tree folds the lanes of all, fewer when they would not stay in the nearest
// cache from one pass to the next. A row's result does not depend on its neighbours.
template <class T>
struct Block {
  static constexpr std::ptrdiff_t kBytes = 16384;
  Row<T> row;
  std::ptrdiff_t n;
  std::ptrdiff_t most;  // rows

  explicit STRIATE_INLINE Block(std::ptrdiff_t n_classes) : row(n_classes), n(n_classes) {
    const std::ptrdiff_t fit = kBytes / (n * static_cast<std::ptrdiff_t>(sizeof(T)));
    most = fit < 1 ? 1 : fit < kWidth<T> ? fit : kWidth<T>;
  }
};

// f(r) gives the lanes of row r, r < count; value[r] of the result is all of them combined by `both`.
template <class T, class F, class G>
STRIATE_INLINE Vec<T> fold_rows(std::ptrdiff_t count, const F& f, const G& both) {
  Vec<T> part[kWidth<T>];
  for (std::ptrdiff_t r = 0; r < count; ++r) {
    part[r] = f(r);
  }
  for (std::ptrdiff_t r = count; r < kWidth<T>; ++r) {
    part[r] = Vec<T>{};
  }
  return fold_lanes<T>(part, both);
}
template <class T, class F>
STRIATE_INLINE Vec<T> sum_rows(std::ptrdiff_t count, const F& f) {
  return fold_rows<T>(count, f, [](Vec<T> a, Vec<T> b) { return a + b; });
}
template <class T>
STRIATE_INLINE void largest_of_rows(const Block<T>& block, std::ptrdiff_t count, const T* x, T* top) {
  store(top, fold_rows<T>(
                 count, [&](std::ptrdiff_t r) { return largest(block.row, x + r * block.n); },
                 [](Vec<T> a, Vec<T> b) { return greater<T>(a, b); }));
}

// Calls f(count, offset) for one block of rows after another.
template <class T, class F>
STRIATE_INLINE void each_block(const Block<T>& block, std::ptrdiff_t rows, const F& f) {
  for (std::ptrdiff_t r = 0; r < rows; r += block.most) {
    f(rows - r < block.most ? rows - r : block.most, r * block.n);
  }
}

// y = eˣ / Σ eˣ
template <class T>
void softmax(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void*, void* out) {
  const Block<T> block(n);
  each_block(block, rows, [&](std::ptrdiff_t count, std::ptrdiff_t offset) {
    const T* const x = static_cast<const T*>(a) + offset;
    T* const y = static_cast<T*>(out) + offset;
    T top[kWidth<T>];
    T inverse[kWidth<T>];
    largest_of_rows(block, count, x, top);
    const Vec<T> sum = sum_rows<T>(count, [&](std::ptrdiff_t r) {
      const Vec<T> shift = broadcast(top[r]);
      return exp_row(block.row, x + r * n, shift, y + r * n);
    });
    store(inverse, broadcast(T(1)) / sum);
    for (std::ptrdiff_t r = 0; r < count; ++r) {
      const Vec<T> scale = broadcast(inverse[r]);
      block.row.map(y + r * n, [&](Vec<T> v) { return v * scale; }, y + r * n);
    }
  });
}

// y = x − ln Σ eˣ
template <class T>
void log_softmax(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void*, void* out) {
  const Block<T> block(n);
  each_block(block, rows, [&](std::ptrdiff_t count, std::ptrdiff_t offset) {
    const T* const x = static_cast<const T*>(a) + offset;
    T* const y = static_cast<T*>(out) + offset;
    T top[kWidth<T>];
    T log_sum[kWidth<T>];
    largest_of_rows(block, count, x, top);
    store(log_sum, sum_rows<T>(count, [&](std::ptrdiff_t r) {
            const Vec<T> shift = broadcast(top[r]);
            return lane_sums(block.row, [&](Vec<T> v) { return exp_down(v - shift); }, x + r * n);
          }));
    for (int r = 0; r < kWidth<T>; ++r) {
      log_sum[r] = static_cast<T>(Math<T>::log(log_sum[r]));
    }
    for (std::ptrdiff_t r = 0; r < count; ++r) {
      const Vec<T> shift = broadcast(top[r]);
      const Vec<T> rest = broadcast(log_sum[r]);
      block.row.map(y + r * n, [&](Vec<T> v) { return v - shift - rest; }, x + r * n);
    }
  });
}

// grad_x = y·(g − Σ g·y)
template <class T>
void softmax_grad(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void* b, void* out) {
  const Block<T> block(n);
  each_block(block, rows, [&](std::ptrdiff_t count, std::ptrdiff_t offset) {
    const T* const g = static_cast<const T*>(a) + offset;
    const T* const y = static_cast<const T*>(b) + offset;
    T* const grad_x = static_cast<T*>(out) + offset;
    T dot[kWidth<T>];
    store(dot, sum_rows<T>(count, [&](std::ptrdiff_t r) {
            return lane_sums(block.row, [](Vec<T> u, Vec<T> v) { return u * v; }, g + r * n, y + r * n);
          }));
    for (std::ptrdiff_t r = 0; r < count; ++r) {
      const Vec<T> mean = broadcast(dot[r]);
      block.row.map(grad_x + r * n, [&](Vec<T> u, Vec<T> v) { return v * (u - mean); }, g + r * n, y + r * n);
    }
  });
}

// grad_x = g − e^y·Σ g
template <class T>
void log_softmax_grad(std::ptrdiff_t rows, std::ptrdiff_t n, const void* a, const void* b, void* out) {
  const Block<T> block(n);
  each_block(block, rows, [&](std::ptrdiff_t count, std::ptrdiff_t offset) {
    const T* const g = static_cast<const T*>(a) + offset;
    const T* const y = static_cast<const T*>(b) + offset;
    T* const grad_x = static_cast<T*>(out) + offset;
    const Vec<T> most = broadcast(T(88));  // log-probabilities are not above 0
    T sum[kWidth<T>];
    store(sum,
          sum_rows<T>(count, [&](std::ptrdiff_t r) { return lane_sums(block.row, [](Vec<T> u) { return u; }, g + r * n); }));
    for (std::ptrdiff_t r = 0; r < count; ++r) {
      const Vec<T> total = broadcast(-sum[r]);
      block.row.map(
          grad_x + r * n, [&](Vec<T> u, Vec<T> v) { return fma<T>(exp_down(at_most<T>(v, most)), total, u); }, g + r * n,
          y + r * n);
    }
  });
}

template <class T>
STRIATE_INLINE double log_sum_exp(const T* x, std::ptrdiff_t n) {
  const double top = shift_of(row_max(x, n));
  return top + Math<T>::log(lane_sum(n, [&](std::ptrdiff_t i) { return Math<T>::exp(static_cast<double>(x[i]) - top); }));
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
