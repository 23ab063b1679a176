// What the transforms of Winograd convolution compute (Lavin & Gray 2016, arXiv:1509.09308; points as in Barabasz et al.,
// arXiv:1803.10986). F(m×m, r×r) takes n = m + r − 1 points {0, ±a, …, ∞}. With one-dimensional matrices Bᵀ (n×n), G (n×r)
// and Aᵀ (m×n), each two-dimensional transform is X → F·X·Fᵀ over tiles whose elements are vectors of channels.
#pragma once

#include <cstddef>

namespace striate {

// F(m×m, r×r).
struct WinogradForm {
  int m, r;
  [[nodiscard]] constexpr int n() const { return m + r - 1; }
};

// The forms that exist; their order is that of tables.
inline constexpr int kWinogradForms = 4;
inline constexpr WinogradForm kWinogradForm[kWinogradForms] = {{2, 3}, {4, 3}, {6, 3}, {2, 5}};

// A tile's elements: (i, j) at x + i·stride_h + j·stride_w, `channels` contiguous values each; outside [begin, end) an
// element reads as zero.
struct WinogradSource {
  const float* x;
  std::ptrdiff_t stride_h, stride_w;
  int h_begin, h_end, w_begin, w_end;
};

// Where the result's elements go; those at or beyond the ends are not stored. Planes hold whole vectors of channels, with
// zeros beyond the last; images only their channels.
struct WinogradTarget {
  float* y;
  std::ptrdiff_t stride_h, stride_w;
  int h_end, w_end;
  bool holds_vectors;
  const float* bias;  // [channels], or null
  bool clamps;
  float lo, hi;
  bool adds = false;
  std::ptrdiff_t addend = 0;  // values from a place of y to the value that is added there, before the clamp
  bool gates = false;
  std::ptrdiff_t gate = 0;  // likewise: where that value is not positive, the result is 0
};

using WinogradTransform = void (*)(const WinogradSource&, const WinogradTarget&, std::ptrdiff_t channels);

struct WinogradKernels {
  WinogradTransform input[kWinogradForms];        // V = Bᵀ d B       n×n → n×n
  WinogradTransform output[kWinogradForms];       // y = Aᵀ M A       n×n → m×m, then + bias + addend and clamp
  WinogradTransform filter[kWinogradForms];       // U = G g Gᵀ       r×r → n×n
  WinogradTransform grad_output[kWinogradForms];  // Z = A grad_y Aᵀ  m×m → n×n
  WinogradTransform grad_filter[kWinogradForms];  // Gᵀ U G           n×n → r×r
};

}  // namespace striate
