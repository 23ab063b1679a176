// Copies: conversion between all pairs of dtypes, and transposition in register blocks.
#include "kernels/block.hpp"
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};
struct Bool {
  std::uint8_t value;
};

// Branch-free conversions on bits, so that loops vectorise. NaN stays a NaN.

STRIATE_INLINE float widen(Half h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000U) << 16U;
  const std::uint32_t rest = static_cast<std::uint32_t>(h.bits & 0x7fffU) << 13U;
  const std::uint32_t exponent = rest & 0x0f800000U;
  // Normal: rebias by 112. Inf and NaN: to 255. Subnormal: rest · 2^-24 counts units.
  const std::uint32_t normal = rest + (112U << 23U) + (exponent == 0x0f800000U ? 112U << 23U : 0U);
  const float units = static_cast<float>(static_cast<std::int32_t>(h.bits & 0x3ffU)) * 0x1p-24F;
  const std::uint32_t magnitude = exponent == 0 ? __builtin_bit_cast(std::uint32_t, units) : normal;
  return __builtin_bit_cast(float, sign | magnitude);
}

STRIATE_INLINE float widen(BFloat h) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(h.bits) << 16U); }

STRIATE_INLINE Half to_half(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t normal = (magnitude - (112U << 23U) + 0xfffU + ((magnitude >> 13U) & 1U)) >> 13U;
  // Below 2^-14, adding ½ leaves the rounded count of 2^-24 in the low bits.
  const float half = __builtin_bit_cast(float, magnitude) + 0.5F;
  const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, half) - 0x3f000000U;
  const std::uint32_t finite = magnitude < (113U << 23U) ? subnormal : normal;
  const std::uint32_t special = magnitude > 0x7f800000U ? 0x7e00U : 0x7c00U;
  return Half{static_cast<std::uint16_t>(sign | (magnitude >= 0x477ff000U ? special : finite))};
}

STRIATE_INLINE BFloat to_bfloat(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U;
  return BFloat{static_cast<std::uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? (bits >> 16U) | 0x40U : rounded)};
}

// float64 to a narrow format in one rounding: first to float32 by rounding to odd, which keeps what was lost in the last
// bit.
STRIATE_INLINE float round_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, nearest);
  const double back = static_cast<double>(nearest);
  const bool is_exact = back == x || x != x;
  const bool grew = (back < 0 ? -back : back) > (x < 0 ? -x : x);
  const std::uint32_t truncated = grew ? bits - 1U : bits;
  return __builtin_bit_cast(float, is_exact ? bits : truncated | 1U);
}

template <class X>
STRIATE_INLINE auto read(X x) {
  return x;
}
STRIATE_INLINE float read(Half x) { return widen(x); }
STRIATE_INLINE float read(BFloat x) { return widen(x); }
STRIATE_INLINE std::uint8_t read(Bool x) { return x.value; }

template <class Y, class V>
struct Write {
  static STRIATE_INLINE Y as(V v) { return static_cast<Y>(v); }
};
template <class V>
struct Write<Half, V> {
  static STRIATE_INLINE Half as(V v) { return to_half(static_cast<float>(v)); }
};
template <class V>
struct Write<BFloat, V> {
  static STRIATE_INLINE BFloat as(V v) { return to_bfloat(static_cast<float>(v)); }
};
template <>
struct Write<Half, double> {
  static STRIATE_INLINE Half as(double v) { return to_half(round_to_odd(v)); }
};
template <>
struct Write<BFloat, double> {
  static STRIATE_INLINE BFloat as(double v) { return to_bfloat(round_to_odd(v)); }
};
template <class V>
struct Write<Bool, V> {
  static STRIATE_INLINE Bool as(V v) { return Bool{static_cast<std::uint8_t>(v != V(0))}; }
};
// Through a wider integer, so that negative and large floats wrap instead of being undefined in the narrow type.
template <>
struct Write<std::uint8_t, float> {
  static STRIATE_INLINE std::uint8_t as(float v) { return static_cast<std::uint8_t>(static_cast<std::int32_t>(v)); }
};
template <>
struct Write<std::int8_t, float> {
  static STRIATE_INLINE std::int8_t as(float v) { return static_cast<std::int8_t>(static_cast<std::int32_t>(v)); }
};
template <>
struct Write<std::uint8_t, double> {
  static STRIATE_INLINE std::uint8_t as(double v) { return static_cast<std::uint8_t>(static_cast<std::int64_t>(v)); }
};
template <>
struct Write<std::int8_t, double> {
  static STRIATE_INLINE std::int8_t as(double v) { return static_cast<std::int8_t>(static_cast<std::int64_t>(v)); }
};

// Contract: CopyFn in map.hpp.
template <class X, class Y>
void copy(std::ptrdiff_t rows, std::ptrdiff_t n, const void* x, std::ptrdiff_t x_row, std::ptrdiff_t x_step, void* y,
          std::ptrdiff_t y_row, std::ptrdiff_t y_step) {
  typedef decltype(read(X{})) V;
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    const X* __restrict from = static_cast<const X*>(x) + r * x_row;
    Y* __restrict to = static_cast<Y*>(y) + r * y_row;
    if (x_step == 1 && y_step == 1) {
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        to[i] = Write<Y, V>::as(read(from[i]));
      }
    } else if (x_step == 0 && y_step == 1) {
      const Y value = Write<Y, V>::as(read(*from));
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        to[i] = value;
      }
    } else {
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        to[i * y_step] = Write<Y, V>::as(read(from[i * x_step]));
      }
    }
  }
}

// Copies that do not convert move whole items.
template <class T>
void move(std::ptrdiff_t rows, std::ptrdiff_t n, const void* x, std::ptrdiff_t x_row, std::ptrdiff_t x_step, void* y,
          std::ptrdiff_t y_row, std::ptrdiff_t y_step) {
  copy<T, T>(rows, n, x, x_row, x_step, y, y_row, y_step);
}

template <class T>
STRIATE_INLINE void transpose_edge(std::ptrdiff_t n_i, std::ptrdiff_t n_k, const T* x, std::ptrdiff_t x_row, T* y,
                                   std::ptrdiff_t y_row) {
  for (std::ptrdiff_t k = 0; k < n_k; ++k) {
    for (std::ptrdiff_t i = 0; i < n_i; ++i) {
      y[k * y_row + i] = x[i * x_row + k];
    }
  }
}

// Contract: TransposeFn in map.hpp.
template <class T>
void transpose(std::ptrdiff_t n_i, std::ptrdiff_t n_k, const void* from, std::ptrdiff_t x_row, void* to,
               std::ptrdiff_t y_row) {
  const T* const x = static_cast<const T*>(from);
  T* const y = static_cast<T*>(to);
  if constexpr (sizeof(T) >= 4) {
    constexpr std::ptrdiff_t side = Block<T>::kSide;
    const std::ptrdiff_t full_i = n_i - n_i % side;
    const std::ptrdiff_t full_k = n_k - n_k % side;
    // Rows of y are written four times as often as lines of x are left, so i runs inside.
    for (std::ptrdiff_t k = 0; k < full_k; k += side) {
      for (std::ptrdiff_t i = 0; i < full_i; i += side) {
        Block<T>(x + i * x_row + k, x_row).store_transposed(y + k * y_row + i, y_row);
      }
    }
    transpose_edge(n_i - full_i, full_k, x + full_i * x_row, x_row, y + full_i, y_row);
    transpose_edge(n_i, n_k - full_k, x + full_k, x_row, y + full_k * y_row, y_row);
  } else {
    transpose_edge(n_i, n_k, x, x_row, y, y_row);
  }
}

// Contract: StreamFn in map.hpp.
void stream(const void* x, void* y, std::ptrdiff_t n_bytes) {
  const float* const from = static_cast<const float*>(x);
  float* const to = static_cast<float*>(y);
  constexpr std::ptrdiff_t kLine = 16;
  for (std::ptrdiff_t i = 0; i < n_bytes / 4; i += kLine) {
#pragma GCC unroll 16
    for (std::ptrdiff_t j = 0; j < kLine; j += kWidth<float>) {
      store_stream<float>(to + i + j, load(from + i + j));
    }
  }
}

// n_bytes by whole vectors, the last one over the one before; short runs by words and bytes.
STRIATE_INLINE void copy_run(const std::byte* x, std::byte* y, std::ptrdiff_t n_bytes) {
  typedef std::uint8_t T;
  constexpr std::ptrdiff_t V = kVecBytes;
  const T* const from = reinterpret_cast<const T*>(x);
  T* const to = reinterpret_cast<T*>(y);
  std::ptrdiff_t i = 0;
  if (n_bytes >= V) {
    for (; i + 4 * V <= n_bytes; i += 4 * V) {
      const Vec<T> a = load(from + i);
      const Vec<T> b = load(from + i + V);
      const Vec<T> c = load(from + i + 2 * V);
      const Vec<T> d = load(from + i + 3 * V);
      store(to + i, a);
      store(to + i + V, b);
      store(to + i + 2 * V, c);
      store(to + i + 3 * V, d);
    }
    for (; i + V <= n_bytes; i += V) {
      store(to + i, load(from + i));
    }
    if (i < n_bytes) {
      store(to + n_bytes - V, load(from + n_bytes - V));
    }
    return;
  }
  for (; i + 4 <= n_bytes; i += 4) {
    __builtin_memcpy(to + i, from + i, 4);
  }
  for (; i < n_bytes; ++i) {
    to[i] = from[i];
  }
}

// Contract: JoinFn in map.hpp.
void join(std::ptrdiff_t row, std::ptrdiff_t end_row, std::ptrdiff_t n_inputs, const std::byte* const* x,
          const std::ptrdiff_t* n_bytes, std::byte* y, bool streams) {
  std::ptrdiff_t y_row = 0;
  for (std::ptrdiff_t k = 0; k < n_inputs; ++k) {
    y_row += n_bytes[k];
  }
  std::byte* to = y + row * y_row;
  for (; row < end_row; ++row) {
    for (std::ptrdiff_t k = 0; k < n_inputs; ++k) {
      if (streams) {
        stream(x[k] + row * n_bytes[k], to, n_bytes[k]);
      } else {
        copy_run(x[k] + row * n_bytes[k], to, n_bytes[k]);
      }
      to += n_bytes[k];
    }
  }
}

template <class X>
void fill_row(CopyFn* row) {
  row[0] = copy<X, float>;
  row[1] = copy<X, double>;
  row[2] = copy<X, Half>;
  row[3] = copy<X, BFloat>;
  row[4] = copy<X, std::int8_t>;
  row[5] = copy<X, std::uint8_t>;
  row[6] = copy<X, std::int32_t>;
  row[7] = copy<X, std::int64_t>;
  row[8] = copy<X, Bool>;
}

}  // namespace

void fill_copy(KernelTable& table) {
  MapKernels& maps = table.maps;
  fill_row<float>(maps.copy[0]);
  fill_row<double>(maps.copy[1]);
  fill_row<Half>(maps.copy[2]);
  fill_row<BFloat>(maps.copy[3]);
  fill_row<std::int8_t>(maps.copy[4]);
  fill_row<std::uint8_t>(maps.copy[5]);
  fill_row<std::int32_t>(maps.copy[6]);
  fill_row<std::int64_t>(maps.copy[7]);
  fill_row<Bool>(maps.copy[8]);
  maps.copy[0][0] = maps.copy[6][6] = move<std::uint32_t>;
  maps.copy[1][1] = maps.copy[7][7] = move<std::uint64_t>;
  maps.copy[2][2] = maps.copy[3][3] = move<std::uint16_t>;
  maps.copy[4][4] = maps.copy[5][5] = maps.copy[8][8] = move<std::uint8_t>;
  maps.stream = stream;
  maps.join = join;
  maps.transpose[0] = transpose<std::uint8_t>;
  maps.transpose[1] = transpose<std::uint16_t>;
  maps.transpose[2] = transpose<std::uint32_t>;
  maps.transpose[3] = transpose<std::uint64_t>;
}

}  // namespace striate::STRIATE_TARGET
