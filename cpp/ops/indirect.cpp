#include "ops/indirect.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr double kLeastTaskFlops = 5e5;   // below this a thread costs more than it brings
constexpr double kMostTaskFlops = 1.6e7;  // above this the last task of a thread leaves the others waiting
constexpr double kTasksAimed = 64;
constexpr std::ptrdiff_t kMostGroup = 8;
constexpr std::ptrdiff_t kOuterRows = 144;  // of a task of outer_product; where lanes are few, as many as fill kOuterSums
constexpr std::ptrdiff_t kOuterLanes = 256;
constexpr std::ptrdiff_t kOuterSums = kOuterRows * kOuterLanes;  // a small task packs much and multiplies little
constexpr std::ptrdiff_t kRowBlock = 128;  // rows of a block of outer_product: its packed operands stay in L2, a panel in L1
constexpr std::ptrdiff_t kInPlaceValues = 8192;  // between the first and the last row of a chain
constexpr std::ptrdiff_t kOuterTasksAimed = 32;
constexpr std::ptrdiff_t kPartRows = 256;         // least rows of a part of a split sum
constexpr std::ptrdiff_t kPartialSums = 1 << 20;  // most values of partial sums

std::ptrdiff_t ceil_div(std::ptrdiff_t a, std::ptrdiff_t b) { return (a + b - 1) / b; }
std::ptrdiff_t round_up(std::ptrdiff_t a, std::ptrdiff_t b) { return ceil_div(a, b) * b; }

bool is_inside(const Position& p, const Position& in) {
  bool inside = true;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    inside = inside && static_cast<std::size_t>(p[axis]) < static_cast<std::size_t>(in[axis]);
  }
  return inside;
}

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
  }

  [[nodiscard]] bool is_padded() const { return is_padded_; }

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

  bool is_padded_;
  std::ptrdiff_t n_words_;
  int run_ = 1;                 // taps that are neighbours
  std::uint64_t all_ = 0;       // a bit for each tap
  std::uint64_t is_inner_ = 0;  // for each that follows one of its line
  std::vector<std::ptrdiff_t> offset_;
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
    const std::ptrdiff_t length = gemm_.a.grid[2];
    for (int m = 0; m < n;) {
      const int in_line = static_cast<int>(std::min<std::ptrdiff_t>(n - m, length - index_.i[2]));
      for (int r = 0; r < in_line; ++r) {
        x[m + r] = x_ + r * x_step;
        y[m + r] = y_ + r * y_step;
      }
      for (int r = 0; at != nullptr && r < in_line; ++r) {
        at[m + r] = {index_.i[0], index_.i[1], index_.i[2] + r};
      }
      m += in_line;
      index_.i[2] += in_line;
      if (index_.i[2] < length) {
        x_ += in_line * x_step;
        y_ += in_line * y_step;
      } else {
        index_.i[2] = length - 1;
        index_.next(gemm_.a.grid);
        find();
      }
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

// How the rows and columns of one product are cut into tasks: a function of geometry and cache sizes.
struct Blocking {
  std::ptrdiff_t rows;    // of a task
  std::ptrdiff_t panels;  // of a task
  std::ptrdiff_t n_row_blocks;
  std::ptrdiff_t n_panel_blocks;
  std::ptrdiff_t group;  // tiles that take a panel in turn
};

template <class T>
Blocking choose_blocking(std::ptrdiff_t n_rows, const Packed<T>& b, std::ptrdiff_t n_products, int tile_rows) {
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
  const std::ptrdiff_t rows = std::clamp<std::ptrdiff_t>(round_up(static_cast<std::ptrdiff_t>(wanted), tile_rows), tile_rows,
                                                         round_up(n_rows, tile_rows));
  // A panel that fits into half of L1 is used by as many tiles as have their rows in the other half.
  const std::ptrdiff_t half_l1 = cache_sizes().l1_bytes / 2;
  const std::ptrdiff_t tile_bytes = tile_rows * b.n_taps * b.k * static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t group =
      panel_bytes <= half_l1 ? std::clamp<std::ptrdiff_t>(half_l1 / std::max<std::ptrdiff_t>(1, tile_bytes), 1, kMostGroup)
                             : 1;
  return {.rows = rows,
          .panels = panels,
          .n_row_blocks = ceil_div(n_rows, rows),
          .n_panel_blocks = ceil_div(b.n_panels, panels),
          .group = group};
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

// Panels from p on, before `end`, that a row may take at once: those padded to full width.
template <class T>
std::ptrdiff_t full_panels(const Packed<T>& b, std::ptrdiff_t p, std::ptrdiff_t end) {
  std::ptrdiff_t n = 1;
  while (n < kMaxRowPanels && p + n < end && b.panel_columns(p + n) == b.panel) {
    ++n;
  }
  return n;
}

template <class T>
void run_task(const Task<T>& task, const GemmKernels<T>& kernel) {
  const Gemm<T>& gemm = task.gemm;
  const Packed<T>& b = *gemm.b;
  // Where a zero stands for a padded tap, the weight must be finite; else rows go one by one, without their padded taps.
  const bool one_by_one = !b.is_finite && task.pointers.is_padded();
  const std::ptrdiff_t most_rows = one_by_one ? 1 : kernel.rows;
  const std::ptrdiff_t n_rows = task.row_end - task.row_begin;
  const std::ptrdiff_t n_tiles = ceil_div(n_rows, most_rows);
  Epilogue<T> epilogue{.bias = nullptr,
                       .clamps = gemm.tail.clamps,
                       .streams = streams(gemm),
                       .lo = static_cast<T>(gemm.tail.lo),
                       .hi = static_cast<T>(gemm.tail.hi),
                       .adds = gemm.tail.adds,
                       .addend = gemm.tail.addend};
  // Tiles of nearly equal height: a short last tile would waste the registers.
  const std::ptrdiff_t height = n_rows / n_tiles;
  const std::ptrdiff_t n_higher = n_rows % n_tiles;
  struct Tile {
    int rows;
    int run;  // taps that a pointer stands for
    T* y[kMaxTileRows];
  };
  Tile tiles[kMostGroup];
  RowWalk<T> walk(gemm, task.row_begin);
  const std::ptrdiff_t n_pointers = b.n_taps * kernel.rows;
  for (std::ptrdiff_t first = 0; first < n_tiles; first += task.group) {
    const std::ptrdiff_t n_group = std::min(n_tiles - first, task.group);
    for (std::ptrdiff_t t = 0; t < n_group; ++t) {
      Tile& tile = tiles[t];
      tile.rows = static_cast<int>(height + (first + t < n_higher ? 1 : 0));
      const T* base[kMaxTileRows];
      Position at[kMaxTileRows];
      walk.take(tile.rows, base, tile.y, task.pointers.is_padded() ? at : nullptr);
      tile.run = task.pointers.fill(base, at, tile.rows, task.zero, task.pointers_scratch + t * n_pointers);
    }
    std::ptrdiff_t n_panels = 1;  // at a time
    for (std::ptrdiff_t p = task.panel_begin; p < task.panel_end; p += n_panels) {
      const std::ptrdiff_t column = p * b.panel;
      n_panels = n_group == 1 && tiles[0].rows == 1 ? full_panels(b, p, task.panel_end) : 1;
      const std::ptrdiff_t n_cols = std::min(b.columns - column, n_panels * b.panel);
      const auto vectors = static_cast<std::size_t>(b.panel_columns(p) / b.width);
      const T* const panel = b.panel_data(p);
      if (gemm.tail.bias != nullptr) {
        epilogue.bias = static_cast<const T*>(gemm.tail.bias) + column;
      }
      if (n_panels > 1) {
        const Tile& tile = tiles[0];
        kernel.row[n_panels - 1](task.pointers_scratch, b.n_taps / tile.run, b.k * tile.run, panel, tile.y[0] + column,
                                 n_cols, epilogue);
        continue;
      }
      for (std::ptrdiff_t t = 0; t < n_group; ++t) {
        const Tile& tile = tiles[t];
        kernel.tile[tile.rows - 1][vectors - 1](task.pointers_scratch + t * n_pointers, b.n_taps / tile.run, b.k * tile.run,
                                                panel, tile.y, column, n_cols, epilogue);
      }
    }
    if (gemm.tail.finish != nullptr) {
      const std::ptrdiff_t column = task.panel_begin * b.panel;
      const std::ptrdiff_t n_cols = std::min(b.columns, task.panel_end * b.panel) - column;
      T* begin = nullptr;  // of neighbouring rows
      std::ptrdiff_t length = 0;
      for (std::ptrdiff_t t = 0; t < n_group; ++t) {
        for (int m = 0; m < tiles[t].rows; ++m) {
          T* const row = tiles[t].y[m] + column;
          if (row != begin + length) {
            gemm.tail.finish->run(begin, length);
            begin = row;
            length = 0;
          }
          length += n_cols;
        }
      }
      gemm.tail.finish->run(begin, length);
    }
  }
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
  const Blocking blocking = choose_blocking(n_rows, b, n_products, kernel.rows);
  const Pointers<T> pointers(products[0].a, b.k);
  const Buffer<T> zero(pointers.is_padded() ? b.k : 0);
  if (pointers.is_padded()) {
    std::memset(zero.data(), 0, static_cast<std::size_t>(b.k) * sizeof(T));
  }
  const std::ptrdiff_t blocks = blocking.n_panel_blocks * blocking.n_row_blocks;
  const int n_workers = thread_count();
  const std::ptrdiff_t n_pointers = blocking.group * b.n_taps * kernel.rows;
  const Buffer<const T*> scratch(n_workers * n_pointers);
  const auto run = [&](std::ptrdiff_t i, int worker) {
    const auto product = static_cast<std::size_t>(i / blocks);
    const std::ptrdiff_t panel_block = i % blocks / blocking.n_row_blocks;
    const std::ptrdiff_t row_block = i % blocking.n_row_blocks;
    run_task<T>({.gemm = products[product],
                 .pointers = pointers,
                 .zero = zero.data(),
                 .row_begin = row_block * blocking.rows,
                 .row_end = std::min(n_rows, (row_block + 1) * blocking.rows),
                 .panel_begin = panel_block * blocking.panels,
                 .panel_end = std::min(b.n_panels, (panel_block + 1) * blocking.panels),
                 .group = blocking.group,
                 .pointers_scratch = scratch.data() + worker * n_pointers},
                kernel);
  };
  parallel_for(n_products * blocks, run, n_workers);
}

namespace {

// How a weight gradient is cut: blocks of taps, tile rows and lanes, and parts of the sum.
struct OuterBlocking {
  Partition taps;
  Partition rows;  // of the register tile
  Partition lanes;
  std::ptrdiff_t n_parts;

  [[nodiscard]] std::ptrdiff_t n_blocks() const { return taps.n_parts * rows.n_parts * lanes.n_parts; }
};

template <class T>
OuterBlocking choose_outer_blocking(const OuterProduct<T>& product, std::ptrdiff_t n_products,
                                    const GemmKernels<T>& kernel) {
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const Partition lanes(product.swaps ? product.m : product.n, round_up(kOuterLanes, panel));
  const std::ptrdiff_t most_rows = kOuterSums / round_up(std::min(lanes.part, lanes.n_items), kernel.width);
  const Partition rows(product.swaps ? product.n : product.m, round_up(std::max(kOuterRows, most_rows), kernel.rows));
  const auto n_taps = static_cast<std::ptrdiff_t>(product.a.taps.size());
  // All taps of a block share one packing of b as long as their sums stay in L2.
  const std::ptrdiff_t sum_bytes =
      std::min(rows.part, rows.n_items) * std::min(lanes.part, lanes.n_items) * static_cast<std::ptrdiff_t>(sizeof(T));
  const Partition taps(n_taps, std::clamp<std::ptrdiff_t>(cache_sizes().l2_bytes / 4 / sum_bytes, 1, n_taps));
  OuterBlocking blocking{.taps = taps, .rows = rows, .lanes = lanes, .n_parts = 1};
  // Few blocks: split the sum into parts of at least kPartRows rows, as long as the partial sums are small.
  const std::ptrdiff_t n_rows = product.a.n_rows();
  const std::ptrdiff_t wanted = ceil_div(kOuterTasksAimed, n_products * blocking.n_blocks());
  const std::ptrdiff_t affordable = kPartialSums / std::max<std::ptrdiff_t>(1, n_products * n_taps * product.m * product.n);
  blocking.n_parts = std::max<std::ptrdiff_t>(1, std::min({wanted, affordable, n_rows / kPartRows}));
  return blocking;
}

// One task: blocks of taps, tile rows and lanes, and a range of the rows that are summed over.
template <class T>
struct OuterTask {
  const OuterProduct<T>& product;
  std::ptrdiff_t tap_begin, tap_end;
  std::ptrdiff_t tile_begin, tile_end;  // rows of the register tile
  std::ptrdiff_t lane_begin, lane_end;
  std::ptrdiff_t row_begin, row_end;
  T* y;
  T* scratch;  // outer_scratch() values
};

// Values between panels of packed lanes, far enough from a multiple of a page not to share cache sets.
template <class T>
std::ptrdiff_t panel_stride(std::ptrdiff_t panel) {
  return kRowBlock * panel + kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));
}

// Values of scratch that the packed operands of one task need.
template <class T>
std::ptrdiff_t outer_scratch(const OuterBlocking& blocking, const GemmKernels<T>& kernel) {
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const std::ptrdiff_t rows = std::min(blocking.rows.part, blocking.rows.n_items);
  const std::ptrdiff_t lanes = std::min(blocking.lanes.part, blocking.lanes.n_items);
  return kRowBlock * round_up(rows, kernel.width) + ceil_div(lanes, panel) * panel_stride<T>(panel);
}

// Cuts rows begin … end − 1 into register tiles of nearly equal height: f(first row, rows).
template <class F>
void each_tile(std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t most_rows, F&& f) {
  const std::ptrdiff_t n_tiles = ceil_div(end - begin, most_rows);
  const std::ptrdiff_t height = (end - begin) / n_tiles;
  std::ptrdiff_t n_higher = (end - begin) % n_tiles;
  while (begin < end) {
    const std::ptrdiff_t rows = height + (n_higher-- > 0 ? 1 : 0);
    f(begin, rows);
    begin += rows;
  }
}

// The packed operands of kRowBlock rows.
template <class T>
class OuterBlock {
 public:
  OuterBlock(const OuterTask<T>& task, const GemmKernels<T>& kernel)
      : task_(task),
        kernel_(kernel),
        tiles_width_(round_up(task.tile_end - task.tile_begin, kernel.width)),
        panel_(kernel.vectors * kernel.width),
        tiles_(task.scratch),
        lanes_(task.scratch + kRowBlock * tiles_width_) {}

  // x[k] points to the operand's values; both return whether all are finite.
  bool pack_tiles(const T* const* x, std::ptrdiff_t n_k) {
    return kernel_.pack_lanes(x, task_.tile_begin, n_k, task_.tile_end - task_.tile_begin, tiles_width_, 0, tiles_);
  }
  bool pack_lanes(const T* const* x, std::ptrdiff_t n_k) {
    return kernel_.pack_lanes(x, task_.lane_begin, n_k, task_.lane_end - task_.lane_begin, panel_, panel_stride<T>(panel_),
                              lanes_);
  }
  void multiply(std::ptrdiff_t n_k, T* y, bool adds) const {
    const std::ptrdiff_t ld = task_.product.ld;
    const T* lanes = lanes_;
    for (std::ptrdiff_t j = task_.lane_begin; j < task_.lane_end; j += panel_, lanes += panel_stride<T>(panel_)) {
      const std::ptrdiff_t n_cols = std::min(panel_, task_.lane_end - j);
      each_tile(task_.tile_begin, task_.tile_end, kernel_.rows, [&](std::ptrdiff_t i, std::ptrdiff_t n_rows) {
        kernel_.outer[n_rows - 1][ceil_div(n_cols, kernel_.width) - 1](tiles_ + i - task_.tile_begin, tiles_width_, lanes,
                                                                       panel_, n_k, y + i * ld + j, ld, n_cols, adds);
      });
    }
  }

 private:
  const OuterTask<T>& task_;
  const GemmKernels<T>& kernel_;
  std::ptrdiff_t tiles_width_;
  std::ptrdiff_t panel_;
  T* tiles_;  // [k][tiles_width_]
  T* lanes_;  // [panel][k][panel_]
};

// Pointers to a tap's values in `n_k` rows from `index` on, null where the tap is outside. Returns whether any is.
template <class T>
bool tap_pointers(const Gather<T>& gather, const Position& tap, RowIndex index, std::ptrdiff_t n_k, const T** x) {
  bool any_outside = false;
  for (std::ptrdiff_t k = 0; k < n_k;) {
    // Along a line of the grid, which rows are inside is one interval.
    const std::ptrdiff_t run = std::min(gather.grid[2] - index.i[2], n_k - k);
    const std::ptrdiff_t depth = index.i[0] * gather.step[0] + tap[0];
    const std::ptrdiff_t height = index.i[1] * gather.step[1] + tap[1];
    const bool line_inside = is_inside({depth, height, 0}, {gather.in[0], gather.in[1], 1});
    const T* const line = gather.x + index.n * gather.stride_n + depth * gather.stride[0] + height * gather.stride[1];
    std::ptrdiff_t width = index.i[2] * gather.step[2] + tap[2];
    for (std::ptrdiff_t j = 0; j < run; ++j, width += gather.step[2]) {
      const bool inside = line_inside && static_cast<std::size_t>(width) < static_cast<std::size_t>(gather.in[2]);
      x[k + j] = inside ? line + width * gather.stride[2] : nullptr;
      any_outside = any_outside || !inside;
    }
    k += run;
    index.i[2] += run - 1;
    index.next(gather.grid);
  }
  return any_outside;
}

// Rows that are multiplied where they lie, in one chain: so many that their lines stay in L1; 0 where a copy is better. A
// copy of few values takes as long as their product; values that are far apart share cache sets.
template <class T>
std::ptrdiff_t rows_in_place(const OuterProduct<T>& product, const GemmKernels<T>& kernel) {
  constexpr std::ptrdiff_t kMostDistance = 256;
  constexpr std::ptrdiff_t kLeastRows = 8;
  const std::ptrdiff_t distance = std::max(product.a.step[2] * product.a.stride[2], product.b_stride[2]);
  const std::ptrdiff_t n_lanes = product.swaps ? product.m : product.n;
  const bool reads_only_lanes = n_lanes % kernel.width == 0 || (product.swaps && product.has_slack);
  if (distance > kMostDistance || !reads_only_lanes || product.a.is_padded()) {
    return 0;
  }
  const std::ptrdiff_t rows = std::min(product.a.grid[2], kInPlaceValues / std::max<std::ptrdiff_t>(1, distance));
  return rows < kLeastRows ? 0 : rows;
}

// Lines of memory asked for a few at a time, while what they will meet is not yet needed.
class Ahead {
 public:
  template <class T>
  void add(const T* first, std::ptrdiff_t n) {
    spans_[n_spans_++] = {reinterpret_cast<const char*>(first), n * static_cast<std::ptrdiff_t>(sizeof(T))};
  }
  void start(std::ptrdiff_t n_turns) {
    std::ptrdiff_t bytes = 0;
    for (int i = 0; i < n_spans_; ++i) {
      bytes += spans_[i].bytes;
    }
    bytes_a_turn_ = round_up(ceil_div(bytes, n_turns), kAlignment);
  }
  void turn() {
    std::ptrdiff_t left = bytes_a_turn_;
    while (left > 0 && n_spans_ > 0) {
      Span& span = spans_[n_spans_ - 1];
      const std::ptrdiff_t bytes = std::min(left, span.bytes);
      for (std::ptrdiff_t i = 0; i < bytes; i += kAlignment) {
        __builtin_prefetch(span.first + i);
      }
      span.first += bytes;
      span.bytes -= bytes;
      left -= bytes;
      n_spans_ -= span.bytes == 0 ? 1 : 0;
    }
  }

 private:
  struct Span {
    const char* first;
    std::ptrdiff_t bytes;
  };
  Span spans_[2] = {};
  int n_spans_ = 0;
  std::ptrdiff_t bytes_a_turn_ = 0;
};

template <class T>
void run_outer_in_place(const OuterTask<T>& task, const GemmKernels<T>& kernel, std::ptrdiff_t most_rows) {
  const OuterProduct<T>& product = task.product;
  const Gather<T>& a = product.a;
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const std::ptrdiff_t a_step = a.step[2] * a.stride[2];
  const std::ptrdiff_t b_step = product.b_stride[2];
  struct Chain {
    const T* a;
    const T* b;
    std::ptrdiff_t n_k;
  };
  const auto chain_from = [&](std::ptrdiff_t row) {
    const RowIndex index(row, a.grid);
    Chain chain{.a = a.x + index.n * a.stride_n,
                .b = product.b + index.n * product.b_stride_n,
                .n_k = std::min({a.grid[2] - index.i[2], task.row_end - row, most_rows})};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      chain.a += index.i[axis] * a.step[axis] * a.stride[axis];
      chain.b += index.i[axis] * product.b_stride[axis];
    }
    return chain;
  };
  const auto offset = [&](std::ptrdiff_t t) {
    const Position& tap = a.taps[static_cast<std::size_t>(t)];
    return tap[0] * a.stride[0] + tap[1] * a.stride[1] + tap[2] * a.stride[2];
  };
  const std::ptrdiff_t n_turns = (task.tap_end - task.tap_begin) * ceil_div(task.lane_end - task.lane_begin, panel) *
                                 ceil_div(task.tile_end - task.tile_begin, kernel.rows);
  Chain chain = chain_from(task.row_begin);
  for (std::ptrdiff_t row = task.row_begin; row < task.row_end;) {
    const std::ptrdiff_t next = row + chain.n_k;
    const Chain following = next < task.row_end ? chain_from(next) : Chain{};
    Ahead ahead;
    if (following.n_k > 0) {
      ahead.add(following.b, following.n_k * b_step);
      ahead.add(following.a + offset(task.tap_end - 1), following.n_k * a_step);
      ahead.start(n_turns);
    }
    for (std::ptrdiff_t t = task.tap_begin; t < task.tap_end; ++t) {
      const T* const from = chain.a + offset(t);
      const T* const tiles = product.swaps ? chain.b : from;
      const T* const lanes = product.swaps ? from : chain.b;
      for (std::ptrdiff_t j = task.lane_begin; j < task.lane_end; j += panel) {
        const std::ptrdiff_t n_cols = std::min(panel, task.lane_end - j);
        each_tile(task.tile_begin, task.tile_end, kernel.rows, [&](std::ptrdiff_t i, std::ptrdiff_t n_rows) {
          ahead.turn();
          kernel.outer[n_rows - 1][ceil_div(n_cols, kernel.width) - 1](
              tiles + i, product.swaps ? b_step : a_step, lanes + j, product.swaps ? a_step : b_step, chain.n_k,
              task.y + t * product.stride_t + i * product.ld + j, product.ld, n_cols, row > task.row_begin);
        });
      }
    }
    chain = following;
    row = next;
  }
}

template <class T>
void run_outer(const OuterTask<T>& task, const GemmKernels<T>& kernel) {
  const OuterProduct<T>& product = task.product;
  if (const std::ptrdiff_t most_rows = rows_in_place(product, kernel); most_rows > 0) {
    run_outer_in_place(task, kernel, most_rows);
    return;
  }
  OuterBlock<T> block(task, kernel);
  const auto pack_a = [&](const T* const* x, std::ptrdiff_t n_k) {
    return product.swaps ? block.pack_lanes(x, n_k) : block.pack_tiles(x, n_k);
  };
  const auto pack_b = [&](const T* const* x, std::ptrdiff_t n_k) {
    return product.swaps ? block.pack_tiles(x, n_k) : block.pack_lanes(x, n_k);
  };
  const T* a[kRowBlock];
  const T* b[kRowBlock];
  const T* a_inside[kRowBlock];
  const T* b_inside[kRowBlock];
  for (std::ptrdiff_t row = task.row_begin; row < task.row_end; row += kRowBlock) {
    const std::ptrdiff_t n_k = std::min(kRowBlock, task.row_end - row);
    const RowIndex first(row, product.a.grid);
    RowIndex index = first;
    for (std::ptrdiff_t k = 0; k < n_k; ++k) {
      b[k] = product.b + index.n * product.b_stride_n + index.i[0] * product.b_stride[0] + index.i[1] * product.b_stride[1] +
             index.i[2] * product.b_stride[2];
      index.next(product.a.grid);
    }
    const bool b_is_finite = pack_b(b, n_k);
    for (std::ptrdiff_t tap = task.tap_begin; tap < task.tap_end; ++tap) {
      T* const y = task.y + tap * product.stride_t;
      const bool any_outside = tap_pointers(product.a, product.a.taps[static_cast<std::size_t>(tap)], first, n_k, a);
      if (!any_outside || b_is_finite) {
        pack_a(a, n_k);
        block.multiply(n_k, y, row > task.row_begin);
        continue;
      }
      // Zeros must not meet a value that is not finite: leave the rows out, and pack b again for the next tap.
      std::ptrdiff_t n_inside = 0;
      for (std::ptrdiff_t k = 0; k < n_k; ++k) {
        if (a[k] != nullptr) {
          a_inside[n_inside] = a[k];
          b_inside[n_inside++] = b[k];
        }
      }
      pack_a(a_inside, n_inside);
      pack_b(b_inside, n_inside);
      block.multiply(n_inside, y, row > task.row_begin);
      pack_b(b, n_k);
    }
  }
}

// The sum over no rows.
template <class T>
void clear(const OuterProduct<T>& product) {
  const std::ptrdiff_t length = product.swaps ? product.m : product.n;
  for (std::size_t tap = 0; tap < product.a.taps.size(); ++tap) {
    for (std::ptrdiff_t i = 0; i < (product.swaps ? product.n : product.m); ++i) {
      std::fill_n(product.y + static_cast<std::ptrdiff_t>(tap) * product.stride_t + i * product.ld, length, T(0));
    }
  }
}

}  // namespace

template <class T>
void outer_product(std::vector<OuterProduct<T>> products) {
  if (products.empty() || products[0].m == 0 || products[0].n == 0) {
    return;
  }
  for (OuterProduct<T>& product : products) {
    join_lines(product.a, product.b_stride_n, product.b_stride);
  }
  const GemmKernels<T>& kernel = kernels().gemm<T>();
  const OuterProduct<T>& first = products[0];
  const std::ptrdiff_t n_rows = first.a.n_rows();
  const auto n_products = static_cast<std::ptrdiff_t>(products.size());
  if (n_rows == 0) {
    for (const OuterProduct<T>& product : products) {
      clear(product);
    }
    return;
  }
  const OuterBlocking blocking = choose_outer_blocking(first, n_products, kernel);
  const std::ptrdiff_t n_parts = blocking.n_parts;
  const auto n_taps = static_cast<std::ptrdiff_t>(first.a.taps.size());
  const std::ptrdiff_t y_size = n_taps * first.m * first.n;
  const Buffer<T> partial(n_products * (n_parts - 1) * y_size);
  const auto sums = [&](std::ptrdiff_t which, std::ptrdiff_t part) {
    return part == 0 ? products[static_cast<std::size_t>(which)].y
                     : partial.data() + (which * (n_parts - 1) + part - 1) * y_size;
  };
  const int n_workers = thread_count();
  const std::ptrdiff_t scratch_size = outer_scratch<T>(blocking, kernel);
  const Buffer<T> scratch(n_workers * scratch_size);
  const auto run = [&](std::ptrdiff_t task, int worker) {
    const std::ptrdiff_t lane_block = task % blocking.lanes.n_parts;
    task /= blocking.lanes.n_parts;
    const std::ptrdiff_t row_block = task % blocking.rows.n_parts;
    task /= blocking.rows.n_parts;
    const std::ptrdiff_t tap_block = task % blocking.taps.n_parts;
    task /= blocking.taps.n_parts;
    const std::ptrdiff_t part = task % n_parts;
    const std::ptrdiff_t which = task / n_parts;
    run_outer<T>({.product = products[static_cast<std::size_t>(which)],
                  .tap_begin = blocking.taps.begin(tap_block),
                  .tap_end = blocking.taps.end(tap_block),
                  .tile_begin = blocking.rows.begin(row_block),
                  .tile_end = blocking.rows.end(row_block),
                  .lane_begin = blocking.lanes.begin(lane_block),
                  .lane_end = blocking.lanes.end(lane_block),
                  .row_begin = part * n_rows / n_parts,
                  .row_end = (part + 1) * n_rows / n_parts,
                  .y = sums(which, part),
                  .scratch = scratch.data() + worker * scratch_size},
                 kernel);
  };
  parallel_for(n_products * n_parts * blocking.n_blocks(), run, n_workers);
  if (n_parts == 1) {
    return;
  }
  const Partition chunks(y_size, 8192);
  parallel_for(n_products * chunks.n_parts, [&](std::ptrdiff_t task) {
    const std::ptrdiff_t which = task / chunks.n_parts;
    T* const y = sums(which, 0);
    for (std::ptrdiff_t part = 1; part < n_parts; ++part) {
      const T* const other = sums(which, part);
      for (std::ptrdiff_t i = chunks.begin(task % chunks.n_parts); i < chunks.end(task % chunks.n_parts); ++i) {
        y[i] += other[i];
      }
    }
  });
}

#define STRIATE_INSTANTIATE(T)                                                                                 \
  template struct Gather<T>;                                                                                   \
  template struct Packed<T>;                                                                                   \
  template std::shared_ptr<const Packed<T>> pack(const T*, const std::vector<std::ptrdiff_t>&, std::ptrdiff_t, \
                                                 std::ptrdiff_t, std::ptrdiff_t, std::ptrdiff_t);              \
  template void indirect_gemm(std::vector<Gemm<T>>);                                                           \
  template void outer_product(std::vector<OuterProduct<T>>);
STRIATE_INSTANTIATE(float)
STRIATE_INSTANTIATE(double)

}  // namespace striate
