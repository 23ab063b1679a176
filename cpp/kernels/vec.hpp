// Vec<T>: a register of T, on the vector extension that GCC and Clang share. Width comes from the target's flags, or from
// STRIATE_VEC_BYTES for the generic build. Everything has internal linkage: the same inline function compiled under other
// flags must not be merged by the linker.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace striate::STRIATE_TARGET {
namespace {

#if defined(STRIATE_VEC_BYTES)
inline constexpr int kVecBytes = STRIATE_VEC_BYTES;
#elif defined(__AVX512F__)
inline constexpr int kVecBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVecBytes = 32;
#else
inline constexpr int kVecBytes = 16;
#endif

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(kVecBytes)));
  typedef T unaligned __attribute__((vector_size(kVecBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
inline constexpr int kWidth = kVecBytes / static_cast<int>(sizeof(T));

#define STRIATE_INLINE inline __attribute__((always_inline))

template <class T>
STRIATE_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::unaligned*>(p);
}
template <class T>
STRIATE_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::unaligned*>(p) = v;
}
// A store past the caches, p aligned to the vector; store_fence() orders such stores before what follows.
template <class T>
STRIATE_INLINE void store_stream(T* p, Vec<T> v) {
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  _mm512_stream_ps(reinterpret_cast<float*>(p), (__m512)v);
#elif defined(__AVX2__) && !defined(STRIATE_VEC_BYTES)
  _mm256_stream_ps(reinterpret_cast<float*>(p), (__m256)v);
#elif defined(__SSE2__) && !defined(STRIATE_VEC_BYTES)
  _mm_stream_ps(reinterpret_cast<float*>(p), (__m128)v);
#else
  store(p, v);
#endif
}
STRIATE_INLINE void store_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
template <class T>
STRIATE_INLINE Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// a·b + c, fused where the machine has it. (__builtin_fma without hardware is a slow library call.)
template <class T>
STRIATE_INLINE T madd(T a, T b, T c) {
#if defined(__FMA__) || defined(__aarch64__)
  if constexpr (sizeof(T) == 4) {
    return __builtin_fmaf(a, b, c);
  } else {
    return __builtin_fma(a, b, c);
  }
#else
  return a * b + c;
#endif
}

template <class T>
STRIATE_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(STRIATE_VEC_BYTES)
  return a * b + c;
#elif defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  } else {
    return (Vec<T>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
  }
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  } else {
    return (Vec<T>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  } else {
    return (Vec<T>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
  }
#else
  return a * b + c;
#endif
}

// max(v, lo) and min(v, hi) that keep a NaN of v.
template <class T>
STRIATE_INLINE Vec<T> at_least(Vec<T> v, Vec<T> lo) {
  return v < lo ? lo : v;
}
template <class T>
STRIATE_INLINE Vec<T> at_most(Vec<T> v, Vec<T> hi) {
  return v > hi ? hi : v;
}

// v, and 0 where y is not positive: the gradient of a ReLU that gave y; a NaN of y lets it pass.
template <class T>
STRIATE_INLINE Vec<T> where_positive(Vec<T> y, Vec<T> v) {
  return y <= Vec<T>{} ? Vec<T>{} : v;
}

// All bits set in the first n lanes.
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
template <class T>
STRIATE_INLINE __m256i first_lanes(std::ptrdiff_t n) {
  if constexpr (sizeof(T) == 4) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  } else {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
}
#endif

// The first n of the lanes, 0 < n <= width; the others read as zero and are not touched in memory.
template <class T>
STRIATE_INLINE Vec<T> load_partial(const T* p, std::ptrdiff_t n) {
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << n) - 1U), p);
  } else {
    return (Vec<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << n) - 1U), p);
  }
#elif defined(__AVX2__) && !defined(STRIATE_VEC_BYTES)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm256_maskload_ps(reinterpret_cast<const float*>(p), first_lanes<T>(n));
  } else {
    return (Vec<T>)_mm256_maskload_pd(reinterpret_cast<const double*>(p), first_lanes<T>(n));
  }
#else
  Vec<T> v{};
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    v[i] = p[i];
  }
  return v;
#endif
}
template <class T>
STRIATE_INLINE void store_partial(T* p, Vec<T> v, std::ptrdiff_t n) {
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << n) - 1U), (__m512)v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1U << n) - 1U), (__m512d)v);
  }
#elif defined(__AVX2__) && !defined(STRIATE_VEC_BYTES)
  if constexpr (sizeof(T) == 4) {
    _mm256_maskstore_ps(reinterpret_cast<float*>(p), first_lanes<T>(n), (__m256)v);
  } else {
    _mm256_maskstore_pd(reinterpret_cast<double*>(p), first_lanes<T>(n), (__m256d)v);
  }
#else
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    p[i] = v[i];
  }
#endif
}

// One step of fold_lanes: of runs of kBytes of a and b half to `first`, half to `second`, in the order of one instruction.
template <int kBytes, class T>
STRIATE_INLINE void unzip(Vec<T> a, Vec<T> b, Vec<T>& first, Vec<T>& second) {
#if defined(__AVX512F__) && !defined(STRIATE_VEC_BYTES)
  // Masked, as GCC 12 warns of the others' undefined source; the mask of ones costs nothing.
  if constexpr (kBytes == 4) {
    first = (Vec<T>)_mm512_maskz_unpacklo_ps(0xFFFF, (__m512)a, (__m512)b);
    second = (Vec<T>)_mm512_maskz_unpackhi_ps(0xFFFF, (__m512)a, (__m512)b);
  } else if constexpr (kBytes == 8) {
    first = (Vec<T>)_mm512_maskz_unpacklo_pd(0xFF, (__m512d)a, (__m512d)b);
    second = (Vec<T>)_mm512_maskz_unpackhi_pd(0xFF, (__m512d)a, (__m512d)b);
  } else {
    first = (Vec<T>)_mm512_maskz_shuffle_f32x4(0xFFFF, (__m512)a, (__m512)b, 0x88);
    second = (Vec<T>)_mm512_maskz_shuffle_f32x4(0xFFFF, (__m512)a, (__m512)b, 0xdd);
  }
#elif defined(__AVX2__) && !defined(STRIATE_VEC_BYTES)
  if constexpr (kBytes == 4) {
    first = (Vec<T>)_mm256_unpacklo_ps((__m256)a, (__m256)b);
    second = (Vec<T>)_mm256_unpackhi_ps((__m256)a, (__m256)b);
  } else if constexpr (kBytes == 8) {
    first = (Vec<T>)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
    second = (Vec<T>)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
  } else {
    first = (Vec<T>)_mm256_permute2f128_ps((__m256)a, (__m256)b, 0x20);
    second = (Vec<T>)_mm256_permute2f128_ps((__m256)a, (__m256)b, 0x31);
  }
#elif defined(__SSE2__) && !defined(STRIATE_VEC_BYTES)
  if constexpr (kBytes == 4) {
    first = (Vec<T>)_mm_unpacklo_ps((__m128)a, (__m128)b);
    second = (Vec<T>)_mm_unpackhi_ps((__m128)a, (__m128)b);
  } else {
    first = (Vec<T>)_mm_unpacklo_pd((__m128d)a, (__m128d)b);
    second = (Vec<T>)_mm_unpackhi_pd((__m128d)a, (__m128d)b);
  }
#else
  // Lanes 2i and 2i + 1 of a, then of b: pairs stay in order.
  constexpr int kHalf = kWidth<T> / 2;
  for (int i = 0; i < kHalf; ++i) {
    first[i] = a[2 * i];
    first[kHalf + i] = b[2 * i];
    second[i] = a[2 * i + 1];
    second[kHalf + i] = b[2 * i + 1];
  }
#endif
}
// Lane i of the result: all lanes of part[i] combined by f, in one tree for every i. Overwrites part, [kWidth<T>].
template <class T, int kBytes = static_cast<int>(sizeof(T)), class F>
STRIATE_INLINE Vec<T> fold_lanes(Vec<T>* part, const F& f) {
  if constexpr (kBytes == kVecBytes) {
    return part[0];
  } else {
    for (int i = 0; i < kVecBytes / kBytes / 2; ++i) {
      Vec<T> first{};
      Vec<T> second{};
      unzip<kBytes, T>(part[2 * i], part[2 * i + 1], first, second);
      part[i] = f(first, second);
    }
    return fold_lanes<T, 2 * kBytes>(part, f);
  }
}

// What a comparison of Vec<T> gives: integers as wide as T, all bits set for true.
template <class T>
using Mask = decltype(Vec<T>{} < Vec<T>{});

// Small integers in memory (I = uint8 or int32), as wide as T in registers. The compiler makes of a conversion of 8 bytes
// one move per lane, hence the intrinsics (max pooling's gradient: 8.9 → 25 GB/s).
template <class I, int N>
struct IndexOf {
  typedef I type __attribute__((vector_size(N * sizeof(I))));
};
template <class T, class I>
STRIATE_INLINE Mask<T> load_index(const I* p) {
#if !defined(STRIATE_VEC_BYTES)
  if constexpr (sizeof(T) == 4 && sizeof(I) == 1) {
#if defined(__AVX512F__)
    return (Mask<T>)_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
    return (Mask<T>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE2__)
    int four;
    __builtin_memcpy(&four, p, sizeof(four));
    const __m128i bytes = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), _mm_setzero_si128());
    return (Mask<T>)_mm_unpacklo_epi16(bytes, _mm_setzero_si128());
#endif
  }
#endif
  typename IndexOf<I, kWidth<T>>::type narrow;
  __builtin_memcpy(&narrow, p, sizeof(narrow));
  return __builtin_convertvector(narrow, Mask<T>);
}
template <class T, class I>
STRIATE_INLINE void store_index(I* p, Mask<T> v) {
#if !defined(STRIATE_VEC_BYTES)
  if constexpr (sizeof(T) == 4 && sizeof(I) == 1) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xFFFF, (__m512i)v));
    return;
#elif defined(__AVX2__)
    const __m256i wide = (__m256i)v;
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
    return;
#elif defined(__SSE2__)
    const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
    const int four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    __builtin_memcpy(p, &four, sizeof(four));
    return;
#endif
  }
#endif
  typedef typename IndexOf<I, kWidth<T>>::type Narrow;
  const Narrow narrow = __builtin_convertvector(v, Narrow);
  __builtin_memcpy(p, &narrow, sizeof(narrow));
}

}  // namespace
}  // namespace striate::STRIATE_TARGET
