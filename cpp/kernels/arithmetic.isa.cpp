// Element-wise operators that round at most once an operation: memory bound, one pass.
#include "kernels/map_loop.hpp"

namespace striate::STRIATE_TARGET {
namespace {

using P = Parameters;
using std::int64_t;
using std::uint8_t;

// NaN of either operand stays.
template <class T>
STRIATE_INLINE T larger(T x, T y) {
  return x > y || x != x ? x : y;
}
template <class T>
STRIATE_INLINE T smaller(T x, T y) {
  return x < y || x != x ? x : y;
}

template <class T>
void fill_numeric(MapKernels& table) {
  set2<T>(table, MapOp::add, [](T x, T y, P) -> T { return x + y; });
  set2<T>(table, MapOp::sub, [](T x, T y, P) -> T { return x - y; });
  set2<T>(table, MapOp::mul, [](T x, T y, P) -> T { return x * y; });
  set2<T>(table, MapOp::maximum, [](T x, T y, P) -> T { return larger(x, y); });
  set2<T>(table, MapOp::minimum, [](T x, T y, P) -> T { return smaller(x, y); });
  set1<T>(table, MapOp::neg, [](T x, P) -> T { return -x; });
  set1<T>(table, MapOp::square, [](T x, P) -> T { return x * x; });
  set1<T>(table, MapOp::sign, [](T x, P) -> T { return static_cast<T>(T(x > T(0)) - T(x < T(0))); });
  set1<T>(table, MapOp::relu, [](T x, P) -> T { return x < T(0) ? T(0) : x; });  // NaN stays
  table.map[static_cast<int>(MapOp::where)][kMapTypeOf<T>] =
      map3<T, uint8_t, T, decltype([](uint8_t c, T x, T y, P) -> T { return c != 0 ? x : y; })>;

  set_test2<T>(table, MapOp::eq, [](T x, T y, P) -> uint8_t { return x == y; });
  set_test2<T>(table, MapOp::ne, [](T x, T y, P) -> uint8_t { return x != y; });
  set_test2<T>(table, MapOp::lt, [](T x, T y, P) -> uint8_t { return x < y; });
  set_test2<T>(table, MapOp::le, [](T x, T y, P) -> uint8_t { return x <= y; });
  set_test2<T>(table, MapOp::gt, [](T x, T y, P) -> uint8_t { return x > y; });
  set_test2<T>(table, MapOp::ge, [](T x, T y, P) -> uint8_t { return x >= y; });
  set_test1<T>(table, MapOp::isnan, [](T x, P) -> uint8_t { return x != x; });
  set_test1<T>(table, MapOp::isinf, [](T x, P) -> uint8_t { return x == x && x - x != T(0); });
  set_test1<T>(table, MapOp::isfinite, [](T x, P) -> uint8_t { return x - x == T(0); });
}

STRIATE_INLINE float floor_of(float x) { return __builtin_floorf(x); }
STRIATE_INLINE double floor_of(double x) { return __builtin_floor(x); }
STRIATE_INLINE float ceil_of(float x) { return __builtin_ceilf(x); }
STRIATE_INLINE double ceil_of(double x) { return __builtin_ceil(x); }
STRIATE_INLINE float round_of(float x) { return __builtin_rintf(x); }
STRIATE_INLINE double round_of(double x) { return __builtin_rint(x); }
STRIATE_INLINE float abs_of(float x) { return __builtin_fabsf(x); }
STRIATE_INLINE double abs_of(double x) { return __builtin_fabs(x); }

template <class T>
void fill_floating(MapKernels& table) {
  set2<T>(table, MapOp::div, [](T x, T y, P) -> T { return x / y; });
  set1<T>(table, MapOp::reciprocal, [](T x, P) -> T { return T(1) / x; });
  set1<T>(table, MapOp::abs, [](T x, P) -> T { return abs_of(x); });
  set1<T>(table, MapOp::floor, [](T x, P) -> T { return floor_of(x); });
  set1<T>(table, MapOp::ceil, [](T x, P) -> T { return ceil_of(x); });
  set1<T>(table, MapOp::round, [](T x, P) -> T { return round_of(x); });
  set1<T>(table, MapOp::clip, [](T x, P p) -> T {
    const T raised = x < static_cast<T>(p.a) ? static_cast<T>(p.a) : x;
    return raised > static_cast<T>(p.b) ? static_cast<T>(p.b) : raised;
  });
  table.map[static_cast<int>(MapOp::mask_scale)][kMapTypeOf<T>] =
      map_masked<T, decltype([](T x, P p) -> T { return x * static_cast<T>(p.a); })>;
  // (grad_y, y) → grad_x; y is NaN or > 0 where the gradient passes.
  set2<T>(table, MapOp::relu_grad, [](T g, T y, P) -> T { return y <= T(0) ? T(0) : g; });
  set2<T>(table, MapOp::clip_grad,
          [](T g, T x, P p) -> T { return x < static_cast<T>(p.a) || x > static_cast<T>(p.b) ? T(0) : g; });
  // (grad, x, y) → the part of x; ties are shared.
  set3<T>(table, MapOp::maximum_grad, [](T g, T x, T y, P) -> T { return x > y ? g : x < y ? T(0) : g * T(0.5); });
  set3<T>(table, MapOp::minimum_grad, [](T g, T x, T y, P) -> T { return x < y ? g : x > y ? T(0) : g * T(0.5); });
}

void fill_integer(MapKernels& table) {
  set1<int64_t>(table, MapOp::abs, [](int64_t x, P) -> int64_t { return x < 0 ? -x : x; });
  set1<int64_t>(table, MapOp::floor, [](int64_t x, P) -> int64_t { return x; });
  set1<int64_t>(table, MapOp::ceil, [](int64_t x, P) -> int64_t { return x; });
  set1<int64_t>(table, MapOp::round, [](int64_t x, P) -> int64_t { return x; });
  set1<int64_t>(table, MapOp::relu6, [](int64_t x, P) -> int64_t { return x < 0 ? 0 : x > 6 ? 6 : x; });
  set1<int64_t>(table, MapOp::clip, [](int64_t x, P p) -> int64_t {
    const int64_t raised = static_cast<double>(x) < p.a ? static_cast<int64_t>(p.a) : x;
    return static_cast<double>(raised) > p.b ? static_cast<int64_t>(p.b) : raised;
  });
}

void fill_logical(MapKernels& table) {
  set2<uint8_t>(table, MapOp::logical_and, [](uint8_t x, uint8_t y, P) -> uint8_t { return x & y; });
  set2<uint8_t>(table, MapOp::logical_or, [](uint8_t x, uint8_t y, P) -> uint8_t { return x | y; });
  set2<uint8_t>(table, MapOp::logical_xor, [](uint8_t x, uint8_t y, P) -> uint8_t { return x ^ y; });
  set1<uint8_t>(table, MapOp::logical_not, [](uint8_t x, P) -> uint8_t { return x ^ 1U; });
}

}  // namespace

void fill_arithmetic(KernelTable& table) {
  fill_numeric<float>(table.maps);
  fill_numeric<double>(table.maps);
  fill_numeric<int64_t>(table.maps);
  fill_floating<float>(table.maps);
  fill_floating<double>(table.maps);
  fill_integer(table.maps);
  fill_logical(table.maps);
}

}  // namespace striate::STRIATE_TARGET
