// The window: the one place that knows output sizes, padding, dilation and which taps are inside the image.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "striate/tensor.hpp"

namespace striate {

// One spatial axis. Output index j and tap q read input position j·stride + q·dilation − pad_begin.
struct WindowAxis {
  std::ptrdiff_t in = 1;
  std::ptrdiff_t kernel = 1;
  std::ptrdiff_t stride = 1;
  std::ptrdiff_t dilation = 1;
  std::ptrdiff_t pad_begin = 0;
  std::ptrdiff_t pad_end = 0;
  std::ptrdiff_t out = 1;

  // Extent of the dilated kernel.
  [[nodiscard]] std::ptrdiff_t reach() const { return (kernel - 1) * dilation + 1; }
  [[nodiscard]] std::ptrdiff_t position(std::ptrdiff_t out_index, std::ptrdiff_t tap) const {
    return out_index * stride + tap * dilation - pad_begin;
  }
  [[nodiscard]] bool is_padded() const { return pad_begin > 0 || (out > 0 && position(out - 1, kernel - 1) >= in); }

  // Output indices whose tap lies inside the input: [begin, end).
  struct Range {
    std::ptrdiff_t begin;
    std::ptrdiff_t end;
  };
  [[nodiscard]] Range outputs_inside(std::ptrdiff_t tap) const;
  // Taps of an output index that lie inside the input: [begin, end).
  [[nodiscard]] Range taps_inside(std::ptrdiff_t out_index) const;
};

// Up to three spatial axes; axes the tensor does not have come first and have size 1, so kernels always see depth, height,
// width.
struct Window {
  std::array<WindowAxis, 3> axis;

  [[nodiscard]] std::ptrdiff_t n_taps() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
  [[nodiscard]] std::ptrdiff_t n_outputs() const { return axis[0].out * axis[1].out * axis[2].out; }
  [[nodiscard]] std::ptrdiff_t n_inputs() const { return axis[0].in * axis[1].in * axis[2].in; }
  [[nodiscard]] bool is_padded() const { return axis[0].is_padded() || axis[1].is_padded() || axis[2].is_padded(); }
  [[nodiscard]] bool is_strided() const { return axis[0].stride > 1 || axis[1].stride > 1 || axis[2].stride > 1; }
};

enum class Padding : std::uint8_t { explicit_, same, valid };

// What a caller says about a window; each list holds one entry per spatial axis.
struct WindowParams {
  std::vector<std::ptrdiff_t> kernel_size;
  std::vector<std::ptrdiff_t> stride;
  std::vector<std::ptrdiff_t> dilation;
  std::vector<std::ptrdiff_t> pad_begin;
  std::vector<std::ptrdiff_t> pad_end;
  Padding padding = Padding::explicit_;  // `same` and `valid` ignore pad_begin and pad_end
  bool ceil_mode = false;                // pooling: a last window that starts inside the input or its left padding counts
};

// out = floor((in + pad_begin + pad_end − dilation·(kernel − 1) − 1) / stride) + 1, per axis of `spatial`; with ceil_mode
// rounded up, less a last window that would start in the right padding.
// Throws ShapeError naming `op` when the window does not fit or a parameter is out of range.
[[nodiscard]] Window make_window(const char* op, std::span<const std::ptrdiff_t> spatial, const WindowParams& params);

// The window of the convolution that a transposed convolution is the gradient of: `in` is the transposed convolution's
// output, `out` its input. in = (out − 1)·stride − pad_begin − pad_end + dilation·(kernel − 1) + output_padding + 1.
[[nodiscard]] Window make_transposed_window(const char* op, std::span<const std::ptrdiff_t> spatial,
                                            const WindowParams& params, std::span<const std::ptrdiff_t> output_padding);

// Which sources each target position of one axis reads, and through which tap. Windows, adaptive cells and their gradients
// are all such maps; an operator on images is the product of one map per axis.
struct AxisMap {
  struct Entry {
    std::ptrdiff_t source;
    std::ptrdiff_t tap;
  };
  std::ptrdiff_t n_sources = 0;
  std::ptrdiff_t n_taps = 1;          // taps are below this
  std::vector<std::ptrdiff_t> first;  // entries of target i are [first[i], first[i + 1])
  std::vector<Entry> entries;

  [[nodiscard]] std::ptrdiff_t n_targets() const { return static_cast<std::ptrdiff_t>(first.size()) - 1; }
  [[nodiscard]] std::span<const Entry> at(std::ptrdiff_t target) const {
    const auto i = static_cast<std::size_t>(target);
    return {entries.data() + first[i], static_cast<std::size_t>(first[i + 1] - first[i])};
  }
};

// Outputs read the inputs inside the image.
[[nodiscard]] AxisMap window_map(const WindowAxis& axis);
// Output i reads inputs ⌊i·in/out⌋ … ⌈(i + 1)·in/out⌉ − 1; the tap is the input's index.
[[nodiscard]] AxisMap adaptive_map(std::ptrdiff_t in, std::ptrdiff_t out);
// Sources become targets; the entries of each are in rising order of the old target.
[[nodiscard]] AxisMap transposed(const AxisMap& map);

// Targets first, first + step, … (n of them) read through the same taps; the sources of one are source_step after those of
// the one before.
struct AxisRun {
  std::ptrdiff_t first;
  std::ptrdiff_t step;
  std::ptrdiff_t n;
  std::ptrdiff_t source_step;
  std::span<const AxisMap::Entry> entries;  // of the first target; the map must outlive the run
};

// Cuts the targets of each residue modulo `step` into as few runs as possible. The step to choose is 1 for a window and its
// stride for the transposed map.
[[nodiscard]] std::vector<AxisRun> axis_runs(const AxisMap& map, std::ptrdiff_t step);

}  // namespace striate
