// Square blocks of 16 bytes a side, in registers: what transposes are made of.
#pragma once

#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

// T is a type of 4 or 8 bytes.
template <class T>
struct Block {
  static constexpr int kSide = 16 / static_cast<int>(sizeof(T));
  typedef T Row __attribute__((vector_size(16)));
  typedef T Loose __attribute__((vector_size(16), aligned(alignof(T)), may_alias));

  Row row[kSide];

  STRIATE_INLINE Block(const T* x, std::ptrdiff_t stride) {
    for (int i = 0; i < kSide; ++i) {
      row[i] = *reinterpret_cast<const Loose*>(x + i * stride);
    }
  }
  STRIATE_INLINE void store_transposed(T* y, std::ptrdiff_t stride) const {
    const auto put = [&](int i, Row value) { *reinterpret_cast<Loose*>(y + i * stride) = value; };
    if constexpr (kSide == 4) {
      const Row ab_low = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Row ab_high = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Row cd_low = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Row cd_high = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      put(0, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
      put(1, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
      put(2, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
      put(3, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
    } else {
      put(0, __builtin_shufflevector(row[0], row[1], 0, 2));
      put(1, __builtin_shufflevector(row[0], row[1], 1, 3));
    }
  }
};

}  // namespace
}  // namespace striate::STRIATE_TARGET
