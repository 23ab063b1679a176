// Transforms of Winograd convolution; contracts in winograd.hpp.
//
// A transform runs down the rows of a tile into a small array that stays in L1, then down its columns. The points come in
// pairs ±a, so a row is an even part and an odd part, added and subtracted: n/2 multiply-adds an element of the input
// transform, n/2 − 1 of the output transform. Of five, one point b stands alone, before ∞; seven are all
// finite.
// Rounding: at most n multiply-adds per one-dimensional transform; the bound is tests/oracle/winograd.py.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

using V = Vec<float>;
inline constexpr std::ptrdiff_t W = kWidth<float>;
inline constexpr std::ptrdiff_t kLine = 16;  // values of a cache line

// The positive ones of pairs among N points, and the one that stands alone.
template <int N>
struct Points;
template <>
struct Points<4> {
  static constexpr double a[1] = {1};
};
template <>
struct Points<5> {
  static constexpr double a[1] = {0.6875};
  static constexpr double b = 2.25;
};
template <>
struct Points<6> {
  static constexpr double a[2] = {0.625, 1.5};
};
template <>
struct Points<7> {
  static constexpr double a[3] = {0.484375, 1.21875, 4.5};
};
template <>
struct Points<8> {
  static constexpr double a[3] = {1, 2, 0.5};
};

template <int N>
inline constexpr bool kHasSingle = N == 5;
template <int N>
inline constexpr bool kHasInfinity = N != 7;
template <int N>
inline constexpr int kPairs = (kHasInfinity<N> ? N : N + 1) / 2 - 1;

// Coefficients of Π (x − a_r²) over all r but `skipped`: c[k] of x^k.
template <int N>
struct Product {
  double c[kPairs<N> + 1] = {};
  constexpr Product() = default;
  constexpr explicit Product(int skipped) {
    c[0] = 1;
    int degree = 0;
    for (int r = 0; r < kPairs<N>; ++r) {
      if (r == skipped) {
        continue;
      }
      const double root = Points<N>::a[r] * Points<N>::a[r];
      for (int k = ++degree; k >= 0; --k) {
        c[k] = (k > 0 ? c[k - 1] : 0) - root * c[k];
      }
    }
  }
};
// Over all, and over all but each. Tables, as a compiler may leave what is not one to run time.
template <int N>
struct Products {
  Product<N> all{-1};
  Product<N> but[kPairs<N>];
  constexpr Products() {
    for (int q = 0; q < kPairs<N>; ++q) {
      but[q] = Product<N>(q);
    }
  }
};
template <int N>
inline constexpr Products<N> kProducts;

// The finite point that row i of Bᵀ belongs to.
template <int N>
constexpr double point(int i) {
  if constexpr (kHasSingle<N>) {
    if (i == N - 2) {
      return Points<N>::b;
    }
  }
  return i == 0 ? 0 : i % 2 == 1 ? Points<N>::a[(i - 1) / 2] : -Points<N>::a[(i - 1) / 2];
}

// Its scale: Π over the other finite points p of (point − p).
template <int N>
constexpr double scale(int i) {
  double product = 1;
  for (int k = 0; k < (kHasInfinity<N> ? N - 1 : N); ++k) {
    product *= k == i ? 1 : point<N>(i) - point<N>(k);
  }
  return product;
}

constexpr double power(double a, int k) { return k == 0 ? 1 : a * power(a, k - 1); }

STRIATE_INLINE V times(double a, V x) { return broadcast(static_cast<float>(a)) * x; }
STRIATE_INLINE V times_plus(double a, V x, V sum) {
  return a == 1 ? x + sum : fma<float>(broadcast(static_cast<float>(a)), x, sum);
}
// Of numbers, for coefficients.
constexpr double times(double a, double x) { return a * x; }
constexpr double times_plus(double a, double x, double sum) { return a * x + sum; }

// Every transform: elements in and out a side, whether it adds the bias and clamps, and by how many pixels the tiles that it
// reads are apart where they overlap.
template <int kIn_, int kOut_, bool kFinishes_ = false, int kStep_ = 0>
struct Sizes {
  static constexpr int kIn = kIn_;
  static constexpr int kOut = kOut_;
  static constexpr bool kFinishes = kFinishes_;
  static constexpr int kStep = kStep_;
};

// The points are those of P.
template <int N, int P = N, class X>
STRIATE_INLINE constexpr void input_of(const X* d, X* v) {
  if constexpr (kHasSingle<N>) {
    // Rows of the other points have a factor x − b more; that of b is what ∞ had without it.
    X less[N - 1];
#pragma GCC unroll 8
    for (int k = 0; k < N - 1; ++k) {
      less[k] = times_plus(-Points<P>::b, d[k], d[k + 1]);
    }
    X others[N - 1];
    input_of<N - 1, P>(less, others);
    X single = d[N - 2];
#pragma GCC unroll 4
    for (int k = kPairs<N> - 1; k >= 0; --k) {
      single = times_plus(kProducts<P>.all.c[k], d[2 * k + 1], single);
    }
#pragma GCC unroll 8
    for (int k = 0; k < N - 2; ++k) {
      v[k] = others[k];
    }
    v[N - 2] = single;
    v[N - 1] = others[N - 2];
  } else {
    constexpr int kDegree = 2 * kPairs<N>;
    X zero = d[kDegree];
#pragma GCC unroll 4
    for (int k = kPairs<N> - 1; k >= 0; --k) {
      zero = times_plus(kProducts<P>.all.c[k], d[2 * k], zero);
    }
    v[0] = zero;
    if constexpr (kHasInfinity<N>) {
      X infinite = d[N - 1];
#pragma GCC unroll 4
      for (int k = kPairs<N> - 1; k >= 0; --k) {
        infinite = times_plus(kProducts<P>.all.c[k], d[2 * k + 1], infinite);
      }
      v[N - 1] = infinite;
    }
#pragma GCC unroll 4
    for (int q = 0; q < kPairs<N>; ++q) {
      X even = d[kDegree];
      X odd = d[kDegree - 1];
#pragma GCC unroll 4
      for (int k = kPairs<N> - 2; k >= 0; --k) {
        even = times_plus(kProducts<P>.but[q].c[k], d[2 * k + 2], even);
        odd = times_plus(kProducts<P>.but[q].c[k], d[2 * k + 1], odd);
      }
      v[2 * q + 1] = times_plus(Points<P>::a[q], odd, even);
      v[2 * q + 2] = times_plus(-Points<P>::a[q], odd, even);
    }
  }
}

template <int M, int N>
STRIATE_INLINE void output_of(const V* v, V* y) {
  V sum[kPairs<N>];
  V difference[kPairs<N>];
#pragma GCC unroll 4
  for (int q = 0; q < kPairs<N>; ++q) {
    sum[q] = v[2 * q + 1] + v[2 * q + 2];
    difference[q] = v[2 * q + 1] - v[2 * q + 2];
  }
#pragma GCC unroll 8
  for (int j = 0; j < M; ++j) {
    const bool has_own = j == 0 || (j == M - 1 && kHasInfinity<N>);
    V value = has_own ? v[j == 0 ? 0 : N - 1] : times(power(Points<N>::a[0], j), j % 2 == 0 ? sum[0] : difference[0]);
#pragma GCC unroll 4
    for (int q = has_own ? 0 : 1; q < kPairs<N>; ++q) {
      value = times_plus(power(Points<N>::a[q], j), j % 2 == 0 ? sum[q] : difference[q], value);
    }
    if constexpr (kHasSingle<N>) {
      value = times_plus(power(Points<N>::b, j), v[N - 2], value);
    }
    y[j] = value;
  }
}

template <int M, int N, class X>
STRIATE_INLINE constexpr void grad_output_of(const X* y, X* z) {
  z[0] = y[0];
  if constexpr (kHasInfinity<N>) {
    z[N - 1] = y[M - 1];
  }
#pragma GCC unroll 4
  for (int q = 0; q < kPairs<N>; ++q) {
    const double a = Points<N>::a[q];
    X even = y[0];
    X odd = times(a, y[1]);
#pragma GCC unroll 8
    for (int j = 2; j < M; j += 2) {
      even = times_plus(power(a, j), y[j], even);
      odd = j + 1 < M ? times_plus(power(a, j + 1), y[j + 1], odd) : odd;
    }
    z[2 * q + 1] = even + odd;
    z[2 * q + 2] = even - odd;
  }
  if constexpr (kHasSingle<N>) {
    X single = y[0];
#pragma GCC unroll 8
    for (int j = 1; j < M; ++j) {
      single = times_plus(power(Points<N>::b, j), y[j], single);
    }
    z[N - 2] = single;
  }
}

template <int R, int N>
STRIATE_INLINE void filter_of(const V* g, V* u) {
  u[0] = times(1 / scale<N>(0), g[0]);
  if constexpr (kHasInfinity<N>) {
    u[N - 1] = g[R - 1];
  }
  if constexpr (kHasSingle<N>) {
#pragma GCC unroll 8
    for (int i = 1; i < N - 1; ++i) {
      V value = times(1 / scale<N>(i), g[0]);
#pragma GCC unroll 4
      for (int k = 1; k < R; ++k) {
        value = times_plus(power(point<N>(i), k) / scale<N>(i), g[k], value);
      }
      u[i] = value;
    }
  } else {
#pragma GCC unroll 4
    for (int q = 0; q < kPairs<N>; ++q) {
      const double a = Points<N>::a[q];
      const double s = scale<N>(2 * q + 1);
      V even = times(1 / s, g[0]);
      V odd = g[1];
#pragma GCC unroll 4
      for (int k = 2; k < R; k += 2) {
        even = times_plus(power(a, k) / s, g[k], even);
        odd = k + 1 < R ? times_plus(power(a, k), g[k + 1], odd) : odd;
      }
      u[2 * q + 1] = times_plus(a / s, odd, even);
      u[2 * q + 2] = times_plus(-a / s, odd, even);
    }
  }
}

template <int R, int N>
STRIATE_INLINE void grad_filter_of(const V* u, V* g) {
  g[0] = times(1 / scale<N>(0), u[0]);
#pragma GCC unroll 4
  for (int k = 1; k < R; ++k) {
    g[k] = kHasInfinity<N> && k == R - 1 ? u[N - 1] : V{};
  }
  if constexpr (kHasSingle<N>) {
#pragma GCC unroll 8
    for (int i = 1; i < N - 1; ++i) {
#pragma GCC unroll 4
      for (int k = 0; k < R; ++k) {
        g[k] = times_plus(power(point<N>(i), k) / scale<N>(i), u[i], g[k]);
      }
    }
  } else {
#pragma GCC unroll 4
    for (int q = 0; q < kPairs<N>; ++q) {
      const V sum = u[2 * q + 1] + u[2 * q + 2];
      const V difference = u[2 * q + 1] - u[2 * q + 2];
#pragma GCC unroll 8
      for (int k = 0; k < R; ++k) {
        g[k] = times_plus(power(Points<N>::a[q], k) / scale<N>(2 * q + 1), k % 2 == 0 ? sum : difference, g[k]);
      }
    }
  }
}

// Of stride 1.
template <int N>
struct Input : Sizes<N, N, false, N - 2> {
  template <class X>
  STRIATE_INLINE static constexpr void run(const X* d, X* v) {
    input_of<N>(d, v);
  }
};
template <int M, int N>
struct Output : Sizes<N, M, true> {
  STRIATE_INLINE static void run(const V* v, V* y) { output_of<M, N>(v, y); }
};
template <int M, int N>
struct GradOutput : Sizes<M, N> {
  template <class X>
  STRIATE_INLINE static constexpr void run(const X* y, X* z) {
    grad_output_of<M, N>(y, z);
  }
};
template <int R, int N>
struct Filter : Sizes<R, N> {
  STRIATE_INLINE static void run(const V* g, V* u) { filter_of<R, N>(g, u); }
};
template <int R, int N>
struct GradFilter : Sizes<N, R> {
  STRIATE_INLINE static void run(const V* u, V* g) { grad_filter_of<R, N>(u, g); }
};

// Of stride 2 and a 3×3 kernel: M + 1 points of even pixels, then M odd pixels.
template <int M>
struct PhasedInput : Sizes<2 * M + 1, 2 * M + 1, false, 2 * M> {
  template <class X>
  STRIATE_INLINE static constexpr void run(const X* d, X* v) {
    X even[M + 1];
#pragma GCC unroll 8
    for (int k = 0; k <= M; ++k) {
      even[k] = d[2 * k];
    }
    input_of<M + 1>(even, v);
#pragma GCC unroll 8
    for (int k = 0; k < M; ++k) {
      v[M + 1 + k] = d[2 * k + 1];
    }
  }
};
template <int M>
struct PhasedOutput : Sizes<2 * M + 1, M, true> {
  STRIATE_INLINE static void run(const V* v, V* y) {
    output_of<M, M + 1>(v, y);
#pragma GCC unroll 8
    for (int k = 0; k < M; ++k) {
      y[k] += v[M + 1 + k];
    }
  }
};
// grad_x's pixel 2k is that which the middle tap of y's pixel k reads.
template <int M>
struct PhasedBackInput : Sizes<M + 1, 2 * M + 1, false, M> {
  STRIATE_INLINE static void run(const V* d, V* v) {
    input_of<M + 1>(d, v);
#pragma GCC unroll 8
    for (int k = 0; k < M; ++k) {
      v[M + 1 + k] = d[k];
    }
  }
};
template <int M>
struct PhasedBackOutput : Sizes<2 * M + 1, 2 * M, true> {
  STRIATE_INLINE static void run(const V* v, V* y) {
    V odd[M];
    output_of<M, M + 1>(v, odd);
#pragma GCC unroll 8
    for (int k = 0; k < M; ++k) {
      y[2 * k] = v[M + 1 + k];
      y[2 * k + 1] = odd[k];
    }
  }
};
template <int M>
struct PhasedGradOutput : Sizes<M, 2 * M + 1> {
  template <class X>
  STRIATE_INLINE static constexpr void run(const X* y, X* z) {
    grad_output_of<M, M + 1>(y, z);
#pragma GCC unroll 8
    for (int k = 0; k < M; ++k) {
      z[M + 1 + k] = y[k];
    }
  }
};
template <int M>
struct PhasedFilter : Sizes<3, M + 2> {
  STRIATE_INLINE static void run(const V* g, V* u) {
    const V outer[2] = {g[0], g[2]};
    filter_of<2, M + 1>(outer, u);
    u[M + 1] = g[1];
  }
};
template <int M>
struct PhasedGradFilter : Sizes<M + 2, 3> {
  STRIATE_INLINE static void run(const V* u, V* g) {
    V outer[2];
    grad_filter_of<2, M + 1>(u, outer);
    g[0] = outer[0];
    g[1] = u[M + 1];
    g[2] = outer[1];
  }
};

// Pulls the line of p into L1 for writing: stores retire in order, so those that miss wait for one another. With it and the
// prefetch of pixels, 64 channels at 56×56 take 0.85 of the time (AVX2, Zen 3).
STRIATE_INLINE void prefetch_for_writing(const float* p) { __builtin_prefetch(p, 1); }

// One vector of channels, the first `left` lanes of which count. `kInside`: no element of the source is outside;
// `kStored`: every element of the target is stored.
template <class F, bool kInside, bool kStored, bool kWhole>
STRIATE_INLINE void transform_vector(const WinogradSource& from, const WinogradTarget& to, std::ptrdiff_t c,
                                     std::ptrdiff_t left) {
  V half[F::kOut][F::kIn];
#pragma GCC unroll 1
  for (int i = 0; i < F::kIn; ++i) {
    V in[F::kIn];
    V out[F::kOut];
    const float* const row = from.x + i * from.stride_h + c;
    const bool row_inside = i >= from.h_begin && i < from.h_end;
#pragma GCC unroll 16
    for (int j = 0; j < F::kIn; ++j) {
      if (!kInside && !(row_inside && j >= from.w_begin && j < from.w_end)) {
        in[j] = V{};
      } else if (kWhole) {
        in[j] = load(row + j * from.stride_w);
      } else {
        in[j] = load_partial(row + j * from.stride_w, left);
      }
    }
    if constexpr (kInside && F::kStep > 0) {
      if (c % kLine == 0) {  // the pixels that the next tile of the line adds
#pragma GCC unroll 16
        for (int j = F::kIn - F::kStep; j < F::kIn; ++j) {
          __builtin_prefetch(row + (j + F::kStep) * from.stride_w);
        }
      }
    }
    F::run(in, out);
#pragma GCC unroll 16
    for (int s = 0; s < F::kOut; ++s) {
      half[s][i] = out[s];
    }
  }
  V bias{};
  if (to.bias != nullptr) {
    bias = kWhole ? load(to.bias + c) : load_partial(to.bias + c, left);
  }
#pragma GCC unroll 1
  for (int s = 0; s < F::kOut; ++s) {
    if (!kStored && s >= to.w_end) {
      break;
    }
    V out[F::kOut];
    F::run(half[s], out);
    float* const column = to.y + s * to.stride_w + c;
#pragma GCC unroll 16
    for (int i = 0; i < F::kOut; ++i) {
      if (!kStored && i >= to.h_end) {
        break;
      }
      V value = out[i];
      if constexpr (F::kFinishes) {
        value += bias;
        if (to.adds) {
          const float* const addend = column + i * to.stride_h + to.addend;
          value += kWhole ? load(addend) : load_partial(addend, left);
          __builtin_prefetch(addend + kLine);
        }
        if (to.gates) {
          const float* const gate = column + i * to.stride_h + to.gate;
          value = where_positive<float>(kWhole ? load(gate) : load_partial(gate, left), value);
          __builtin_prefetch(gate + kLine);
        }
        if (to.clamps) {
          value = at_most<float>(at_least<float>(value, broadcast(to.lo)), broadcast(to.hi));
        }
      }
      if (kWhole || to.holds_vectors) {
        store(column + i * to.stride_h, value);
      } else {
        store_partial(column + i * to.stride_h, value, left);
      }
      prefetch_for_writing(column + i * to.stride_h + kLine);
    }
  }
}

template <class F, bool kInside, bool kStored>
STRIATE_INLINE void transform_whole(const WinogradSource& from, const WinogradTarget& to, std::ptrdiff_t whole) {
  // Copies whose address nobody takes: stores of vectors may alias anything, and each would make the compiler read them
  // anew.
  const WinogradSource source = from;
  const WinogradTarget target = to;
  for (std::ptrdiff_t c = 0; c < whole; c += W) {
    transform_vector<F, kInside, kStored, true>(source, target, c, W);
  }
}

template <class F>
void transform(const WinogradSource& from, const WinogradTarget& to, std::ptrdiff_t channels) {
  const bool inside = from.h_begin <= 0 && from.w_begin <= 0 && from.h_end >= F::kIn && from.w_end >= F::kIn;
  const bool stored = !F::kFinishes || (to.h_end >= F::kOut && to.w_end >= F::kOut);
  const std::ptrdiff_t whole = channels / W * W;
  if (inside && stored) {
    transform_whole<F, true, true>(from, to, whole);
  } else if (stored) {
    transform_whole<F, false, true>(from, to, whole);
  } else if constexpr (F::kFinishes) {
    transform_whole<F, false, false>(from, to, whole);
  }
  if (whole < channels) {
    transform_vector<F, false, !F::kFinishes, false>(from, to, whole, channels - whole);
  }
}

// A transform's matrix.
template <class F>
struct Matrix {
  float at[F::kOut][F::kIn] = {};
  constexpr Matrix() {
    for (int i = 0; i < F::kIn; ++i) {
      double unit[F::kIn] = {};
      double column[F::kOut] = {};
      unit[i] = 1;
      F::run(unit, column);
      for (int s = 0; s < F::kOut; ++s) {
        at[s][i] = static_cast<float>(column[s]);
      }
    }
  }
};
template <class F>
inline constexpr Matrix<F> kMatrix;

// y = Σ factor·row over some rows of a tile, n values; the last vector is written whole.
STRIATE_INLINE void combine_rows(const float* const* rows, const float* factors, int n_rows, std::ptrdiff_t offset,
                                 std::ptrdiff_t n, float* y) {
  constexpr int kVectors = 4;
  std::ptrdiff_t i = 0;
  for (; i + kVectors * W <= n; i += kVectors * W) {
    V sum[kVectors] = {};
    for (int k = 0; k < n_rows; ++k) {
      const float* const x = rows[k] + offset + i;
      const V factor = broadcast(factors[k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[v] = fma<float>(factor, load(x + v * W), sum[v]);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store(y + i + v * W, sum[v]);
    }
  }
  for (; i < n; i += W) {
    V sum{};
    for (int k = 0; k < n_rows; ++k) {
      const float* const x = rows[k] + offset + i;
      sum = fma<float>(broadcast(factors[k]), i + W <= n ? load(x) : load_partial(x, n - i), sum);
    }
    store(y + i, sum);
  }
}

// The tiles' room becomes a line of pixels: sums of the lines by `coefficients`, a row of a matrix; `pixel` values each. One
// function for all forms, as it is not theirs.
__attribute__((noinline)) void combine_lines(const WinogradLineOfTiles& tiles, const float* coefficients,
                                             std::ptrdiff_t n_pixels, std::ptrdiff_t channels, std::ptrdiff_t pixel) {
  constexpr int kMostRows = 16;
  const float* rows[kMostRows];
  float factors[kMostRows];
  int n_rows = 0;
  for (int i = tiles.h_begin; i < tiles.h_end; ++i) {
    if (coefficients[i] != 0) {
      rows[n_rows] = tiles.x + i * tiles.stride_h;
      factors[n_rows++] = coefficients[i];
    }
  }
  for (std::ptrdiff_t i = 0; i < tiles.w_begin * pixel; i += W) {
    store(tiles.room + i, V{});
  }
  for (std::ptrdiff_t i = tiles.w_end * pixel; i < n_pixels * pixel; i += W) {
    store(tiles.room + i, V{});
  }
  const bool is_dense = tiles.stride_w == pixel && channels == pixel;
  const std::ptrdiff_t n_runs = is_dense ? 1 : tiles.w_end - tiles.w_begin;
  const std::ptrdiff_t length = is_dense ? (tiles.w_end - tiles.w_begin) * pixel : channels;
  for (std::ptrdiff_t j = tiles.w_begin; j < tiles.w_begin + n_runs; ++j) {
    combine_rows(rows, factors, n_rows, j * tiles.stride_w, length, tiles.room + j * pixel);
  }
}

// Contract: WinogradLine in winograd.hpp.
template <class F>
void transform_line(const WinogradLineOfTiles& given, std::ptrdiff_t channels, int line) {
  const WinogradLineOfTiles tiles = given;  // as in transform_whole()
  const std::ptrdiff_t pixel = (channels + W - 1) / W * W;
  combine_lines(given, kMatrix<F>.at[line], (tiles.n - 1) * tiles.step + F::kIn, channels, pixel);
  for (std::ptrdiff_t tile = 0; tile < tiles.n; ++tile) {
    const float* const from = tiles.room + tile * tiles.step * pixel;
    float* const to = tiles.y + tile * tiles.row;
    for (std::ptrdiff_t c = 0; c < pixel; c += W) {
      V in[F::kIn];
      V out[F::kOut];
#pragma GCC unroll 16
      for (int j = 0; j < F::kIn; ++j) {
        in[j] = load(from + j * pixel + c);
      }
      F::run(static_cast<const V*>(in), static_cast<V*>(out));
#pragma GCC unroll 16
      for (int s = 0; s < F::kOut; ++s) {
        store(to + s * tiles.plane + c, out[s]);
        prefetch_for_writing(to + s * tiles.plane + c + kLine);
      }
    }
  }
}

template <int kForm>
void fill_form(WinogradKernels& table) {
  constexpr int m = kWinogradForm[kForm].m;
  constexpr int r = kWinogradForm[kForm].r;
  constexpr int n = kWinogradForm[kForm].n();
  if constexpr (kWinogradForm[kForm].stride == 1) {
    table.input[kForm] = table.back_input[kForm] = transform<Input<n>>;
    table.output[kForm] = table.back_output[kForm] = transform<Output<m, n>>;
    table.filter[kForm] = transform<Filter<r, n>>;
    table.grad_output[kForm] = transform<GradOutput<m, n>>;
    table.input_line[kForm] = transform_line<Input<n>>;
    table.grad_output_line[kForm] = transform_line<GradOutput<m, n>>;
    table.grad_filter[kForm] = transform<GradFilter<r, n>>;
  } else {
    table.input[kForm] = transform<PhasedInput<m>>;
    table.output[kForm] = transform<PhasedOutput<m>>;
    table.filter[kForm] = transform<PhasedFilter<m>>;
    table.back_input[kForm] = transform<PhasedBackInput<m>>;
    table.back_output[kForm] = transform<PhasedBackOutput<m>>;
    table.grad_output[kForm] = transform<PhasedGradOutput<m>>;
    table.input_line[kForm] = transform_line<PhasedInput<m>>;
    table.grad_output_line[kForm] = transform_line<PhasedGradOutput<m>>;
    table.grad_filter[kForm] = transform<PhasedGradFilter<m>>;
  }
}

}  // namespace

void fill_winograd(KernelTable& table) {
  fill_form<0>(table.winograd);
  fill_form<1>(table.winograd);
  fill_form<2>(table.winograd);
  fill_form<3>(table.winograd);
  fill_form<4>(table.winograd);
  fill_form<5>(table.winograd);
  fill_form<6>(table.winograd);
}

}  // namespace striate::STRIATE_TARGET
