// Copies: clone, to, relayout. One loop for any strides; transposition by blocks when the inner axes differ.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/memory.hpp"
#include "ops/map.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

// Axis whose step in src is 1 while the run of dst is another one, or −1.
int transposed_axis(const StridedLoop& loop) {
  if (loop.step(0) != 1 || loop.step(1) == 1) {
    return -1;
  }
  for (int axis = 0; axis < loop.rank - 1; ++axis) {
    if (loop.stride[1][axis] == 1 && loop.shape[axis] > 1) {
      return axis;
    }
  }
  return -1;
}

// Tiles of kSide × kSide over (run of src, run of dst); all other axes are outer. 64 rows of 64 items stay in the L1 cache
// and read whole lines.
void transpose_into(const Array& dst, const Array& src, const StridedLoop& loop, int k_axis) {
  constexpr std::ptrdiff_t kSide = 64;
  const std::ptrdiff_t item = item_bytes(dst.dtype());
  const TransposeFn transpose = kernels().maps.transpose[item == 8 ? 3 : item == 4 ? 2 : item == 2 ? 1 : 0];
  const int i_axis = loop.rank - 1;
  const Partition i_parts(loop.shape[i_axis], kSide);
  const Partition k_parts(loop.shape[k_axis], kSide);
  const std::ptrdiff_t n_outer = loop.size / (loop.shape[i_axis] * loop.shape[k_axis]);
  const std::ptrdiff_t n_blocks = n_outer * k_parts.n_parts * i_parts.n_parts;
  const std::ptrdiff_t block = std::min(kSide, loop.shape[i_axis]) * std::min(kSide, loop.shape[k_axis]);
  const Partition tiles(n_blocks, std::max<std::ptrdiff_t>(1, kGrain / block));
  parallel_for(tiles.n_parts, [&](std::ptrdiff_t tile) {
    for (std::ptrdiff_t b = tiles.begin(tile); b < tiles.end(tile); ++b) {
      const std::ptrdiff_t i = i_parts.begin(b % i_parts.n_parts);
      const std::ptrdiff_t k = k_parts.begin(b / i_parts.n_parts % k_parts.n_parts);
      std::ptrdiff_t left = b / (i_parts.n_parts * k_parts.n_parts);
      std::ptrdiff_t to = i * loop.stride[0][i_axis] + k * loop.stride[0][k_axis];
      std::ptrdiff_t from = i * loop.stride[1][i_axis] + k * loop.stride[1][k_axis];
      for (int axis = loop.rank - 2; axis >= 0; --axis) {
        if (axis != k_axis) {
          to += left % loop.shape[axis] * loop.stride[0][axis];
          from += left % loop.shape[axis] * loop.stride[1][axis];
          left /= loop.shape[axis];
        }
      }
      transpose(std::min(kSide, loop.shape[i_axis] - i), std::min(kSide, loop.shape[k_axis] - k), src.bytes() + from * item,
                loop.stride[1][i_axis], dst.bytes() + to * item, loop.stride[0][k_axis]);
    }
  });
}

}  // namespace

void stream(const std::byte* from, std::byte* to, std::ptrdiff_t n_bytes) {
  const auto misaligned = static_cast<std::ptrdiff_t>(reinterpret_cast<std::uintptr_t>(to) % kAlignment);
  const std::ptrdiff_t head = std::min(n_bytes, (kAlignment - misaligned) % kAlignment);
  const std::ptrdiff_t body = (n_bytes - head) / kAlignment * kAlignment;
  const std::ptrdiff_t tail = n_bytes - head - body;
  if (head > 0) {
    std::memcpy(to, from, static_cast<std::size_t>(head));
  }
  kernels().maps.stream(from + head, to + head, body);
  if (tail > 0) {
    std::memcpy(to + head + body, from + head + body, static_cast<std::size_t>(tail));
  }
}

void copy_into(const Array& dst, const Array& src) {
  const Array from = src.broadcast_to(dst.shape());
  const Array* const operands[] = {&dst, &from};
  const StridedLoop loop = make_loop(operands);
  if (loop.size == 0) {
    return;
  }
  const std::ptrdiff_t to_item = item_bytes(dst.dtype());
  const std::ptrdiff_t from_item = item_bytes(src.dtype());
  if (dst.dtype() == src.dtype()) {
    const int k_axis = transposed_axis(loop);
    if (k_axis >= 0) {
      transpose_into(dst, from, loop, k_axis);
      return;
    }
  }
  if (dst.dtype() == src.dtype() && loop.step(0) == 1 && loop.step(1) == 1 && loop.size * to_item > kStreamBytes) {
    for_each_run(loop, kGrain, [&](const std::ptrdiff_t* offset, std::ptrdiff_t rows, std::ptrdiff_t n) {
      for (std::ptrdiff_t r = 0; r < rows; ++r) {
        stream(from.bytes() + (offset[1] + r * loop.row(1)) * to_item, dst.bytes() + (offset[0] + r * loop.row(0)) * to_item,
               n * to_item);
      }
    });
    return;
  }
  const CopyFn copy = kernels().maps.copy[static_cast<int>(src.dtype())][static_cast<int>(dst.dtype())];
  for_each_run(loop, kGrain, [&](const std::ptrdiff_t* offset, std::ptrdiff_t rows, std::ptrdiff_t n) {
    copy(rows, n, from.bytes() + offset[1] * from_item, loop.row(1), loop.step(1), dst.bytes() + offset[0] * to_item,
         loop.row(0), loop.step(0));
  });
}

Array clone(const Array& x) {
  const Array* const operands[] = {&x};
  Array y = empty_for(x.dtype(), x.shape(), operands);
  copy_into(y, x);
  return y;
}

Array convert(const Array& x, DType dtype) {
  const Array* const operands[] = {&x};
  Array y = empty_for(dtype, x.shape(), operands);
  copy_into(y, x);
  return y;
}

Array relayout(const Array& x, Layout layout) {
  if (x.is_dense(layout)) {
    return x;
  }
  Array y = Array::empty(x.dtype(), x.shape(), layout);
  copy_into(y, x);
  count_relayout(y.size() * item_bytes(y.dtype()));
  return y;
}

Array require_finite(const Array& x, const std::string& what) {
  const Array wide = convert(x, DType::float64);
  const auto* const values = wide.data<double>();
  for (std::ptrdiff_t i = 0; i < wide.size(); ++i) {
    check<NonFiniteError>(std::isfinite(values[i]), "require_finite: expected finite values for ", what, ", got ", values[i],
                          "; look for bad values in what it is computed from, or lower the learning rate");
  }
  return clone(x);
}

}  // namespace striate
