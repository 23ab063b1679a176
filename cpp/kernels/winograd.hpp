// What the transforms of Winograd convolution compute (Lavin & Gray 2016, arXiv:1509.09308; points as in Barabasz et al.,
// arXiv:1803.10986). F(m×m, r×r) of stride 1 takes n = m + r − 1 points, {0, ±a, …, ∞} or {0, ±a, …}. With one-dimensional
// matrices Bᵀ (n×n), G (n×r) and Aᵀ (m×n), each two-dimensional transform is X → F·X·Fᵀ over tiles whose elements are
// vectors of channels. Of stride 2, with r = 3, the even pixels meet the outer two taps as in a convolution of stride 1,
// F(m, 2) with m + 1 points, and the odd ones meet the middle tap alone: m products more. Bᵀ, G and Aᵀ have both, the odd
// pixels last; these share one filter.
#pragma once

#include <cstddef>

namespace striate {

// F(m×m, r×r) of a stride.
struct WinogradForm {
  int m, r, stride;
  // Points of a side, and pixels that a tile of the forward pass reads.
  [[nodiscard]] constexpr int n() const { return stride * (m - 1) + r; }
  // Points of a side whose filters differ.
  [[nodiscard]] constexpr int n_filter() const { return stride == 1 ? n() : m + 2; }
};

// The forms that exist; their order is that of tables.
inline constexpr int kWinogradForms = 7;
inline constexpr WinogradForm kWinogradForm[kWinogradForms] = {{2, 3, 1}, {4, 3, 1}, {6, 3, 1}, {2, 5, 1},
                                                               {4, 3, 2}, {5, 3, 2}, {5, 3, 1}};

// A tile's elements: (i, j) at x + i·stride_h + j·stride_w, `channels` contiguous values each; outside [begin, end) an
// element reads as zero.
struct WinogradSource {
  const float* x;
  std::ptrdiff_t stride_h, stride_w;
  int h_begin, h_end, w_begin, w_end;
};

// Where the result's elements go; of output transforms, those at or beyond the ends are not stored. Planes hold whole
// vectors of channels, with zeros beyond the last; images only their channels.
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
// Neighbouring tiles of one line of tiles, of which one line of the result is computed.
struct WinogradLineOfTiles {
  const float* x;  // of the first tile
  std::ptrdiff_t stride_h, stride_w;
  int h_begin, h_end;             // outside, elements read as zero
  std::ptrdiff_t w_begin, w_end;  // likewise, of all tiles
  std::ptrdiff_t n, step;         // tiles, and elements from one to the next
  float* y;                       // element s of tile i is y + i·row + s·plane, whole vectors of channels
  std::ptrdiff_t row, plane;
  float* room;  // for the elements of a line of all tiles, whole vectors of channels each
};
using WinogradLine = void (*)(const WinogradLineOfTiles&, std::ptrdiff_t channels, int line);

// f is the number of a side's points whose filters differ. A data gradient of stride 1 is a forward pass; one of stride 2,
// of a padding of 1, has transforms of its own, which give the 2m×2m pixels that m×m of grad_y and those that follow them
// meet.
struct WinogradKernels {
  WinogradTransform input[kWinogradForms];        // V = Bᵀ d B       n×n → n×n
  WinogradTransform output[kWinogradForms];       // y = Aᵀ M A       n×n → m×m, then + bias + addend and clamp
  WinogradTransform filter[kWinogradForms];       // U = G g Gᵀ       r×r → f×f
  WinogradTransform back_input[kWinogradForms];   // of grad_y        m+1×m+1 → n×n, of stride 1 as input
  WinogradTransform back_output[kWinogradForms];  // of grad_x        n×n → 2m×2m, of stride 1 as output
  WinogradTransform grad_output[kWinogradForms];  // Z = A grad_y Aᵀ  m×m → n×n
  WinogradTransform grad_filter[kWinogradForms];  // Gᵀ U G           f×f → r×r
  WinogradLine input_line[kWinogradForms];        // of V
  WinogradLine grad_output_line[kWinogradForms];  // of Z
};

}  // namespace striate
