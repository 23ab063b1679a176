// Sums per channel over a result's rows, taken right after the rows are made, while they are near.
#pragma once

#include <cstddef>

#include "striate/ops.hpp"

namespace striate {

// Kernels that make a result row by row tell of it. Where none does, who wants the sums goes over the result afterwards.
class RowSums {
 public:
  RowSums() = default;
  virtual ~RowSums() = default;
  RowSums(const RowSums&) = delete;
  RowSums& operator=(const RowSums&) = delete;

  // Rows of y, its pixels, which lie densely one after another, are about to be made in parts of `rows_each`: a function of
  // geometry alone, since every part has sums of its own. Returns whether this takes part; then they are stored through the
  // caches.
  virtual bool start(const Array& y, std::ptrdiff_t rows_each) = 0;
  // Rows [begin, end) of one part are there, in channels [c, c_end). Those of a part come in order.
  virtual void add(std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t c, std::ptrdiff_t c_end) = 0;
};

// As conv of ops.hpp; `sums`, which may be null, asks for nothing but a bias in `fused`.
[[nodiscard]] Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
                         RowSums* sums);

}  // namespace striate
