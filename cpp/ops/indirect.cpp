#include "ops/indirect.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/row_walk.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr double kLeastTaskFlops = 5e5;   // below this a thread costs more than it brings
constexpr double kMostTaskFlops = 1.6e7;  // above this the last task of a thread leaves the others waiting
constexpr double kTasksAimed = 64;
constexpr std::ptrdiff_t kMostGroup = 8;
constexpr std::ptrdiff_t kSummedValues = 8192;  // of rows that are told of at once

// How the rows and columns of one product are cut into tasks: a function of geometry and cache sizes.
struct Blocking {
  std::ptrdiff_t rows;    // of a task
  std::ptrdiff_t panels;  // of a task
  std::ptrdiff_t n_row_blocks;
  std::ptrdiff_t n_panel_blocks;
  std::ptrdiff_t group;  // tiles that take a panel in turn
  std::ptrdiff_t made;   // rows that a source makes at a time
};

// Rows of whole lines that fill tiles well, in a quarter of L2; where a row is a line, those of a group of tiles.
template <class T>
std::ptrdiff_t rows_at_a_time(const RowSource<T>& source, const Packed<T>& b, std::ptrdiff_t tile_rows, std::ptrdiff_t group,
                              std::ptrdiff_t most) {
  constexpr double kFull = 0.97;
  const std::ptrdiff_t line = source.line();
  if (line == 1) {
    return group * tile_rows;
  }
  const std::ptrdiff_t line_bytes = line * b.k * static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t fit = std::clamp<std::ptrdiff_t>(
      std::min(cache_sizes().l2_bytes / 4 / std::max<std::ptrdiff_t>(1, line_bytes), most / line), 1, tile_rows);
  std::ptrdiff_t best = 1;
  double fullest = 0;
  for (std::ptrdiff_t n = 1; n <= fit && fullest < kFull; ++n) {
    const double full = static_cast<double>(n * line) / static_cast<double>(round_up(n * line, tile_rows));
    if (full > fullest) {
      best = n;
      fullest = full;
    }
  }
  return best * line;
}

template <class T>
Blocking choose_blocking(const Gemm<T>& gemm, std::ptrdiff_t n_products, std::ptrdiff_t tile_rows) {
  const std::ptrdiff_t n_rows = gemm.a.n_rows();
  const Packed<T>& b = *gemm.b;
  const std::ptrdiff_t panel_bytes = b.n_taps * b.k * b.panel * static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t fit =
      std::max<std::ptrdiff_t>(1, cache_sizes().l2_bytes / 2 / std::max<std::ptrdiff_t>(1, panel_bytes));
  const std::ptrdiff_t n_panel_blocks = ceil_div(b.n_panels, fit);
  const std::ptrdiff_t panels = ceil_div(b.n_panels, n_panel_blocks);
  const std::ptrdiff_t columns = std::min(panels * b.panel, round_up(b.columns, b.width));
  const double row_flops = 2.0 * static_cast<double>(b.n_taps * b.k * columns);
  const double total = row_flops * static_cast<double>(n_rows * n_panel_blocks * n_products);
  // What is too little for two tasks is one: a short second task brings nothing.
  const double aimed =
      total < 2 * kLeastTaskFlops ? total : std::clamp(total / kTasksAimed, kLeastTaskFlops, kMostTaskFlops);
  const double wanted = std::min(aimed / std::max(row_flops, 1.0), static_cast<double>(n_rows));
  std::ptrdiff_t rows = std::clamp<std::ptrdiff_t>(round_up(static_cast<std::ptrdiff_t>(wanted), tile_rows), tile_rows,
                                                   round_up(n_rows, tile_rows));
  // A panel that fits into half of L1 is used by as many tiles as have their rows in the other half.
  const std::ptrdiff_t half_l1 = cache_sizes().l1_bytes / 2;
  const std::ptrdiff_t tile_bytes = tile_rows * b.n_taps * b.k * static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t group =
      panel_bytes <= half_l1 ? std::clamp<std::ptrdiff_t>(half_l1 / std::max<std::ptrdiff_t>(1, tile_bytes), 1, kMostGroup)
                             : 1;
  std::ptrdiff_t made = rows;
  if (gemm.source != nullptr) {
    made = rows_at_a_time(*gemm.source, b, tile_rows, group, rows);
    rows = round_up(rows, made);
  }
  return {.rows = rows,
          .panels = panels,
          .n_row_blocks = ceil_div(n_rows, rows),
          .n_panel_blocks = ceil_div(b.n_panels, panels),
          .group = group,
          .made = made};
}

template <class T>
struct Task {
  const Gemm<T>& gemm;
  const Pointers<T>& pointers;
  const T* zero;
  std::ptrdiff_t row_begin;
  std::ptrdiff_t row_end;
  std::ptrdiff_t panel_begin;
  std::ptrdiff_t panel_end;
  std::ptrdiff_t group;        // tiles that take a panel in turn while it is in L1
  const T** pointers_scratch;  // group · n_taps · tile rows
  std::ptrdiff_t made;         // rows that a source makes at a time
  T* made_scratch;             // made · k
};

// Whether a product's result is stored past the caches: it is larger than they are and consists of whole lines (past L2 but
// not L3, the depthwise layer after it took 650 µs for 150). Such stores need no fence of their own: a task ends with the
// atomic that claims the next one, which on x86 drains them.
template <class T>
bool streams(const Gemm<T>& gemm) {
  constexpr std::ptrdiff_t line = kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));
  const Scatter<T>& y = gemm.y;
  return gemm.tail.finish == nullptr &&
         gemm.a.n_rows() * gemm.b->columns * static_cast<std::ptrdiff_t>(sizeof(T)) > kStreamBytes &&
         reinterpret_cast<std::uintptr_t>(y.y) % kAlignment == 0 && y.stride_n % line == 0 && y.stride[0] % line == 0 &&
         y.stride[1] % line == 0 && y.stride[2] % line == 0 && gemm.b->columns % line == 0;
}

// Asks for the rows of the next tiles while tiles are computed, a few lines a call: tile by tile and panel by panel, they
// are read and written in more pieces than a processor sees ahead by itself. From memory (Zen 4, AVX2), 256 → 64 channels at
// 56×56 take 0.8 of the time, 256 → 512 at 28×28 0.96, 2×2 of stride 2 with 32 and 64 channels 0.84; from the caches 1.00 to
// 1.03. Where pixels do not follow one another, nothing is asked for.
template <class T>
class Asking {
 public:
  Asking(const Gemm<T>& gemm, const Pointers<T>& pointers, bool streams, std::ptrdiff_t panel_begin,
         std::ptrdiff_t panel_end)
      : lines_(lines_read(gemm, pointers)),
        x_bytes_(gemm.b->k * lines_.run * kBytes),
        y_first_(panel_begin * gemm.b->panel * kBytes),
        y_bytes_(std::min(gemm.b->columns, panel_end * gemm.b->panel) * kBytes - y_first_),
        y_gap_(gemm.b->columns * kBytes - y_bytes_),
        asks_y_(!streams) {
    if (gemm.tail.adds) {
      sides_[n_sides_++] = gemm.tail.addend * kBytes;
    }
    if (gemm.tail.gates) {
      sides_[n_sides_++] = gemm.tail.gate * kBytes;
    }
    // Rows in pieces alone are not worth it (256 → 1024 at 14×14 from the caches 1.05 of the time, in ResNet-50's step 1.0;
    // with an addend and a gate, there, 0.93).
    if (gemm.y.stride[2] != gemm.b->columns || (n_sides_ == 0 && (streams || y_gap_ > 0))) {
      y_bytes_ = 0;
    }
  }

  // n_rows from x and y on, in n_steps.
  void start(const T* x, const T* y, std::ptrdiff_t n_rows, std::ptrdiff_t n_steps) {
    start({x, n_rows * x_bytes_}, y, n_rows, n_steps);
  }
  void start(const Piece& x, const T* y, std::ptrdiff_t n_rows, std::ptrdiff_t n_steps) {
    x_ = static_cast<const char*>(x.begin);
    y_ = reinterpret_cast<const char*>(y) + y_first_;
    y_end_ = y_ + (y_gap_ == 0 ? n_rows : 1) * y_bytes_;
    n_x_ = ceil_div(x.n_bytes, n_steps * kAlignment);
    n_y_ = ceil_div(n_rows * y_bytes_, n_steps * kAlignment);
  }

  // Tiles that may follow one another: what they ask for is asked for in front of them all. (16 → 64 channels at 55×55, two
  // threads, AVX2: 0.89 of the time with 12 lines at once, 0.83 with 48 or 96, over one tile after another.)
  [[nodiscard]] std::ptrdiff_t tiles_at_once() const {
    constexpr std::ptrdiff_t kLinesAtOnce = 48;
    const std::ptrdiff_t lines = (are_many() ? 0 : n_x_ * lines_.n) + n_y_ * (n_sides_ + (asks_y_ ? 1 : 0));
    return lines == 0 ? kMostGroup : std::max<std::ptrdiff_t>(1, kLinesAtOnce / lines);
  }

  // Before n_tiles, for all they ask for.
  void step(std::ptrdiff_t n_tiles) {
    for (std::ptrdiff_t i = 0; i < n_tiles * n_x_; ++i, x_ += kAlignment) {
      for (std::ptrdiff_t line = 0; line < lines_.n; ++line) {
        __builtin_prefetch(x_ + lines_.offsets[line] * kBytes);
      }
    }
    ask_for_results(n_tiles);
  }

  // Before n_tiles. Many lines are left to the tiles themselves with this epilogue, which go over n_k values of a row: in
  // front of them they would hold up their own reads. (From memory, two threads of a Zen 4, AVX2: 96 → 16 channels at
  // 112×112 0.7 of the time, 144 → 24 at 56×56 0.76, 256 → 64 at 56×56 0.89, 1024 → 256 at 14×14 0.95. A few lines in the
  // tile: 24 → 144 1.07.) Returns whether they are many.
  [[nodiscard]] bool step(Epilogue<T>& epilogue, std::ptrdiff_t n_k, std::ptrdiff_t n_tiles) {
    if (!are_many()) {
      step(n_tiles);
      return false;
    }
    epilogue.ahead = x_;
    epilogue.ahead_step = ceil_div(2 * n_x_ * kAlignment, n_k);
    x_ += n_tiles * n_x_ * kAlignment;
    ask_for_results(n_tiles);
    return true;
  }

 private:
  static constexpr auto kBytes = static_cast<std::ptrdiff_t>(sizeof(T));

  void ask_for_results(std::ptrdiff_t n_tiles) {
    for (std::ptrdiff_t i = 0; i < n_tiles * n_y_; ++i) {
      if (asks_y_) {
        __builtin_prefetch(y_, 1);
      }
      for (int side = 0; side < n_sides_; ++side) {
        __builtin_prefetch(y_ + sides_[side]);
      }
      y_ += kAlignment;
      if (y_ >= y_end_) {
        y_ = y_end_ + y_gap_;
        y_end_ = y_ + y_bytes_;
      }
    }
  }

  [[nodiscard]] bool are_many() const { return lines_.n == 1 && n_x_ > kFewLines; }

  // The lines that rows read, where the values of one follow those of the row before and lines are few; else none. A source
  // says itself what it reads.
  static typename Pointers<T>::LineTaps lines_read(const Gemm<T>& gemm, const Pointers<T>& pointers) {
    constexpr std::ptrdiff_t kMostLines = 2;
    static constexpr std::ptrdiff_t kThere = 0;
    if (gemm.source != nullptr) {
      return {.n = 1, .run = 1, .offsets = &kThere};
    }
    if (pointers.is_padded() && gemm.a.taps.size() > 1) {
      return {};
    }
    const auto lines = pointers.taps_of_line({});
    const bool follow = gemm.a.step[2] * gemm.a.stride[2] == gemm.b->k * lines.run;
    return follow && lines.n <= kMostLines ? lines : typename Pointers<T>::LineTaps{};
  }

  typename Pointers<T>::LineTaps lines_;
  std::ptrdiff_t x_bytes_;  // of a row
  std::ptrdiff_t y_first_;  // bytes to the task's columns,
  std::ptrdiff_t y_bytes_;  // of these in a row,
  std::ptrdiff_t y_gap_;    // and from their end to those of the next row
  bool asks_y_;
  std::ptrdiff_t sides_[2] = {};  // bytes from a place of y to what the tail reads there
  int n_sides_ = 0;
  std::ptrdiff_t n_x_ = 0;  // lines of a step
  std::ptrdiff_t n_y_ = 0;
  const char* x_ = nullptr;
  const char* y_ = nullptr;
  const char* y_end_ = nullptr;  // of the columns of y_'s row
};

// Panels from p on, before `end`, that a row may take at once: those padded to full width.
template <class T>
std::ptrdiff_t full_panels(const Packed<T>& b, std::ptrdiff_t p, std::ptrdiff_t end) {
  std::ptrdiff_t n = 1;
  while (n < kMaxRowPanels && p + n < end && b.panel_columns(p + n) == b.panel) {
    ++n;
  }
  return n;
}

// Rows of the tile that a product of these columns goes by.
template <class T>
std::ptrdiff_t tile_rows(const GemmKernels<T>& kernel, const Packed<T>& b) {
  return b.columns <= b.width ? kernel.narrow_rows : kernel.rows;
}

// Whether rows are evenly spaced along lines whose last tile costs less than strips save: about four values of k a tile, and
// the taps that lie outside for a whole line. Where lines have edges, whose few rows go by themselves, only long ones are
// worth it.
template <class T>
bool goes_by_strips(const Task<T>& task, std::ptrdiff_t tile_rows) {
  constexpr double kSaved = 4;
  constexpr std::ptrdiff_t kLongLine = 8;  // tiles
  const Packed<T>& b = *task.gemm.b;
  if (b.n_taps > 1 && 2 * b.columns <= b.width) {
    return false;  // strips of several taps have no kernel of half vectors
  }
  const auto [begin, end] = task.pointers.inner();
  if (task.pointers.is_padded() && !b.is_finite) {
    return false;
  }
  if (end - begin < task.gemm.a.grid[2]) {
    return end - begin >= kLongLine * tile_rows;
  }
  const auto k = static_cast<double>(b.n_taps * b.k);
  return static_cast<double>(round_up(end, tile_rows)) * k * task.pointers.share_inside() <=
         static_cast<double>(end) * (k + kSaved);
}

template <class T>
class TaskRun {
 public:
  TaskRun(const Task<T>& task, const GemmKernels<T>& kernel)
      : task_(task),
        kernel_(kernel),
        walk_(task.gemm, task.row_begin),
        told_(task.row_begin),
        epilogue_{.bias = nullptr,
                  .clamps = tail().clamps,
                  .streams = tail().sums == nullptr && streams(task.gemm),
                  .lo = static_cast<T>(tail().lo),
                  .hi = static_cast<T>(tail().hi),
                  .adds = tail().adds,
                  .addend = tail().addend,
                  .gates = tail().gates,
                  .gate = tail().gate},
        asking_(task.gemm, task.pointers, epilogue_.streams, task.panel_begin, task.panel_end),
        goes_by_strips_(goes_by_strips(task, tile_rows(kernel, *task.gemm.b))),
        has_one_tap_(task.gemm.a.taps.size() == 1 && task.gemm.a.taps[0] == Position{0, 0, 0} &&
                     !task.pointers.is_padded()) {}

  void run() {
    const RowSource<T>* const source = task_.gemm.source;
    if (source == nullptr) {
      multiply(task_.row_begin, task_.row_end, {});
      return;
    }
    for (std::ptrdiff_t begin = task_.row_begin; begin < task_.row_end; begin += task_.made) {
      const std::ptrdiff_t end = std::min(task_.row_end, begin + task_.made);
      source->make(begin, end, task_.made_scratch);
      // The next task's rows, too, mostly are the same worker's.
      const std::ptrdiff_t n_rows = task_.gemm.a.n_rows();
      multiply(begin, end, end < n_rows ? source->ahead(end, std::min(n_rows, end + task_.made)) : Piece{});
    }
  }

 private:
  struct Tile {
    int rows;
    int run;  // taps that a pointer stands for
    T** y;
  };

  [[nodiscard]] const GemmTail& tail() const { return task_.gemm.tail; }
  [[nodiscard]] std::ptrdiff_t n_panels() const { return task_.panel_end - task_.panel_begin; }

  // Asks for the rows after a group of tiles, one of n_groups; `next` is what the source, where there is one, reads for
  // them.
  void ask_for(const Piece& next, std::ptrdiff_t group, std::ptrdiff_t n_groups, std::ptrdiff_t next_rows,
               std::ptrdiff_t n_tiles) {
    if (task_.gemm.source == nullptr) {
      asking_.start(walk_.x(), walk_.y(), next_rows, n_tiles * n_panels());
    } else {
      asking_.start(share(next, group, n_groups), walk_.y(), next_rows, n_tiles * n_panels());
    }
  }

  // Rows [begin, end), all at once.
  void multiply(std::ptrdiff_t begin, std::ptrdiff_t end, const Piece& next) {
    if (!goes_by_strips_ || end - begin == 1) {
      multiply_tiles(begin, begin, end, end, next);
      return;
    }
    const auto inner = task_.pointers.inner();
    for (std::ptrdiff_t done = begin; done < end;) {
      const std::ptrdiff_t at = walk_.at()[2];
      const bool is_inner = at >= inner.begin && at < inner.end;
      // The end of a line goes with the beginning of the next.
      const std::ptrdiff_t to_inner = inner.begin - at + (at < inner.begin ? 0 : task_.gemm.a.grid[2]);
      const std::ptrdiff_t left = is_inner ? inner.end - at : to_inner;
      const std::ptrdiff_t n = std::min(end - done, left);
      if (is_inner) {
        multiply_line(begin, done, done + n, end, next);
      } else {
        multiply_tiles(begin, done, done + n, end, next);
      }
      done += n;
    }
  }

  // Rows [done, until) of rows [begin, end), found by pointers.
  void multiply_tiles(std::ptrdiff_t begin, std::ptrdiff_t done, std::ptrdiff_t until, std::ptrdiff_t end,
                      const Piece& next) {
    const Packed<T>& b = *task_.gemm.b;
    // Where a zero stands for a padded tap, the weight must be finite; else rows go one by one, without their padded taps.
    const bool one_by_one = !b.is_finite && task_.pointers.is_padded();
    const std::ptrdiff_t most_rows = one_by_one ? 1 : tile_rows(kernel_, b);
    const std::ptrdiff_t n_rows = until - done;
    const std::ptrdiff_t n_tiles = ceil_div(n_rows, most_rows);
    // Tiles of nearly equal height: a short last tile would waste the registers.
    const std::ptrdiff_t height = n_rows / n_tiles;
    const std::ptrdiff_t n_higher = n_rows % n_tiles;
    const std::ptrdiff_t n_pointers = b.n_taps * tile_rows(kernel_, b);
    Tile tiles[kMostGroup];
    T* y[kMostGroup * kMaxTileRows];
    for (std::ptrdiff_t first = 0; first < n_tiles; first += task_.group) {
      const std::ptrdiff_t n_group = std::min(n_tiles - first, task_.group);
      const std::ptrdiff_t group_begin = done;
      for (std::ptrdiff_t t = 0; t < n_group; ++t) {
        Tile& tile = tiles[t];
        tile.rows = static_cast<int>(height + (first + t < n_higher ? 1 : 0));
        tile.y = y + (done - group_begin);
        const T* base[kMaxTileRows];
        Position at[kMaxTileRows];
        walk_.take(tile.rows, base, tile.y, task_.pointers.is_padded() ? at : nullptr);
        if (task_.gemm.source != nullptr) {
          for (int m = 0; m < tile.rows; ++m) {
            base[m] = task_.made_scratch + (done - begin + m) * b.k;
          }
        }
        tile.run = task_.pointers.fill(base, at, tile.rows, task_.zero, task_.pointers_scratch + t * n_pointers);
        done += tile.rows;
      }
      ask_for(next, first / task_.group, ceil_div(n_tiles, task_.group), std::min(end - done, n_group * (height + 1)),
              n_group);
      multiply_group(tiles, n_group);
      finish([&](std::ptrdiff_t m) { return y[m]; }, done - group_begin, done);
    }
  }

  // Likewise, evenly spaced rows of one line.
  void multiply_line(std::ptrdiff_t begin, std::ptrdiff_t done, std::ptrdiff_t until, std::ptrdiff_t end,
                     const Piece& next) {
    const Gemm<T>& gemm = task_.gemm;
    const Packed<T>& b = *gemm.b;
    const bool is_made = gemm.source != nullptr;
    const auto taps = task_.pointers.taps_of_line(walk_.at());
    const std::ptrdiff_t most_rows = tile_rows(kernel_, b);
    const std::ptrdiff_t n_tiles = ceil_div(until - done, most_rows);
    const std::ptrdiff_t height = (until - done) / n_tiles;
    const std::ptrdiff_t n_higher = (until - done) % n_tiles;
    for (std::ptrdiff_t first = 0; first < n_tiles; first += task_.group) {
      const std::ptrdiff_t n_group = std::min(n_tiles - first, task_.group);
      const std::ptrdiff_t higher = std::clamp<std::ptrdiff_t>(n_higher - first, 0, n_group);
      const std::ptrdiff_t group_rows = n_group * height + higher;
      const T* const x = is_made ? task_.made_scratch + (done - begin) * b.k : walk_.x();
      T* const y = walk_.y();
      const std::ptrdiff_t n_groups = ceil_div(end - begin, task_.group * most_rows);
      const std::ptrdiff_t group = (done - begin) * n_groups / (end - begin);
      walk_.pass(group_rows);
      done += group_rows;
      ask_for(next, group, n_groups, std::min(end - done, n_group * (height + 1)), n_group);
      for (std::ptrdiff_t p = task_.panel_begin; p < task_.panel_end; ++p) {
        Strip<T> strip{.x = x,
                       .x_step = is_made ? b.k : gemm.a.step[2] * gemm.a.stride[2],
                       .k = b.k * taps.run,
                       .y = y + p * b.panel,
                       .y_step = gemm.y.stride[2],
                       .n_tiles = 0,
                       .taps = taps.offsets,
                       .n_taps = taps.n};
        const T* const panel = b.panel_data(p) + taps.first * b.k * b.panel_columns(p);
        multiply_strip(strip, height + 1, higher, p, panel);
        multiply_strip(strip, height, n_group - higher, p, panel);
      }
      finish([&](std::ptrdiff_t m) { return y + m * gemm.y.stride[2]; }, group_rows, done);
    }
  }

  // n_tiles of `rows`, which are left behind.
  void multiply_strip(Strip<T>& strip, std::ptrdiff_t rows, std::ptrdiff_t n_tiles, std::ptrdiff_t p, const T* panel) {
    const Packed<T>& b = *task_.gemm.b;
    const std::ptrdiff_t column = p * b.panel;
    const auto vectors = static_cast<std::size_t>(b.panel_columns(p) / b.width);
    if (tail().bias != nullptr) {
      epilogue_.bias = static_cast<const T*>(tail().bias) + column;
    }
    for (; n_tiles > 0; n_tiles -= strip.n_tiles) {
      strip.n_tiles = std::min(n_tiles, asking_.tiles_at_once());
      const bool asks = asking_.step(epilogue_, b.k, strip.n_tiles);
      const auto& kernels = !has_one_tap_ ? kernel_.taps_strip : asks ? kernel_.asking_strip : kernel_.strip;
      kernels[rows - 1][vectors - 1](strip, panel, std::min(b.columns - column, b.panel), epilogue_);
      strip.x += strip.n_tiles * rows * strip.x_step;
      strip.y += strip.n_tiles * rows * strip.y_step;
    }
  }

  void multiply_group(const Tile* tiles, std::ptrdiff_t n_group) {
    const Packed<T>& b = *task_.gemm.b;
    const std::ptrdiff_t n_pointers = b.n_taps * tile_rows(kernel_, b);
    std::ptrdiff_t n_panels = 1;  // at a time
    for (std::ptrdiff_t p = task_.panel_begin; p < task_.panel_end; p += n_panels) {
      const std::ptrdiff_t column = p * b.panel;
      n_panels = n_group == 1 && tiles[0].rows == 1 ? full_panels(b, p, task_.panel_end) : 1;
      const std::ptrdiff_t n_cols = std::min(b.columns - column, n_panels * b.panel);
      const auto vectors = static_cast<std::size_t>(b.panel_columns(p) / b.width);
      const T* const panel = b.panel_data(p);
      if (tail().bias != nullptr) {
        epilogue_.bias = static_cast<const T*>(tail().bias) + column;
      }
      if (n_panels > 1) {
        const Tile& tile = tiles[0];
        kernel_.row[n_panels - 1](task_.pointers_scratch, b.n_taps / tile.run, b.k * tile.run, panel, tile.y[0] + column,
                                  n_cols, epilogue_);
        continue;
      }
      for (std::ptrdiff_t t = 0; t < n_group; ++t) {
        const Tile& tile = tiles[t];
        asking_.step(1);
        kernel_.tile[tile.rows - 1][vectors - 1](task_.pointers_scratch + t * n_pointers, b.n_taps / tile.run,
                                                 b.k * tile.run, panel, tile.y, column, n_cols, epilogue_);
      }
    }
  }

  // What goes over the n rows before `done`, at row(m), while they are near.
  template <class Row>
  void finish(const Row& row, std::ptrdiff_t n, std::ptrdiff_t done) {
    const Packed<T>& b = *task_.gemm.b;
    const std::ptrdiff_t column_begin = task_.panel_begin * b.panel;
    const std::ptrdiff_t n_cols = std::min(b.columns, task_.panel_end * b.panel) - column_begin;
    if (tail().finish != nullptr) {
      T* begin = nullptr;  // of neighbouring rows
      std::ptrdiff_t length = 0;
      for (std::ptrdiff_t m = 0; m < n; ++m) {
        T* const next = row(m) + column_begin;
        if (next != begin + length) {
          tail().finish->run(begin, length);
          begin = next;
          length = 0;
        }
        length += n_cols;
      }
      tail().finish->run(begin, length);
    }
    if (tail().sums != nullptr && ((done - told_) * n_cols >= kSummedValues || done == task_.row_end)) {
      tail().sums->add(told_, done, column_begin, column_begin + n_cols);
      told_ = done;
    }
  }

  const Task<T>& task_;
  const GemmKernels<T>& kernel_;
  RowWalk<T> walk_;
  std::ptrdiff_t told_;  // rows that the sums were told of
  Epilogue<T> epilogue_;
  Asking<T> asking_;
  bool goes_by_strips_;
  bool has_one_tap_;
};

// Whether rows of the product are the pixels of the whole result, one after another.
template <class T>
bool makes_result(const Gemm<T>& gemm) {
  const Scatter<T>& y = gemm.y;
  const Position& grid = gemm.a.grid;
  const std::ptrdiff_t pixel = gemm.b->columns;
  return y.y == gemm.tail.result->template data<T>() && gemm.tail.result->size() == gemm.a.n_rows() * pixel &&
         (grid[2] == 1 || y.stride[2] == pixel) && (grid[1] == 1 || y.stride[1] == grid[2] * pixel) &&
         (grid[0] == 1 || y.stride[0] == grid[1] * grid[2] * pixel) &&
         (gemm.a.n == 1 || y.stride_n == grid[0] * grid[1] * grid[2] * pixel);
}

}  // namespace

template <class T>
bool Gather<T>::is_padded() const {
  for (const Position& tap : taps) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (tap[axis] < 0 || (grid[axis] - 1) * step[axis] + tap[axis] >= in[axis]) {
        return true;
      }
    }
  }
  return false;
}

template <class T>
Packed<T>::Packed(std::ptrdiff_t n_taps_, std::ptrdiff_t k_, std::ptrdiff_t n_columns, std::ptrdiff_t panel_columns_,
                  std::ptrdiff_t width_)
    : n_taps(n_taps_),
      k(k_),
      columns(n_columns),
      panel(panel_columns_),
      n_panels(ceil_div(n_columns, panel_columns_)),
      width(width_),
      data(std::max<std::ptrdiff_t>(1, round_up(n_columns, width_) * n_taps_ * k_)) {}

template <class T>
std::ptrdiff_t Packed<T>::panel_columns(std::ptrdiff_t p) const {
  return std::min(panel, round_up(columns - p * panel, width));
}

template <class T>
std::shared_ptr<const Packed<T>> pack(const T* w, const std::vector<std::ptrdiff_t>& tap_offset, std::ptrdiff_t k,
                                      std::ptrdiff_t stride_k, std::ptrdiff_t columns, std::ptrdiff_t stride_n) {
  const GemmKernels<T>& kernel = kernels().gemm<T>();
  const auto n_taps = static_cast<std::ptrdiff_t>(tap_offset.size());
  auto packed = std::make_shared<Packed<T>>(n_taps, k, columns, kernel.vectors * kernel.width, kernel.width);
  // Tasks of about 16,000 values: a panel's taps in turn.
  const std::ptrdiff_t taps_each = std::clamp<std::ptrdiff_t>(16384 / std::max<std::ptrdiff_t>(1, k * packed->panel), 1,
                                                              std::max<std::ptrdiff_t>(1, n_taps));
  const Partition taps(n_taps, taps_each);
  std::vector<char> finite(static_cast<std::size_t>(packed->n_panels * taps.n_parts), 1);
  parallel_for(packed->n_panels * taps.n_parts, [&](std::ptrdiff_t task) {
    const std::ptrdiff_t p = task / taps.n_parts;
    const std::ptrdiff_t wide = packed->panel_columns(p);
    for (std::ptrdiff_t t = taps.begin(task % taps.n_parts); t < taps.end(task % taps.n_parts); ++t) {
      T* const out = packed->panel_data(p) + t * k * wide;
      if (!kernel.pack(w + tap_offset[static_cast<std::size_t>(t)] + p * packed->panel * stride_n, stride_k, stride_n, k,
                       std::min(columns - p * packed->panel, packed->panel), wide, out)) {
        finite[static_cast<std::size_t>(task)] = 0;
      }
    }
  });
  packed->is_finite = std::find(finite.begin(), finite.end(), 0) == finite.end();
  return packed;
}

template <class T>
Gather<T> made_rows(std::ptrdiff_t n, const Position& grid) {
  return {.x = nullptr,
          .stride_n = 0,
          .stride = {0, 0, 0},
          .in = grid,
          .n = n,
          .grid = grid,
          .step = {1, 1, 1},
          .taps = {{0, 0, 0}}};
}

template <class T>
void indirect_gemm(std::vector<Gemm<T>> products) {
  if (products.empty() || products[0].a.n_rows() == 0 || products[0].b->columns == 0) {
    return;
  }
  for (Gemm<T>& product : products) {
    join_lines(product.a, product.y.stride_n, product.y.stride);
  }
  const GemmKernels<T>& kernel = kernels().gemm<T>();
  const Packed<T>& b = *products[0].b;
  const auto n_products = static_cast<std::ptrdiff_t>(products.size());
  const std::ptrdiff_t n_rows = products[0].a.n_rows();
  const Blocking blocking = choose_blocking(products[0], n_products, tile_rows(kernel, b));
  for (Gemm<T>& product : products) {
    RowSums* const sums = product.tail.sums;
    if (sums != nullptr && !(makes_result(product) && sums->start(*product.tail.result, blocking.rows))) {
      product.tail.sums = nullptr;
    }
  }
  const Pointers<T> pointers(products[0].a, b.k);
  const Buffer<T> zero(pointers.is_padded() ? b.k : 0);
  if (pointers.is_padded()) {
    std::memset(zero.data(), 0, static_cast<std::size_t>(b.k) * sizeof(T));
  }
  const std::ptrdiff_t blocks = blocking.n_panel_blocks * blocking.n_row_blocks;
  const int n_workers = thread_count();
  const std::ptrdiff_t n_pointers = blocking.group * b.n_taps * tile_rows(kernel, b);
  const WorkerBuffer<const T*> scratch(n_workers, n_pointers);
  const std::ptrdiff_t n_made = products[0].source == nullptr ? 0 : round_up(blocking.made * b.k, kAlignment);
  const WorkerBuffer<T> made(n_workers, n_made);
  const auto run = [&](std::ptrdiff_t i, int worker) {
    const auto product = static_cast<std::size_t>(i / blocks);
    const std::ptrdiff_t panel_block = i % blocks / blocking.n_row_blocks;
    const std::ptrdiff_t row_block = i % blocking.n_row_blocks;
    const Task<T> task{.gemm = products[product],
                       .pointers = pointers,
                       .zero = zero.data(),
                       .row_begin = row_block * blocking.rows,
                       .row_end = std::min(n_rows, (row_block + 1) * blocking.rows),
                       .panel_begin = panel_block * blocking.panels,
                       .panel_end = std::min(b.n_panels, (panel_block + 1) * blocking.panels),
                       .group = blocking.group,
                       .pointers_scratch = scratch.of(worker),
                       .made = blocking.made,
                       .made_scratch = made.of(worker)};
    TaskRun<T>(task, kernel).run();
  };
  parallel_for(n_products * blocks, run, n_workers);
}

#define STRIATE_INSTANTIATE(T)                                                                                 \
  template struct Gather<T>;                                                                                   \
  template struct Packed<T>;                                                                                   \
  template std::shared_ptr<const Packed<T>> pack(const T*, const std::vector<std::ptrdiff_t>&, std::ptrdiff_t, \
                                                 std::ptrdiff_t, std::ptrdiff_t, std::ptrdiff_t);              \
  template Gather<T> made_rows(std::ptrdiff_t, const Position&);                                               \
  template void indirect_gemm(std::vector<Gemm<T>>);
STRIATE_INSTANTIATE(float)
STRIATE_INSTANTIATE(double)

}  // namespace striate
