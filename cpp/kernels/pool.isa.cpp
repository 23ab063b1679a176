// Rows of pooling windows: maximum, its gradient, sum. Contracts: pool.hpp.
//
// Blocks of 4 vectors of channels stay in registers while the taps go by, so x is read once per window it lies in and y is
// written once. Channels left over are done by one vector that overlaps the one before. Fewer channels than lanes: a vector
// takes along values of the pixels after its own, up to those that it would reach beyond. In the result they are written
// again in turn, or, where other pixels lie between, are left as they were.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

constexpr int kBlock = 4;

template <class T>
STRIATE_INLINE Mask<T> broadcast_index(std::int32_t x) {
  return x - Mask<T>{};
}

// How many of n pixels, `step` or more apart wherever they lie, have `width` values after their beginning.
STRIATE_INLINE std::ptrdiff_t wide_pixels(std::ptrdiff_t width, std::ptrdiff_t step, std::ptrdiff_t n,
                                          std::ptrdiff_t channels) {
  if (channels >= width || channels <= 0 || step <= 0) {
    return 0;
  }
  const std::ptrdiff_t beyond = width - channels;
  const std::ptrdiff_t n_short = (beyond + step - 1) / step;
  return n > n_short ? n - n_short : 0;
}
// Of those, as many as may be written over by a vector of the pixel before: none lie between in the result.
STRIATE_INLINE std::ptrdiff_t dense_wide_pixels(std::ptrdiff_t width, std::ptrdiff_t x_step, std::ptrdiff_t n,
                                                std::ptrdiff_t channels, std::ptrdiff_t y_step, bool continues) {
  const std::ptrdiff_t step = x_step < y_step ? x_step : y_step;
  return y_step != channels || continues ? 0 : wide_pixels(width, step, n, channels);
}

// Whether x takes the place of `best`: it is larger, or NaN.
template <class V>
STRIATE_INLINE auto beats(V x, V best) {
  return (x > best) | (x != x);
}

template <class T, class I, int NV>
STRIATE_INLINE void max_block(const T* const* x, const std::int32_t* labels, std::ptrdiff_t n_taps, std::ptrdiff_t offset,
                              T* y, I* index, bool continues) {
  constexpr int W = kWidth<T>;
  constexpr bool kHasIndex = sizeof(I) < sizeof(double);
  Vec<T> best[NV];
  Mask<T> at[NV];
  std::ptrdiff_t t = 0;
  if (continues) {
    for (int v = 0; v < NV; ++v) {
      best[v] = load(y + v * W);
      if constexpr (kHasIndex) {
        at[v] = load_index<T, I>(index + v * W);
      }
    }
  } else {
    for (int v = 0; v < NV; ++v) {
      best[v] = load(x[0] + offset + v * W);
      if constexpr (kHasIndex) {
        at[v] = broadcast_index<T>(labels[0]);
      }
    }
    t = 1;
  }
  for (; t < n_taps; ++t) {
    const T* const tap = x[t] + offset;
    const Mask<T> label = kHasIndex ? broadcast_index<T>(labels[t]) : Mask<T>{};
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const Vec<T> value = load(tap + v * W);
      const Mask<T> wins = beats(value, best[v]);
      best[v] = wins ? value : best[v];
      if constexpr (kHasIndex) {
        at[v] = wins ? label : at[v];
      }
    }
  }
  for (int v = 0; v < NV; ++v) {
    store(y + v * W, best[v]);
    if constexpr (kHasIndex) {
      store_index<T, I>(index + v * W, at[v]);
    }
  }
}

// n channels, fewer than lanes, of one pixel.
template <class T, class I>
STRIATE_INLINE void max_partial(const T* const* x, const std::int32_t* labels, std::ptrdiff_t n_taps, std::ptrdiff_t offset,
                                std::ptrdiff_t n, T* y, I* index) {
  constexpr bool kHasIndex = sizeof(I) < sizeof(double);
  Vec<T> best = load_partial(x[0] + offset, n);
  Mask<T> at = kHasIndex ? broadcast_index<T>(labels[0]) : Mask<T>{};
  for (std::ptrdiff_t t = 1; t < n_taps; ++t) {
    const Vec<T> value = load_partial(x[t] + offset, n);
    const Mask<T> wins = beats(value, best);
    best = wins ? value : best;
    if constexpr (kHasIndex) {
      at = wins ? broadcast_index<T>(labels[t]) : at;
    }
  }
  store_partial(y, best, n);
  if constexpr (kHasIndex) {
    I taken[kWidth<T>];
    store_index<T, I>(taken, at);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      index[i] = taken[i];
    }
  }
}

// I = double stands for "no index".
template <class T, class I>
void max_row_any(const T* const* x, const std::int32_t* labels, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                 std::ptrdiff_t n, std::ptrdiff_t channels, T* y, I* index, std::ptrdiff_t y_step, bool continues) {
  constexpr int W = kWidth<T>;
  constexpr bool kHasIndex = sizeof(I) < sizeof(double);
  const std::ptrdiff_t n_wide = dense_wide_pixels(W, x_step, n, channels, y_step, continues);
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    T* const out = y + j * y_step;
    I* const taken = kHasIndex ? index + j * y_step : index;
    const std::ptrdiff_t in = j * x_step;
    if (n_taps > 0 && j < n_wide) {
      max_block<T, I, 1>(x, labels, n_taps, in, out, taken, false);
      continue;
    }
    if (n_taps == 0) {
      for (std::ptrdiff_t c = 0; c < channels && !continues; ++c) {
        out[c] = -static_cast<T>(__builtin_inff());
        if constexpr (kHasIndex) {
          taken[c] = 0;
        }
      }
      continue;
    }
    std::ptrdiff_t c = 0;
    for (; c + kBlock * W <= channels; c += kBlock * W) {
      max_block<T, I, kBlock>(x, labels, n_taps, in + c, out + c, kHasIndex ? taken + c : taken, continues);
    }
    for (; c + W <= channels; c += W) {
      max_block<T, I, 1>(x, labels, n_taps, in + c, out + c, kHasIndex ? taken + c : taken, continues);
    }
    if (c < channels && channels >= W && !continues) {
      c = channels - W;
      max_block<T, I, 1>(x, labels, n_taps, in + c, out + c, kHasIndex ? taken + c : taken, continues);
      c = channels;
    }
    if (c < channels && !continues) {
      max_partial<T, I>(x, labels, n_taps, in + c, channels - c, out + c, kHasIndex ? taken + c : taken);
      continue;
    }
    for (; c < channels; ++c) {
      T best = continues ? out[c] : x[0][in + c];
      std::int32_t at = labels[0];
      if constexpr (kHasIndex) {
        at = continues ? static_cast<std::int32_t>(taken[c]) : at;
      }
      for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
        const T value = x[t][in + c];
        const bool wins = beats(value, best);
        best = wins ? value : best;
        at = wins ? labels[t] : at;
      }
      out[c] = best;
      if constexpr (kHasIndex) {
        taken[c] = static_cast<I>(at);
      }
    }
  }
}

template <class T, class I>
void max_row(const T* const* x, const std::int32_t* labels, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n,
             std::ptrdiff_t channels, T* y, I* index, std::ptrdiff_t y_step, bool continues) {
  max_row_any<T, I>(x, labels, n_taps, x_step, n, channels, y, index, y_step, continues);
}
template <class T>
void max_row_plain(const T* const* x, const std::int32_t* labels, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                   std::ptrdiff_t n, std::ptrdiff_t channels, T* y, void*, std::ptrdiff_t y_step, bool continues) {
  max_row_any<T, double>(x, labels, n_taps, x_step, n, channels, y, nullptr, y_step, continues);
}

template <class T, class I, int NV>
STRIATE_INLINE void select_block(const T* const* x, const I* const* index, const std::int32_t* labels, std::ptrdiff_t n_taps,
                                 std::ptrdiff_t offset, std::ptrdiff_t index_offset, T* y, bool continues) {
  constexpr int W = kWidth<T>;
  Vec<T> sum[NV];
  for (int v = 0; v < NV; ++v) {
    sum[v] = continues ? load(y + v * W) : Vec<T>{};
  }
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    const T* const tap = x[t] + offset;
    const I* const from = index[t] + index_offset;
    const Mask<T> label = broadcast_index<T>(labels[t]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const Mask<T> is_mine = load_index<T, I>(from + v * W) == label;
      sum[v] += (Vec<T>)((Mask<T>)load(tap + v * W) & is_mine);
    }
  }
  for (int v = 0; v < NV; ++v) {
    store(y + v * W, sum[v]);
  }
}

// n channels, fewer than lanes, of one pixel; memory is read and may be written up to a whole vector.
template <class T, class I>
STRIATE_INLINE void select_wide(const T* const* x, const I* const* index, const std::int32_t* labels, std::ptrdiff_t n_taps,
                                std::ptrdiff_t offset, std::ptrdiff_t index_offset, std::ptrdiff_t n, T* y, bool continues) {
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  Vec<T> sum{};
  if (continues) {
    sum = load_partial(y, n);
  }
#else
  const Vec<T> before = load(y);
  Vec<T> sum = continues ? before : Vec<T>{};
#endif
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    const Mask<T> is_mine = load_index<T, I>(index[t] + index_offset) == broadcast_index<T>(labels[t]);
    sum += (Vec<T>)((Mask<T>)load(x[t] + offset) & is_mine);
  }
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  store_partial(y, sum, n);
#else
  Mask<T> lane{};
  for (int i = 0; i < kWidth<T>; ++i) {
    lane[i] = i;
  }
  store(y, lane < broadcast_index<T>(static_cast<std::int32_t>(n)) ? sum : before);
#endif
}

// Likewise where nothing lies behind them.
template <class T, class I>
STRIATE_INLINE void select_partial(const T* const* x, const I* const* index, const std::int32_t* labels,
                                   std::ptrdiff_t n_taps, std::ptrdiff_t offset, std::ptrdiff_t index_offset,
                                   std::ptrdiff_t n, T* y, bool continues) {
  Vec<T> sum = continues ? load_partial(y, n) : Vec<T>{};
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    Mask<T> taken{};
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      taken[i] = static_cast<std::int32_t>(index[t][index_offset + i]);
    }
    const Mask<T> is_mine = taken == broadcast_index<T>(labels[t]);
    sum += (Vec<T>)((Mask<T>)load_partial(x[t] + offset, n) & is_mine);
  }
  store_partial(y, sum, n);
}

template <class T, class I>
void select_row(const T* const* x, const I* const* index, const std::int32_t* labels, std::ptrdiff_t n_taps,
                std::ptrdiff_t x_step, std::ptrdiff_t index_step, std::ptrdiff_t n, std::ptrdiff_t channels, T* y,
                std::ptrdiff_t y_step, bool continues) {
  constexpr int W = kWidth<T>;
  const std::ptrdiff_t step = x_step < y_step ? x_step : y_step;
  const std::ptrdiff_t n_wide = wide_pixels(W, step < index_step ? step : index_step, n, channels);
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    T* const out = y + j * y_step;
    const std::ptrdiff_t in = j * x_step;
    const std::ptrdiff_t from = j * index_step;
    if (j < n_wide) {
      select_wide(x, index, labels, n_taps, in, from, channels, out, continues);
      continue;
    }
    std::ptrdiff_t c = 0;
    for (; c + kBlock * W <= channels; c += kBlock * W) {
      select_block<T, I, kBlock>(x, index, labels, n_taps, in + c, from + c, out + c, continues);
    }
    for (; c + W <= channels; c += W) {
      select_block<T, I, 1>(x, index, labels, n_taps, in + c, from + c, out + c, continues);
    }
    if (c < channels && channels >= W && !continues) {
      c = channels - W;
      select_block<T, I, 1>(x, index, labels, n_taps, in + c, from + c, out + c, continues);
      c = channels;
    }
    if (c < channels) {
      select_partial(x, index, labels, n_taps, in + c, from + c, channels - c, out + c, continues);
    }
  }
}

// A vector of a window, `offset` from the beginnings of its lines; unless kWhole, `left` lanes of it. Sums begin with 0, as
// those of select_row do: what is −0 becomes 0.
template <class T, bool kWhole>
STRIATE_INLINE void spread_vector(Vec<T> g, Mask<T> taken, T* const* y, std::ptrdiff_t offset, std::ptrdiff_t n_lines,
                                  std::ptrdiff_t n_columns, std::ptrdiff_t channels, std::ptrdiff_t left) {
  Mask<T> label{};
  for (std::ptrdiff_t p = 0; p < n_lines; ++p) {
    T* out = y[p] + offset;
    for (std::ptrdiff_t q = 0; q < n_columns; ++q, out += channels, label += broadcast_index<T>(1)) {
      const Vec<T> value = Vec<T>{} + (Vec<T>)((Mask<T>)g & (taken == label));
      if (kWhole) {
        store(out, value);
      } else {
        store_partial(out, value, left);
      }
    }
  }
}

// Contract: SpreadRow in pool.hpp.
template <class T, class I>
void spread_row(const T* g, std::ptrdiff_t g_step, const I* index, std::ptrdiff_t index_step, std::ptrdiff_t n,
                std::ptrdiff_t channels, T* const* y, std::ptrdiff_t n_lines, std::ptrdiff_t n_columns) {
  constexpr int W = kWidth<T>;
  const std::ptrdiff_t window = n_columns * channels;
  // Whole vectors of few channels: what they write beyond a pixel, the next one overwrites.
  const std::ptrdiff_t n_read = wide_pixels(W, g_step < index_step ? g_step : index_step, n, channels);
  const std::ptrdiff_t n_written = wide_pixels(W, window, n, channels);
  const std::ptrdiff_t n_wide = n_read < n_written ? n_read : n_written;
  for (std::ptrdiff_t j = 0; j < n; ++j, g += g_step, index += index_step) {
    if (j < n_wide) {
      spread_vector<T, true>(load(g), load_index<T, I>(index), y, j * window, n_lines, n_columns, channels, W);
    } else if (channels >= W) {
      for (std::ptrdiff_t first = 0; first < channels; first += W) {
        const std::ptrdiff_t c = first + W <= channels ? first : channels - W;
        spread_vector<T, true>(load(g + c), load_index<T, I>(index + c), y, j * window + c, n_lines, n_columns, channels, W);
      }
    } else {
      Mask<T> taken{};
      for (std::ptrdiff_t i = 0; i < channels; ++i) {
        taken[i] = static_cast<std::int32_t>(index[i]);
      }
      spread_vector<T, false>(load_partial(g, channels), taken, y, j * window, n_lines, n_columns, channels, channels);
    }
  }
}

template <class T, int NV>
STRIATE_INLINE void sum_block(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t offset, T scale, T* y,
                              bool continues) {
  constexpr int W = kWidth<T>;
  Vec<T> sum[NV];
  for (int v = 0; v < NV; ++v) {
    sum[v] = continues ? load(y + v * W) : Vec<T>{};
  }
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    const T* const tap = x[t] + offset;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      sum[v] += load(tap + v * W);
    }
  }
  for (int v = 0; v < NV; ++v) {
    store(y + v * W, sum[v] * scale);
  }
}

template <class T>
void sum_row(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n, std::ptrdiff_t channels,
             T scale, T* y, std::ptrdiff_t y_step, bool continues) {
  constexpr int W = kWidth<T>;
  const std::ptrdiff_t n_wide = dense_wide_pixels(W, x_step, n, channels, y_step, continues);
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    T* const out = y + j * y_step;
    const std::ptrdiff_t in = j * x_step;
    if (j < n_wide) {
      sum_block<T, 1>(x, n_taps, in, scale, out, false);
      continue;
    }
    std::ptrdiff_t c = 0;
    for (; c + kBlock * W <= channels; c += kBlock * W) {
      sum_block<T, kBlock>(x, n_taps, in + c, scale, out + c, continues);
    }
    for (; c + W <= channels; c += W) {
      sum_block<T, 1>(x, n_taps, in + c, scale, out + c, continues);
    }
    if (c < channels && channels >= W && !continues) {
      c = channels - W;
      sum_block<T, 1>(x, n_taps, in + c, scale, out + c, continues);
      c = channels;
    }
    for (; c < channels; ++c) {
      T sum = continues ? out[c] : T(0);
      for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
        sum += x[t][in + c];
      }
      out[c] = sum * scale;
    }
  }
}

template <class T>
void fill(PoolKernels<T>& table) {
  table.max = max_row_plain<T>;
  table.max_u8 = max_row<T, std::uint8_t>;
  table.max_i32 = max_row<T, std::int32_t>;
  table.select_u8 = select_row<T, std::uint8_t>;
  table.select_i32 = select_row<T, std::int32_t>;
  table.spread_u8 = spread_row<T, std::uint8_t>;
  table.spread_i32 = spread_row<T, std::int32_t>;
  table.sum = sum_row<T>;
}

}  // namespace

void fill_pool(KernelTable& table) {
  fill(table.pool_f32);
  fill(table.pool_f64);
}

}  // namespace striate::STRIATE_TARGET
