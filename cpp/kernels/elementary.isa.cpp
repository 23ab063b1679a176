// Element-wise elementary functions; errors below 2 ulp over all exponents (math.hpp).
#include "kernels/map_loop.hpp"
#include "kernels/math.hpp"

namespace striate::STRIATE_TARGET {
namespace {

using P = Parameters;

template <class T>
void fill(MapKernels& table) {
  using M = Math<T>;
  set1<T>(table, MapOp::exp, [](T x, P) -> T { return static_cast<T>(M::exp(x)); });
  set1<T>(table, MapOp::expm1, [](T x, P) -> T { return static_cast<T>(M::expm1(x)); });
  set1<T>(table, MapOp::log, [](T x, P) -> T { return static_cast<T>(M::log(x)); });
  set1<T>(table, MapOp::log1p, [](T x, P) -> T { return static_cast<T>(M::log1p(x)); });
  set1<T>(table, MapOp::tanh, [](T x, P) -> T { return static_cast<T>(M::tanh(x)); });
  set1<T>(table, MapOp::erf, [](T x, P) -> T { return static_cast<T>(M::erf(x)); });
  set1<T>(table, MapOp::sqrt, [](T x, P) -> T {
    if constexpr (sizeof(T) == 4) {
      return __builtin_sqrtf(x);
    } else {
      return __builtin_sqrt(x);
    }
  });
  set1<T>(table, MapOp::rsqrt, [](T x, P) -> T { return static_cast<T>(1.0 / __builtin_sqrt(static_cast<double>(x))); });
  set2<T>(table, MapOp::pow, [](T x, T y, P) -> T { return static_cast<T>(M::pow(x, y)); });
}

// Angles beyond the range of the quick reduction are rare: a second pass looks for them and asks the C library.
template <int kQuarter>
void sine(const MapRun& run) {
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    const float* __restrict x = row_of<float>(run, 0, r);
    float* __restrict y = static_cast<float*>(run.y) + r * run.y_row;
    double largest = 0;
    for (std::ptrdiff_t i = 0; i < run.n; ++i) {
      y[i] = static_cast<float>(Math<float>::sin_of(x[i], kQuarter));
    }
    for (std::ptrdiff_t i = 0; i < run.n; ++i) {
      const double a = magnitude(x[i]);
      largest = a > largest ? a : largest;
    }
    if (largest > Math<float>::kMaxAngle) {
      for (std::ptrdiff_t i = 0; i < run.n; ++i) {
        const double angle = static_cast<double>(x[i]);
        if (magnitude(angle) > Math<float>::kMaxAngle) {
          y[i] = static_cast<float>(kQuarter == 0 ? __builtin_sin(angle) : __builtin_cos(angle));
        }
      }
    }
  }
}

// xʸ by repeated squaring; a negative exponent gives 0 unless x is ±1.
STRIATE_INLINE std::int64_t integer_power(std::int64_t x, std::int64_t y) {
  if (y < 0) {
    return x == 1 ? 1 : x == -1 ? (y % 2 == 0 ? 1 : -1) : 0;
  }
  auto base = static_cast<std::uint64_t>(x);
  std::uint64_t result = 1;
  for (auto left = static_cast<std::uint64_t>(y); left != 0; left >>= 1U) {
    result *= (left & 1U) != 0 ? base : 1U;
    base *= base;
  }
  return static_cast<std::int64_t>(result);
}

}  // namespace

void fill_elementary(KernelTable& table) {
  MapKernels& maps = table.maps;
  fill<float>(maps);
  fill<double>(maps);
  maps.map[static_cast<int>(MapOp::sin)][0] = sine<0>;
  maps.map[static_cast<int>(MapOp::cos)][0] = sine<1>;
  set1<double>(maps, MapOp::sin, [](double x, P) { return __builtin_sin(x); });
  set1<double>(maps, MapOp::cos, [](double x, P) { return __builtin_cos(x); });
  set2<std::int64_t>(maps, MapOp::pow, [](std::int64_t x, std::int64_t y, P) { return integer_power(x, y); });
}

}  // namespace striate::STRIATE_TARGET
