// Register tiles of the indirect GEMM: forward and data gradient of convolutions, linear layers (`gemm_tile`), and weight
// gradients (`outer_tile`).
//
// Register budget, rows × vectors accumulators + vectors of b + one broadcast of a:
//   AVX2    6 × 2 + 2 + 1 = 15 of 16      AVX-512 12 × 2 + 2 + 1 = 27 of 32
//   SSE2    4 × 2 + 2 + 2 = 12 of 16      NEON     6 × 4 + 4 + 1 = 29 of 32
// Rounding: one chain of fused multiply-adds per element over (tap, k), γ_K. Below a call, sums of calls are added in order.
//
// Columns that fill half of a vector or less are summed in half vectors (5×5 to 6 channels at 28×28: 11.0 to 9.3 µs).
//
// Tried and not kept, each within 3 % on AVX2 and AVX-512: prefetching b twelve values of k ahead; cutting the sum so that
// four tiles take 16 KB of a panel in turn from L1; finding padded rows by bit masks. Kept: four values of k a turn of the
// loop (AVX2 +4 %; its counters compete with multiply-adds for ports).
#include "kernels/block.hpp"
#include "kernels/table.hpp"
#include "kernels/vec.hpp"
#include "kernels/vec_half.hpp"

namespace striate::STRIATE_TARGET {
namespace {

#if defined(__AVX512F__) || defined(STRIATE_VEC_BYTES)
inline constexpr int kRows = 12;
inline constexpr int kVectors = 2;
#elif defined(__AVX2__)
inline constexpr int kRows = 6;
inline constexpr int kVectors = 2;
#elif defined(__aarch64__)
inline constexpr int kRows = 6;
inline constexpr int kVectors = 4;
#else
inline constexpr int kRows = 4;
inline constexpr int kVectors = 2;
#endif
// Of a tile of one vector: fewer chains of multiply-adds would wait for one another.
inline constexpr int kNarrowRows = kRows > 8 ? kRows : 8;

// The sums of a tile of one vector whose columns lie in the lower half of it; the same chains of multiply-adds.
template <class T, int MR>
STRIATE_INLINE void sum_half([[maybe_unused]] const T* const* a, [[maybe_unused]] std::ptrdiff_t n_taps,
                             [[maybe_unused]] std::ptrdiff_t k, [[maybe_unused]] const T* b,
                             [[maybe_unused]] Vec<T> (&sums)[MR][1]) {
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  Half<T> acc[MR];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
    acc[m] = Half<T>{};
  }
  for (std::ptrdiff_t tap = 0; tap < n_taps; ++tap, a += MR) {
    if (a[0] == nullptr) {
      b += k * kWidth<T>;
      continue;
    }
#pragma GCC unroll 4
    for (std::ptrdiff_t i = 0; i < k; ++i) {
      const Half<T> b_row = load_half(b);
      b += kWidth<T>;
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        acc[m] = fma_half<T>(a[m][i], b_row, acc[m]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
    sums[m][0] = widened<T>(acc[m]);
  }
#endif
}

// acc += a's column at i times b's row, which is then left behind.
template <class T, int MR, int NV>
STRIATE_INLINE void gemm_step(const T* const (&row)[MR], std::ptrdiff_t i, const T*& b, Vec<T> (&acc)[MR][NV]) {
  constexpr int W = kWidth<T>;
  Vec<T> b_row[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    b_row[v] = load(b + v * W);
  }
  b += NV * W;
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
    const Vec<T> value = broadcast(row[m][i]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      acc[m][v] = fma<T>(value, b_row[v], acc[m][v]);
    }
  }
}

// Writes a tile's sums, finished by the epilogue; y(m) is where those of row m go.
template <class T, int MR, int NV, class Row>
STRIATE_INLINE void finish_tile(Vec<T> (&acc)[MR][NV], const Row& y, std::ptrdiff_t n_cols, const Epilogue<T>& epilogue) {
  constexpr int W = kWidth<T>;
  const std::ptrdiff_t left = n_cols - (NV - 1) * W;  // lanes of the last vector
  const auto read = [&](const T* from, int v) {
    return v < NV - 1 || left == W ? load(from + v * W) : load_partial(from + v * W, left);
  };
  if (epilogue.bias != nullptr) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const Vec<T> bias = read(epilogue.bias, v);
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        acc[m][v] += bias;
      }
    }
  }
  if (epilogue.adds) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const T* const from = y(m) + epilogue.addend;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[m][v] += read(from, v);
      }
    }
  }
  if (epilogue.gates) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const T* const from = y(m) + epilogue.gate;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[m][v] = where_positive<T>(read(from, v), acc[m][v]);
      }
    }
  }
  if (epilogue.clamps) {
    const Vec<T> lo = broadcast(epilogue.lo);
    const Vec<T> hi = broadcast(epilogue.hi);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[m][v] = at_most<T>(at_least<T>(acc[m][v], lo), hi);
      }
    }
  }
  if (epilogue.streams) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        store_stream<T>(y(m) + v * W, acc[m][v]);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV - 1; ++v) {
      store(y(m) + v * W, acc[m][v]);
    }
    if (left == W) {
      store(y(m) + (NV - 1) * W, acc[m][NV - 1]);
    } else {
      store_partial(y(m) + (NV - 1) * W, acc[m][NV - 1], left);
    }
  }
}

// Contract: GemmTile in table.hpp.
template <class T, int MR, int NV>
void gemm_tile(const T* const* a, std::ptrdiff_t n_taps, std::ptrdiff_t k, const T* b, T* const* y, std::ptrdiff_t column,
               std::ptrdiff_t n_cols, const Epilogue<T>& epilogue) {
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      acc[m][v] = Vec<T>{};
    }
  }
  bool is_done = false;
  if constexpr (kHasHalf && NV == 1) {
    if (n_cols <= kWidth<T> / 2) {
      sum_half<T, MR>(a, n_taps, k, b, acc);
      is_done = true;
    }
  }
  for (std::ptrdiff_t tap = 0; tap < n_taps && !is_done; ++tap) {
    if (a[0] == nullptr) {
      a += MR;
      b += k * NV * kWidth<T>;
      continue;
    }
    const T* row[MR];
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      row[m] = a[m];
    }
    a += MR;
#pragma GCC unroll 4
    for (std::ptrdiff_t i = 0; i < k; ++i) {
      gemm_step<T, MR, NV>(row, i, b, acc);
    }
  }
  finish_tile<T, MR, NV>(acc, [&](int m) { return y[m] + column; }, n_cols, epilogue);
}

// Contract: GemmStrip in table.hpp. Tiles follow one another without a call and without pointers: with 16 values of k 0.91
// of the time (AVX2), with 64 0.965. A loop over taps takes half of that back, and a branch that asks for memory 2 to 4 % of
// short sums: both are kernels of their own.
template <class T, int MR, int NV, bool kAsks = false, bool kTaps = false>
void gemm_strip(const Strip<T>& strip, const T* b, std::ptrdiff_t n_cols, const Epilogue<T>& epilogue) {
  const std::ptrdiff_t x_step = strip.x_step;
  const std::ptrdiff_t y_step = strip.y_step;
  const std::ptrdiff_t k = strip.k;
  [[maybe_unused]] const char* ahead = epilogue.ahead;
  const T* x = strip.x;
  T* y = strip.y;
  for (std::ptrdiff_t tile = 0; tile < strip.n_tiles; ++tile) {
    Vec<T> acc[MR][NV];
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[m][v] = Vec<T>{};
      }
    }
    const T* from = b;
    const std::ptrdiff_t n_taps = kTaps ? strip.n_taps : 1;
    for (std::ptrdiff_t tap = 0; tap < n_taps; ++tap) {
      const T* const first = kTaps ? x + strip.taps[tap] : x;
      const T* row[MR];
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        row[m] = first + m * x_step;
      }
      std::ptrdiff_t i = 0;
      if constexpr (kHasHalf && NV == 1 && !kTaps) {
        if (n_cols <= kWidth<T> / 2) {
          sum_half<T, MR>(row, 1, k, b, acc);
          i = k;
        }
      }
      if constexpr (kAsks) {
        for (; i + 2 <= k; i += 2) {
          __builtin_prefetch(ahead);
          ahead += epilogue.ahead_step;
          gemm_step<T, MR, NV>(row, i, from, acc);
          gemm_step<T, MR, NV>(row, i + 1, from, acc);
        }
      }
#pragma GCC unroll 4
      for (; i < k; ++i) {
        gemm_step<T, MR, NV>(row, i, from, acc);
      }
    }
    finish_tile<T, MR, NV>(acc, [&](int m) { return y + m * y_step; }, n_cols, epilogue);
    x += MR * x_step;
    y += MR * y_step;
  }
}

// Contract: GemmRow in table.hpp. One row of one panel has too few chains of multiply-adds to hide their latency: 400 → 120
// on AVX-512 took 2.2 times as long panel by panel.
template <class T, int NP>
void gemm_row(const T* const* a, std::ptrdiff_t n_taps, std::ptrdiff_t k, const T* b, T* y, std::ptrdiff_t n_cols,
              const Epilogue<T>& epilogue) {
  constexpr int W = kWidth<T>;
  const std::ptrdiff_t panel = n_taps * k * kVectors * W;  // values of a panel
  Vec<T> acc[NP * kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < NP * kVectors; ++v) {
    acc[v] = Vec<T>{};
  }
  for (std::ptrdiff_t tap = 0; tap < n_taps; ++tap) {
    const T* const row = a[tap];
    if (row == nullptr) {
      b += k * kVectors * W;
      continue;
    }
    for (std::ptrdiff_t i = 0; i < k; ++i) {
      const Vec<T> value = broadcast(row[i]);
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          acc[p * kVectors + v] = fma<T>(value, load(b + p * panel + v * W), acc[p * kVectors + v]);
        }
      }
      b += kVectors * W;
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < NP * kVectors; ++v) {
    const std::ptrdiff_t left = n_cols - v * W;  // lanes from this vector on
    if (left <= 0) {
      break;
    }
    T* const out = y + v * W;
    const auto read = [&](const T* from) { return left >= W ? load(from) : load_partial(from, left); };
    if (epilogue.bias != nullptr) {
      acc[v] += read(epilogue.bias + v * W);
    }
    if (epilogue.adds) {
      acc[v] += read(out + epilogue.addend);
    }
    if (epilogue.gates) {
      acc[v] = where_positive<T>(read(out + epilogue.gate), acc[v]);
    }
    if (epilogue.clamps) {
      acc[v] = at_most<T>(at_least<T>(acc[v], broadcast(epilogue.lo)), broadcast(epilogue.hi));
    }
    if (epilogue.streams) {
      store_stream<T>(out, acc[v]);
    } else if (left >= W) {
      store(out, acc[v]);
    } else {
      store_partial(out, acc[v], left);
    }
  }
}

// acc += the outer product of a and b, which may be copied on the way.
template <class T, int MR, int NV, bool kCopies = false>
STRIATE_INLINE void outer_step(const T* a, const T* b, Vec<T> (&acc)[MR][NV], [[maybe_unused]] T* copy_of_b = nullptr) {
  constexpr int W = kWidth<T>;
  Vec<T> column[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    column[v] = load(b + v * W);
    if constexpr (kCopies) {
      store(copy_of_b + v * W, column[v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
    const Vec<T> value = broadcast(a[m]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      acc[m][v] = fma<T>(value, column[v], acc[m][v]);
    }
  }
}

// The sum over k starts at zero and is added to y once: blocks of k form a shallow tree. Small tiles go along k in two
// chains, as one of few multiply-adds would wait for itself.
template <class T, int MR, int NV, bool kPacks = false>
STRIATE_INLINE void outer_rows(const OuterRows<T>& rows, T* y, std::ptrdiff_t ld, std::ptrdiff_t n_cols, bool adds) {
  constexpr int W = kWidth<T>;
  constexpr bool kTwoChains = 2 * MR * NV <= kRows * kVectors;
  Vec<T> acc[MR][NV];
  [[maybe_unused]] Vec<T> other[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      acc[m][v] = Vec<T>{};
      other[m][v] = Vec<T>{};
    }
  }
  const std::ptrdiff_t lda = rows.lda;
  const std::ptrdiff_t ldb = rows.ldb;
  const char* ahead = rows.ahead;
  [[maybe_unused]] T* packed_a = rows.packed_a;
  [[maybe_unused]] T* packed_b = rows.packed_b;
  [[maybe_unused]] const std::ptrdiff_t packed_lda = rows.packed_lda;
  [[maybe_unused]] const std::ptrdiff_t packed_ldb = rows.packed_ldb;
  for (std::ptrdiff_t line = 0; line < rows.n_lines; ++line) {
    const T* a = rows.a + line * rows.a_line;
    const T* b = rows.b + line * rows.b_line;
    std::ptrdiff_t k = rows.n_k;
    const auto two_rows = [&] {
      outer_step<T, MR, NV>(a, b, acc);
      outer_step<T, MR, NV>(a + lda, b + ldb, kTwoChains ? other : acc);
      a += 2 * lda;
      b += 2 * ldb;
    };
    for (; !kPacks && rows.ahead_step > 0 && k >= 2; k -= 2) {
      __builtin_prefetch(ahead);
      ahead += rows.ahead_step;
      two_rows();
    }
    for (; kTwoChains && !kPacks && k >= 2; k -= 2) {
      two_rows();
    }
    for (; k > 0; --k) {
      outer_step<T, MR, NV, kPacks>(a, b, acc, packed_b);
      if constexpr (kPacks) {
        __builtin_memcpy(packed_a, a, MR * sizeof(T));
        packed_a += packed_lda;
        packed_b += packed_ldb;
      }
      a += lda;
      b += ldb;
    }
  }
  if constexpr (kTwoChains) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[m][v] += other[m][v];
      }
    }
  }
  const bool is_full = n_cols == NV * W;
  const std::ptrdiff_t left = n_cols - (NV - 1) * W;  // lanes of the last vector
  if (adds) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const T* const row = y + m * ld;
#pragma GCC unroll 4
      for (int v = 0; v < NV - 1; ++v) {
        acc[m][v] += load(row + v * W);
      }
      acc[m][NV - 1] += is_full ? load(row + (NV - 1) * W) : load_partial(row + (NV - 1) * W, left);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV - 1; ++v) {
      store(y + m * ld + v * W, acc[m][v]);
    }
    T* const last = y + m * ld + (NV - 1) * W;
    if (is_full) {
      store(last, acc[m][NV - 1]);
    } else {
      store_partial(last, acc[m][NV - 1], left);
    }
  }
}

// Contract: OuterTile in table.hpp.
template <class T, int MR, int NV>
void outer_tile(const T* a, std::ptrdiff_t lda, const T* b, std::ptrdiff_t ldb, std::ptrdiff_t n_k, T* y, std::ptrdiff_t ld,
                std::ptrdiff_t n_cols, bool adds) {
  outer_rows<T, MR, NV>({.a = a, .lda = lda, .b = b, .ldb = ldb, .n_k = n_k}, y, ld, n_cols, adds);
}

// Contract: OuterLines in table.hpp.
template <class T, int MR, int NV>
void outer_lines(const OuterRows<T>& rows, T* y, std::ptrdiff_t ld, std::ptrdiff_t n_cols, bool adds) {
  outer_rows<T, MR, NV>(rows, y, ld, n_cols, adds);
}

// Contract: GemmKernels::outer_packing in table.hpp.
template <class T, int MR, int NV>
void outer_packing(const OuterRows<T>& rows, T* y, std::ptrdiff_t ld, std::ptrdiff_t n_cols, bool adds) {
  outer_rows<T, MR, NV, true>(rows, y, ld, n_cols, adds);
}

// Copies n values and notes in `zeros`, by its lanes, whether all are finite: zeros, or NaN. Two chains, as one of additions
// would take longer than the copies. The last vector is written whole.
template <class T>
STRIATE_INLINE void copy_finite(const T* from, T* to, std::ptrdiff_t n, Vec<T> (&zeros)[2]) {
  constexpr std::ptrdiff_t W = kWidth<T>;
  std::ptrdiff_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const Vec<T> value = load(from + i);
    const Vec<T> next = load(from + i + W);
    store(to + i, value);
    store(to + i + W, next);
    zeros[0] += value * Vec<T>{};
    zeros[1] += next * Vec<T>{};
  }
  for (; i < n; i += W) {
    const Vec<T> value = i + W <= n ? load(from + i) : load_partial(from + i, n - i);
    store(to + i, value);
    zeros[0] += value * Vec<T>{};
  }
}
template <class T>
STRIATE_INLINE bool are_zero(const Vec<T> (&zeros)[2]) {
  const Vec<T> sums = zeros[0] + zeros[1];
  T sum = T(0);
  for (int i = 0; i < kWidth<T>; ++i) {
    sum += sums[i];
  }
  return sum == T(0);
}

// Contract: GemmKernels::pack_lanes in table.hpp. Rows are copied whole, in the order in which they lie in memory: panel by
// panel, reading 64 to 128 bytes of each, took twice as long.
template <class T>
bool pack_lanes(const T* const* x, std::ptrdiff_t offset, std::ptrdiff_t n_k, std::ptrdiff_t n_cols, std::ptrdiff_t panel,
                std::ptrdiff_t panel_stride, T* out) {
  constexpr std::ptrdiff_t W = kWidth<T>;
  constexpr auto kLine = static_cast<std::ptrdiff_t>(64 / sizeof(T));
  constexpr std::ptrdiff_t kAheadValues = 2048;  // asked for while a row is copied; rows may lie far apart
  const std::ptrdiff_t k_ahead = n_cols < kAheadValues / 8 ? kAheadValues / n_cols : 8;
  Vec<T> zeros[2] = {};
  for (std::ptrdiff_t k = 0; k < n_k; ++k) {
    const T* const ahead = x[k + k_ahead < n_k ? k + k_ahead : k];
    for (std::ptrdiff_t n = 0; ahead != nullptr && n < n_cols; n += kLine) {
      __builtin_prefetch(ahead + offset + n);
    }
    T* to = out + k * panel;
    if (x[k] == nullptr) {
      for (std::ptrdiff_t first = 0; first < n_cols; first += panel, to += panel_stride) {
        for (std::ptrdiff_t n = 0; n < panel && n < n_cols - first; n += W) {
          store(to + n, Vec<T>{});
        }
      }
      continue;
    }
    const T* from = x[k] + offset;
    for (std::ptrdiff_t first = 0; first < n_cols; first += panel, from += panel, to += panel_stride) {
      copy_finite<T>(from, to, panel < n_cols - first ? panel : n_cols - first, zeros);
    }
  }
  return are_zero<T>(zeros);
}

// b[k][n] = w[k + n·stride], by blocks; in rows of kBlock values of k, so that a line of w is read once and the lines of b
// that it fills stay in L1.
template <class T>
bool pack_transposed(const T* w, std::ptrdiff_t stride, std::ptrdiff_t n_k, std::ptrdiff_t n_cols, std::ptrdiff_t columns,
                     T* b) {
  constexpr std::ptrdiff_t kBlock = 64 / static_cast<std::ptrdiff_t>(sizeof(T));
  constexpr int kSide = Block<T>::kSide;
  typename Block<T>::Row sums[kSide] = {};  // of zeros, or NaN
  T sum = T(0);
  const auto one_by_one = [&](std::ptrdiff_t k, std::ptrdiff_t k_end, std::ptrdiff_t n, std::ptrdiff_t n_end) {
    for (; k < k_end; ++k) {
      for (std::ptrdiff_t i = n; i < n_end; ++i) {
        const T value = w[i * stride + k];
        b[k * columns + i] = value;
        sum += value * T(0);
      }
    }
  };
  const std::ptrdiff_t full_cols = n_cols - n_cols % kSide;
  for (std::ptrdiff_t first = 0; first < n_k; first += kBlock) {
    const std::ptrdiff_t end = n_k - first < kBlock ? n_k : first + kBlock;
    const std::ptrdiff_t full_end = end - (end - first) % kSide;
    for (std::ptrdiff_t n = 0; n < full_cols; n += kSide) {
      for (std::ptrdiff_t k = first; k < full_end; k += kSide) {
        const Block<T> block(w + n * stride + k, stride);
        block.store_transposed(b + k * columns + n, columns);
        for (int i = 0; i < kSide; ++i) {
          sums[i] += block.row[i] * T(0);
        }
      }
    }
    one_by_one(full_end, end, 0, full_cols);
    one_by_one(first, end, full_cols, n_cols);
  }
  for (const auto& row : sums) {
    for (int i = 0; i < kSide; ++i) {
      sum += row[i];
    }
  }
  return sum == T(0);
}

// b[k][n] = w[k·stride + n].
template <class T>
bool pack_rows(const T* w, std::ptrdiff_t stride, std::ptrdiff_t n_k, std::ptrdiff_t n_cols, std::ptrdiff_t columns, T* b) {
  Vec<T> zeros[2] = {};
  for (std::ptrdiff_t k = 0; k < n_k; ++k) {
    copy_finite<T>(w + k * stride, b + k * columns, n_cols, zeros);
  }
  return are_zero<T>(zeros);
}

// Contract: GemmKernels::pack in table.hpp.
template <class T>
bool pack(const T* w, std::ptrdiff_t stride_k, std::ptrdiff_t stride_n, std::ptrdiff_t n_k, std::ptrdiff_t n_cols,
          std::ptrdiff_t columns, T* b) {
  for (std::ptrdiff_t k = 0; k < n_k && n_cols < columns; ++k) {
    for (std::ptrdiff_t n = n_cols; n < columns; ++n) {
      b[k * columns + n] = T(0);
    }
  }
  if (stride_n == 1) {
    return pack_rows(w, stride_k, n_k, n_cols, columns, b);
  }
  if (stride_k == 1) {
    return pack_transposed(w, stride_n, n_k, n_cols, columns, b);
  }
  T sum = T(0);
  for (std::ptrdiff_t k = 0; k < n_k; ++k) {
    for (std::ptrdiff_t n = 0; n < n_cols; ++n) {
      const T value = w[k * stride_k + n * stride_n];
      b[k * columns + n] = value;
      sum += value * T(0);
    }
  }
  return sum == T(0);
}

template <class T>
bool all_finite(const T* x, std::ptrdiff_t n) {
  constexpr std::ptrdiff_t kSums = 64;  // one chain of additions would wait four cycles for each value
  T sums[kSums] = {};
  std::ptrdiff_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (std::ptrdiff_t j = 0; j < kSums; ++j) {
      sums[j] += x[i + j] * T(0);  // NaN when x[i + j] is not finite
    }
  }
  for (; i < n; ++i) {
    sums[0] += x[i] * T(0);
  }
  T sum = T(0);
  for (const T part : sums) {
    sum += part;
  }
  return sum == T(0);
}

// Contract: GemmKernels::overlap in table.hpp. What a whole vector writes beyond its pixel, the next pixel overwrites.
template <class T>
void overlap(const T* s, const Overlap<T>& how, T* y, std::ptrdiff_t y_stride, std::ptrdiff_t n_pixels) {
  constexpr std::ptrdiff_t W = kWidth<T>;
  const Overlap<T> o = how;
  const Vec<T> bias = o.bias == nullptr ? Vec<T>{} : load_partial(o.bias, o.channels);
  const Vec<T> lo = broadcast(o.lo);
  const Vec<T> hi = broadcast(o.hi);
  const std::ptrdiff_t step = (o.stride - o.kernel) * o.channels;  // from tap q of j to tap q + stride of j − 1
  const std::ptrdiff_t whole = y_stride == o.channels ? n_pixels - (W + o.channels - 1) / o.channels : -1;
  const std::ptrdiff_t n_full = o.kernel / o.stride;  // taps of a pixel, or one more
  const std::ptrdiff_t n_rest = o.kernel % o.stride;
  std::ptrdiff_t q = o.pad % o.stride;  // the first tap of a pixel, and its j
  std::ptrdiff_t j = o.pad / o.stride;
  const T* from = s + (j * o.kernel + q) * o.channels;
  for (std::ptrdiff_t w = 0; w < n_pixels; ++w, y += y_stride) {
    const std::ptrdiff_t n_beyond = j < o.n ? 0 : j - o.n + 1;
    std::ptrdiff_t n_terms = n_full + (q < n_rest ? 1 : 0);
    n_terms = (n_terms < j + 1 ? n_terms : j + 1) - n_beyond;
    const T* term = from + n_beyond * step;
    Vec<T> sum = bias;
    for (; n_terms > 0; --n_terms, term += step) {
      sum += load(term);
    }
    if (o.clamps) {
      sum = at_most<T>(at_least<T>(sum, lo), hi);
    }
    if (w <= whole) {
      store(y, sum);
    } else {
      store_partial(y, sum, o.channels);
    }
    from += o.channels;
    if (++q == o.stride) {
      q = 0;
      ++j;
      from -= step;
    }
  }
}

template <class T, int MR, int NV>
void fill_tile(GemmKernels<T>& table) {
  table.tile[MR - 1][NV - 1] = gemm_tile<T, MR, NV>;
  table.strip[MR - 1][NV - 1] = gemm_strip<T, MR, NV>;
  table.asking_strip[MR - 1][NV - 1] = gemm_strip<T, MR, NV, true>;
  table.taps_strip[MR - 1][NV - 1] = gemm_strip<T, MR, NV, false, true>;
  table.outer[MR - 1][NV - 1] = outer_tile<T, MR, NV>;
  table.outer_lines[MR - 1][NV - 1] = outer_lines<T, MR, NV>;
  table.outer_packing[MR - 1][NV - 1] = outer_packing<T, MR, NV>;
  if constexpr (NV > 1) {
    fill_tile<T, MR, NV - 1>(table);
  } else if constexpr (MR > 1) {
    fill_tile<T, MR - 1, kVectors>(table);
  }
}

template <class T, int MR>
void fill_narrow(GemmKernels<T>& table) {
  if constexpr (MR > kRows) {
    table.tile[MR - 1][0] = gemm_tile<T, MR, 1>;
    table.strip[MR - 1][0] = gemm_strip<T, MR, 1>;
    table.asking_strip[MR - 1][0] = gemm_strip<T, MR, 1, true>;
    table.taps_strip[MR - 1][0] = gemm_strip<T, MR, 1, false, true>;
    fill_narrow<T, MR - 1>(table);
  }
}

template <class T, int NP>
void fill_row(GemmKernels<T>& table) {
  table.row[NP - 1] = gemm_row<T, NP>;
  if constexpr (NP > 2) {
    fill_row<T, NP - 1>(table);
  }
}

template <class T>
void fill(GemmKernels<T>& table) {
  table.width = kWidth<T>;
  table.rows = kRows;
  table.narrow_rows = kNarrowRows;
  table.vectors = kVectors;
  table.pack = pack<T>;
  table.pack_lanes = pack_lanes<T>;
  table.all_finite = all_finite<T>;
  table.overlap = overlap<T>;
  fill_tile<T, kRows, kVectors>(table);
  fill_narrow<T, kNarrowRows>(table);
  fill_row<T, kMaxRowPanels>(table);
}

}  // namespace

void fill_gemm(KernelTable& table) {
  fill(table.gemm_f32);
  fill(table.gemm_f64);
}

}  // namespace striate::STRIATE_TARGET
