// The lower half of a vector, where that costs half: cores that split a 64-byte multiply-add in two do two of 32 bytes in
// its time, and those that do not are no slower.
#pragma once

#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)

inline constexpr bool kHasHalf = true;

template <class T>
struct HalfOf {
  typedef T type __attribute__((vector_size(kVecBytes / 2)));
  typedef T unaligned __attribute__((vector_size(kVecBytes / 2), aligned(alignof(T)), may_alias));
};
template <class T>
using Half = typename HalfOf<T>::type;

template <class T>
STRIATE_INLINE Half<T> load_half(const T* p) {
  return *reinterpret_cast<const typename HalfOf<T>::unaligned*>(p);
}
// a·b + c, rounded once.
template <class T>
STRIATE_INLINE Half<T> fma_half(T a, Half<T> b, Half<T> c) {
  if constexpr (sizeof(T) == 4) {
    return (Half<T>)_mm256_fmadd_ps(_mm256_set1_ps(a), (__m256)b, (__m256)c);
  } else {
    return (Half<T>)_mm256_fmadd_pd(_mm256_set1_pd(a), (__m256d)b, (__m256d)c);
  }
}
// As a whole vector, the upper lanes of any value.
template <class T>
STRIATE_INLINE Vec<T> widened(Half<T> v) {
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_castps256_ps512((__m256)v);
  } else {
    return (Vec<T>)_mm512_castpd256_pd512((__m256d)v);
  }
}

#else

inline constexpr bool kHasHalf = false;

#endif

}  // namespace
}  // namespace striate::STRIATE_TARGET
