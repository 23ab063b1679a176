// What the kernels of pooling compute. A kernel makes a row of n pixels; every tap reads a row of its own. Channels are
// contiguous.
#pragma once

#include <cstddef>
#include <cstdint>

namespace striate {

inline constexpr int kMaxRowTaps = 32;  // taps a call; more are given to further calls with `continues`

// y[j][c] = max_t x[t][j][c], NaN wins; index[j][c] = labels[t] of the first maximum. −∞ without taps.
template <class T, class I>
using MaxRow = void (*)(const T* const* x,           // [n_taps] pointers to n pixels, x_step apart
                        const std::int32_t* labels,  // [n_taps]
                        std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n, std::ptrdiff_t channels,
                        T* y,      // [n] pixels, y_step apart
                        I* index,  // likewise; null when MaxRow<T, void>
                        std::ptrdiff_t y_step, bool continues);

// y[j][c] = Σ_t (index[t][j][c] == labels[t] ? x[t][j][c] : 0), in order of t.
template <class T, class I>
using SelectRow = void (*)(const T* const* x,      // [n_taps] pointers to n pixels, x_step apart
                           const I* const* index,  // [n_taps] pointers to n pixels, index_step apart
                           const std::int32_t* labels, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                           std::ptrdiff_t index_step, std::ptrdiff_t n, std::ptrdiff_t channels, T* y, std::ptrdiff_t y_step,
                           bool continues);

// Windows that follow one another and share nothing: pixel q of line p of window j, y[p][(j·n_columns + q)·channels + c], is
// g[j][c] where index[j][c] = p·n_columns + q, else 0.
template <class T, class I>
using SpreadRow = void (*)(const T* g, std::ptrdiff_t g_step, const I* index, std::ptrdiff_t index_step, std::ptrdiff_t n,
                           std::ptrdiff_t channels, T* const* y, std::ptrdiff_t n_lines, std::ptrdiff_t n_columns);

// y[j][c] = scale · Σ_t x[t][j][c], in order of t; with `continues` the sum starts at y.
template <class T>
using SumRow = void (*)(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n,
                        std::ptrdiff_t channels, T scale, T* y, std::ptrdiff_t y_step, bool continues);

template <class T>
struct PoolKernels {
  MaxRow<T, void> max;
  MaxRow<T, std::uint8_t> max_u8;
  MaxRow<T, std::int32_t> max_i32;
  SelectRow<T, std::uint8_t> select_u8;
  SelectRow<T, std::int32_t> select_i32;
  SpreadRow<T, std::uint8_t> spread_u8;
  SpreadRow<T, std::int32_t> spread_i32;
  SumRow<T> sum;
};

}  // namespace striate
