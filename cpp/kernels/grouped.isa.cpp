// Weight gradient of groups of channels. Contract: grouped.hpp.
//
// Register budget, rows × vectors accumulators + vectors of g + one broadcast of x: AVX2 6 × 2 + 2 + 1 = 15 of 16 or 8 × 1,
// AVX-512 12 × 2 + 2 + 1 = 27 of 32 or 16 × 1, SSE2 4 × 2 + 2 + 2 = 12 of 16 or 8 × 1. The lines are a loop inside the tile:
// a map of 7×7 gives seven products a line, for which the accumulators would be read and written again.
#include "kernels/table.hpp"
#include "kernels/vec.hpp"

namespace striate::STRIATE_TARGET {
namespace {

#if defined(__AVX512F__) || defined(STRIATE_VEC_BYTES)
constexpr int kRows[kMostGroupedVectors] = {16, 12};  // by vectors − 1
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kRows[kMostGroupedVectors] = {8, 6};
#else
constexpr int kRows[kMostGroupedVectors] = {8, 4};
#endif

template <class T, int MR, int NV>
void outer(const GroupedLines<T>& lines) noexcept {
  constexpr int W = kWidth<T>;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      acc[m][v] = Vec<T>{};
    }
  }
  const std::ptrdiff_t x_pixel = lines.x_pixel;
  const std::ptrdiff_t g_pixel = lines.g_pixel;
  for (std::ptrdiff_t l = 0; l < lines.n_lines; ++l) {
    const T* x = lines.x + l * lines.x_line;
    const T* g = lines.g + l * lines.g_line;
    for (std::ptrdiff_t j = 0; j < lines.n; ++j) {
      Vec<T> grad[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        grad[v] = load(g + v * W);
      }
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        const Vec<T> value = broadcast(x[m]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          acc[m][v] = fma<T>(value, grad[v], acc[m][v]);
        }
      }
      x += x_pixel;
      g += g_pixel;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      T* const to = lines.y + m * lines.ld + v * W;
      store(to, load(to) + acc[m][v]);
    }
  }
}

template <class T, int MR, int NV>
void fill_tile(GroupedKernels<T>& table) {
  table.outer[MR - 1][NV - 1] = outer<T, MR, NV>;
  if constexpr (MR > 1) {
    fill_tile<T, MR - 1, NV>(table);
  }
}

template <class T>
void fill(GroupedKernels<T>& table) {
  table.rows[0] = kRows[0];
  table.rows[1] = kRows[1];
  table.vectors = kMostGroupedVectors;
  fill_tile<T, kRows[0], 1>(table);
  fill_tile<T, kRows[1], 2>(table);
}

}  // namespace

void fill_grouped(KernelTable& table) {
  fill(table.grouped_f32);
  fill(table.grouped_f64);
}

}  // namespace striate::STRIATE_TARGET
