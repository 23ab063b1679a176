// Elementary functions. Math<float> evaluates branch-free polynomials in double lanes, which loops over them vectorise: the
// error of each is far below 2^-32, so that the one rounding to float at the end decides. Math<double> is the C library.
// They take and return double; arguments of Math<float> are values of floats (or of formulas of them), also ±Inf and NaN.
// exp_of works in lanes of float, twice as many: for formulas whose bound has room for its ulp and a half.
#pragma once

#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

STRIATE_INLINE double from_bits(std::uint64_t bits) { return __builtin_bit_cast(double, bits); }
STRIATE_INLINE std::uint64_t to_bits(double x) { return __builtin_bit_cast(std::uint64_t, x); }
STRIATE_INLINE double magnitude(double x) { return from_bits(to_bits(x) & 0x7fffffffffffffffU); }
STRIATE_INLINE double with_sign_of(double x, double s) {
  return from_bits(to_bits(x) | (to_bits(s) & 0x8000000000000000U));  // x >= 0
}

inline constexpr double kInfinity = __builtin_inf();
inline constexpr double kLog2e = 1.4426950408889634074;
inline constexpr double kLn2 = 0.69314718055994530942;
inline constexpr double kShift = 0x1.8p52;  // x + kShift rounds x to an integer, in the low bits

template <class T>
struct Math;

template <>
struct Math<float> {
  // eˣ = 2ᵏ(1 + p), |r| ≤ ½ ln 2, p = eʳ − 1 to r⁸: error 2^-32. Finite beyond the range of float, so no overflow handling.
  struct Exponent {
    double scale;
    double p;
  };
  static STRIATE_INLINE Exponent split_exp(double x) {
    x = x > 700.0 ? 700.0 : x;
    x = x < -700.0 ? -700.0 : x;
    const double shifted = madd(x, kLog2e, kShift);
    const double r = madd(shifted - kShift, -kLn2, x);
    double p = 1.0 / 40320;
    p = madd(p, r, 1.0 / 5040);
    p = madd(p, r, 1.0 / 720);
    p = madd(p, r, 1.0 / 120);
    p = madd(p, r, 1.0 / 24);
    p = madd(p, r, 1.0 / 6);
    p = madd(p, r, 0.5);
    p = madd(p, r, 1.0);
    return {from_bits((to_bits(shifted) << 52U) + 0x3ff0000000000000U), p * r};
  }
  static STRIATE_INLINE double exp(double x) {
    const Exponent e = split_exp(x);
    return madd(e.scale, e.p, e.scale);
  }
  static STRIATE_INLINE double expm1(double x) {
    const Exponent e = split_exp(x);
    return madd(e.scale, e.p, e.scale - 1.0);
  }

  // ln(m·2ᵉ) = e ln 2 + 2 atanh(s), s = f/(2 + f), f = m − 1, √½ ≤ m < √2, to s¹³: error 2^-39 of s. Zero and negative
  // arguments are sorted out at the end.
  static STRIATE_INLINE double log_of(double u, double f_if_near_one) {
    constexpr std::uint64_t kRootHalf = 0x3fe6a09e667f3bcdU;
    const std::uint64_t shifted = to_bits(u) + (0x3ff0000000000000U - kRootHalf);
    const double e = from_bits((shifted >> 52U) | 0x4330000000000000U) - (0x1p52 + 1023.0);
    const double m = from_bits((shifted & 0xfffffffffffffU) + kRootHalf);
    const double f = e == 0.0 ? f_if_near_one : m - 1.0;
    const double s = f / (2.0 + f);
    const double z = s * s;
    double p = 2.0 / 13;
    p = madd(p, z, 2.0 / 11);
    p = madd(p, z, 2.0 / 9);
    p = madd(p, z, 2.0 / 7);
    p = madd(p, z, 2.0 / 5);
    p = madd(p, z, 2.0 / 3);
    p = madd(p, z, 2.0);
    const double y = madd(e, kLn2, p * s);
    const double outside = u == 0.0 ? -kInfinity : __builtin_nan("");
    return u > 0.0 ? (u == kInfinity ? u : y) : outside;
  }
  static STRIATE_INLINE double log(double x) { return log_of(x, x - 1.0); }
  static STRIATE_INLINE double log1p(double x) { return log_of(1.0 + x, x); }

  static STRIATE_INLINE double tanh(double x) {
    const double a = magnitude(x);
    const double t = expm1(2.0 * (a > 20.0 ? 20.0 : a));
    const double y = t / (t + 2.0);
    return x != x ? x : with_sign_of(y, x);
  }

  // erfc(z) e^{z²} for z ≥ 0, a polynomial in (z − 2.5)/(z + 2.5) fitted at Chebyshev points of 0 ≤ z ≤ 10.5: error 2^-33.
  static STRIATE_INLINE double scaled_erfc(double z) {
    const double u = (z - 2.5) / (z + 2.5);
    double p = 5.836145146308052e-06;
    p = madd(p, u, 1.4894137892938338e-05);
    p = madd(p, u, -3.392674292018701e-05);
    p = madd(p, u, -0.00012649304652260807);
    p = madd(p, u, 0.00022865433061065816);
    p = madd(p, u, 0.000875164897848057);
    p = madd(p, u, -0.0026424872729922805);
    p = madd(p, u, -0.003993582334578041);
    p = madd(p, u, 0.03992255611137524);
    p = madd(p, u, -0.12503306080509916);
    p = madd(p, u, 0.2517131924574945);
    p = madd(p, u, -0.37173673377003114);
    return madd(p, u, 0.21080636406599362);
  }
  // ½ erfc(−x/√2) = Φ(x); relative precision in the far left tail, where gelu needs it.
  static STRIATE_INLINE double normal_cdf(double x) {
    double z = magnitude(x) * 0.70710678118654752440;
    z = z > 10.5 ? 10.5 : z;
    const double tail = 0.5 * scaled_erfc(z) * exp(-z * z);
    return x > 0.0 ? 1.0 - tail : (x < -14.84 ? 0.0 : tail);
  }
  // Below 1, x·P(x²), fitted at Chebyshev points: error 2^-39; above, 1 − erfc.
  static STRIATE_INLINE double erf(double x) {
    const double a = magnitude(x);
    const double z = a > 10.5 ? 10.5 : a;
    const double far = 1.0 - scaled_erfc(z) * exp(-z * z);
    const double w = a * a;
    double p = 1.0595274234595599e-06;
    p = madd(p, w, -1.3911700196386799e-05);
    p = madd(p, w, 0.00011956946613695703);
    p = madd(p, w, -0.000854267054457928);
    p = madd(p, w, 0.005223785005702412);
    p = madd(p, w, -0.026866133625037196);
    p = madd(p, w, 0.11283791313491734);
    p = madd(p, w, -0.37612638889868705);
    p = madd(p, w, 1.1283791670946954);
    return x != x ? x : with_sign_of(a < 1.0 ? a * p : far, x);
  }

  // sin(x + quarter·π/2) for |x| ≤ kMaxAngle: x = k·π/2 + r with π/2 in three parts of 33 bits, so that k·part is exact.
  static constexpr double kMaxAngle = 500000.0;
  static STRIATE_INLINE double sin_of(double x, std::uint64_t quarter) {
    const double shifted = madd(x, 0.63661977236758134308, kShift);
    const double k = shifted - kShift;
    double r = x - k * 1.57079632673412561417e+00;
    r = r - k * 6.07710050630396597660e-11;
    r = r - k * 2.02226624879595063154e-21;
    const std::uint64_t q = to_bits(shifted) + quarter;
    const double w = r * r;
    double s = -1.0 / 39916800;
    s = madd(s, w, 1.0 / 362880);
    s = madd(s, w, -1.0 / 5040);
    s = madd(s, w, 1.0 / 120);
    s = madd(s, w, -1.0 / 6);
    s = madd(s * w, r, r);
    double c = 1.0 / 479001600;
    c = madd(c, w, -1.0 / 3628800);
    c = madd(c, w, 1.0 / 40320);
    c = madd(c, w, -1.0 / 720);
    c = madd(c, w, 1.0 / 24);
    c = madd(c, w, -0.5);
    c = madd(c, w, 1.0);
    // Select by masks: conditions on integers beside doubles keep some compilers from vectorising.
    const std::uint64_t is_cos = 0U - (q & 1U);
    return from_bits(((to_bits(s) & ~is_cos) | (to_bits(c) & is_cos)) ^ ((q & 2U) << 62U));
  }

  // |x|ʸ by e^{y ln|x|}, then the cases of IEEE 754-2019 §9.2.1.
  static STRIATE_INLINE double pow(double x, double y) {
    const double a = magnitude(x);
    const double half = 0.5 * y;
    const double nan = __builtin_nan("");
    // One choice of doubles after another: mixed conditions keep the loop from vectorising. No float beyond 2^24 is odd.
    const double not_integer = __builtin_floor(y) == y ? 0.0 : nan;  // NaN poisons a sum
    const double odd_sign = __builtin_floor(half) == half ? 1.0 : x;
    const double sign = not_integer == 0.0 ? odd_sign : 1.0;
    double result = exp(y * log(a));
    result = a == 1.0 ? 1.0 : result;
    const double of_negative = a == kInfinity ? result : result + not_integer;
    result = x < 0.0 ? of_negative : result;
    result = x != x ? x : result;
    result = from_bits(to_bits(result) ^ (to_bits(sign) & 0x8000000000000000U));
    result = x == 1.0 ? 1.0 : result;
    return y == 0.0 ? 1.0 : result;
  }
};

template <>
struct Math<double> {
  static STRIATE_INLINE double exp(double x) { return __builtin_exp(x); }
  static STRIATE_INLINE double expm1(double x) { return __builtin_expm1(x); }
  static STRIATE_INLINE double log(double x) { return __builtin_log(x); }
  static STRIATE_INLINE double log1p(double x) { return __builtin_log1p(x); }
  static STRIATE_INLINE double tanh(double x) { return __builtin_tanh(x); }
  static STRIATE_INLINE double erf(double x) { return __builtin_erf(x); }
  static STRIATE_INLINE double normal_cdf(double x) { return 0.5 * __builtin_erfc(x * -0.70710678118654752440); }
  static STRIATE_INLINE double pow(double x, double y) { return __builtin_pow(x, y); }
};

// Lanes of float: V is float, in loops that the compiler vectorises, or Vec<float>.
STRIATE_INLINE std::uint32_t lane_bits(float x) { return __builtin_bit_cast(std::uint32_t, x); }
STRIATE_INLINE Vec<std::uint32_t> lane_bits(Vec<float> x) { return (Vec<std::uint32_t>)x; }
template <class V>
STRIATE_INLINE V lanes(float x) {
  return x - V{};
}
template <class V>
STRIATE_INLINE V multiply_add(V a, V b, V c) {
  if constexpr (sizeof(V) == sizeof(float)) {
    return madd(a, b, c);
  } else {
    return fma<float>(a, b, c);
  }
}

// eˣ·2^kPower = scale·(1 + p), 1 + p = eʳ, r = x − k ln 2, |r| ≤ ½ ln 2, for k = round(x/ln 2) from −126 − kPower to
// 127 − kPower; below these by one, 0. k ln 2 is subtracted in two parts, the first of 9 bits, so that k times it is exact.
// eʳ is 1 + r + r²·q(r), q of degree 4 fitted at Chebyshev points for the least relative error, 2^-28.3.
template <class V>
struct LaneExponent {
  V scale;
  V p;
};
template <int kPower = 0, class V>
STRIATE_INLINE LaneExponent<V> split_exp_of(V x) {
  const V shift = lanes<V>(0x1.8p23f);
  const V shifted = multiply_add(x, lanes<V>(static_cast<float>(kLog2e)), shift);
  const V k = shifted - shift;
  V r = multiply_add(k, lanes<V>(-0.693359375f), x);
  r = multiply_add(k, lanes<V>(2.1219444005471e-4f), r);
  V q = lanes<V>(0x1.6a23cep-10f);
  q = multiply_add(q, r, lanes<V>(0x1.123a20p-7f));
  q = multiply_add(q, r, lanes<V>(0x1.5558f2p-5f));
  q = multiply_add(q, r, lanes<V>(0x1.555492p-3f));
  q = multiply_add(q, r, lanes<V>(0x1.fffffcp-2f));
  const auto bits = (lane_bits(shifted) << 23U) + (static_cast<std::uint32_t>(127 + kPower) << 23U);
  return {__builtin_bit_cast(V, bits), multiply_add(q * r, r, r)};
}
template <int kPower = 0, class V>
STRIATE_INLINE V exp_of(V x) {
  const LaneExponent<V> e = split_exp_of<kPower>(x);
  return multiply_add(e.scale, e.p, e.scale);
}

}  // namespace
}  // namespace striate::STRIATE_TARGET
