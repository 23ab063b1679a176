// Depthwise convolution and convolution of small groups: rows of pixels, all three passes. Contracts: depthwise.hpp.
//
// Lanes are output channels. A group of G channels takes G turns: in turn i every lane multiplies channel i of its group,
// which a shuffle spreads over the group, so that no lane is idle whatever G is.
//
// Register budget of `row`: 8 pixels of accumulators + 1 vector of weights + 1 of x = 10 of 16: 9 loads for 8 multiply-adds.
// `lines` keeps a line's weights in registers as well, and uses each loaded pixel for every window it lies in: 8 + 5 + 1 =
// 14 of 16, and 12 + 5 loads for 40 multiply-adds. Register budget of `grad_weight`: 13 taps of accumulators + 1 of g + 1 of
// x; taps are shared out evenly, since few chains wait for one another. `row_lines` holds the sums of two lines of five taps
// (ten of 16) or of all five (25 of 32) over all rows of a call; for 3×3 it is no faster than `grad_weight`, which takes the
// nine taps of a row at once.
//
// Tried and not kept: asking for the lines that the next row reads (stride 1 and 2, 112×112 and 56×56: within 10 %).
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

constexpr int kPixels = 8;
constexpr int kTaps = 13;

template <int... I>
struct Lanes {};
template <int N, int... I>
struct LanesUpTo : LanesUpTo<N - 1, N - 1, I...> {};
template <int... I>
struct LanesUpTo<0, I...> {
  using type = Lanes<I...>;
};
template <class T, int G, int C, int... I>
STRIATE_INLINE Vec<T> spread(Vec<T> v, Lanes<I...> /*lanes*/) {
  return __builtin_shufflevector(v, v, (I / G * G + C)...);
}
// Channel C of each group of G, in all lanes of the group.
template <class T, int G, int C>
STRIATE_INLINE Vec<T> spread(Vec<T> v) {
  if constexpr (G == 1) {
    return v;
  } else {
    return spread<T, G, C>(v, typename LanesUpTo<kWidth<T>>::type{});
  }
}
// f<0>(), …, f<G − 1>().
template <int G, int C = 0, class F>
STRIATE_INLINE void each_channel(F&& f) {
  f.template operator()<C>();
  if constexpr (C + 1 < G) {
    each_channel<G, C + 1>(f);
  }
}
#define STRIATE_EACH_CHANNEL [&]<int C>() __attribute__((always_inline))

template <class T, int NJ>
STRIATE_INLINE void finish(Vec<T> (&sum)[NJ], std::ptrdiff_t c, T* y, std::ptrdiff_t y_step,
                           const DepthwiseEpilogue<T>* epilogue) {
  if (epilogue != nullptr) {
    const Vec<T> bias = epilogue->bias != nullptr ? load(epilogue->bias + c) : Vec<T>{};
#pragma GCC unroll 8
    for (int j = 0; j < NJ; ++j) {
      sum[j] += bias;
      if (epilogue->clamps) {
        sum[j] = at_most<T>(at_least<T>(sum[j], broadcast(epilogue->lo)), broadcast(epilogue->hi));
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NJ; ++j) {
    store(y + j * y_step, sum[j]);
  }
}

template <class T, int G, int NJ>
STRIATE_INLINE void pixels(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                           std::ptrdiff_t in, std::ptrdiff_t channels, std::ptrdiff_t c, T* y, std::ptrdiff_t y_step,
                           bool continues, const DepthwiseEpilogue<T>* epilogue) {
  Vec<T> sum[NJ];
#pragma GCC unroll 8
  for (int j = 0; j < NJ; ++j) {
    sum[j] = continues ? load(y + j * y_step) : Vec<T>{};
  }
  for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
    const T* const tap = x[t] + in;
    each_channel<G>(STRIATE_EACH_CHANNEL {
      const Vec<T> weight = load(w[t] + C * channels + c);
#pragma GCC unroll 8
      for (int j = 0; j < NJ; ++j) {
        sum[j] = fma<T>(spread<T, G, C>(load(tap + j * x_step)), weight, sum[j]);
      }
    });
  }
  finish<T, NJ>(sum, c, y, y_step, epilogue);
}

// NJ outputs from the j-th on. `kInside`: no pixel is outside.
template <class T, int G, int K, int S, int NJ, bool kInside>
void line_block(const DepthwiseLines<T>& lines, std::ptrdiff_t j) {
  constexpr int W = kWidth<T>;
  constexpr int kPixelsRead = (NJ - 1) * S + K;
  const std::ptrdiff_t first = j * S - lines.pad;
  const std::ptrdiff_t begin = first < 0 ? -first : 0;
  const std::ptrdiff_t end = lines.in - first < kPixelsRead ? lines.in - first : kPixelsRead;
  const std::ptrdiff_t pixel = lines.pixel;
  T* const y = lines.y + j * lines.y_step;
  for (std::ptrdiff_t next = 0; next < lines.channels; next += W) {
    const std::ptrdiff_t c = next + W <= lines.channels ? next : lines.channels - W;  // overlaps, and computes the same
    Vec<T> sum[NJ];
#pragma GCC unroll 8
    for (int i = 0; i < NJ; ++i) {
      sum[i] = Vec<T>{};
    }
    for (std::ptrdiff_t t = 0; t < lines.n_lines; ++t) {
      each_channel<G>(STRIATE_EACH_CHANNEL {
        Vec<T> weight[K];
#pragma GCC unroll 5
        for (int q = 0; q < K; ++q) {
          weight[q] = load(lines.w[t] + q * lines.w_step + C * lines.w_turn + c);
        }
        std::ptrdiff_t at = first * pixel + c;
#pragma GCC unroll 24
        for (int i = 0; i < kPixelsRead; ++i, at += pixel) {
          if (!kInside && (i < begin || i >= end)) {
            continue;
          }
          const Vec<T> value = spread<T, G, C>(load(lines.x[t] + at));
#pragma GCC unroll 5
          for (int q = 0; q < K; ++q) {
            if (i >= q && (i - q) % S == 0 && (i - q) / S < NJ) {
              sum[(i - q) / S] = fma<T>(value, weight[q], sum[(i - q) / S]);
            }
          }
        }
      });
    }
    finish<T, NJ>(sum, c, y + c, lines.y_step, lines.epilogue);
  }
}

template <class T, int G, int K, int S, int NJ>
void line_blocks(const DepthwiseLines<T>& lines) {
  for (std::ptrdiff_t next = 0; next < lines.n; next += NJ) {
    const std::ptrdiff_t j = next + NJ <= lines.n ? next : lines.n - NJ;  // overlaps, and computes the same
    if (j * S >= lines.pad && (j + NJ - 1) * S + K - lines.pad <= lines.in) {
      line_block<T, G, K, S, NJ, true>(lines, j);
    } else {
      line_block<T, G, K, S, NJ, false>(lines, j);
    }
  }
}

// What n outputs cost in blocks of `size`, the last of which overlaps the one before.
inline std::ptrdiff_t cost_in_blocks(std::ptrdiff_t n, std::ptrdiff_t size) {
  return (n + size - 1) / size * (2 * size + 3);
}

template <class T, int G, int K, int S>
void lines_of(const DepthwiseLines<T>& lines) {
  const std::ptrdiff_t n = lines.n;
  if (n >= 8 && cost_in_blocks(n, 8) <= cost_in_blocks(n, 7)) {
    line_blocks<T, G, K, S, 8>(lines);
  } else if (n >= 7) {
    line_blocks<T, G, K, S, 7>(lines);
  } else {
    line_blocks<T, G, K, S, 4>(lines);
  }
}

template <class T, int G>
bool has_lines(std::ptrdiff_t taps, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t channels) {
  return (taps == 3 || (taps == 5 && G == 1)) && (stride == 1 || stride == 2) && n >= 4 && channels >= kWidth<T>;
}

template <class T, int G>
void all_lines(const DepthwiseLines<T>& lines) {
  if (lines.taps == 3) {
    return lines.stride == 1 ? lines_of<T, G, 3, 1>(lines) : lines_of<T, G, 3, 2>(lines);
  }
  if constexpr (G == 1) {
    return lines.stride == 1 ? lines_of<T, 1, 5, 1>(lines) : lines_of<T, 1, 5, 2>(lines);
  }
}

// NJ outputs of the transpose of stride 2, from the j-th on. kOdd: whether j + pad is odd.
template <class T, int G, int K, int NJ, int kOdd, bool kInside>
void transposed_block(const DepthwiseLines<T>& lines, std::ptrdiff_t j) {
  constexpr int W = kWidth<T>;
  constexpr int kFirst = -((K - 1 - kOdd) / 2);
  constexpr int kLast = (kOdd + NJ - 1) / 2;
  const std::ptrdiff_t middle = (j + lines.pad - kOdd) / 2;  // pixel m reaches outputs j + 2·(m − middle) + q − kOdd
  const std::ptrdiff_t pixel = lines.pixel;
  T* const y = lines.y + j * lines.y_step;
  for (std::ptrdiff_t next = 0; next < lines.channels; next += W) {
    const std::ptrdiff_t c = next + W <= lines.channels ? next : lines.channels - W;  // overlaps, and computes the same
    Vec<T> sum[NJ];
#pragma GCC unroll 8
    for (int i = 0; i < NJ; ++i) {
      sum[i] = Vec<T>{};
    }
    for (std::ptrdiff_t t = 0; t < lines.n_lines; ++t) {
      each_channel<G>(STRIATE_EACH_CHANNEL {
        Vec<T> weight[K];
#pragma GCC unroll 5
        for (int q = 0; q < K; ++q) {
          weight[q] = load(lines.w[t] + q * lines.w_step + C * lines.w_turn + c);
        }
        std::ptrdiff_t at = (middle + kFirst) * pixel + c;
#pragma GCC unroll 8
        for (int m = kFirst; m <= kLast; ++m, at += pixel) {
          if (!kInside && (middle + m < 0 || middle + m >= lines.in)) {
            continue;
          }
          const Vec<T> value = spread<T, G, C>(load(lines.x[t] + at));
#pragma GCC unroll 5
          for (int q = 0; q < K; ++q) {
            const int i = 2 * m + q - kOdd;
            if (i >= 0 && i < NJ) {
              sum[i] = fma<T>(value, weight[q], sum[i]);
            }
          }
        }
      });
    }
    finish<T, NJ>(sum, c, y + c, lines.y_step, lines.epilogue);
  }
}

template <class T, int G, int K, int NJ, int kOdd>
void transposed_block(const DepthwiseLines<T>& lines, std::ptrdiff_t j) {
  const std::ptrdiff_t middle = (j + lines.pad - kOdd) / 2;
  if (middle >= K / 2 && middle + (kOdd + NJ - 1) / 2 < lines.in) {
    transposed_block<T, G, K, NJ, kOdd, true>(lines, j);
  } else {
    transposed_block<T, G, K, NJ, kOdd, false>(lines, j);
  }
}

template <class T, int G, int K, int NJ>
void transposed_blocks(const DepthwiseLines<T>& lines) {
  for (std::ptrdiff_t next = 0; next < lines.n; next += NJ) {
    const std::ptrdiff_t j = next + NJ <= lines.n ? next : lines.n - NJ;  // overlaps, and computes the same
    if ((j + lines.pad) % 2 == 0) {
      transposed_block<T, G, K, NJ, 0>(lines, j);
    } else {
      transposed_block<T, G, K, NJ, 1>(lines, j);
    }
  }
}

template <class T, int G, int K>
void transposed_of(const DepthwiseLines<T>& lines) {
  if (lines.n >= 8) {
    transposed_blocks<T, G, K, 8>(lines);
  } else {
    transposed_blocks<T, G, K, 4>(lines);
  }
}

template <class T, int G>
void all_lines_transposed(const DepthwiseLines<T>& lines) {
  if (lines.taps == 3) {
    return transposed_of<T, G, 3>(lines);
  }
  if constexpr (G == 1) {
    return transposed_of<T, 1, 5>(lines);
  }
}

// Channels below a vector.
template <class T>
void pixel_tail(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t in, std::ptrdiff_t first,
                std::ptrdiff_t channels, T* y, bool continues, const DepthwiseEpilogue<T>* epilogue) {
  for (std::ptrdiff_t c = first; c < channels; ++c) {
    T sum = continues ? y[c] : T(0);
    for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
      sum = madd(x[t][in + c], w[t][c], sum);
    }
    if (epilogue != nullptr) {
      sum += epilogue->bias != nullptr ? epilogue->bias[c] : T(0);
      if (epilogue->clamps) {
        sum = sum < epilogue->lo ? epilogue->lo : sum;
        sum = sum > epilogue->hi ? epilogue->hi : sum;
      }
    }
    y[c] = sum;
  }
}

template <class T, int G, int NJ>
STRIATE_INLINE void pixel_block(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step,
                                std::ptrdiff_t in, std::ptrdiff_t channels, T* y, std::ptrdiff_t y_step, bool continues,
                                const DepthwiseEpilogue<T>* epilogue) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t c = 0;
  for (; c + W <= channels; c += W) {
    pixels<T, G, NJ>(x, w, n_taps, x_step, in + c, channels, c, y + c, y_step, continues, epilogue);
  }
  if (c < channels && channels >= W && !continues) {
    c = channels - W;  // overlaps the vector before, and computes the same there
    pixels<T, G, NJ>(x, w, n_taps, x_step, in + c, channels, c, y + c, y_step, continues, epilogue);
    c = channels;
  }
  if (c < channels) {
    for (int j = 0; j < NJ; ++j) {
      pixel_tail(x, w, n_taps, in + j * x_step, c, channels, y + j * y_step, continues, epilogue);
    }
  }
}

template <class T, int G>
void row(const T* const* x, const T* const* w, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, std::ptrdiff_t n,
         std::ptrdiff_t channels, T* y, std::ptrdiff_t y_step, bool continues, const DepthwiseEpilogue<T>* epilogue) {
  std::ptrdiff_t j = 0;
  for (; j + kPixels <= n; j += kPixels) {
    pixel_block<T, G, kPixels>(x, w, n_taps, x_step, j * x_step, channels, y + j * y_step, y_step, continues, epilogue);
  }
  for (; j + 3 <= n; j += 3) {
    pixel_block<T, G, 3>(x, w, n_taps, x_step, j * x_step, channels, y + j * y_step, y_step, continues, epilogue);
  }
  for (; j < n; ++j) {
    pixel_block<T, G, 1>(x, w, n_taps, x_step, j * x_step, channels, y + j * y_step, y_step, continues, epilogue);
  }
}

template <class T, int G, int NT>
STRIATE_INLINE void taps(const T* const* x, std::ptrdiff_t x_step, const T* g, std::ptrdiff_t g_step, std::ptrdiff_t n,
                         std::ptrdiff_t channels, T* const* grad_w) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t c = 0;
  for (; c + W <= channels; c += W) {
    Vec<T> sum[NT][G];
#pragma GCC unroll 16
    for (int t = 0; t < NT; ++t) {
#pragma GCC unroll 8
      for (int i = 0; i < G; ++i) {
        sum[t][i] = Vec<T>{};
      }
    }
    for (std::ptrdiff_t j = 0; j < n; ++j) {
      const Vec<T> grad = load(g + j * g_step + c);
#pragma GCC unroll 16
      for (int t = 0; t < NT; ++t) {
        const Vec<T> value = load(x[t] + j * x_step + c);
        each_channel<G>(STRIATE_EACH_CHANNEL { sum[t][C] = fma<T>(spread<T, G, C>(value), grad, sum[t][C]); });
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < NT; ++t) {
#pragma GCC unroll 8
      for (int i = 0; i < G; ++i) {
        T* const to = grad_w[t] + i * channels + c;
        store(to, load(to) + sum[t][i]);
      }
    }
  }
  for (; c < channels; ++c) {
    for (int t = 0; t < NT; ++t) {
      T sum = T(0);
      for (std::ptrdiff_t j = 0; j < n; ++j) {
        sum = madd(x[t][j * x_step + c], g[j * g_step + c], sum);
      }
      grad_w[t][c] += sum;
    }
  }
}

template <class T, int G>
void grad_weight(const T* const* x, std::ptrdiff_t n_taps, std::ptrdiff_t x_step, const T* g, std::ptrdiff_t g_step,
                 std::ptrdiff_t n, std::ptrdiff_t channels, T* const* grad_w) {
  constexpr int kMost = kTaps / G;
  const std::ptrdiff_t n_parts = (n_taps + kMost - 1) / kMost;
  for (std::ptrdiff_t part = 0; part < n_parts; ++part) {
    const std::ptrdiff_t t = part * n_taps / n_parts;
    const auto run = [&]<int NT>() {
      if constexpr (NT <= kMost) {
        taps<T, G, NT>(x + t, x_step, g, g_step, n, channels, grad_w + t);
      }
    };
    switch ((part + 1) * n_taps / n_parts - t) {
      case 1:
        run.template operator()<1>();
        break;
      case 2:
        run.template operator()<2>();
        break;
      case 3:
        run.template operator()<3>();
        break;
      case 4:
        run.template operator()<4>();
        break;
      case 5:
        run.template operator()<5>();
        break;
      case 6:
        run.template operator()<6>();
        break;
      case 7:
        run.template operator()<7>();
        break;
      case 8:
        run.template operator()<8>();
        break;
      case 9:
        run.template operator()<9>();
        break;
      case 10:
        run.template operator()<10>();
        break;
      case 11:
        run.template operator()<11>();
        break;
      case 12:
        run.template operator()<12>();
        break;
      default:
        run.template operator()<13>();
        break;
    }
  }
}

// Windows of one row. kInside: no pixel is outside, for outputs [begin, end).
template <class T, int K, int S, int NL, bool kInside>
STRIATE_INLINE void row_products(const DepthwiseRows<T>& rows, const T* const (&x)[NL], const T* g, std::ptrdiff_t begin,
                                 std::ptrdiff_t end, Vec<T> (&sum)[NL][K]) {
  const std::ptrdiff_t pixel = rows.pixel;
  std::ptrdiff_t at = (begin * S - rows.pad) * pixel;
  g += begin * rows.g_step;
  for (std::ptrdiff_t j = begin; j < end; ++j, at += S * pixel, g += rows.g_step) {
    const Vec<T> grad = load(g);
#pragma GCC unroll 5
    for (int q = 0; q < K; ++q) {
      const std::ptrdiff_t i = j * S + q - rows.pad;
      if (!kInside && (i < 0 || i >= rows.in)) {
        continue;
      }
#pragma GCC unroll 5
      for (int l = 0; l < NL; ++l) {
        sum[l][q] = fma<T>(load(x[l] + at + q * pixel), grad, sum[l][q]);
      }
    }
  }
}

// NL lines of taps, one vector of channels: the sums stay in registers over all rows. Of less than a vector only the last
// n_lanes are added: those before belong to the vector before.
template <class T, int K, int S, int NL>
void row_lines(const DepthwiseRows<T>& rows, std::ptrdiff_t first, std::ptrdiff_t c, std::ptrdiff_t n_lanes) {
  Vec<T> sum[NL][K];
#pragma GCC unroll 5
  for (int l = 0; l < NL; ++l) {
#pragma GCC unroll 5
    for (int q = 0; q < K; ++q) {
      sum[l][q] = Vec<T>{};
    }
  }
  // Outputs [begin, end) have every tap inside.
  std::ptrdiff_t begin = (rows.pad + S - 1) / S;
  begin = begin < rows.n ? begin : rows.n;
  std::ptrdiff_t end = rows.in + rows.pad >= K ? (rows.in + rows.pad - K) / S + 1 : 0;
  end = end < begin ? begin : end < rows.n ? end : rows.n;
  for (std::ptrdiff_t r = 0; r < rows.n_rows; ++r) {
    const T* x[NL];
#pragma GCC unroll 5
    for (int l = 0; l < NL; ++l) {
      x[l] = rows.x[r * rows.n_lines + first + l] + c;
    }
    const T* const g = rows.g[r] + c;
    row_products<T, K, S, NL, false>(rows, x, g, 0, begin, sum);
    row_products<T, K, S, NL, true>(rows, x, g, begin, end, sum);
    row_products<T, K, S, NL, false>(rows, x, g, end, rows.n, sum);
  }
  constexpr int W = kWidth<T>;
#pragma GCC unroll 5
  for (int l = 0; l < NL; ++l) {
#pragma GCC unroll 5
    for (int q = 0; q < K; ++q) {
      T* const at = rows.grad_w[first + l] + q * rows.channels + c;
      if (n_lanes == W) {
        store(at, load(at) + sum[l][q]);
      } else {
        for (std::ptrdiff_t i = W - n_lanes; i < W; ++i) {
          at[i] += sum[l][q][i];
        }
      }
    }
  }
}

// Lines of K taps whose sums fit into registers, beside one vector of g and one of x.
#if (defined(__AVX512F__) || defined(__aarch64__)) && !defined(STRIATE_VEC_BYTES)
constexpr int kSums = 25;
#else
constexpr int kSums = 13;
#endif

template <class T, int K, int S>
void row_lines_of(const DepthwiseRows<T>& rows) {
  constexpr std::ptrdiff_t W = kWidth<T>;
  constexpr std::ptrdiff_t kMost = kSums / K < 5 ? kSums / K : 5;
  for (std::ptrdiff_t next = 0; next < rows.channels; next += W) {
    const std::ptrdiff_t c = next + W <= rows.channels ? next : rows.channels - W;
    const std::ptrdiff_t n_lanes = W - (next - c);
    for (std::ptrdiff_t l = 0; l < rows.n_lines;) {
      const std::ptrdiff_t left = rows.n_lines - l < kMost ? rows.n_lines - l : kMost;
      const auto run = [&]<int NL>() {
        if constexpr (NL <= kMost) {
          row_lines<T, K, S, NL>(rows, l, c, n_lanes);
        }
      };
      switch (left) {
        case 1:
          run.template operator()<1>();
          break;
        case 2:
          run.template operator()<2>();
          break;
        case 3:
          run.template operator()<3>();
          break;
        case 4:
          run.template operator()<4>();
          break;
        default:
          run.template operator()<5>();
          break;
      }
      l += left;
    }
  }
}

template <class T>
void rows_grad_weight(const DepthwiseRows<T>& rows) {
  return rows.stride == 1 ? row_lines_of<T, 5, 1>(rows) : row_lines_of<T, 5, 2>(rows);
}

template <class T, int G>
void fill(DepthwiseKernels<T>& table) {
  if constexpr (G <= kWidth<T>) {
    table = {.has_lines = has_lines<T, G>,
             .lines = all_lines<T, G>,
             .lines_transposed = all_lines_transposed<T, G>,
             .rows_grad_weight = nullptr,
             .row = row<T, G>,
             .grad_weight = grad_weight<T, G>};
    if constexpr (G == 1) {
      table.rows_grad_weight = rows_grad_weight<T>;
    }
  }
}

template <class T>
void fill(DepthwiseKernels<T> (&tables)[4]) {
  fill<T, 1>(tables[0]);
  fill<T, 2>(tables[1]);
  fill<T, 4>(tables[2]);
  fill<T, 8>(tables[3]);
}

}  // namespace

void fill_depthwise(KernelTable& table) {
  fill(table.depthwise_f32);
  fill(table.depthwise_f64);
}

}  // namespace striate::STRIATE_TARGET
