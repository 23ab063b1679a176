// The loop over strided operands: what element-wise operators, copies and optimizers share.
#pragma once

#include <algorithm>
#include <span>

#include "kernels/table.hpp"
#include "machine/threads.hpp"
#include "striate/machine.hpp"
#include "striate/tensor.hpp"

namespace striate {

inline constexpr int kMaxOperands = 6;

// n operands over one index space. Axes are ordered as operand 0 lies in memory, slowest first, axes of size 1 are gone, and
// neighbours that are one run for every operand are merged. At least one axis, the last is the inner run.
struct StridedLoop {
  int n_operands = 0;
  int rank = 0;
  std::ptrdiff_t shape[kMaxRank] = {};
  std::ptrdiff_t stride[kMaxOperands][kMaxRank] = {};
  std::ptrdiff_t size = 1;

  [[nodiscard]] std::ptrdiff_t n() const { return shape[rank - 1]; }
  [[nodiscard]] std::ptrdiff_t step(int operand) const { return stride[operand][rank - 1]; }
  [[nodiscard]] std::ptrdiff_t row(int operand) const { return rank > 1 ? stride[operand][rank - 2] : 0; }
};

// All operands have the shape of operand 0 (broadcast axes have stride 0).
[[nodiscard]] StridedLoop make_loop(std::span<const Array* const> operands);

// Elements in a tile of memory-bound work: 256 KiB of float32, enough to pay for waking a thread.
inline constexpr std::ptrdiff_t kGrain = 65536;

// A result of more bytes than this does not stay in the caches until it is read: it is stored past them, which saves reading
// its lines first.
inline constexpr std::ptrdiff_t kStreamBytes = 16 << 20;

// Whether operands of so many bytes are mostly not in a core's caches, so that it pays to ask for them ahead. Less costs up
// to a tenth more where they are (AVX2, Zen 4: depthwise and Winograd at batch 1).
[[nodiscard]] inline bool is_far(std::ptrdiff_t bytes) { return bytes > 4 * cache_sizes().l2_bytes; }

// Copies n_bytes past the caches; the ends that are not whole lines go through them.
void stream(const std::byte* from, std::byte* to, std::ptrdiff_t n_bytes);

// Calls f(offset, rows, n) until all elements are covered, in parallel; offset[k] is that of operand k, in elements. Tiles
// have about `grain` elements, or half as many where there is more than one, so that threads end together; they depend on
// the loop only.
template <class F>
void for_each_run(const StridedLoop& loop, std::ptrdiff_t grain, F&& f) {
  if (loop.size == 0) {
    return;
  }
  grain = loop.size > grain ? grain / 2 : grain;
  const int last = loop.rank - 1;
  const std::ptrdiff_t n = loop.n();
  const std::ptrdiff_t n_rows = loop.size / n;
  const bool cuts_runs = n > grain + grain / 2;
  const Partition chunks(n, cuts_runs ? (grain + 63) / 64 * 64 : n);
  const Partition groups(n_rows, cuts_runs ? 1 : std::max<std::ptrdiff_t>(1, grain / n));
  parallel_for(groups.n_parts * chunks.n_parts, [&](std::ptrdiff_t tile) {
    const std::ptrdiff_t group = tile / chunks.n_parts;
    const std::ptrdiff_t first = chunks.begin(tile % chunks.n_parts);
    const std::ptrdiff_t length = chunks.end(tile % chunks.n_parts) - first;
    const std::ptrdiff_t n_inner = last > 0 ? loop.shape[last - 1] : 1;
    for (std::ptrdiff_t row = groups.begin(group); row < groups.end(group);) {
      const std::ptrdiff_t rows = std::min(n_inner - row % n_inner, groups.end(group) - row);
      std::ptrdiff_t offset[kMaxOperands];
      for (int k = 0; k < loop.n_operands; ++k) {
        offset[k] = first * loop.step(k);
      }
      std::ptrdiff_t left = row;
      for (int axis = last - 1; axis >= 0; --axis) {
        const std::ptrdiff_t index = left % loop.shape[axis];
        left /= loop.shape[axis];
        for (int k = 0; k < loop.n_operands; ++k) {
          offset[k] += index * loop.stride[k][axis];
        }
      }
      f(static_cast<const std::ptrdiff_t*>(offset), rows, length);
      row += rows;
    }
  });
}

// Dense, of `shape`; laid out as the largest operand of that shape that is dense, else as the rank suggests.
[[nodiscard]] Array empty_for(DType dtype, const Extents& shape, std::span<const Array* const> operands);
[[nodiscard]] Extents broadcast_shape(const char* op, std::span<const Array* const> operands);

// Writes src, converted and broadcast, to dst.
void copy_into(const Array& dst, const Array& src);

}  // namespace striate
