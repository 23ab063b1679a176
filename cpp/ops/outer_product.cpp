// Weight gradients: sums over rows of products of a tap's values and a row's.
#include <algorithm>

#include "machine/threads.hpp"
#include "ops/indirect.hpp"
#include "ops/map.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

// A task of outer_product sums over blocks of rows, whose packed operands stay in L2 and a panel of them in L1.
constexpr std::ptrdiff_t kRowBlock = 128;
constexpr std::ptrdiff_t kOuterLanes = 256;               // of a task, at most
constexpr std::ptrdiff_t kOuterSums = 144 * kOuterLanes;  // of a task and a tap, at most; twice as many where L2 has room
constexpr std::ptrdiff_t kLeastTasks = 16;                // where there are fewer, blocks are cut smaller,
constexpr std::ptrdiff_t kLeastRows = 96;                 // but not below so many rows of the register tile
constexpr std::ptrdiff_t kNearValues = 512;  // between rows whose tiles pack themselves: a line of memory serves two or more
constexpr std::ptrdiff_t kInPlaceValues = 8192;   // between the first and the last row of a chain
constexpr std::ptrdiff_t kPartRows = 256;         // least rows of a part of a split sum
constexpr std::ptrdiff_t kLongPartRows = 768;     // beside which writing and reading its sums costs little
constexpr std::ptrdiff_t kPartialSums = 1 << 20;  // most values of partial sums

bool is_inside(const Position& p, const Position& in) {
  bool inside = true;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    inside = inside && static_cast<std::size_t>(p[axis]) < static_cast<std::size_t>(in[axis]);
  }
  return inside;
}

// How a weight gradient is cut: blocks of taps, tile rows and lanes, and parts of the sum.
struct OuterBlocking {
  bool asks;  // for memory ahead: the operands do not stay in L2
  Partition taps;
  Partition rows;  // of the register tile
  Partition lanes;
  std::ptrdiff_t n_parts;

  [[nodiscard]] std::ptrdiff_t n_blocks() const { return taps.n_parts * rows.n_parts * lanes.n_parts; }
};

// Most sums of a task and a tap where operands are far: a small task packs much and multiplies little. They share L2 with
// the packed operands of a block and the next block's rows, each about as large.
template <class T>
std::ptrdiff_t most_sums() {
  const std::ptrdiff_t fit = cache_sizes().l2_bytes / 3 / static_cast<std::ptrdiff_t>(sizeof(T));
  return std::clamp<std::ptrdiff_t>(fit, kOuterSums, 2 * kOuterSums);
}

template <class T>
OuterBlocking choose_outer_blocking(const OuterProduct<T>& product, std::ptrdiff_t n_products,
                                    const GemmKernels<T>& kernel) {
  const std::ptrdiff_t n_rows = product.a.n_rows();
  const std::ptrdiff_t n_bytes = n_products * n_rows * (product.m + product.n) * static_cast<std::ptrdiff_t>(sizeof(T));
  const bool far = is_far(n_bytes);
  const std::ptrdiff_t tasks_aimed = far ? kLeastTasks : 2 * kLeastTasks;
  // Blocks of at most `part` items, a multiple of `step`, and nearly equal.
  const auto cut = [](std::ptrdiff_t n, std::ptrdiff_t part, std::ptrdiff_t step) {
    return Partition(n, round_up(ceil_div(n, ceil_div(n, round_up(part, step))), step));
  };
  const Partition lanes = cut(product.swaps ? product.m : product.n, kOuterLanes, kernel.vectors * kernel.width);
  const std::ptrdiff_t n_lanes = round_up(std::min(lanes.part, lanes.n_items), kernel.width);
  const std::ptrdiff_t n_tile_rows = product.swaps ? product.n : product.m;
  const auto n_taps = static_cast<std::ptrdiff_t>(product.a.taps.size());
  const auto blocks_of = [&](std::ptrdiff_t most_rows, std::ptrdiff_t most_taps) {
    const Partition rows = cut(n_tile_rows, most_rows, kernel.rows);
    // All taps of a block share one packing of b as long as their sums stay in L2.
    const std::ptrdiff_t sum_bytes = std::min(rows.part, rows.n_items) * n_lanes * static_cast<std::ptrdiff_t>(sizeof(T));
    const Partition taps(n_taps, std::clamp<std::ptrdiff_t>(cache_sizes().l2_bytes / 4 / sum_bytes, 1, most_taps));
    return OuterBlocking{.asks = n_bytes > cache_sizes().l2_bytes, .taps = taps, .rows = rows, .lanes = lanes, .n_parts = 1};
  };
  OuterBlocking blocking = blocks_of((far ? most_sums<T>() : kOuterSums) / n_lanes, n_taps);
  // Few blocks: split the sum into parts of at least kPartRows rows, as long as the partial sums are small; into more than
  // are needed where parts are long.
  const std::ptrdiff_t n_blocks = n_products * blocking.n_blocks();
  const std::ptrdiff_t wanted =
      std::max(ceil_div(tasks_aimed, n_blocks), std::min(ceil_div(2 * kLeastTasks, n_blocks), n_rows / kLongPartRows));
  const std::ptrdiff_t affordable = kPartialSums / std::max<std::ptrdiff_t>(1, n_products * n_taps * product.m * product.n);
  const std::ptrdiff_t n_parts = std::max<std::ptrdiff_t>(1, std::min({wanted, affordable, n_rows / kPartRows}));
  // Still few tasks: smaller blocks.
  if (n_blocks * n_parts < kLeastTasks) {
    const std::ptrdiff_t times = ceil_div(kLeastTasks, n_blocks * n_parts);
    blocking = blocks_of(std::max(kLeastRows, ceil_div(n_tile_rows, blocking.rows.n_parts * times)), 1);
  }
  blocking.n_parts = n_parts;
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

  // Blocks of rows are equally long.
  [[nodiscard]] std::ptrdiff_t block_rows() const {
    const std::ptrdiff_t n_rows = row_end - row_begin;
    return ceil_div(n_rows, ceil_div(n_rows, kRowBlock));
  }
  [[nodiscard]] std::ptrdiff_t n_rows_from(std::ptrdiff_t row) const { return std::min(block_rows(), row_end - row); }
  // Of a row's values, those that the task reads.
  [[nodiscard]] std::ptrdiff_t a_begin() const { return product.swaps ? lane_begin : tile_begin; }
  [[nodiscard]] std::ptrdiff_t a_end() const { return product.swaps ? lane_end : tile_end; }
  [[nodiscard]] std::ptrdiff_t b_begin() const { return product.swaps ? tile_begin : lane_begin; }
  [[nodiscard]] std::ptrdiff_t b_end() const { return product.swaps ? tile_end : lane_end; }
};

// Values between panels of packed lanes, far enough from a multiple of a page not to share cache sets.
template <class T>
std::ptrdiff_t panel_stride(std::ptrdiff_t panel) {
  return kRowBlock * panel + kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));
}

// Values of a row of packed tiles, whether row by row or tile by tile.
template <class T>
std::ptrdiff_t tiles_width(std::ptrdiff_t rows, const GemmKernels<T>& kernel) {
  return round_up(std::max(round_up(rows, kernel.width), round_up(rows, kernel.rows)), kernel.width);
}

// Values of scratch that the packed operands of one task need.
template <class T>
std::ptrdiff_t outer_scratch(const OuterBlocking& blocking, const GemmKernels<T>& kernel) {
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const std::ptrdiff_t rows = std::min(blocking.rows.part, blocking.rows.n_items);
  const std::ptrdiff_t lanes = std::min(blocking.lanes.part, blocking.lanes.n_items);
  return kRowBlock * tiles_width(rows, kernel) + ceil_div(lanes, panel) * panel_stride<T>(panel);
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

// Asks for rows of the next block into L2, a few lines in front of every tile.
template <class T>
class BlockAhead {
 public:
  // Values [begin, end) of each row that is not null.
  void add(const T* const* rows, std::ptrdiff_t n, std::ptrdiff_t begin, std::ptrdiff_t end) {
    spans_[n_spans_++] = {rows, n, begin, end};
    n_lines_ += n * (ceil_div((end - begin) * static_cast<std::ptrdiff_t>(sizeof(T)), kAlignment) + 1);
  }
  void start(std::ptrdiff_t n_turns, std::ptrdiff_t most_lines) {
    lines_a_turn_ = std::min(most_lines, ceil_div(n_lines_, n_turns));
    next_row();
  }
  void turn() {
    for (std::ptrdiff_t n = lines_a_turn_; n > 0 && next_ != nullptr;) {
      const char* const end = std::min(end_, next_ + n * kAlignment);
      n -= ceil_div(end - next_, kAlignment);
      for (; next_ < end; next_ += kAlignment) {
        __builtin_prefetch(next_, 0, 2);
      }
      if (next_ >= end_) {
        next_row();
      }
    }
  }

 private:
  void next_row() {
    next_ = nullptr;
    while (next_ == nullptr && span_ < n_spans_) {
      const Span& span = spans_[span_];
      if (row_ == span.n) {
        ++span_;
        row_ = 0;
        continue;
      }
      const T* const row = span.rows[row_++];
      if (row != nullptr) {
        next_ = reinterpret_cast<const char*>(row + span.begin);
        end_ = reinterpret_cast<const char*>(row + span.end);
      }
    }
  }
  struct Span {
    const T* const* rows;
    std::ptrdiff_t n, begin, end;
  };
  Span spans_[2] = {};
  int n_spans_ = 0;
  int span_ = 0;
  std::ptrdiff_t row_ = 0;
  const char* next_ = nullptr;
  const char* end_ = nullptr;
  std::ptrdiff_t n_lines_ = 0;
  std::ptrdiff_t lines_a_turn_ = 0;
};

// Values between rows that are evenly spaced, else 0.
template <class T>
std::ptrdiff_t even_step(const T* const* x, std::ptrdiff_t n_k) {
  const std::ptrdiff_t step = n_k < 2 ? 0 : x[1] - x[0];
  for (std::ptrdiff_t k = 2; k < n_k; ++k) {
    if (x[k] - x[k - 1] != step) {
      return 0;
    }
  }
  return step;
}

// The operands of kRowBlock rows. A tile that is first to read rows where they lie, evenly spaced, packs them for those
// after it; else rows are packed in a pass of their own.
template <class T>
class OuterBlock {
 public:
  OuterBlock(const OuterTask<T>& task, const GemmKernels<T>& kernel)
      : task_(task),
        kernel_(kernel),
        tiles_width_(tiles_width(task.tile_end - task.tile_begin, kernel)),
        panel_(kernel.vectors * kernel.width),
        reads_only_lanes_((task.lane_end - task.lane_begin) % kernel.width == 0 ||
                          (task.product.swaps && task.product.has_slack)),
        tiles_(task.scratch),
        lanes_(task.scratch + kRowBlock * tiles_width_) {}

  // x[k] points to the operand's values; both return whether all are finite.
  bool pack_tiles(const T* const* x, std::ptrdiff_t n_k) {
    tiles_from_ = nullptr;
    return kernel_.pack_lanes(x, task_.tile_begin, n_k, task_.tile_end - task_.tile_begin, tiles_width_, 0, tiles_);
  }
  bool pack_lanes(const T* const* x, std::ptrdiff_t n_k) {
    lanes_from_ = nullptr;
    return kernel_.pack_lanes(x, task_.lane_begin, n_k, task_.lane_end - task_.lane_begin, panel_, panel_stride<T>(panel_),
                              lanes_);
  }
  // Likewise where no pointer is null and nobody asks what is finite.
  void take_tiles(const T* const* x, std::ptrdiff_t n_k) {
    tiles_step_ = even_step(x, n_k);
    if (tiles_step_ == 0 || std::abs(tiles_step_) > kNearValues) {
      pack_tiles(x, n_k);
    } else {
      tiles_from_ = x[0] + task_.tile_begin;
    }
  }
  void take_lanes(const T* const* x, std::ptrdiff_t n_k) {
    lanes_step_ = even_step(x, n_k);
    if (lanes_step_ == 0 || !reads_only_lanes_) {
      pack_lanes(x, n_k);
    } else {
      lanes_from_ = x[0] + task_.lane_begin;
    }
  }
  [[nodiscard]] std::ptrdiff_t n_turns() const {
    return ceil_div(task_.lane_end - task_.lane_begin, panel_) * ceil_div(task_.tile_end - task_.tile_begin, kernel_.rows);
  }
  void multiply(std::ptrdiff_t n_k, T* y, bool adds, BlockAhead<T>& ahead) const {
    const std::ptrdiff_t ld = task_.product.ld;
    T* lanes = lanes_;
    for (std::ptrdiff_t j = task_.lane_begin; j < task_.lane_end; j += panel_, lanes += panel_stride<T>(panel_)) {
      const std::ptrdiff_t n_cols = std::min(panel_, task_.lane_end - j);
      const std::ptrdiff_t vectors = ceil_div(n_cols, kernel_.width);
      T* tile = tiles_;
      each_tile(task_.tile_begin, task_.tile_end, kernel_.rows, [&](std::ptrdiff_t i, std::ptrdiff_t n_rows) {
        ahead.turn();
        OuterRows<T> rows{.a = tiles_ + i - task_.tile_begin, .lda = tiles_width_, .b = lanes, .ldb = panel_, .n_k = n_k};
        if (tiles_from_ != nullptr) {
          rows.a = tile;
          rows.lda = kernel_.rows;
          tile += kRowBlock * kernel_.rows;
        }
        const bool packs_a = tiles_from_ != nullptr && j == task_.lane_begin;
        const bool packs_b = lanes_from_ != nullptr && i == task_.tile_begin;
        if (!packs_a && !packs_b) {
          kernel_.outer[n_rows - 1][vectors - 1](rows.a, rows.lda, lanes, panel_, n_k, y + i * ld + j, ld, n_cols, adds);
          return;
        }
        rows.packed_a = const_cast<T*>(rows.a);
        rows.packed_lda = rows.lda;
        rows.packed_b = lanes;
        rows.packed_ldb = panel_;
        if (packs_a) {
          rows.a = tiles_from_ + i - task_.tile_begin;
          rows.lda = tiles_step_;
        }
        if (packs_b) {
          rows.b = lanes_from_ + j - task_.lane_begin;
          rows.ldb = lanes_step_;
        }
        kernel_.outer_packing[n_rows - 1][vectors - 1](rows, y + i * ld + j, ld, n_cols, adds);
      });
    }
  }

 private:
  const OuterTask<T>& task_;
  const GemmKernels<T>& kernel_;
  std::ptrdiff_t tiles_width_;
  std::ptrdiff_t panel_;
  bool reads_only_lanes_;
  T* tiles_;                       // [k][tiles_width_], or where a tile packs them [tile][k][rows of a tile]
  T* lanes_;                       // [panel][k][panel_]
  const T* tiles_from_ = nullptr;  // where tiles and lanes lie that are packed on the way, or null
  const T* lanes_from_ = nullptr;
  std::ptrdiff_t tiles_step_ = 0;
  std::ptrdiff_t lanes_step_ = 0;
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

// Points to the block of rows of a, or of b, that begins with `row`. Returns whether any row of a is outside, and null.
template <class T>
bool point_to_a(const OuterTask<T>& task, std::ptrdiff_t row, std::ptrdiff_t tap, const T** x) {
  const Gather<T>& a = task.product.a;
  return tap_pointers(a, a.taps[static_cast<std::size_t>(tap)], RowIndex(row, a.grid), task.n_rows_from(row), x);
}
template <class T>
void point_to_b(const OuterTask<T>& task, std::ptrdiff_t row, const T** x) {
  const OuterProduct<T>& product = task.product;
  RowIndex index(row, product.a.grid);
  for (std::ptrdiff_t k = 0; k < task.n_rows_from(row); ++k) {
    x[k] = product.b + index.n * product.b_stride_n + index.i[0] * product.b_stride[0] + index.i[1] * product.b_stride[1] +
           index.i[2] * product.b_stride[2];
    index.next(product.a.grid);
  }
}

// Most rows that are multiplied where they lie, in one chain: so many that they stay in L1; 0 where a copy is better. A
// copy of few values takes as long as their product; values that are far apart share cache sets.
template <class T>
std::ptrdiff_t rows_in_place(const OuterProduct<T>& product, const GemmKernels<T>& kernel) {
  constexpr std::ptrdiff_t kMostDistance = 256;
  constexpr std::ptrdiff_t kMostProducts = 128 * 128 - 1;  // of a row: where each value serves many tiles, a copy is better
  constexpr std::ptrdiff_t kLeastLine = 8;
  const std::ptrdiff_t distance = std::max(product.a.step[2] * product.a.stride[2], product.b_stride[2]);
  const std::ptrdiff_t n_lanes = product.swaps ? product.m : product.n;
  const bool reads_only_lanes = n_lanes % kernel.width == 0 || (product.swaps && product.has_slack);
  if (distance > kMostDistance || product.m * product.n > kMostProducts || !reads_only_lanes || product.a.is_padded()) {
    return 0;
  }
  const std::ptrdiff_t rows = kInPlaceValues / std::max<std::ptrdiff_t>(1, distance);
  return std::min(product.a.grid[2], rows) < kLeastLine ? 0 : rows;
}

// Memory to be asked for in turns, while it is not yet needed.
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
  struct Span {
    const char* first;
    std::ptrdiff_t bytes;
  };
  // Asks for a few lines here and now. Many are left to the tile that is computed next: they would hold up its own reads.
  Span turn() {
    if (n_spans_ == 0) {
      return {};
    }
    Span& span = spans_[n_spans_ - 1];  // its end makes a short turn
    const Span part{span.first, std::min(bytes_a_turn_, span.bytes)};
    span.first += part.bytes;
    span.bytes -= part.bytes;
    n_spans_ -= span.bytes == 0 ? 1 : 0;
    if (part.bytes > kFewLines * kAlignment) {
      return part;
    }
    for (std::ptrdiff_t i = 0; i < part.bytes; i += kAlignment) {
      __builtin_prefetch(part.first + i);
    }
    return {};
  }

 private:
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
  const std::ptrdiff_t a_line = a.step[1] * a.stride[1];
  const std::ptrdiff_t b_line = product.b_stride[1];
  // Lines of an image, short ones several at a time, or a part of one.
  struct Chain {
    const T* a;
    const T* b;
    std::ptrdiff_t n_k;
    std::ptrdiff_t n_lines = 1;
  };
  const auto chain_from = [&](std::ptrdiff_t row) {
    const RowIndex index(row, a.grid);
    Chain chain{.a = a.x + index.n * a.stride_n,
                .b = product.b + index.n * product.b_stride_n,
                .n_k = std::min({a.grid[2] - index.i[2], task.row_end - row, most_rows})};
    if (chain.n_k == a.grid[2]) {
      chain.n_lines = std::max<std::ptrdiff_t>(
          1, std::min({a.grid[1] - index.i[1], (task.row_end - row) / chain.n_k, most_rows / 4 / chain.n_k}));
    }
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
    const std::ptrdiff_t next = row + chain.n_lines * chain.n_k;
    const Chain following = next < task.row_end ? chain_from(next) : Chain{};
    Ahead ahead;
    if (following.n_k > 0) {
      const std::ptrdiff_t n_k = following.n_lines * following.n_k;
      ahead.add(following.b, n_k * b_step);
      ahead.add(following.a + offset(task.tap_end - 1), n_k * a_step);
      ahead.start(n_turns);
    }
    for (std::ptrdiff_t t = task.tap_begin; t < task.tap_end; ++t) {
      const T* const from = chain.a + offset(t);
      const T* const tiles = product.swaps ? chain.b : from;
      const T* const lanes = product.swaps ? from : chain.b;
      for (std::ptrdiff_t j = task.lane_begin; j < task.lane_end; j += panel) {
        const std::ptrdiff_t n_cols = std::min(panel, task.lane_end - j);
        each_tile(task.tile_begin, task.tile_end, kernel.rows, [&](std::ptrdiff_t i, std::ptrdiff_t n_rows) {
          const Ahead::Span asked = ahead.turn();
          T* const y = task.y + t * product.stride_t + i * product.ld + j;
          const std::ptrdiff_t lda = product.swaps ? b_step : a_step;
          const std::ptrdiff_t ldb = product.swaps ? a_step : b_step;
          const std::ptrdiff_t vectors = ceil_div(n_cols, kernel.width);
          const bool adds = row > task.row_begin;
          if (chain.n_lines == 1 && asked.bytes == 0) {
            kernel.outer[n_rows - 1][vectors - 1](tiles + i, lda, lanes + j, ldb, chain.n_k, y, product.ld, n_cols, adds);
            return;
          }
          kernel.outer_lines[n_rows - 1][vectors - 1]({.a = tiles + i,
                                                       .lda = lda,
                                                       .b = lanes + j,
                                                       .ldb = ldb,
                                                       .n_k = chain.n_k,
                                                       .n_lines = chain.n_lines,
                                                       .a_line = product.swaps ? b_line : a_line,
                                                       .b_line = product.swaps ? a_line : b_line,
                                                       .ahead = asked.first,
                                                       .ahead_step = ceil_div(2 * asked.bytes, chain.n_k * chain.n_lines)},
                                                      y, product.ld, n_cols, adds);
        });
      }
    }
    chain = following;
    row = next;
  }
}

// `following` is a task that this thread may well do next, or null.
template <class T>
void run_outer(const OuterTask<T>& task, const OuterTask<T>* following, bool asks, const GemmKernels<T>& kernel) {
  const OuterProduct<T>& product = task.product;
  OuterBlock<T> block(task, kernel);
  const auto pack_a = [&](const T* const* x, std::ptrdiff_t n_k) {
    return product.swaps ? block.pack_lanes(x, n_k) : block.pack_tiles(x, n_k);
  };
  const auto pack_b = [&](const T* const* x, std::ptrdiff_t n_k) {
    return product.swaps ? block.pack_tiles(x, n_k) : block.pack_lanes(x, n_k);
  };
  const auto take_a = [&](const T* const* x, std::ptrdiff_t n_k) {
    product.swaps ? block.take_lanes(x, n_k) : block.take_tiles(x, n_k);
  };
  const auto take_b = [&](const T* const* x, std::ptrdiff_t n_k) {
    product.swaps ? block.take_tiles(x, n_k) : block.take_lanes(x, n_k);
  };
  const T* a_rows[2][kRowBlock];  // of this product of a block with a tap and of the next
  const T* b_rows[2][kRowBlock];
  const T* a_inside[kRowBlock];
  const T* b_inside[kRowBlock];
  int a_now = 0;
  int b_now = 0;
  point_to_b(task, task.row_begin, b_rows[0]);
  bool any_outside = point_to_a(task, task.row_begin, task.tap_begin, a_rows[0]);
  const bool has_one_tap = task.tap_end - task.tap_begin == 1;
  for (std::ptrdiff_t row = task.row_begin; row < task.row_end; row += task.block_rows()) {
    const std::ptrdiff_t n_k = task.n_rows_from(row);
    const T* const* const b = b_rows[b_now];
    bool b_is_finite = true;
    if (has_one_tap && !any_outside) {
      take_b(b, n_k);
    } else {
      b_is_finite = pack_b(b, n_k);
    }
    for (std::ptrdiff_t tap = task.tap_begin; tap < task.tap_end; ++tap) {
      T* const y = task.y + tap * product.stride_t;
      const bool adds = row > task.row_begin;
      const T* const* const a = a_rows[a_now];
      const bool leaves_out = any_outside && !b_is_finite;
      if (!any_outside) {
        take_a(a, n_k);
      } else if (!leaves_out) {
        pack_a(a, n_k);
      }
      // The rows of the next product are found now, and asked for while this one is computed.
      BlockAhead<T> ahead;
      const bool ends_block = tap + 1 == task.tap_end;
      const bool ends_task = ends_block && row + n_k == task.row_end;
      const OuterTask<T>* const next = ends_task ? following : &task;
      if (next != nullptr) {
        const std::ptrdiff_t next_row = ends_task ? next->row_begin : ends_block ? row + n_k : row;
        const std::ptrdiff_t next_tap = ends_block ? next->tap_begin : tap + 1;
        const std::ptrdiff_t n_next = next->n_rows_from(next_row);
        if (ends_block) {
          point_to_b(*next, next_row, b_rows[1 - b_now]);
          ahead.add(b_rows[1 - b_now], n_next, next->b_begin(), next->b_end());
        }
        any_outside = point_to_a(*next, next_row, next_tap, a_rows[1 - a_now]);
        ahead.add(a_rows[1 - a_now], n_next, next->a_begin(), next->a_end());
        if (asks) {
          ahead.start(block.n_turns(), std::ptrdiff_t{2} * kernel.rows * kernel.vectors);
        }
      }
      if (!leaves_out) {
        block.multiply(n_k, y, adds, ahead);
      } else {
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
        block.multiply(n_inside, y, adds, ahead);
        pack_b(b, n_k);
      }
      a_now = 1 - a_now;
    }
    b_now = 1 - b_now;
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
  const WorkerBuffer<T> scratch(n_workers, scratch_size);
  const std::ptrdiff_t n_tasks = n_products * n_parts * blocking.n_blocks();
  const auto task_at = [&](std::ptrdiff_t i, int worker) {
    const std::ptrdiff_t lane_block = i % blocking.lanes.n_parts;
    i /= blocking.lanes.n_parts;
    const std::ptrdiff_t row_block = i % blocking.rows.n_parts;
    i /= blocking.rows.n_parts;
    const std::ptrdiff_t tap_block = i % blocking.taps.n_parts;
    i /= blocking.taps.n_parts;
    const std::ptrdiff_t part = i % n_parts;
    const std::ptrdiff_t which = i / n_parts;
    return OuterTask<T>{.product = products[static_cast<std::size_t>(which)],
                        .tap_begin = blocking.taps.begin(tap_block),
                        .tap_end = blocking.taps.end(tap_block),
                        .tile_begin = blocking.rows.begin(row_block),
                        .tile_end = blocking.rows.end(row_block),
                        .lane_begin = blocking.lanes.begin(lane_block),
                        .lane_end = blocking.lanes.end(lane_block),
                        .row_begin = part * n_rows / n_parts,
                        .row_end = (part + 1) * n_rows / n_parts,
                        .y = sums(which, part),
                        .scratch = scratch.of(worker)};
  };
  const std::ptrdiff_t most_in_place = rows_in_place(first, kernel);
  const auto run = [&](std::ptrdiff_t i, int worker) {
    const OuterTask<T> task = task_at(i, worker);
    if (most_in_place > 0) {
      run_outer_in_place(task, kernel, most_in_place);
      return;
    }
    // Threads go through neighbouring tasks.
    const bool is_last = i + 1 == n_tasks;
    const OuterTask<T> following = task_at(is_last ? i : i + 1, worker);
    run_outer(task, is_last ? nullptr : &following, blocking.asks, kernel);
  };
  parallel_for(n_tasks, run, n_workers);
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

template void outer_product(std::vector<OuterProduct<float>>);
template void outer_product(std::vector<OuterProduct<double>>);

}  // namespace striate
