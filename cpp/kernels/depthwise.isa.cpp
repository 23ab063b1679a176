// Depthwise convolution and convolution of small groups: rows of pixels, all three passes. Contracts: depthwise.hpp.
//
// Lanes are output channels. A group of G channels takes G turns: in turn i every lane multiplies channel i of its group,
// which a shuffle spreads over the group, so that no lane is idle whatever G is. Where a group is a vector, a broadcast
// does: a turn of 8 outputs of AVX2 is 24 multiply-adds, 12 cycles, and 13 loads, 7 cycles at two in each (20 and 10 at
// stride 2), where 10 shuffles (17) took one cycle each.
//
// Register budget of `row`: 8 pixels of accumulators + 1 vector of weights + 1 of x = 10 of 16: 9 loads for 8 multiply-adds.
// `lines` keeps a line's weights in registers as well, and uses each loaded pixel for every window it lies in: 8 + 5 + 1 =
// 14 of 16, and 12 + 5 loads for 40 multiply-adds. Register budget of `grad_weight`: 13 taps of accumulators + 1 of g + 1 of
// x; taps are shared out evenly, since few chains wait for one another. `gradient_block` holds the sums of three lines of
// three taps + 3 of g + 1 of x = 13 of 16, of two lines of five taps = 16, or of all five = 31 of 32.
//
// All but `row` and `grad_weight` ask for the next row's memory, reads and writes, a few lines at each vector of channels:
// from the caches within 3 %, from memory up to twice as fast. 144 channels at 56×56 from memory, two threads of a Zen 4,
// AVX2: 2.35 → 1.05 ms; asking for reads alone gave 1.52, and asking in front of each block of pixels, 72 lines at once, 2.2
// to 2.6.
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

// Channel C of the groups of the vector at p, in all lanes of the group. A group that fills the vector needs no shuffle.
template <class T, int G, int C>
STRIATE_INLINE Vec<T> load_spread(const T* p) {
  if constexpr (G == kWidth<T>) {
    return broadcast(p[C]);
  } else {
    return spread<T, G, C>(load(p));
  }
}

template <class T>
inline constexpr int kLine = 64 / static_cast<int>(sizeof(T));  // values of a line of memory

// Walks an Ahead in equal steps, the last of which may go a few lines beyond it. kWrites: y is to be written.
template <bool kWrites>
class Asking {
 public:
  STRIATE_INLINE Asking(const Ahead& ahead, std::ptrdiff_t n_steps)
      : x_(static_cast<const char*>(ahead.x)),
        y_(static_cast<const char*>(ahead.y)),
        n_x_(lines_of_a_step(ahead.x_bytes, n_steps)),
        n_y_(lines_of_a_step(ahead.y_bytes, n_steps)) {}

  STRIATE_INLINE void step() {
    for (std::ptrdiff_t i = 0; i < n_x_; ++i, x_ += kLineBytes) {
      __builtin_prefetch(x_);
    }
    for (std::ptrdiff_t i = 0; i < n_y_; ++i, y_ += kLineBytes) {
      __builtin_prefetch(y_, kWrites ? 1 : 0);
    }
  }

 private:
  static constexpr std::ptrdiff_t kLineBytes = 64;

  static std::ptrdiff_t lines_of_a_step(std::ptrdiff_t bytes, std::ptrdiff_t n_steps) {
    return (bytes + n_steps * kLineBytes - 1) / (n_steps * kLineBytes);
  }

  const char* x_;
  const char* y_;
  std::ptrdiff_t n_x_;
  std::ptrdiff_t n_y_;
};

// Steps of a kernel that takes n outputs by blocks, and the channels of a block by vectors.
template <class T>
STRIATE_INLINE std::ptrdiff_t n_steps(std::ptrdiff_t n, std::ptrdiff_t block, std::ptrdiff_t channels) {
  return (n + block - 1) / block * ((channels + kWidth<T> - 1) / kWidth<T>);
}

template <class T, int NJ>
STRIATE_INLINE void add_bias_and_clamp(Vec<T> (&sum)[NJ], std::ptrdiff_t c, const DepthwiseEpilogue<T>* epilogue) {
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
}

template <class T, int NJ>
STRIATE_INLINE void finish(Vec<T> (&sum)[NJ], std::ptrdiff_t c, T* y, std::ptrdiff_t y_step,
                           const DepthwiseEpilogue<T>* epilogue) {
  add_bias_and_clamp<T, NJ>(sum, c, epilogue);
#pragma GCC unroll 8
  for (int j = 0; j < NJ; ++j) {
    store(y + j * y_step, sum[j]);
  }
}

// Stores past the caches. A line of memory goes at once: the vectors before its last wait in `held`, [NJ][kLine]. (Vector by
// vector, AVX2, 144 channels at 56×56: 1.3 times as long as through the caches; 32 at 112×112: 5 times.)
template <class T, int NJ>
STRIATE_INLINE void finish_past_caches(Vec<T> (&sum)[NJ], std::ptrdiff_t c, T* y, std::ptrdiff_t y_step,
                                       const DepthwiseEpilogue<T>* epilogue, T* held) {
  constexpr int W = kWidth<T>;
  add_bias_and_clamp<T, NJ>(sum, c, epilogue);
  constexpr int kLast = kLine<T> - W;
  if constexpr (kLast > 0) {
    const std::ptrdiff_t at = c % kLine<T>;
    if (at < kLast) {
#pragma GCC unroll 8
      for (int j = 0; j < NJ; ++j) {
        store(held + j * kLine<T> + at, sum[j]);
      }
      return;
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NJ; ++j) {
#pragma GCC unroll 4
    for (int v = 0; v < kLast; v += W) {
      store_stream<T>(y + j * y_step - kLast + v, load(held + j * kLine<T> + v));
    }
    store_stream<T>(y + j * y_step, sum[j]);
  }
}

// Finishes some outputs of `lines`. (With a branch instead, 144 channels at 56×56 took up to 1.09 times as long unstreamed.)
template <class T, int NJ, bool kStreams>
STRIATE_INLINE void finish(Vec<T> (&sum)[NJ], std::ptrdiff_t c, T* y, const DepthwiseLines<T>& lines, T* held) {
  if constexpr (kStreams) {
    finish_past_caches<T, NJ>(sum, c, y, lines.y_step, lines.epilogue, held);
  } else {
    finish<T, NJ>(sum, c, y, lines.y_step, lines.epilogue);
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
        sum[j] = fma<T>(load_spread<T, G, C>(tap + j * x_step), weight, sum[j]);
      }
    });
  }
  finish<T, NJ>(sum, c, y, y_step, epilogue);
}

// NJ outputs from the j-th on. `kInside`: no pixel is outside.
template <class T, int G, int K, int S, int NJ, bool kInside, bool kStreams>
void line_block(const DepthwiseLines<T>& lines, std::ptrdiff_t j, Asking<true>& asking) {
  constexpr int W = kWidth<T>;
  constexpr int kPixelsRead = (NJ - 1) * S + K;
  const std::ptrdiff_t first = j * S - lines.pad;
  const std::ptrdiff_t begin = first < 0 ? -first : 0;
  const std::ptrdiff_t end = lines.in - first < kPixelsRead ? lines.in - first : kPixelsRead;
  const std::ptrdiff_t pixel = lines.pixel;
  T* const y = lines.y + j * lines.y_step;
  T held[kStreams ? NJ * kLine<T> : 1];
  for (std::ptrdiff_t next = 0; next < lines.channels; next += W) {
    const std::ptrdiff_t c = next + W <= lines.channels ? next : lines.channels - W;  // overlaps, and computes the same
    asking.step();
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
          const Vec<T> value = load_spread<T, G, C>(lines.x[t] + at);
#pragma GCC unroll 5
          for (int q = 0; q < K; ++q) {
            if (i >= q && (i - q) % S == 0 && (i - q) / S < NJ) {
              sum[(i - q) / S] = fma<T>(value, weight[q], sum[(i - q) / S]);
            }
          }
        }
      });
    }
    finish<T, NJ, kStreams>(sum, c, y + c, lines, held);
  }
}

template <class T, int G, int K, int S, int NJ, bool kStreams>
void line_blocks(const DepthwiseLines<T>& lines) {
  Asking<true> asking(lines.ahead, n_steps<T>(lines.n, NJ, lines.channels));
  for (std::ptrdiff_t next = 0; next < lines.n; next += NJ) {
    const std::ptrdiff_t j = next + NJ <= lines.n ? next : lines.n - NJ;  // overlaps, and computes the same
    if (j * S >= lines.pad && (j + NJ - 1) * S + K - lines.pad <= lines.in) {
      line_block<T, G, K, S, NJ, true, kStreams>(lines, j, asking);
    } else {
      line_block<T, G, K, S, NJ, false, kStreams>(lines, j, asking);
    }
  }
}

// What n outputs cost in blocks of `size`, the last of which overlaps the one before.
inline std::ptrdiff_t cost_in_blocks(std::ptrdiff_t n, std::ptrdiff_t size) {
  return (n + size - 1) / size * (2 * size + 3);
}

template <class T, int G, int K, int S, bool kStreams = false>
void lines_of(const DepthwiseLines<T>& lines) {
  if constexpr (G == 1 && !kStreams) {
    if (lines.streams) {
      return lines_of<T, G, K, S, true>(lines);
    }
  }
  const std::ptrdiff_t n = lines.n;
  if (n >= 8 && cost_in_blocks(n, 8) <= cost_in_blocks(n, 7)) {
    line_blocks<T, G, K, S, 8, kStreams>(lines);
  } else if (n >= 7) {
    line_blocks<T, G, K, S, 7, kStreams>(lines);
  } else {
    line_blocks<T, G, K, S, 4, kStreams>(lines);
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
template <class T, int G, int K, int NJ, int kOdd, bool kInside, bool kStreams>
void transposed_block(const DepthwiseLines<T>& lines, std::ptrdiff_t j, Asking<true>& asking) {
  constexpr int W = kWidth<T>;
  constexpr int kFirst = -((K - 1 - kOdd) / 2);
  constexpr int kLast = (kOdd + NJ - 1) / 2;
  const std::ptrdiff_t middle = (j + lines.pad - kOdd) / 2;  // pixel m reaches outputs j + 2·(m − middle) + q − kOdd
  const std::ptrdiff_t pixel = lines.pixel;
  T* const y = lines.y + j * lines.y_step;
  T held[kStreams ? NJ * kLine<T> : 1];
  for (std::ptrdiff_t next = 0; next < lines.channels; next += W) {
    const std::ptrdiff_t c = next + W <= lines.channels ? next : lines.channels - W;  // overlaps, and computes the same
    asking.step();
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
          const Vec<T> value = load_spread<T, G, C>(lines.x[t] + at);
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
    finish<T, NJ, kStreams>(sum, c, y + c, lines, held);
  }
}

template <class T, int G, int K, int NJ, int kOdd, bool kStreams>
void transposed_block(const DepthwiseLines<T>& lines, std::ptrdiff_t j, Asking<true>& asking) {
  const std::ptrdiff_t middle = (j + lines.pad - kOdd) / 2;
  if (middle >= K / 2 && middle + (kOdd + NJ - 1) / 2 < lines.in) {
    transposed_block<T, G, K, NJ, kOdd, true, kStreams>(lines, j, asking);
  } else {
    transposed_block<T, G, K, NJ, kOdd, false, kStreams>(lines, j, asking);
  }
}

template <class T, int G, int K, int NJ, bool kStreams>
void transposed_blocks(const DepthwiseLines<T>& lines) {
  Asking<true> asking(lines.ahead, n_steps<T>(lines.n, NJ, lines.channels));
  for (std::ptrdiff_t next = 0; next < lines.n; next += NJ) {
    const std::ptrdiff_t j = next + NJ <= lines.n ? next : lines.n - NJ;  // overlaps, and computes the same
    if ((j + lines.pad) % 2 == 0) {
      transposed_block<T, G, K, NJ, 0, kStreams>(lines, j, asking);
    } else {
      transposed_block<T, G, K, NJ, 1, kStreams>(lines, j, asking);
    }
  }
}

template <class T, int G, int K, bool kStreams = false>
void transposed_of(const DepthwiseLines<T>& lines) {
  if constexpr (G == 1 && !kStreams) {
    if (lines.streams) {
      return transposed_of<T, G, K, true>(lines);
    }
  }
  if (lines.n >= 8) {
    transposed_blocks<T, G, K, 8, kStreams>(lines);
  } else {
    transposed_blocks<T, G, K, 4, kStreams>(lines);
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

// NL lines, NJ outputs from the j-th on; a pixel is loaded once for all windows it lies in. kInside: no pixel is outside.
template <class T, int K, int S, int NL, int NJ, bool kInside>
void gradient_block(const DepthwiseGradients<T>& lines, std::ptrdiff_t first_line, std::ptrdiff_t j, Asking<false>& asking) {
  constexpr int W = kWidth<T>;
  constexpr int kPixelsRead = (NJ - 1) * S + K;
  const std::ptrdiff_t first = j * S - lines.pad;
  const std::ptrdiff_t begin = first < 0 ? -first : 0;
  const std::ptrdiff_t end = lines.in - first < kPixelsRead ? lines.in - first : kPixelsRead;
  const std::ptrdiff_t pixel = lines.pixel;
  const std::ptrdiff_t g_step = lines.g_step;
  const std::ptrdiff_t w_step = lines.w_step;
  const std::ptrdiff_t channels = lines.channels;
  const T* const g = lines.g + j * g_step;
  const T* x[NL];
  T* to[NL];
#pragma GCC unroll 5
  for (int l = 0; l < NL; ++l) {
    x[l] = lines.x[first_line + l];
    to[l] = lines.grad_w[first_line + l];
  }
  for (std::ptrdiff_t next = 0; next < channels; next += W) {
    const std::ptrdiff_t c = next + W <= channels ? next : channels - W;
    if (first_line == 0) {
      asking.step();
    }
    Vec<T> grad[NJ];
    Vec<T> sum[NL][K];
#pragma GCC unroll 5
    for (int l = 0; l < NL; ++l) {
#pragma GCC unroll 5
      for (int q = 0; q < K; ++q) {
        sum[l][q] = Vec<T>{};
      }
    }
    std::ptrdiff_t at = first * pixel + c;
#pragma GCC unroll 24
    for (int i = 0; i < kPixelsRead; ++i, at += pixel) {
      if (i % S == 0 && i / S < NJ) {
        grad[i / S] = load(g + i / S * g_step + c);
      }
      if (!kInside && (i < begin || i >= end)) {
        continue;
      }
#pragma GCC unroll 5
      for (int l = 0; l < NL; ++l) {
        const Vec<T> value = load(x[l] + at);
#pragma GCC unroll 5
        for (int q = 0; q < K; ++q) {
          if (i >= q && (i - q) % S == 0 && (i - q) / S < NJ) {
            sum[l][q] = fma<T>(value, grad[(i - q) / S], sum[l][q]);
          }
        }
      }
    }
#pragma GCC unroll 5
    for (int l = 0; l < NL; ++l) {
#pragma GCC unroll 5
      for (int q = 0; q < K; ++q) {
        T* const at_w = to[l] + q * w_step + c;
        if (c == next) {
          store(at_w, load(at_w) + sum[l][q]);
        } else {
          T lanes[W];  // indexing the sum itself would keep it in memory
          store(lanes, sum[l][q]);
          for (std::ptrdiff_t i = next - c; i < W; ++i) {  // the lanes before belong to the vector before
            at_w[i] += lanes[i];
          }
        }
      }
    }
  }
}

template <class T, int K, int S, int NL, int NJ>
void gradient_block(const DepthwiseGradients<T>& lines, std::ptrdiff_t first_line, std::ptrdiff_t j, Asking<false>& asking) {
  if (j * S >= lines.pad && (j + NJ - 1) * S + K - lines.pad <= lines.in) {
    gradient_block<T, K, S, NL, NJ, true>(lines, first_line, j, asking);
  } else {
    gradient_block<T, K, S, NL, NJ, false>(lines, first_line, j, asking);
  }
}

// Whether the sums of 25 taps fit into registers, beside five vectors of g and one of x.
#if (defined(__AVX512F__) || defined(__aarch64__)) && !defined(STRIATE_VEC_BYTES)
constexpr bool kHolds25 = true;
#else
constexpr bool kHolds25 = false;
#endif

template <class T, int K, int S, int NJ>
void gradient_lines(const DepthwiseGradients<T>& lines, std::ptrdiff_t j, Asking<false>& asking) {
  constexpr int kMost = K == 3 ? 3 : kHolds25 ? 5 : 2;
  std::ptrdiff_t l = 0;
  for (; l + kMost <= lines.n_lines; l += kMost) {
    gradient_block<T, K, S, kMost, NJ>(lines, l, j, asking);
  }
  for (; l + 2 <= lines.n_lines; l += 2) {
    gradient_block<T, K, S, 2, NJ>(lines, l, j, asking);
  }
  if (l < lines.n_lines) {
    gradient_block<T, K, S, 1, NJ>(lines, l, j, asking);
  }
}

// Blocks do not overlap, as their sums are added.
template <class T, int K, int S>
void gradients_of(const DepthwiseGradients<T>& lines) {
  const bool by_seven = lines.n % 7 == 0;
  Asking<false> asking(lines.ahead, n_steps<T>(lines.n, by_seven ? 7 : 8, lines.channels));
  std::ptrdiff_t j = 0;
  if (by_seven) {
    for (; j < lines.n; j += 7) {
      gradient_lines<T, K, S, 7>(lines, j, asking);
    }
    return;
  }
  for (; j + 8 <= lines.n; j += 8) {
    gradient_lines<T, K, S, 8>(lines, j, asking);
  }
  for (; j + 4 <= lines.n; j += 4) {
    gradient_lines<T, K, S, 4>(lines, j, asking);
  }
  for (; j < lines.n; ++j) {
    gradient_lines<T, K, S, 1>(lines, j, asking);
  }
}

template <class T>
void lines_grad_weight(const DepthwiseGradients<T>& lines) {
  if (lines.taps == 3) {
    return lines.stride == 1 ? gradients_of<T, 3, 1>(lines) : gradients_of<T, 3, 2>(lines);
  }
  return lines.stride == 1 ? gradients_of<T, 5, 1>(lines) : gradients_of<T, 5, 2>(lines);
}

template <class T, int G>
void fill(DepthwiseKernels<T>& table) {
  if constexpr (G <= kWidth<T>) {
    table = {.has_lines = has_lines<T, G>,
             .lines = all_lines<T, G>,
             .lines_transposed = all_lines_transposed<T, G>,
             .lines_grad_weight = nullptr,
             .row = row<T, G>,
             .grad_weight = grad_weight<T, G>};
    if constexpr (G == 1) {
      table.lines_grad_weight = lines_grad_weight<T>;
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
