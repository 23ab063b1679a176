#include <algorithm>
#include <numeric>

#include "ops/map.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

void fill_random(RandomKind kind, const Array& y, const Draw& draw, std::int64_t low, std::uint64_t range) {
  const Partition parts(y.size(), kGrain / 4);  // a multiple of 4: no block is shared by tiles
  const auto fn = kernels().rows.random;
  parallel_for(parts.n_parts, [&](std::ptrdiff_t tile) {
    const std::ptrdiff_t first = parts.begin(tile);
    fn(kind, RandomRun{.first = first,
                       .n = parts.end(tile) - first,
                       .seed = draw.seed,
                       .call = draw.call,
                       .low = low,
                       .range = range,
                       .y = y.bytes() + first * item_bytes(y.dtype())});
  });
}

}  // namespace

Array random_uniform(const Extents& shape, DType dtype, const Draw& draw) {
  dispatch_float("rand", dtype, [](auto) {});
  const Array y = Array::empty(dtype, shape);
  fill_random(dtype == DType::float32 ? RandomKind::uniform_f32 : RandomKind::uniform_f64, y, draw, 0, 0);
  return y;
}

Array random_normal(const Extents& shape, DType dtype, const Draw& draw) {
  dispatch_float("randn", dtype, [](auto) {});
  const Array y = Array::empty(dtype, shape);
  fill_random(dtype == DType::float32 ? RandomKind::normal_f32 : RandomKind::normal_f64, y, draw, 0, 0);
  return y;
}

Array random_integers(const Extents& shape, std::int64_t low, std::int64_t high, const Draw& draw) {
  check<std::invalid_argument>(low < high, "randint: expected low < high, got ", low, " and ", high,
                               "; high is not drawn itself");
  const Array y = Array::empty(DType::int64, shape);
  fill_random(RandomKind::integer, y, draw, low, static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low));
  return y;
}

Array random_permutation(std::ptrdiff_t n, const Draw& draw) {
  check(n >= 0, "randperm: expected n of at least 0, got ", n, "; pass a count");
  const Array keys = Array::empty(DType::int64, {n});
  fill_random(RandomKind::integer, keys, draw, 0, std::uint64_t{1} << 63U);
  const Array y = Array::empty(DType::int64, {n});
  auto* const order = y.data<std::int64_t>();
  const auto* const key = keys.data<std::int64_t>();
  std::iota(order, order + n, std::int64_t{0});
  std::sort(order, order + n, [&](std::int64_t a, std::int64_t b) { return key[a] != key[b] ? key[a] < key[b] : a < b; });
  return y;
}

Array random_mask(const Array& like, double p, const Draw& draw) {
  check<std::invalid_argument>(p >= 0 && p <= 1, "dropout: expected a probability from 0 to 1, got ", p,
                               "; p is the share that is dropped");
  const Array* const operands[] = {&like};
  const Array y = empty_for(DType::boolean, like.shape(), operands);
  fill_random(RandomKind::bernoulli, y, draw, 0, static_cast<std::uint64_t>(p * 0x1p32));
  return y;
}

}  // namespace striate
