// Where a product finds its rows and writes them: pointers for the taps of each, and lines whose rows are evenly spaced.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "ops/indirect.hpp"

namespace striate {

// The pointers of a Gather's taps, with what can be known once per call.
template <class T>
class Pointers {
 public:
  // A tap reads k values.
  Pointers(const Gather<T>& gather, std::ptrdiff_t k)
      : is_padded_(gather.is_padded()), n_words_(ceil_div(static_cast<std::ptrdiff_t>(gather.taps.size()), kWordBits)) {
    for (const Position& tap : gather.taps) {
      offset_.push_back(tap[0] * gather.stride[0] + tap[1] * gather.stride[1] + tap[2] * gather.stride[2]);
    }
    // The taps of a kernel's line, whose pixels are neighbours.
    const auto follows = [&](std::size_t t) {
      return gather.taps[t][0] == gather.taps[t - 1][0] && gather.taps[t][1] == gather.taps[t - 1][1] &&
             offset_[t] == offset_[t - 1] + k;
    };
    std::size_t run = 1;
    while (run < offset_.size() && follows(run)) {
      ++run;
    }
    bool all_run = n_words_ == 1 && offset_.size() % run == 0;
    for (std::size_t t = 1; t < offset_.size(); ++t) {
      all_run = all_run && (t % run == 0 || follows(t));
    }
    run_ = all_run ? static_cast<int>(run) : 1;
    for (std::size_t t = 0; t < offset_.size() && run_ > 1; ++t) {
      all_ |= std::uint64_t{1} << t;
      is_inner_ |= std::uint64_t{t % run == 0 ? 0U : 1U} << t;
    }
    for (std::size_t t = 0; t < offset_.size(); t += static_cast<std::size_t>(run_)) {
      line_offsets_.push_back(offset_[t]);
    }
    for (std::size_t axis = 0; axis < 3 && is_padded_; ++axis) {
      inside_[axis].assign(static_cast<std::size_t>(gather.grid[axis] * n_words_), ~std::uint64_t{0});
      for (std::size_t t = 0; t < offset_.size(); ++t) {
        const auto position = [&](std::ptrdiff_t i) { return i * gather.step[axis] + gather.taps[t][axis]; };
        const auto leave_out = [&](std::ptrdiff_t i) {
          inside_[axis][static_cast<std::size_t>(i * n_words_) + t / kWordBits] &= ~(std::uint64_t{1} << t % kWordBits);
        };
        for (std::ptrdiff_t i = 0; i < gather.grid[axis] && position(i) < 0; ++i) {
          leave_out(i);
        }
        for (std::ptrdiff_t i = gather.grid[axis] - 1; i >= 0 && position(i) >= gather.in[axis]; --i) {
          leave_out(i);
        }
      }
    }
    find_inner(gather);
  }

  [[nodiscard]] bool is_padded() const { return is_padded_; }

  // Positions [begin, end) of a line that lie so far from its ends that all taps along it are inside.
  struct Range {
    std::ptrdiff_t begin;
    std::ptrdiff_t end;
  };
  [[nodiscard]] Range inner() const { return inner_; }

  // How many of the taps are inside for a whole line, on average over lines. Where all of them are flat.
  [[nodiscard]] double share_inside() const {
    if (!is_padded_) {
      return 1;
    }
    double n_inside = 0;
    for (const std::uint64_t inside : inside_[1]) {
      for (std::size_t t = 0; t < offset_.size(); ++t) {
        n_inside += (inside >> t & 1U) != 0 ? 1 : 0;
      }
    }
    return n_inside / static_cast<double>(inside_[1].size() * offset_.size());
  }

  // What those positions of a line read: taps from `first` on, at these offsets, of which each stands for `run` neighbours.
  struct LineTaps {
    std::ptrdiff_t first = 0;
    std::ptrdiff_t n = 0;
    int run = 0;
    const std::ptrdiff_t* offsets = nullptr;
  };
  [[nodiscard]] LineTaps taps_of_line(const Position& at) const {
    const auto n_taps = static_cast<std::ptrdiff_t>(offset_.size());
    std::ptrdiff_t first = 0;
    std::ptrdiff_t end = n_taps;
    if (is_padded_) {
      const std::uint64_t inside = inside_[0][static_cast<std::size_t>(at[0])] & inside_[1][static_cast<std::size_t>(at[1])];
      const auto is_inside = [&](std::ptrdiff_t t) { return (inside >> static_cast<unsigned>(t) & 1U) != 0; };
      while (first < end && !is_inside(first)) {
        ++first;
      }
      while (end > first && !is_inside(end - 1)) {
        --end;
      }
    }
    return {.first = first, .n = (end - first) / run_, .run = run_, .offsets = line_offsets_.data() + first / run_};
  }

  // a[t·rows + m] for the rows of grid index at[m] whose tap of offset 0 is base[m]. A tap that is outside for all rows
  // starts with null and is skipped. Returns how many taps one pointer stands for: neighbours are read as one where all of
  // them are inside, or none is.
  int fill(const T* const* base, const Position* at, int rows, const T* zero, const T** a) const {
    const std::size_t n_taps = offset_.size();
    if (!is_padded_) {
      for (std::size_t t = 0; t < n_taps; t += static_cast<std::size_t>(run_)) {
        for (int m = 0; m < rows; ++m) {
          *a++ = base[m] + offset_[t];
        }
      }
      return run_;
    }
    int run = run_;
    for (std::ptrdiff_t word = 0; word < n_words_; ++word) {
      std::uint64_t inside[kMaxTileRows];
      std::uint64_t every = ~std::uint64_t{0};
      std::uint64_t any = 0;
      for (int m = 0; m < rows; ++m) {
        inside[m] = ~std::uint64_t{0};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          inside[m] &= inside_[axis][static_cast<std::size_t>(at[m][axis] * n_words_ + word)];
        }
        every &= inside[m];
        any |= inside[m];
      }
      const std::size_t first = static_cast<std::size_t>(word) * kWordBits;
      // Rows differ in a tap, or taps of a line do.
      if (run > 1 && (((any ^ every) | ((every ^ (every << 1U)) & is_inner_)) & all_) != 0) {
        run = 1;
      }
      for (std::size_t t = first; t < std::min(n_taps, first + kWordBits); t += static_cast<std::size_t>(run), a += rows) {
        const std::uint64_t bit = std::uint64_t{1} << (t - first);
        if ((every & bit) != 0) {
          for (int m = 0; m < rows; ++m) {
            a[m] = base[m] + offset_[t];
          }
        } else if ((any & bit) == 0) {
          a[0] = nullptr;
        } else {
          for (int m = 0; m < rows; ++m) {
            a[m] = (inside[m] & bit) != 0 ? base[m] + offset_[t] : zero;
          }
        }
      }
    }
    return run;
  }

 private:
  static constexpr std::ptrdiff_t kWordBits = 64;

  // Nothing where taps are many, or along more than one axis besides the line's.
  void find_inner(const Gather<T>& gather) {
    inner_ = {.begin = 0, .end = gather.grid[2]};
    if (!is_padded_) {
      return;
    }
    const bool is_flat =
        std::all_of(gather.taps.begin(), gather.taps.end(), [](const Position& tap) { return tap[0] == 0; });
    if (n_words_ > 1 || !is_flat) {
      inner_.end = 0;
      return;
    }
    const auto is_inner = [&](std::ptrdiff_t i) { return inside_[2][static_cast<std::size_t>(i)] == ~std::uint64_t{0}; };
    while (inner_.begin < inner_.end && !is_inner(inner_.begin)) {
      ++inner_.begin;
    }
    while (inner_.end > inner_.begin && !is_inner(inner_.end - 1)) {
      --inner_.end;
    }
  }

  bool is_padded_;
  std::ptrdiff_t n_words_;
  int run_ = 1;                 // taps that are neighbours
  std::uint64_t all_ = 0;       // a bit for each tap
  std::uint64_t is_inner_ = 0;  // for each that follows one of its line
  std::vector<std::ptrdiff_t> offset_;
  std::vector<std::ptrdiff_t> line_offsets_;  // of every run_-th tap
  Range inner_{};
  std::array<std::vector<std::uint64_t>, 3> inside_;  // of an axis, [grid index][word]: a bit for each tap inside along it
};

// Walks the rows of a product in order.
template <class T>
class RowWalk {
 public:
  RowWalk(const Gemm<T>& gemm, std::ptrdiff_t row) : gemm_(gemm), index_(row, gemm.a.grid) { find(); }

  // The next n rows: where a tap at 0 is read, where the result goes, and, unless null, their grid index. Line by line: row
  // by row took a third of the time of a convolution with few channels.
  void take(int n, const T** x, T** y, Position* at) {
    const std::ptrdiff_t x_step = gemm_.a.step[2] * gemm_.a.stride[2];
    const std::ptrdiff_t y_step = gemm_.y.stride[2];
    for (int m = 0; m < n;) {
      const int in_line = static_cast<int>(std::min<std::ptrdiff_t>(n - m, n_in_line()));
      for (int r = 0; r < in_line; ++r) {
        x[m + r] = x_ + r * x_step;
        y[m + r] = y_ + r * y_step;
      }
      for (int r = 0; at != nullptr && r < in_line; ++r) {
        at[m + r] = {index_.i[0], index_.i[1], index_.i[2] + r};
      }
      m += in_line;
      pass(in_line);
    }
  }

  // The row that comes next, and how many there are from it on to the end of its line.
  [[nodiscard]] const T* x() const { return x_; }
  [[nodiscard]] T* y() const { return y_; }
  [[nodiscard]] std::ptrdiff_t n_in_line() const { return gemm_.a.grid[2] - index_.i[2]; }
  [[nodiscard]] const Position& at() const { return index_.i; }

  // Leaves behind n rows of one line.
  void pass(std::ptrdiff_t n) {
    index_.i[2] += n;
    if (index_.i[2] < gemm_.a.grid[2]) {
      x_ += n * gemm_.a.step[2] * gemm_.a.stride[2];
      y_ += n * gemm_.y.stride[2];
    } else {
      index_.i[2] = gemm_.a.grid[2] - 1;
      index_.next(gemm_.a.grid);
      find();
    }
  }

 private:
  void find() {
    x_ = gemm_.a.x + index_.n * gemm_.a.stride_n;
    y_ = gemm_.y.y + index_.n * gemm_.y.stride_n;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      x_ += index_.i[axis] * gemm_.a.step[axis] * gemm_.a.stride[axis];
      y_ += index_.i[axis] * gemm_.y.stride[axis];
    }
  }

  const Gemm<T>& gemm_;
  RowIndex index_;
  const T* x_ = nullptr;
  T* y_ = nullptr;
};

}  // namespace striate
