// Every kernel, as one table of function pointers per instruction set. This header is all that ops see of kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/depthwise.hpp"
#include "kernels/grouped.hpp"
#include "kernels/map.hpp"
#include "kernels/norm.hpp"
#include "kernels/optim.hpp"
#include "kernels/planar.hpp"
#include "kernels/pool.hpp"
#include "kernels/resample.hpp"
#include "kernels/rows.hpp"
#include "kernels/winograd.hpp"

namespace striate {

inline constexpr int kMaxTileRows = 16;
inline constexpr int kMaxTileVectors = 4;
inline constexpr int kMaxRowPanels = 4;

// What happens to an accumulator before it is stored: y = clamp(acc + bias + addend, lo, hi).
template <class T>
struct Epilogue {
  const T* bias;  // [n_cols], or null
  bool clamps;
  bool streams;  // store past the caches: every y[m] + column is aligned to 64 bytes and n_cols is a multiple of the width
  T lo;
  T hi;
  bool adds = false;
  std::ptrdiff_t addend = 0;  // elements from a place of y to the value that is added there
  bool gates = false;
  std::ptrdiff_t gate = 0;  // likewise: where that value is not positive, the result is 0
  // Memory that an asking strip asks for meanwhile: from here on, ahead_step bytes for every two values of k.
  const char* ahead = nullptr;
  std::ptrdiff_t ahead_step = 0;
};

// y[m][column + n] = epilogue(Σ_t Σ_k a[t][m][k] · b[t][k][n]) for m < rows, n < n_cols. A tap whose first pointer is null
// is left out.
template <class T>
using GemmTile = void (*)(const T* const* a,  // [n_taps][rows] pointers to k values each
                          std::ptrdiff_t n_taps, std::ptrdiff_t k,
                          const T* b,   // [n_taps][k][vectors · width], packed, zero beyond n_cols
                          T* const* y,  // [rows] pointers to rows of the result
                          std::ptrdiff_t column, std::ptrdiff_t n_cols, const Epilogue<T>& epilogue);

// Tiles one after another, whose rows are evenly spaced: tap t of row m is at x + m·x_step + taps[t]; a kernel of one tap
// finds it at x + m·x_step.
template <class T>
struct Strip {
  const T* x;
  std::ptrdiff_t x_step;
  std::ptrdiff_t k;
  T* y;
  std::ptrdiff_t y_step;
  std::ptrdiff_t n_tiles;
  const std::ptrdiff_t* taps = nullptr;
  std::ptrdiff_t n_taps = 1;
};
template <class T>
using GemmStrip = void (*)(const Strip<T>& strip,
                           const T* b,  // [n_taps][k][vectors · width], packed, zero beyond n_cols
                           std::ptrdiff_t n_cols, const Epilogue<T>& epilogue);

// As a tile of one row, for neighbouring panels of full width at once; only the last may have fewer columns of its own.
template <class T>
using GemmRow = void (*)(const T* const* a,  // [n_taps] pointers to k values each
                         std::ptrdiff_t n_taps, std::ptrdiff_t k,
                         const T* b,  // [panels][n_taps][k][vectors · width]
                         T* y,        // [n_cols]
                         std::ptrdiff_t n_cols, const Epilogue<T>& epilogue);

// y[m·ld + n] = Σ_k a[k·lda + m] · b[k·ldb + n] for m < rows, n < n_cols, added to what y holds if `adds`: an outer product
// per k.
template <class T>
using OuterTile = void (*)(const T* a, std::ptrdiff_t lda,
                           const T* b,  // whole vectors are read
                           std::ptrdiff_t ldb, std::ptrdiff_t n_k, T* y, std::ptrdiff_t ld, std::ptrdiff_t n_cols,
                           bool adds);

// Likewise along n_k rows in each of n_lines lines, which are a_line and b_line values apart. Meanwhile memory from `ahead`
// on is asked for, ahead_step bytes for every two rows; 0 for none.
template <class T>
struct OuterRows {
  const T* a;
  std::ptrdiff_t lda;
  const T* b;
  std::ptrdiff_t ldb;
  std::ptrdiff_t n_k;
  std::ptrdiff_t n_lines = 1;
  std::ptrdiff_t a_line = 0;
  std::ptrdiff_t b_line = 0;
  const char* ahead = nullptr;
  std::ptrdiff_t ahead_step = 0;
  // Where a packing tile copies the tile's values of a and the vectors of b, row by row. Either may be its source itself.
  T* packed_a = nullptr;
  std::ptrdiff_t packed_lda = 0;
  T* packed_b = nullptr;
  std::ptrdiff_t packed_ldb = 0;
};
template <class T>
using OuterLines = void (*)(const OuterRows<T>& rows, T* y, std::ptrdiff_t ld, std::ptrdiff_t n_cols, bool adds);

// How runs of kernel · channels values, one for each of n positions, overlap in a line: y[w·y_stride + i] = clamp(bias[i] +
// Σ s[(j·kernel + q)·channels + i]) over all q < kernel and j < n with j·stride + q = w + pad, in rising order of q.
template <class T>
struct Overlap {
  std::ptrdiff_t n, kernel, stride, pad, channels;  // channels ≤ a vector's width
  const T* bias;                                    // or null
  bool clamps;
  T lo, hi;
};

template <class T>
struct GemmKernels {
  int width;                                        // lanes of a vector
  int rows;                                         // rows of the full tile
  int narrow_rows;                                  // rows of the tile of one vector, at least as many
  int vectors;                                      // vectors of the full tile; its columns are vectors · width
  GemmTile<T> tile[kMaxTileRows][kMaxTileVectors];  // [rows − 1][vectors − 1]
  GemmStrip<T> strip[kMaxTileRows][kMaxTileVectors];
  GemmStrip<T> asking_strip[kMaxTileRows][kMaxTileVectors];  // the others do not ask for memory ahead
  GemmStrip<T> taps_strip[kMaxTileRows][kMaxTileVectors];    // the others are of one tap
  GemmRow<T> row[kMaxRowPanels];                             // [panels − 1]; null for one
  OuterTile<T> outer[kMaxTileRows][kMaxTileVectors];
  OuterLines<T> outer_lines[kMaxTileRows][kMaxTileVectors];
  OuterLines<T> outer_packing[kMaxTileRows][kMaxTileVectors];  // of one line; copies what it reads and asks for nothing
  // out[n / panel][k][n % panel] = x[k][offset + n] for n < n_cols, zero up to a whole vector; panels are panel_stride
  // apart. A null pointer reads as zeros. Returns whether all values are finite.
  bool (*pack_lanes)(const T* const* x, std::ptrdiff_t offset, std::ptrdiff_t n_k, std::ptrdiff_t n_cols,
                     std::ptrdiff_t panel, std::ptrdiff_t panel_stride, T* out);
  // b[k][n] = w[k·stride_k + n·stride_n] for n < n_cols, zero up to `columns`, a multiple of the width. Returns whether all
  // values are finite.
  bool (*pack)(const T* w, std::ptrdiff_t stride_k, std::ptrdiff_t stride_n, std::ptrdiff_t k, std::ptrdiff_t n_cols,
               std::ptrdiff_t columns, T* b);
  bool (*all_finite)(const T* x, std::ptrdiff_t n);
  // A line of n_pixels; whole vectors of s are read.
  void (*overlap)(const T* s, const Overlap<T>& how, T* y, std::ptrdiff_t y_stride, std::ptrdiff_t n_pixels);
};

// Measures of the machine itself. Streams read x (and z) and write y, n values, y aligned to 64 bytes.
struct ProbeKernels {
  double (*fma_f32)(std::ptrdiff_t n, float* sink);  // returns floating-point operations done
  double (*fma_f64)(std::ptrdiff_t n, double* sink);
  void (*copy)(const float* x, const float* z, float* y, std::ptrdiff_t n);
  void (*copy_nt)(const float* x, const float* z, float* y, std::ptrdiff_t n);
  void (*triad)(const float* x, const float* z, float* y, std::ptrdiff_t n);
  void (*read)(const float* x, const float* z, float* y, std::ptrdiff_t n);  // writes one value
};

struct KernelTable {
  GemmKernels<float> gemm_f32;
  GemmKernels<double> gemm_f64;
  DepthwiseKernels<float> depthwise_f32[4];  // by groups of 1, 2, 4, 8 channels; null where a vector is narrower
  DepthwiseKernels<double> depthwise_f64[4];
  GroupedKernels<float> grouped_f32;
  GroupedKernels<double> grouped_f64;
  NormKernels<float> norm_f32;
  NormKernels<double> norm_f64;
  PlanarKernels<float> planar_f32;
  PlanarKernels<double> planar_f64;
  PoolKernels<float> pool_f32;
  PoolKernels<double> pool_f64;
  ResampleKernels<float> resample_f32;
  ResampleKernels<double> resample_f64;
  MapKernels maps;
  ReduceKernels reductions;
  RowsKernels rows;
  OptimKernels<float> optim_f32;
  OptimKernels<double> optim_f64;
  ProbeKernels probe;
  WinogradKernels winograd;

  template <class T>
  [[nodiscard]] const GemmKernels<T>& gemm() const {
    if constexpr (sizeof(T) == 4) {
      return gemm_f32;
    } else {
      return gemm_f64;
    }
  }
  template <class T>
  [[nodiscard]] const DepthwiseKernels<T>& depthwise(std::ptrdiff_t group) const {
    const int i = group == 1 ? 0 : group == 2 ? 1 : group == 4 ? 2 : 3;
    if constexpr (sizeof(T) == 4) {
      return depthwise_f32[i];
    } else {
      return depthwise_f64[i];
    }
  }
  template <class T>
  [[nodiscard]] const GroupedKernels<T>& grouped() const {
    if constexpr (sizeof(T) == 4) {
      return grouped_f32;
    } else {
      return grouped_f64;
    }
  }
  template <class T>
  [[nodiscard]] const NormKernels<T>& norm() const {
    if constexpr (sizeof(T) == 4) {
      return norm_f32;
    } else {
      return norm_f64;
    }
  }
  template <class T>
  [[nodiscard]] const ResampleKernels<T>& resample() const {
    if constexpr (sizeof(T) == 4) {
      return resample_f32;
    } else {
      return resample_f64;
    }
  }
  template <class T>
  [[nodiscard]] const PlanarKernels<T>& planar() const {
    if constexpr (sizeof(T) == 4) {
      return planar_f32;
    } else {
      return planar_f64;
    }
  }
  template <class T>
  [[nodiscard]] const PoolKernels<T>& pool() const {
    if constexpr (sizeof(T) == 4) {
      return pool_f32;
    } else {
      return pool_f64;
    }
  }
};

// The table of the active instruction set.
[[nodiscard]] const KernelTable& kernels();

}  // namespace striate
