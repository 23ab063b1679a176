// Tiles of images as Winograd's passes see them: where they lie, and the planes that their transforms fill.
#pragma once

#include <algorithm>

#include "kernels/table.hpp"
#include "ops/conv2d_choose.hpp"
#include "ops/map.hpp"
#include "ops/winograd.hpp"

namespace striate {

inline constexpr std::ptrdiff_t kWinogradLine = kAlignment / static_cast<std::ptrdiff_t>(sizeof(float));

inline std::ptrdiff_t bytes_of(std::ptrdiff_t values) { return values * static_cast<std::ptrdiff_t>(sizeof(float)); }

// Values between rows of a plane that are far enough from a multiple of 1 KB not to share cache sets.
inline std::ptrdiff_t row_stride(std::ptrdiff_t channels, std::ptrdiff_t width) {
  const std::ptrdiff_t stride = round_up(channels, width);
  return stride % 256 == 0 ? stride + kWinogradLine : stride;
}
// Likewise between planes.
inline std::ptrdiff_t plane_stride(std::ptrdiff_t n_tiles, std::ptrdiff_t row) {
  return round_up(n_tiles * row, 2 * kWinogradLine) + kWinogradLine;
}

// The tiles of a batch of images that a pass writes, out_step×out_step pixels each, or whose gradient a weight gradient
// reads. A tile reads extent×extent pixels of the other images, in_step from those of its neighbours.
struct TileGrid {
  int form;
  int r, n, n_side_filters;  // of the form; points of a side, and those with filters of their own
  std::ptrdiff_t in_step, extent, out_step;
  std::ptrdiff_t rows, columns, n_tiles;
  std::ptrdiff_t pad_h, pad_w;
  WinogradTransform input, output;

  TileGrid(ConvPass pass, int form_, std::ptrdiff_t images, std::ptrdiff_t out_h, std::ptrdiff_t out_w,
           std::ptrdiff_t pad_h_, std::ptrdiff_t pad_w_)
      : form(form_),
        r(kWinogradForm[form].r),
        n(kWinogradForm[form].n()),
        n_side_filters(kWinogradForm[form].n_filter()),
        pad_h(pad_h_),
        pad_w(pad_w_) {
    const auto [m, _, stride] = kWinogradForm[form];
    const bool is_back = pass == ConvPass::grad_input;
    in_step = is_back ? m : stride * m;
    out_step = is_back ? stride * m : m;
    extent = is_back && stride > 1 ? m + 1 : n;
    rows = ceil_div(out_h, out_step);
    columns = ceil_div(out_w, out_step);
    n_tiles = images * rows * columns;
    input = (is_back ? kernels().winograd.back_input : kernels().winograd.input)[form];
    output = (is_back ? kernels().winograd.back_output : kernels().winograd.output)[form];
  }

  // From a tile to its neighbour, and of one tile: its own pixels, or those that they are made of.
  [[nodiscard]] std::ptrdiff_t step_of(bool reads_around) const { return reads_around ? in_step : out_step; }
  [[nodiscard]] std::ptrdiff_t extent_of(bool reads_around) const { return reads_around ? extent : out_step; }
  [[nodiscard]] int n_points() const { return n * n; }
  [[nodiscard]] int n_filters() const { return n_side_filters * n_side_filters; }
  [[nodiscard]] std::ptrdiff_t n_images() const { return n_tiles / std::max<std::ptrdiff_t>(1, rows * columns); }
  [[nodiscard]] std::ptrdiff_t filter_of(std::ptrdiff_t point) const {
    const std::ptrdiff_t last = n_side_filters - 1;
    return std::min(point / n, last) * n_side_filters + std::min(point % n, last);
  }
  [[nodiscard]] std::ptrdiff_t count_points(std::ptrdiff_t filter) const {
    const std::ptrdiff_t last = n_side_filters - 1;
    return (filter / n_side_filters < last ? 1 : n - last) * (filter % n_side_filters < last ? 1 : n - last);
  }
  // f(point) for all points of a filter: in its last line and column there are several.
  template <class F>
  void for_points(std::ptrdiff_t filter, F&& f) const {
    const std::ptrdiff_t last = n_side_filters - 1;
    const std::ptrdiff_t p = filter / n_side_filters;
    const std::ptrdiff_t q = filter % n_side_filters;
    for (std::ptrdiff_t i = p; i < (p < last ? p + 1 : n); ++i) {
      for (std::ptrdiff_t j = q; j < (q < last ? q + 1 : n); ++j) {
        f(i * n + j);
      }
    }
  }

  // The part of `images` at a tile: its own pixels, or those that they are made of.
  [[nodiscard]] WinogradSource source(const WinogradImages& images, std::ptrdiff_t tile, bool reads_around) const {
    const std::ptrdiff_t step = step_of(reads_around);
    const std::ptrdiff_t h = tile / columns % rows * step - (reads_around ? pad_h : 0);
    const std::ptrdiff_t w = tile % columns * step - (reads_around ? pad_w : 0);
    const std::ptrdiff_t image = tile / columns / rows;
    const auto clamped = [&](std::ptrdiff_t i) {
      return static_cast<int>(std::clamp<std::ptrdiff_t>(i, 0, extent_of(reads_around)));
    };
    return {.x = images.data + image * images.stride_n + h * images.stride_h + w * images.stride_w,
            .stride_h = images.stride_h,
            .stride_w = images.stride_w,
            .h_begin = clamped(-h),
            .h_end = clamped(images.h - h),
            .w_begin = clamped(-w),
            .w_end = clamped(images.w - w)};
  }
};

// Memory of some tiles' pixels, line by line as it lies, asked for a few lines of memory at a turn while products are
// computed: transforms wait for memory that products have no use for.
class TilesAhead {
 public:
  enum class Use {
    read_around,  // what the tiles read and those above them do not
    read,         // their own pixels
    write
  };

  TilesAhead(const TileGrid& grid, const WinogradImages& images, Use use, std::ptrdiff_t first, std::ptrdiff_t count,
             std::ptrdiff_t n_turns)
      : grid_(grid),
        images_(images),
        use_(use),
        tile_(first),
        end_(std::min(first + count, grid.n_tiles)),
        step_(use == Use::read_around ? grid.in_step : grid.out_step),
        n_each_(ceil_div(count * step_ * step_ * images.c, n_turns * kWinogradLine)) {
    find();
  }

  // n turns at once. What `tail` reads at those pixels is asked for with them.
  void turn(std::ptrdiff_t n = 1, const GemmTail* tail = nullptr) {
    for (std::ptrdiff_t i = 0; i < n * n_each_ && at_ < line_end_; ++i) {
      if (use_ == Use::write) {
        __builtin_prefetch(at_, 1);
      } else {
        __builtin_prefetch(at_);
      }
      if (tail != nullptr && tail->adds) {
        __builtin_prefetch(at_ + tail->addend);
      }
      if (tail != nullptr && tail->gates) {
        __builtin_prefetch(at_ + tail->gate);
      }
      at_ += kWinogradLine;
      if (at_ >= line_end_) {
        ++row_;
        find();
      }
    }
  }

 private:
  // The line of pixels at row_ of the tiles from tile_ to the end of their line, or the next that there is.
  void find() {
    at_ = line_end_ = nullptr;
    const std::ptrdiff_t around = use_ == Use::read_around ? grid_.extent - grid_.in_step - grid_.pad_h : 0;
    while (tile_ < end_) {
      const std::ptrdiff_t column = tile_ % grid_.columns;
      const std::ptrdiff_t n = std::min(grid_.columns - column, end_ - tile_);
      for (; row_ < step_; ++row_) {
        const std::ptrdiff_t h = tile_ / grid_.columns % grid_.rows * step_ + around + row_;
        const std::ptrdiff_t w = column * step_;
        if (h < 0 || h >= images_.h || w >= images_.w) {
          continue;
        }
        const float* const line =
            images_.data + tile_ / grid_.columns / grid_.rows * images_.stride_n + h * images_.stride_h;
        at_ = line + w * images_.stride_w;
        line_end_ = line + std::min(w + n * step_, images_.w) * images_.stride_w;
        return;
      }
      tile_ += n;
      row_ = 0;
    }
  }

  const TileGrid& grid_;
  const WinogradImages& images_;
  Use use_;
  std::ptrdiff_t tile_;
  std::ptrdiff_t end_;
  std::ptrdiff_t row_ = 0;  // of tile_
  std::ptrdiff_t step_;     // pixels of a tile's side
  std::ptrdiff_t n_each_;   // lines of memory a turn
  const float* at_ = nullptr;
  const float* line_end_ = nullptr;
};

// Rows of one plane.
struct PlaneRows {
  float* data;
  std::ptrdiff_t row;
};

// side² planes of rows, one row of channels a tile.
struct Planes {
  float* data;
  std::ptrdiff_t row;
  std::ptrdiff_t plane;
  int side;

  // Those that begin so many values further on.
  [[nodiscard]] Planes from(std::ptrdiff_t values) const {
    return {.data = data + values, .row = row, .plane = plane, .side = side};
  }
  [[nodiscard]] PlaneRows rows(std::ptrdiff_t point) const { return {.data = data + point * plane, .row = row}; }
  [[nodiscard]] WinogradTarget target(std::ptrdiff_t tile) const {
    return {.y = data + tile * row,
            .stride_h = side * plane,
            .stride_w = plane,
            .h_end = side,
            .w_end = side,
            .holds_vectors = true,
            .bias = nullptr,
            .clamps = false,
            .lo = 0,
            .hi = 0};
  }
  [[nodiscard]] WinogradSource source(std::ptrdiff_t tile) const {
    return {.x = data + tile * row,
            .stride_h = side * plane,
            .stride_w = plane,
            .h_begin = 0,
            .h_end = side,
            .w_begin = 0,
            .w_end = side};
  }
};

// Tiles first … first + count − 1 become rows of planes.
inline void to_planes(WinogradTransform transform, const TileGrid& grid, const WinogradImages& images, bool reads_around,
                      std::ptrdiff_t first, std::ptrdiff_t count, const Planes& planes, std::ptrdiff_t row) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    transform(grid.source(images, first + i, reads_around), planes.target(row + i), images.c);
  }
}

// As many groups at a time as have `channels`: then rows of planes are short, and many tiles are near at once, for products
// of few channels.
inline Partition chunks_of(std::ptrdiff_t groups, std::ptrdiff_t channels, const WinogradImages& x,
                           const WinogradImages& y) {
  return {groups, std::max<std::ptrdiff_t>(1, channels * groups / std::max(x.c, y.c))};
}

// The channels of groups [begin, end) of `groups`.
inline WinogradImages slice(const WinogradImages& images, std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t groups) {
  WinogradImages part = images;
  part.data += begin * images.c / groups;
  part.c = (end - begin) * images.c / groups;
  return part;
}

}  // namespace striate
