// Normalisation over rows of channels. Contracts: norm.hpp. Plain loops over channels that the compiler vectorises; four
// rows at a time, so that the accumulators in L1 are loaded and stored once per four rows, and sums are short trees. The
// sums of a gradient, which read most memory, go by vectors and eight rows.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

template <class T>
void sum_rows(const T* x, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels, T* __restrict sum) {
  std::ptrdiff_t r = 0;
  for (; r + 4 <= n; r += 4) {
    const T* const x0 = x + r * stride;
    const T* const x1 = x0 + stride;
    const T* const x2 = x1 + stride;
    const T* const x3 = x2 + stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      sum[c] += (x0[c] + x1[c]) + (x2[c] + x3[c]);
    }
  }
  for (; r < n; ++r) {
    const T* const x0 = x + r * stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      sum[c] += x0[c];
    }
  }
}

template <class T>
void moments(const T* x, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels, T* __restrict mean,
             T* __restrict m2) {
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    mean[c] = T(0);
    m2[c] = T(0);
  }
  sum_rows(x, stride, n, channels, mean);
  const T count = static_cast<T>(n);
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    mean[c] /= count;
  }
  std::ptrdiff_t r = 0;
  for (; r + 4 <= n; r += 4) {
    const T* const x0 = x + r * stride;
    const T* const x1 = x0 + stride;
    const T* const x2 = x1 + stride;
    const T* const x3 = x2 + stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T d0 = x0[c] - mean[c];
      const T d1 = x1[c] - mean[c];
      const T d2 = x2[c] - mean[c];
      const T d3 = x3[c] - mean[c];
      m2[c] += madd(d0, d0, d1 * d1) + madd(d2, d2, d3 * d3);
    }
  }
  for (; r < n; ++r) {
    const T* const x0 = x + r * stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T d = x0[c] - mean[c];
      m2[c] = madd(d, d, m2[c]);
    }
  }
}

template <class T>
void moments_about(const T* x, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels, const T* __restrict pivot,
                   T* __restrict mean, T* __restrict m2) {
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    mean[c] = T(0);
    m2[c] = T(0);
  }
  std::ptrdiff_t r = 0;
  for (; r + 4 <= n; r += 4) {
    const T* const x0 = x + r * stride;
    const T* const x1 = x0 + stride;
    const T* const x2 = x1 + stride;
    const T* const x3 = x2 + stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T d0 = x0[c] - pivot[c];
      const T d1 = x1[c] - pivot[c];
      const T d2 = x2[c] - pivot[c];
      const T d3 = x3[c] - pivot[c];
      mean[c] += (d0 + d1) + (d2 + d3);
      m2[c] += madd(d0, d0, d1 * d1) + madd(d2, d2, d3 * d3);
    }
  }
  for (; r < n; ++r) {
    const T* const x0 = x + r * stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T d = x0[c] - pivot[c];
      mean[c] += d;
      m2[c] = madd(d, d, m2[c]);
    }
  }
  const T share = T(1) / static_cast<T>(n);
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    const T distance = mean[c] * share;  // of the mean from the pivot
    const T rest = m2[c] - distance * mean[c];
    m2[c] = rest < T(0) ? T(0) : rest;  // keeps a NaN
    mean[c] = pivot[c] + distance;
  }
}

template <class T>
void merge(T* __restrict mean_a, T* __restrict m2_a, std::ptrdiff_t n_a, const T* __restrict mean_b,
           const T* __restrict m2_b, std::ptrdiff_t n_b, std::ptrdiff_t channels) {
  const T share = static_cast<T>(static_cast<double>(n_b) / static_cast<double>(n_a + n_b));
  const T weight = static_cast<T>(static_cast<double>(n_a) * static_cast<double>(n_b) / static_cast<double>(n_a + n_b));
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    const T delta = mean_b[c] - mean_a[c];
    mean_a[c] = madd(delta, share, mean_a[c]);
    m2_a[c] += madd(delta * delta, weight, m2_b[c]);
  }
}

template <class T, bool kAdds, bool kHasRelu>
void apply_rows(const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n, std::ptrdiff_t channels, const T* __restrict mean,
                const T* __restrict scale, const T* __restrict bias, const T* z, std::ptrdiff_t z_stride, T most, T* y,
                std::ptrdiff_t y_stride) {
  for (std::ptrdiff_t r = 0; r < n; ++r) {
    const T* __restrict const in = x + r * x_stride;
    const T* __restrict const addend = kAdds ? z + r * z_stride : nullptr;
    T* __restrict const out = y + r * y_stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      T value = madd(in[c] - mean[c], scale[c], bias[c]);
      if constexpr (kAdds) {
        value += addend[c];
      }
      if constexpr (kHasRelu) {
        value = value < T(0) ? T(0) : value;
        value = value > most ? most : value;
      }
      out[c] = value;
    }
  }
}

// Stores n rows past the caches, some at a time: f(first, rows, to) computes them in near memory.
template <class T, class F>
STRIATE_INLINE void stream_rows(std::ptrdiff_t n, std::ptrdiff_t channels, T* y, F&& f) {
  alignas(64) T near[kMostStreamed];
  const std::ptrdiff_t each = kMostStreamed / channels;
  for (std::ptrdiff_t first = 0; first < n; first += each) {
    const std::ptrdiff_t rows = n - first < each ? n - first : each;
    f(first, rows, near);
    T* const to = y + first * channels;
    for (std::ptrdiff_t i = 0; i < rows * channels; i += kWidth<T>) {
      store_stream<T>(to + i, load(near + i));
    }
  }
}

template <class T>
void apply(const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n, std::ptrdiff_t channels, const T* mean, const T* scale,
           const T* bias, const T* z, std::ptrdiff_t z_stride, bool has_relu, T most, T* y, std::ptrdiff_t y_stride,
           bool streams) {
  const auto run = z != nullptr ? (has_relu ? apply_rows<T, true, true> : apply_rows<T, true, false>)
                                : (has_relu ? apply_rows<T, false, true> : apply_rows<T, false, false>);
  if (streams) {
    stream_rows(n, channels, y, [&](std::ptrdiff_t first, std::ptrdiff_t rows, T* to) {
      run(x + first * x_stride, x_stride, rows, channels, mean, scale, bias, z == nullptr ? nullptr : z + first * z_stride,
          z_stride, most, to, channels);
    });
    return;
  }
  run(x, x_stride, n, channels, mean, scale, bias, z, z_stride, most, y, y_stride);
}

// A gradient before min(max(madd(d, scale, bias), 0), most).
template <class T, bool kHasRelu>
STRIATE_INLINE T passed(T g, T d, T scale, T bias, T most) {
  if constexpr (kHasRelu) {
    const T y = madd(d, scale, bias);
    return y <= T(0) || y >= most ? T(0) : g;
  }
  return g;
}

// The rows of g and x that sums go over together, and the rows behind them, which are asked for meanwhile, all their lines
// in the order in which they lie. Rows of 256 channels come at 12 to 14 GB/s if nothing is asked for, or column by column as
// they are read, at 32 in this order; a plain sum of the same memory at 38 (Zen 4, one thread).
template <class T>
struct Together {
  static constexpr std::ptrdiff_t kRows = 8;

  const T* g;
  std::ptrdiff_t g_stride;
  const T* x;
  std::ptrdiff_t x_stride;
  std::ptrdiff_t n;  // at most kRows
  const char* g_ahead;
  const char* x_ahead;

  STRIATE_INLINE void ask(std::ptrdiff_t bytes) {
    for (std::ptrdiff_t i = 0; i < bytes; i += 64) {
      __builtin_prefetch(g_ahead + i);
      __builtin_prefetch(x_ahead + i);
    }
    g_ahead += bytes;
    x_ahead += bytes;
  }
};

// What `passed` is for a vector; scale and bias are read where it has a ReLU.
template <class T, bool kHasRelu>
STRIATE_INLINE Vec<T> passed_lanes(Vec<T> g, Vec<T> d, Vec<T> scale, Vec<T> bias, Vec<T> most) {
  if constexpr (kHasRelu) {
    const Vec<T> y = fma<T>(d, scale, bias);
    return ((y <= Vec<T>{}) | (y >= most)) ? Vec<T>{} : g;
  }
  return g;
}

// sum_g and sum_gx of kVectors vectors of channels from c, of which the last has `lanes`.
template <class T, bool kHasRelu, int kVectors, bool kIsWhole>
STRIATE_INLINE void sums_columns(Together<T>& rows, std::ptrdiff_t c, std::ptrdiff_t lanes, const T* mean, const T* scale,
                                 const T* bias, T most, T* sum_g, T* sum_gx) {
  const auto read = [&](const T* from, int i) {
    return kIsWhole ? load(from + c + i * kWidth<T>) : load_partial(from + c, lanes);
  };
  Vec<T> m[kVectors];
  Vec<T> s[kVectors];
  Vec<T> b[kVectors];
  Vec<T> of_g[kVectors];
  Vec<T> of_gx[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    m[i] = read(mean, i);
    s[i] = kHasRelu ? read(scale, i) : Vec<T>{};
    b[i] = kHasRelu ? read(bias, i) : Vec<T>{};
    of_g[i] = Vec<T>{};
    of_gx[i] = Vec<T>{};
  }
  const Vec<T> upper = broadcast(most);
  const T* g = rows.g;
  const T* x = rows.x;
  for (std::ptrdiff_t r = 0; r < rows.n; ++r, g += rows.g_stride, x += rows.x_stride) {
    rows.ask(kVectors * kVecBytes);
    for (int i = 0; i < kVectors; ++i) {
      const Vec<T> d = read(x, i) - m[i];
      const Vec<T> v = passed_lanes<T, kHasRelu>(read(g, i), d, s[i], b[i], upper);
      of_g[i] += v;
      of_gx[i] = fma<T>(v, d, of_gx[i]);
    }
  }
  for (int i = 0; i < kVectors; ++i) {
    T* const to_g = sum_g + c + i * kWidth<T>;
    T* const to_gx = sum_gx + c + i * kWidth<T>;
    if constexpr (kIsWhole) {
      store(to_g, load(to_g) + of_g[i]);
      store(to_gx, load(to_gx) + of_gx[i]);
    } else {
      store_partial(to_g, load_partial(to_g, lanes) + of_g[i], lanes);
      store_partial(to_gx, load_partial(to_gx, lanes) + of_gx[i], lanes);
    }
  }
}

template <class T, bool kHasRelu>
void sums_rows(const T* g, std::ptrdiff_t g_stride, const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n,
               std::ptrdiff_t channels, const T* mean, const T* scale, const T* bias, T most, T* sum_g, T* sum_gx) {
  constexpr int kVectors = kHasRelu ? 2 : 4;  // five values or three a vector stay in registers
  constexpr std::ptrdiff_t kAtOnce = kVectors * kWidth<T>;
  constexpr std::ptrdiff_t kRows = Together<T>::kRows;
  for (std::ptrdiff_t r = 0; r < n; r += kRows) {
    const T* const g_rows = g + r * g_stride;
    const T* const x_rows = x + r * x_stride;
    Together<T> rows{.g = g_rows,
                     .g_stride = g_stride,
                     .x = x_rows,
                     .x_stride = x_stride,
                     .n = n - r < kRows ? n - r : kRows,
                     .g_ahead = reinterpret_cast<const char*>(g_rows + kRows * g_stride),
                     .x_ahead = reinterpret_cast<const char*>(x_rows + kRows * x_stride)};
    std::ptrdiff_t c = 0;
    for (; c + kAtOnce <= channels; c += kAtOnce) {
      sums_columns<T, kHasRelu, kVectors, true>(rows, c, kWidth<T>, mean, scale, bias, most, sum_g, sum_gx);
    }
    for (; c + kWidth<T> <= channels; c += kWidth<T>) {
      sums_columns<T, kHasRelu, 1, true>(rows, c, kWidth<T>, mean, scale, bias, most, sum_g, sum_gx);
    }
    if (c < channels) {
      sums_columns<T, kHasRelu, 1, false>(rows, c, channels - c, mean, scale, bias, most, sum_g, sum_gx);
    }
  }
}

template <class T>
void sums(const T* g, std::ptrdiff_t g_stride, const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n,
          std::ptrdiff_t channels, const T* mean, const T* scale, const T* bias, T most, T* sum_g, T* sum_gx) {
  (scale != nullptr ? sums_rows<T, true> : sums_rows<T, false>)(g, g_stride, x, x_stride, n, channels, mean, scale, bias,
                                                                most, sum_g, sum_gx);
}

template <class T, bool kHasRelu>
void grad_rows(const T* g, std::ptrdiff_t g_stride, const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n,
               std::ptrdiff_t channels, const T* __restrict mean, const T* __restrict scale, const T* __restrict bias,
               T most, const T* __restrict a, const T* __restrict b, const T* __restrict k, T* grad_x,
               std::ptrdiff_t grad_x_stride) {
  for (std::ptrdiff_t r = 0; r < n; ++r) {
    const T* __restrict const g_row = g + r * g_stride;
    const T* __restrict const x_row = x + r * x_stride;
    T* __restrict const out = grad_x + r * grad_x_stride;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T d = x_row[c] - mean[c];
      const T v = passed<T, kHasRelu>(g_row[c], d, kHasRelu ? scale[c] : T(0), kHasRelu ? bias[c] : T(0), most);
      out[c] = madd(a[c], v, madd(b[c], d, k[c]));
    }
  }
}

template <class T>
void grad(const T* g, std::ptrdiff_t g_stride, const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t n,
          std::ptrdiff_t channels, const T* mean, const T* scale, const T* bias, T most, const T* a, const T* b, const T* k,
          T* grad_x, std::ptrdiff_t grad_x_stride, bool streams) {
  const auto run = scale != nullptr ? grad_rows<T, true> : grad_rows<T, false>;
  if (streams) {
    stream_rows(n, channels, grad_x, [&](std::ptrdiff_t first, std::ptrdiff_t rows, T* to) {
      run(g + first * g_stride, g_stride, x + first * x_stride, x_stride, rows, channels, mean, scale, bias, most, a, b, k,
          to, channels);
    });
    return;
  }
  run(g, g_stride, x, x_stride, n, channels, mean, scale, bias, most, a, b, k, grad_x, grad_x_stride);
}

template <class T>
void add(T* __restrict a, const T* __restrict b, std::ptrdiff_t n) {
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    a[i] += b[i];
  }
}

template <class T>
void fill(NormKernels<T>& table) {
  table.moments = moments<T>;
  table.moments_about = moments_about<T>;
  table.merge = merge<T>;
  table.apply = apply<T>;
  table.sums = sums<T>;
  table.grad = grad<T>;
  table.add = add<T>;
}

}  // namespace

void fill_norm(KernelTable& table) {
  fill(table.norm_f32);
  fill(table.norm_f64);
}

}  // namespace striate::STRIATE_TARGET
