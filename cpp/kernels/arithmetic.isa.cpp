// Element-wise operators that round at most once an operation: memory bound, one pass.
#include "kernels/map_loop.hpp"

namespace striate::STRIATE_TARGET {
namespace {

using P = Parameters;

template <class T>
void fill_numeric(MapKernels& table) {
  set2<T>(table, MapOp::add, [](T x, T y, P) -> T { return x + y; });
  set2<T>(table, MapOp::sub, [](T x, T y, P) -> T { return x - y; });
  set2<T>(table, MapOp::mul, [](T x, T y, P) -> T { return x * y; });
  set1<T>(table, MapOp::neg, [](T x, P) -> T { return -x; });
  set1<T>(table, MapOp::relu, [](T x, P) -> T { return x < T(0) ? T(0) : x; });  // NaN stays
}

template <class T>
void fill_floating(MapKernels& table) {
  set2<T>(table, MapOp::div, [](T x, T y, P) -> T { return x / y; });
  // (grad_y, y) → grad_x; y is NaN or > 0 where the gradient passes.
  set2<T>(table, MapOp::relu_grad, [](T g, T y, P) -> T { return y <= T(0) ? T(0) : g; });
}

}  // namespace

void fill_arithmetic(KernelTable& table) {
  fill_numeric<float>(table.maps);
  fill_numeric<double>(table.maps);
  fill_numeric<std::int64_t>(table.maps);
  fill_floating<float>(table.maps);
  fill_floating<double>(table.maps);
}

}  // namespace striate::STRIATE_TARGET
