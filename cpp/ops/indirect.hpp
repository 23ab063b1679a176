// The indirect GEMM (Dukhan 2019, arXiv:1907.02129): rows of A are found through pointers, one per row and tap, so that a
// convolution multiplies where its pixels lie; no image is unrolled and no activation is packed.
//
// Forward convolution, data gradient, transposed convolution, linear layers and matrix products are all one call of
// indirect_gemm(); weight gradients are one call of outer_product().
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "kernels/table.hpp"
#include "machine/memory.hpp"
#include "ops/finish.hpp"
#include "ops/row_sums.hpp"
#include "striate/window.hpp"

namespace striate {

using Position = std::array<std::ptrdiff_t, 3>;  // depth, height, width

// Lines of memory that are asked for at once in front of a tile; more are left to the tile itself.
inline constexpr std::ptrdiff_t kFewLines = 12;

inline std::ptrdiff_t ceil_div(std::ptrdiff_t a, std::ptrdiff_t b) { return (a + b - 1) / b; }
inline std::ptrdiff_t round_up(std::ptrdiff_t a, std::ptrdiff_t b) { return ceil_div(a, b) * b; }

// Rows of A: row (n, i) with i in a grid of three axes reads, for tap t, the k values at input position i·step + tap[t] of
// sample n; a position outside [0, in) reads as k zeros that contribute nothing.
template <class T>
struct Gather {
  const T* x;
  std::ptrdiff_t stride_n;
  Position stride;  // elements between input positions
  Position in;
  std::ptrdiff_t n;
  Position grid;
  Position step;
  std::vector<Position> taps;

  [[nodiscard]] std::ptrdiff_t n_rows() const { return n * grid[0] * grid[1] * grid[2]; }
  // Whether some tap of some row lies outside the input.
  [[nodiscard]] bool is_padded() const;
};

// Steps through the rows of a Gather in order: sample, depth, height, width.
struct RowIndex {
  std::ptrdiff_t n;
  Position i;

  RowIndex(std::ptrdiff_t row, const Position& grid) {
    i[2] = row % grid[2];
    row /= grid[2];
    i[1] = row % grid[1];
    row /= grid[1];
    i[0] = row % grid[0];
    n = row / grid[0];
  }
  void next(const Position& grid) {
    if (++i[2] < grid[2]) {
      return;
    }
    i[2] = 0;
    if (++i[1] < grid[1]) {
      return;
    }
    i[1] = 0;
    if (++i[0] < grid[0]) {
      return;
    }
    i[0] = 0;
    ++n;
  }
};

// Makes one line of the grid of rows that are evenly spaced in both operands, as all pixels of a pointwise convolution are:
// a line has no edges and nothing to step over. `stride_n` and `stride` are the other operand's.
template <class T>
void join_lines(Gather<T>& a, std::ptrdiff_t& stride_n, Position& stride) {
  if (a.taps.size() != 1 || a.taps[0] != Position{0, 0, 0} || a.is_padded()) {
    return;
  }
  const auto join = [&](std::ptrdiff_t& n, std::ptrdiff_t a_stride, std::ptrdiff_t other_stride) {
    const bool follows = a_stride == a.grid[2] * a.step[2] * a.stride[2] && other_stride == a.grid[2] * stride[2];
    if (n > 1 && !follows) {
      return false;
    }
    a.grid[2] *= n;
    a.in[2] = a.grid[2] * a.step[2];
    n = 1;
    return true;
  };
  if (join(a.grid[1], a.step[1] * a.stride[1], stride[1]) && join(a.grid[0], a.step[0] * a.stride[0], stride[0])) {
    join(a.n, a.stride_n, stride_n);
  }
}

// Where row (n, i) of the result goes.
template <class T>
struct Scatter {
  T* y;
  std::ptrdiff_t stride_n;
  Position stride;  // elements between grid positions
};

// B, packed into panels of one register tile's columns: [panel][tap][k][columns]; the last panel may be narrower.
template <class T>
struct Packed {
  Packed(std::ptrdiff_t n_taps_, std::ptrdiff_t k_, std::ptrdiff_t n_columns, std::ptrdiff_t panel_columns,
         std::ptrdiff_t width);

  std::ptrdiff_t n_taps;
  std::ptrdiff_t k;
  std::ptrdiff_t columns;  // of B
  std::ptrdiff_t panel;    // columns of a full panel
  std::ptrdiff_t n_panels;
  std::ptrdiff_t width;   // lanes; panels are a multiple of it
  bool is_finite = true;  // a zero times it is a zero
  Buffer<T> data;

  [[nodiscard]] std::ptrdiff_t panel_columns(std::ptrdiff_t p) const;  // padded to vectors
  [[nodiscard]] T* panel_data(std::ptrdiff_t p) const { return data.data() + p * panel * n_taps * k; }
};

// b[t][k][n] = w[tap_offset[t] + k·stride_k + n·stride_n].
template <class T>
[[nodiscard]] std::shared_ptr<const Packed<T>> pack(const T* w, const std::vector<std::ptrdiff_t>& tap_offset,
                                                    std::ptrdiff_t k, std::ptrdiff_t stride_k, std::ptrdiff_t columns,
                                                    std::ptrdiff_t stride_n);

// Memory in one piece that will be read soon.
struct Piece {
  const void* begin = nullptr;
  std::ptrdiff_t n_bytes = 0;
};

// Share i of n, of whole lines.
inline Piece share(const Piece& piece, std::ptrdiff_t i, std::ptrdiff_t n) {
  const std::ptrdiff_t each = round_up(ceil_div(piece.n_bytes, n), kAlignment);
  const std::ptrdiff_t n_bytes = std::clamp<std::ptrdiff_t>(piece.n_bytes - i * each, 0, each);
  return n_bytes == 0 ? Piece{} : Piece{static_cast<const char*>(piece.begin) + i * each, n_bytes};
}

// Makes rows of A just before they are multiplied, near the core that multiplies them, where a Gather would find them in
// memory.
template <class T>
class RowSource {
 public:
  RowSource() = default;
  virtual ~RowSource() = default;
  RowSource(const RowSource&) = delete;
  RowSource& operator=(const RowSource&) = delete;

  // Writes rows [begin, end), k values each, one after another; begin is a multiple of line(), and end, or the last row.
  virtual void make(std::ptrdiff_t begin, std::ptrdiff_t end, T* rows) const = 0;
  // Rows that are made together.
  [[nodiscard]] virtual std::ptrdiff_t line() const = 0;
  // What making these rows reads, as far as it is worth asking for.
  [[nodiscard]] virtual Piece ahead(std::ptrdiff_t begin, std::ptrdiff_t end) const = 0;
};

// What follows the sum, for whole matrices.
struct GemmTail {
  const void* bias = nullptr;  // [columns] of the same type, or null
  bool clamps = false;
  double lo = 0;
  double hi = 0;
  bool adds = false;          // before the clamp
  std::ptrdiff_t addend = 0;  // elements from a place of the result to the value that is added there
  bool gates = false;
  std::ptrdiff_t gate = 0;         // likewise: where that value is not positive, the result is 0
  const Finish* finish = nullptr;  // runs on every row of the result that is done, or null
  RowSums* sums = nullptr;         // told of rows that are done, where the product is the whole of `result`; or null
  const Array* result = nullptr;
};

// One product: y[row][columns] = tail(Σ_t Σ_k a[row][t][k] · b[t][k][columns]).
template <class T>
struct Gemm {
  Gather<T> a;
  std::shared_ptr<const Packed<T>> b;
  Scatter<T> y;
  GemmTail tail;
  const RowSource<T>* source = nullptr;  // of the rows of A, or null; then `a` has their grid alone: see made_rows()
};

// The Gather of n_rows on a grid that a source makes.
template <class T>
[[nodiscard]] Gather<T> made_rows(std::ptrdiff_t n, const Position& grid);

// Runs products of equal geometry (the groups of a convolution) in one parallel region. Each element is one chain of
// multiply-adds over (tap, k) whatever the blocking, so nothing about threads or caches can change a bit.
template <class T>
void indirect_gemm(std::vector<Gemm<T>> products);

// One weight gradient: y[t][m][n] (strides below, no gaps) = Σ over rows r of a[r][t][m] · b[r][n], where a row's tap
// outside the input is left out of the sum.
template <class T>
struct OuterProduct {
  Gather<T> a;  // taps give m values each
  std::ptrdiff_t m;
  const T* b;  // rows on the same grid: sample and grid strides below
  std::ptrdiff_t b_stride_n;
  Position b_stride;
  std::ptrdiff_t n;
  T* y;  // row-major inside a tap: y[t·stride_t + i·ld + j]
  std::ptrdiff_t stride_t;
  std::ptrdiff_t ld;
  bool swaps = false;      // y[t·stride_t + j·ld + i] instead: lanes run over a's values, rows over b's
  bool has_slack = false;  // a vector may be read beyond a's last value
};

// The rows are summed in blocks of fixed length, block sums in order, and long sums in a fixed number of parts that are
// added in order: a shallow tree set by geometry.
template <class T>
void outer_product(std::vector<OuterProduct<T>> products);

}  // namespace striate
