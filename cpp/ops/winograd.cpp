#include "ops/winograd.hpp"

#include <algorithm>
#include <span>

#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kLine = kAlignment / static_cast<std::ptrdiff_t>(sizeof(float));
constexpr std::ptrdiff_t kSuperBlockBytes = 64 << 20;  // most transformed tiles kept between phases
constexpr std::ptrdiff_t kLeastSuperBlockBytes = 4 << 20;
constexpr std::ptrdiff_t kRowBlock = 256;            // tiles that a weight gradient sums in one chain
constexpr std::ptrdiff_t kMostParts = 16;            // of a weight gradient's sum
constexpr std::ptrdiff_t kLeastTasks = 8;            // fewer blocks of tiles than this go by phases
constexpr std::ptrdiff_t kLeastBlock = 24;           // tiles for which reading the filters from L3 costs little
constexpr std::ptrdiff_t kSmallBlock = 12;           // tiles, where L2 holds the filters
constexpr std::ptrdiff_t kLeastBlockMacs = 500'000;  // for which a thread costs more than it brings
constexpr std::ptrdiff_t kChunkChannels = 128;       // of the groups that are transformed at a time
constexpr std::ptrdiff_t kOuterChannels = 32;        // of the groups that a weight gradient's task takes
constexpr std::ptrdiff_t kMostOuterChannels = 64;    // of a group; larger ones are cut by tiles
constexpr std::ptrdiff_t kSmallMacs = 4'000'000;     // one thread does fewer as fast as two
constexpr std::ptrdiff_t kPackedLines = 64;          // of a panel, transformed at a time
constexpr std::ptrdiff_t kLinesBetween = 1;          // of a panel's points, which would share sets of the caches without
constexpr std::ptrdiff_t kSpilledBlock = 36;         // tiles of a block that does not stay in L2
// More filters than this, and twice as many where points share them, are read once, by phases.
constexpr std::ptrdiff_t kBlockFilterBytes = 4 << 20;
// Filters that serve once and take more are transformed that much at a time: then products find them in the caches.
constexpr std::ptrdiff_t kOnceBytes = 4 << 20;

// Values between rows of a plane that are far enough from a multiple of 1 KB not to share cache sets.
std::ptrdiff_t row_stride(std::ptrdiff_t channels, std::ptrdiff_t width) {
  const std::ptrdiff_t stride = round_up(channels, width);
  return stride % 256 == 0 ? stride + kLine : stride;
}
// Likewise between planes.
std::ptrdiff_t plane_stride(std::ptrdiff_t n_tiles, std::ptrdiff_t row) {
  return round_up(n_tiles * row, 2 * kLine) + kLine;
}

// The filters of some neighbouring groups.
using Filters = std::span<const std::shared_ptr<const Packed<float>>>;

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
    const std::ptrdiff_t step = reads_around ? in_step : out_step;
    const std::ptrdiff_t h = tile / columns % rows * step - (reads_around ? pad_h : 0);
    const std::ptrdiff_t w = tile % columns * step - (reads_around ? pad_w : 0);
    const std::ptrdiff_t image = tile / columns / rows;
    const auto clamped = [&](std::ptrdiff_t i) {
      return static_cast<int>(std::clamp<std::ptrdiff_t>(i, 0, reads_around ? extent : out_step));
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
        n_each_(ceil_div(count * step_ * step_ * images.c, n_turns * kLine)) {
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
      at_ += kLine;
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

// side² planes of rows, one row of channels a tile.
struct Planes {
  float* data;
  std::ptrdiff_t row;
  std::ptrdiff_t plane;
  int side;

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
void to_planes(WinogradTransform transform, const TileGrid& grid, const WinogradImages& images, bool reads_around,
               std::ptrdiff_t first, std::ptrdiff_t count, const Planes& planes, std::ptrdiff_t row) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    transform(grid.source(images, first + i, reads_around), planes.target(row + i), images.c);
  }
}

// Tiles of a product that follow one another without asking for memory.
constexpr std::ptrdiff_t kTilesAtOnce = 3;

// One point's product with its filter for one panel of one group's columns: M = V·U, `count` rows. Before n tiles ask(n).
template <class F>
void multiply(Filters filters, const Planes& v, const Planes& products, std::ptrdiff_t point, std::ptrdiff_t filter,
              std::ptrdiff_t any_panel, std::ptrdiff_t first, std::ptrdiff_t count, F&& ask) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t group = any_panel / filters[0]->n_panels;
  const std::ptrdiff_t panel = any_panel % filters[0]->n_panels;
  const Packed<float>& own = *filters[static_cast<std::size_t>(group)];
  const std::ptrdiff_t k = own.k - kLinesBetween;
  const std::ptrdiff_t columns = own.panel_columns(panel);
  // Whole vectors are written, but not over the next group.
  const std::ptrdiff_t n_columns = filters.size() == 1 ? columns : std::min(own.panel, own.columns - panel * own.panel);
  const float* const b = own.panel_data(panel) + filter * own.k * columns;
  const std::ptrdiff_t n_tiles = ceil_div(count, kernel.rows);
  const std::ptrdiff_t n_higher = count % n_tiles;
  Strip<float> strip{
      .x = v.data + point * v.plane + first * v.row + group * k,
      .x_step = v.row,
      .k = k,
      .y = products.data + point * products.plane + first * products.row + group * own.columns + panel * own.panel,
      .y_step = products.row,
      .n_tiles = 0};
  for (std::ptrdiff_t tile = 0; tile < n_tiles; tile += strip.n_tiles) {
    const bool is_higher = tile < n_higher;
    const std::ptrdiff_t rows = count / n_tiles + (is_higher ? 1 : 0);
    strip.n_tiles = std::min((is_higher ? n_higher : n_tiles) - tile, kTilesAtOnce);
    ask(strip.n_tiles);
    kernel.strip[rows - 1][columns / own.width - 1](strip, b, n_columns, {});
    strip.x += strip.n_tiles * rows * strip.x_step;
    strip.y += strip.n_tiles * rows * strip.y_step;
  }
}

// Rows of planes become the pixels of tiles.
void to_images(const TileGrid& grid, const Planes& products, const WinogradImages& y, std::ptrdiff_t first,
               std::ptrdiff_t count, std::ptrdiff_t row, const GemmTail& tail) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const std::ptrdiff_t tile = first + i;
    const std::ptrdiff_t h = tile / grid.columns % grid.rows * grid.out_step;
    const std::ptrdiff_t w = tile % grid.columns * grid.out_step;
    const std::ptrdiff_t image = tile / grid.columns / grid.rows;
    const WinogradTarget target{.y = y.data + image * y.stride_n + h * y.stride_h + w * y.stride_w,
                                .stride_h = y.stride_h,
                                .stride_w = y.stride_w,
                                .h_end = static_cast<int>(std::min<std::ptrdiff_t>(grid.out_step, y.h - h)),
                                .w_end = static_cast<int>(std::min<std::ptrdiff_t>(grid.out_step, y.w - w)),
                                .holds_vectors = false,
                                .bias = tail.bias == nullptr ? nullptr : static_cast<const float*>(tail.bias),
                                .clamps = tail.clamps,
                                .lo = static_cast<float>(tail.lo),
                                .hi = static_cast<float>(tail.hi),
                                .adds = tail.adds,
                                .addend = tail.addend,
                                .gates = tail.gates,
                                .gate = tail.gate};
    grid.output(products.source(row + i), target, y.c);
    const bool is_line = target.stride_w == y.c;
    for (int p = 0; tail.finish != nullptr && p < target.h_end; ++p) {
      for (int q = 0; q < (is_line ? 1 : target.w_end); ++q) {
        tail.finish->run(target.y + p * target.stride_h + q * target.stride_w, is_line ? target.w_end * y.c : y.c);
      }
    }
  }
}

std::ptrdiff_t count_panels(Filters filters) { return static_cast<std::ptrdiff_t>(filters.size()) * filters[0]->n_panels; }

// Blocks of tiles, each from pixels to pixels in one core's L2. Products ask for what the block writes, and for what the
// next one reads, which mostly is the same worker's. (Zen 4, AVX2, two threads: 64 channels at 56×56, 32×32 and 128×128 0.87
// to 0.92 of the time, 32 at 256×256 0.93, 128 at 28×28 and 64×64 0.95; what is read alone 0.90, 0.94, 0.95.)
void forward_by_blocks(const TileGrid& grid, const WinogradImages& x, Filters filters, const WinogradImages& y,
                       const GemmTail& tail, std::ptrdiff_t block) {
  const std::ptrdiff_t v_row = row_stride(x.c, filters[0]->width);
  const std::ptrdiff_t v_plane = plane_stride(block, v_row);
  const std::ptrdiff_t m_row = row_stride(y.c, filters[0]->width);
  const std::ptrdiff_t m_plane = plane_stride(block, m_row);
  const int n_workers = thread_count();
  const std::ptrdiff_t scratch_size = grid.n_points() * (v_plane + m_plane);
  const Buffer<float> scratch(n_workers * scratch_size);
  const Partition blocks(grid.n_tiles, block);
  const bool asks = is_far(grid.n_images() * (x.image_bytes() + y.image_bytes()));
  const auto run = [&](std::ptrdiff_t task, int worker) {
    float* const mine = scratch.data() + worker * scratch_size;
    const Planes v{.data = mine, .row = v_row, .plane = v_plane, .side = grid.n};
    const Planes products{.data = mine + grid.n_points() * v_plane, .row = m_row, .plane = m_plane, .side = grid.n};
    const std::ptrdiff_t first = blocks.begin(task);
    const std::ptrdiff_t count = blocks.end(task) - first;
    to_planes(grid.input, grid, x, true, first, count, v, 0);
    const auto multiply_all = [&](const auto& ask) {
      for (std::ptrdiff_t filter = 0; filter < grid.n_filters(); ++filter) {
        for (std::ptrdiff_t panel = 0; panel < count_panels(filters); ++panel) {
          grid.for_points(
              filter, [&](std::ptrdiff_t point) { multiply(filters, v, products, point, filter, panel, 0, count, ask); });
        }
      }
    };
    if (asks) {
      const std::ptrdiff_t n_turns = grid.n_points() * count_panels(filters) * ceil_div(count, kernels().gemm<float>().rows);
      TilesAhead reads(grid, x, TilesAhead::Use::read_around, first + count, count, n_turns);
      TilesAhead writes(grid, y, TilesAhead::Use::write, first, count, n_turns);
      multiply_all([&](std::ptrdiff_t n) {
        reads.turn(n);
        writes.turn(n, &tail);
      });
    } else {
      multiply_all([](std::ptrdiff_t) {});
    }
    to_images(grid, products, y, first, count, 0, tail);
  };
  parallel_for(blocks.n_parts, run, n_workers);
}

// Few tiles or many filters: all tiles are transformed, then each filter is read once, by the points' owners, which keep
// the tiles of a point in L2 (panels outermost: half the speed at 128 channels, batch 16).
// `for_filters(f)` calls f(filters, first) for the filters of columns `first` on, for all of them or for some at a time.
template <class ForFilters>
void forward_by_phases(const TileGrid& grid, const WinogradImages& x, const WinogradImages& y, const GemmTail& tail,
                       ForFilters&& for_filters) {
  const std::ptrdiff_t width = kernels().gemm<float>().width;
  const std::ptrdiff_t v_row = row_stride(x.c, width);
  const std::ptrdiff_t m_row = row_stride(y.c, width);
  const std::ptrdiff_t tile_bytes = grid.n_points() * (v_row + m_row) * static_cast<std::ptrdiff_t>(sizeof(float));
  const Partition super(grid.n_tiles, std::max<std::ptrdiff_t>(kernels().gemm<float>().rows, kSuperBlockBytes / tile_bytes));
  const std::ptrdiff_t most = std::min(super.part, grid.n_tiles);
  const std::ptrdiff_t v_plane = plane_stride(most, v_row);
  const std::ptrdiff_t m_plane = plane_stride(most, m_row);
  const Buffer<float> scratch(grid.n_points() * (v_plane + m_plane));
  const Planes v{.data = scratch.data(), .row = v_row, .plane = v_plane, .side = grid.n};
  const Planes products{.data = scratch.data() + grid.n_points() * v_plane, .row = m_row, .plane = m_plane, .side = grid.n};
  for (std::ptrdiff_t s = 0; s < super.n_parts; ++s) {
    const std::ptrdiff_t first = super.begin(s);
    const std::ptrdiff_t count = super.end(s) - first;
    const Partition in(count, std::max<std::ptrdiff_t>(1, 2048 / x.c));
    parallel_for(in.n_parts, [&](std::ptrdiff_t task) {
      to_planes(grid.input, grid, x, true, first + in.begin(task), in.end(task) - in.begin(task), v, in.begin(task));
    });
    const std::ptrdiff_t row = kernels().gemm<float>().rows;
    const std::ptrdiff_t rows = std::max<std::ptrdiff_t>(row, 256 / row * row);
    const Partition blocks(count, rows);
    for_filters([&](Filters filters, std::ptrdiff_t first_column) {
      const std::ptrdiff_t n_panels = count_panels(filters);
      Planes part = products;
      part.data += first_column;
      // Blocks of rows last: a panel of a point is read by all of them while it is near.
      parallel_for(n_panels * grid.n_points(), [&](std::ptrdiff_t task) {
        for (std::ptrdiff_t b = 0; b < blocks.n_parts; ++b) {
          multiply(filters, v, part, task / n_panels, grid.filter_of(task / n_panels), task % n_panels, blocks.begin(b),
                   blocks.end(b) - blocks.begin(b), [](std::ptrdiff_t) {});
        }
      });
    });
    const Partition out(count, std::max<std::ptrdiff_t>(1, 2048 / y.c));
    parallel_for(out.n_parts, [&](std::ptrdiff_t task) {
      to_images(grid, products, y, first + out.begin(task), out.end(task) - out.begin(task), out.begin(task), tail);
    });
  }
}

// U[filter][o][c] = Σ over its points and over rows of Z[point][row][o]·V[point][row][first + c], for a range of o, added to
// what U holds if `adds`. Before each tile ask().
template <class F>
void accumulate(const TileGrid& grid, const Planes& z, const Planes& v, std::ptrdiff_t filter, std::ptrdiff_t rows,
                std::ptrdiff_t o_begin, std::ptrdiff_t o_end, std::ptrdiff_t first, std::ptrdiff_t c, const Planes& u,
                bool adds, F&& ask) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const std::ptrdiff_t n_steps = ceil_div(o_end - o_begin, kernel.rows);
  grid.for_points(filter, [&](std::ptrdiff_t point) {
    for (std::ptrdiff_t column = 0; column < c; column += panel) {
      const std::ptrdiff_t n_columns = std::min(panel, c - column);
      for (std::ptrdiff_t step = 0; step < n_steps; ++step) {
        const std::ptrdiff_t o = o_begin + step * (o_end - o_begin) / n_steps;
        const std::ptrdiff_t height = o_begin + (step + 1) * (o_end - o_begin) / n_steps - o;
        ask();
        kernel.outer[height - 1][ceil_div(n_columns, kernel.width) - 1](
            z.data + point * z.plane + o, z.row, v.data + point * v.plane + first + column, v.row, rows,
            u.data + filter * u.plane + o * u.row + column, u.row, n_columns, adds);
      }
    }
    adds = true;
  });
}

// Rows [begin, end) of planes of sums become the gradients of filters.
void to_filters(const TileGrid& grid, const Planes& sums, std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t c,
                float* grad_weight) {
  const WinogradTransform grad_filter = kernels().winograd.grad_filter[grid.form];
  for (std::ptrdiff_t i = begin; i < end; ++i) {
    grad_filter(sums.source(i),
                {.y = grad_weight + i * grid.r * grid.r * c,
                 .stride_h = grid.r * c,
                 .stride_w = c,
                 .h_end = grid.r,
                 .w_end = grid.r,
                 .holds_vectors = false,
                 .bias = nullptr,
                 .clamps = false,
                 .lo = 0,
                 .hi = 0},
                c);
  }
}

}  // namespace

namespace {

// U = G g Gᵀ of columns first … first + packed.columns − 1 of one group's filters. See pack_winograd.
void pack_filters(const float* weight, std::ptrdiff_t c, int form, bool transposes, std::ptrdiff_t first,
                  const Packed<float>& packed) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t r = kWinogradForm[form].r;
  const int n = kWinogradForm[form].n_filter();
  const std::ptrdiff_t n_taps = r * r;
  // Tasks are a panel and a part of k, whose taps are packed as the points will lie: a transform is one over all of them.
  const Partition parts(packed.k - kLinesBetween, kPackedLines);
  const std::ptrdiff_t tap_size = parts.part * packed.panel;
  const int n_workers = thread_count();
  const Buffer<float> scratch(n_workers * n_taps * tap_size);
  const auto run = [&](std::ptrdiff_t task, int worker) {
    const std::ptrdiff_t p = task / parts.n_parts;
    const std::ptrdiff_t begin = parts.begin(task % parts.n_parts);
    const std::ptrdiff_t count = parts.end(task % parts.n_parts) - begin;
    const std::ptrdiff_t wide = packed.panel_columns(p);
    const std::ptrdiff_t n_columns = std::min(packed.columns - p * packed.panel, packed.panel);
    const std::ptrdiff_t column = first + p * packed.panel;
    float* const taps = scratch.data() + worker * n_taps * tap_size;
    for (std::ptrdiff_t tap = 0; tap < n_taps; ++tap) {
      if (transposes) {  // flipped
        kernel.pack(weight + (begin * n_taps + n_taps - 1 - tap) * c + column, n_taps * c, 1, count, n_columns, wide,
                    taps + tap * tap_size);
      } else {
        kernel.pack(weight + (column * n_taps + tap) * c + begin, 1, n_taps * c, count, n_columns, wide,
                    taps + tap * tap_size);
      }
    }
    const int r_end = static_cast<int>(r);
    const std::ptrdiff_t point = packed.k * wide;
    kernels().winograd.filter[form]({.x = taps,
                                     .stride_h = r * tap_size,
                                     .stride_w = tap_size,
                                     .h_begin = 0,
                                     .h_end = r_end,
                                     .w_begin = 0,
                                     .w_end = r_end},
                                    {.y = packed.panel_data(p) + begin * wide,
                                     .stride_h = n * point,
                                     .stride_w = point,
                                     .h_end = n,
                                     .w_end = n,
                                     .holds_vectors = true,
                                     .bias = nullptr,
                                     .clamps = false,
                                     .lo = 0,
                                     .hi = 0},
                                    count * wide);
  };
  parallel_for(packed.n_panels * parts.n_parts, run, n_workers);
}

std::shared_ptr<Packed<float>> room_for(int form, std::ptrdiff_t k, std::ptrdiff_t columns) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const int n = kWinogradForm[form].n_filter();
  return std::make_shared<Packed<float>>(n * n, k + kLinesBetween, columns, kernel.vectors * kernel.width, kernel.width);
}

}  // namespace

WinogradFilters pack_winograd(const float* weight, std::ptrdiff_t groups, std::ptrdiff_t o, std::ptrdiff_t c, int form,
                              bool transposes) {
  const int r = kWinogradForm[form].r;
  WinogradFilters filters;
  for (std::ptrdiff_t group = 0; group < groups; ++group) {
    const auto packed = room_for(form, transposes ? o : c, transposes ? c : o);
    pack_filters(weight + group * o * r * r * c, c, form, transposes, 0, *packed);
    filters.push_back(packed);
  }
  return filters;
}

namespace {

void forward_groups(const TileGrid& grid, const WinogradImages& x, Filters filters, const WinogradImages& y,
                    const GemmTail& tail) {
  const std::ptrdiff_t tile_rows = kernels().gemm<float>().rows;
  const auto bytes = [&](std::ptrdiff_t values) { return values * static_cast<std::ptrdiff_t>(sizeof(float)); };
  const std::ptrdiff_t l2 = cache_sizes().l2_bytes;
  const std::ptrdiff_t tile_bytes =
      bytes(grid.n_points() * (row_stride(x.c, filters[0]->width) + row_stride(y.c, filters[0]->width)));
  const std::ptrdiff_t tile_macs = grid.n_points() * x.c * y.c / static_cast<std::ptrdiff_t>(filters.size());
  const std::ptrdiff_t filter_bytes = bytes(tile_macs / grid.n_points() * grid.n_filters());
  // A block reads the filters once: as many tiles as L2 holds, or more than that where too few would hold (then the
  // transformed tiles pass through L3, which costs less than the filters would).
  const std::ptrdiff_t fit = l2 * 7 / 8 / tile_bytes / tile_rows * tile_rows;
  const std::ptrdiff_t least = round_up(kLeastBlock, tile_rows);
  std::ptrdiff_t block = fit >= least ? std::min(fit, 2 * least) : round_up(kSpilledBlock, tile_rows);
  // Few tiles: where L2 keeps the filters for the next block, blocks may be as small as is worth a thread.
  const bool keeps_filters = filter_bytes <= l2 / 2;
  if (keeps_filters) {
    const std::ptrdiff_t worth = ceil_div(kLeastBlockMacs, tile_macs);
    block = std::min(block, round_up(std::max({ceil_div(grid.n_tiles, kLeastTasks), worth, kSmallBlock}), tile_rows));
  }
  const std::ptrdiff_t n_blocks = ceil_div(grid.n_tiles, block);
  if ((n_blocks < kLeastTasks && !keeps_filters) || filter_bytes > kBlockFilterBytes * kWinogradForm[grid.form].stride) {
    forward_by_phases(grid, x, y, tail, [&](const auto& f) { f(filters, 0); });
  } else {
    forward_by_blocks(grid, x, filters, y, tail, ceil_div(grid.n_tiles, n_blocks));
  }
}

void grad_weight_by_tiles(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight) {
  const std::ptrdiff_t width = kernels().gemm<float>().width;
  const std::ptrdiff_t tile_rows = kernels().gemm<float>().rows;
  const std::ptrdiff_t o = grad_y.c;
  const std::ptrdiff_t c = x.c;
  const int n_points = grid.n_points();
  const int n_filters = grid.n_filters();
  const std::ptrdiff_t v_row = row_stride(c, width);
  const std::ptrdiff_t z_row = row_stride(o, width);
  const std::ptrdiff_t u_row = round_up(c, width);
  const std::ptrdiff_t u_plane = plane_stride(o, u_row);
  const auto bytes = [&](std::ptrdiff_t values) { return values * static_cast<std::ptrdiff_t>(sizeof(float)); };
  const std::ptrdiff_t sum_bytes = bytes(n_filters * u_plane);
  const std::ptrdiff_t tile_bytes = bytes(n_points * (v_row + z_row));
  const std::ptrdiff_t l2 = cache_sizes().l2_bytes;
  // Parts of the sum, each with its own accumulators, while those cost less traffic than the tiles would.
  const bool is_small = grid.n_tiles * n_points * c * o <= kSmallMacs;
  std::ptrdiff_t n_parts = is_small ? 1 : kMostParts;
  while (n_parts > 1 && (n_parts * sum_bytes > grid.n_tiles * tile_bytes || n_parts * 2 * tile_rows > grid.n_tiles)) {
    n_parts /= 2;
  }
  const bool by_parts = (n_parts >= 4 || is_small) && sum_bytes <= l2 / 2;
  // Else points are tasks: a super block of tiles is as large as the sums, since each passes through L3 once for the other.
  // (128 channels at 28×28, batch 16, AVX2: 1.8 of peak with 2 MB, 1.2 with 64 MB; 256 at 14×14: 0.8 with 2, 1.2 with 10.)
  const std::ptrdiff_t super_bytes = std::clamp(sum_bytes, kLeastSuperBlockBytes, kSuperBlockBytes);
  const std::ptrdiff_t fit =
      std::clamp<std::ptrdiff_t>(by_parts ? l2 / 2 / tile_bytes : super_bytes / tile_bytes, 16, by_parts ? 256 : 1 << 20);
  n_parts = by_parts ? n_parts : 1;
  const std::ptrdiff_t block = std::min(fit, ceil_div(grid.n_tiles, n_parts));
  const std::ptrdiff_t v_plane = plane_stride(block, v_row);
  const std::ptrdiff_t z_plane = plane_stride(block, z_row);
  const int n_workers = by_parts ? thread_count() : 1;
  const std::ptrdiff_t scratch_size = n_points * (v_plane + z_plane);
  const Buffer<float> scratch(n_workers * scratch_size);
  const Buffer<float> sums(n_parts * n_filters * u_plane);
  const auto sum_of = [&](std::ptrdiff_t part) {
    return Planes{
        .data = sums.data() + part * n_filters * u_plane, .row = u_row, .plane = u_plane, .side = grid.n_side_filters};
  };
  const auto v_of = [&](int worker) {
    return Planes{.data = scratch.data() + worker * scratch_size, .row = v_row, .plane = v_plane, .side = grid.n};
  };
  const auto z_of = [&](int worker) {
    return Planes{
        .data = scratch.data() + worker * scratch_size + n_points * v_plane, .row = z_row, .plane = z_plane, .side = grid.n};
  };
  const WinogradTransform grad_output = kernels().winograd.grad_output[grid.form];
  // Products ask for the pixels of the next block, where L2 has room for them. (Zen 4, AVX2: 64 channels at 56×56, 32×32 and
  // 128×128 0.84 to 0.94 of the time, 32 at 256×256 0.85, 128 at 28×28 0.92 to 1.0; 256 at 14×14 would take 1.03.)
  const bool asks = is_far(grid.n_images() * (x.image_bytes() + grad_y.image_bytes())) &&
                    bytes(block * (grid.in_step * grid.in_step * c + grid.out_step * grid.out_step * o)) <= 2 * l2;
  // f(ask), where ask() is to be called before each of the tiles that multiply n_rows by c, so many times.
  const auto asking_for = [&](std::ptrdiff_t first, std::ptrdiff_t count, std::ptrdiff_t n_rows, std::ptrdiff_t times,
                              const auto& f) {
    if (!asks) {
      f([] {});
      return;
    }
    const GemmKernels<float>& kernel = kernels().gemm<float>();
    const std::ptrdiff_t n_turns = times * ceil_div(n_rows, kernel.rows) * ceil_div(c, kernel.vectors * kernel.width);
    TilesAhead of_x(grid, x, TilesAhead::Use::read_around, first, count, n_turns);
    TilesAhead of_grad(grid, grad_y, TilesAhead::Use::read, first, count, n_turns);
    f([&] {
      of_x.turn();
      of_grad.turn();
    });
  };
  if (by_parts) {
    const auto run = [&](std::ptrdiff_t part, int worker) {
      const Planes u = sum_of(part);
      const std::ptrdiff_t begin = part * grid.n_tiles / n_parts;
      const std::ptrdiff_t end = (part + 1) * grid.n_tiles / n_parts;
      for (std::ptrdiff_t first = begin; first < end; first += block) {
        const std::ptrdiff_t count = std::min(block, end - first);
        to_planes(grid.input, grid, x, true, first, count, v_of(worker), 0);
        to_planes(grad_output, grid, grad_y, false, first, count, z_of(worker), 0);
        asking_for(first + count, count, o, n_points, [&](const auto& ask) {
          for (std::ptrdiff_t filter = 0; filter < n_filters; ++filter) {
            accumulate(grid, z_of(worker), v_of(worker), filter, count, 0, o, 0, c, u, first > begin, ask);
          }
        });
      }
    };
    parallel_for(n_parts, run, n_workers);
  } else {
    const Planes u = sum_of(0);
    const Partition filters(o, std::max<std::ptrdiff_t>(tile_rows, 96 / tile_rows * tile_rows));
    for (std::ptrdiff_t first = 0; first < grid.n_tiles; first += block) {
      const std::ptrdiff_t count = std::min(block, grid.n_tiles - first);
      const Partition tiles(count, std::max<std::ptrdiff_t>(1, 2048 / c));
      parallel_for(tiles.n_parts, [&](std::ptrdiff_t task) {
        const std::ptrdiff_t begin = tiles.begin(task);
        to_planes(grid.input, grid, x, true, first + begin, tiles.end(task) - begin, v_of(0), begin);
        to_planes(grad_output, grid, grad_y, false, first + begin, tiles.end(task) - begin, z_of(0), begin);
      });
      // Those of most points first: the last tasks, which workers share, are small.
      parallel_for(n_filters * filters.n_parts, [&](std::ptrdiff_t task) {
        const std::ptrdiff_t filter = n_filters - 1 - task / filters.n_parts;
        const std::ptrdiff_t begin = filters.begin(task % filters.n_parts);
        const std::ptrdiff_t end = filters.end(task % filters.n_parts);
        for (std::ptrdiff_t row = 0; row < count; row += kRowBlock) {
          Planes v = v_of(0);
          Planes z = z_of(0);
          v.data += row * v.row;
          z.data += row * z.row;
          // Each call asks for a share of the next block.
          const std::ptrdiff_t n_row_blocks = ceil_div(count, kRowBlock);
          const Partition next(block, ceil_div(block, n_filters * filters.n_parts * n_row_blocks));
          const std::ptrdiff_t share = task * n_row_blocks + row / kRowBlock;
          const std::ptrdiff_t at = std::min(next.begin(share), block);
          asking_for(first + block + at, next.end(share) - at, end - begin, grid.count_points(filter), [&](const auto& ask) {
            accumulate(grid, z, v, filter, std::min(kRowBlock, count - row), begin, end, 0, c, u, first + row > 0, ask);
          });
        }
      });
    }
  }
  const Partition filters(o, std::max<std::ptrdiff_t>(1, 4096 / c));
  parallel_for(filters.n_parts, [&](std::ptrdiff_t task) {
    const Planes total = sum_of(0);
    const std::ptrdiff_t begin = filters.begin(task);
    const std::ptrdiff_t length = (filters.end(task) - begin) * u_row;
    for (std::ptrdiff_t part = 1; part < n_parts; ++part) {
      const Planes other = sum_of(part);
      for (std::ptrdiff_t filter = 0; filter < n_filters; ++filter) {
        float* const to = total.data + filter * u_plane + begin * u_row;
        const float* const from = other.data + filter * u_plane + begin * u_row;
        for (std::ptrdiff_t i = 0; i < length; ++i) {
          to[i] += from[i];
        }
      }
    }
    to_filters(grid, total, begin, filters.end(task), c, grad_weight);
  });
}

// As many groups at a time as have `channels`: then rows of planes are short, and many tiles are near at once, for products
// of few channels.
Partition chunks_of(std::ptrdiff_t groups, std::ptrdiff_t channels, const WinogradImages& x, const WinogradImages& y) {
  return {groups, std::max<std::ptrdiff_t>(1, channels * groups / std::max(x.c, y.c))};
}

// The channels of groups [begin, end) of `groups`.
WinogradImages slice(const WinogradImages& images, std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t groups) {
  WinogradImages part = images;
  part.data += begin * images.c / groups;
  part.c = (end - begin) * images.c / groups;
  return part;
}

// Groups are tasks: each sums over all tiles, block by block, in L2.
void grad_weight_by_groups(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight,
                           std::ptrdiff_t groups) {
  const std::ptrdiff_t width = kernels().gemm<float>().width;
  const std::ptrdiff_t c = x.c / groups;
  const std::ptrdiff_t o = grad_y.c / groups;
  const Partition chunks = chunks_of(groups, kOuterChannels, x, grad_y);
  const std::ptrdiff_t v_row = row_stride(chunks.part * c, width);
  const std::ptrdiff_t z_row = row_stride(chunks.part * o, width);
  const std::ptrdiff_t u_row = round_up(c, width);
  const std::ptrdiff_t tile_bytes = grid.n_points() * (v_row + z_row) * static_cast<std::ptrdiff_t>(sizeof(float));
  const Partition blocks(grid.n_tiles, std::clamp<std::ptrdiff_t>(cache_sizes().l2_bytes / 2 / tile_bytes, 16, kRowBlock));
  const std::ptrdiff_t v_plane = plane_stride(std::min(blocks.part, grid.n_tiles), v_row);
  const std::ptrdiff_t z_plane = plane_stride(std::min(blocks.part, grid.n_tiles), z_row);
  const std::ptrdiff_t u_plane = plane_stride(chunks.part * o, u_row);
  const std::ptrdiff_t scratch_size = grid.n_points() * (v_plane + z_plane) + grid.n_filters() * u_plane;
  const int n_workers = thread_count();
  const Buffer<float> scratch(n_workers * scratch_size);
  const auto run = [&](std::ptrdiff_t chunk, int worker) {
    const std::ptrdiff_t begin = chunks.begin(chunk);
    const std::ptrdiff_t n_groups = chunks.end(chunk) - begin;
    const WinogradImages own_x = slice(x, begin, begin + n_groups, groups);
    const WinogradImages own_grad_y = slice(grad_y, begin, begin + n_groups, groups);
    float* const mine = scratch.data() + worker * scratch_size;
    const Planes v{.data = mine, .row = v_row, .plane = v_plane, .side = grid.n};
    const Planes z{.data = mine + grid.n_points() * v_plane, .row = z_row, .plane = z_plane, .side = grid.n};
    const Planes u{
        .data = mine + grid.n_points() * (v_plane + z_plane), .row = u_row, .plane = u_plane, .side = grid.n_side_filters};
    for (std::ptrdiff_t block = 0; block < blocks.n_parts; ++block) {
      const std::ptrdiff_t first = blocks.begin(block);
      const std::ptrdiff_t count = blocks.end(block) - first;
      to_planes(grid.input, grid, own_x, true, first, count, v, 0);
      to_planes(kernels().winograd.grad_output[grid.form], grid, own_grad_y, false, first, count, z, 0);
      for (std::ptrdiff_t filter = 0; filter < grid.n_filters(); ++filter) {
        for (std::ptrdiff_t group = 0; group < n_groups; ++group) {
          accumulate(grid, z, v, filter, count, group * o, (group + 1) * o, group * c, c, u, block > 0, [] {});
        }
      }
    }
    to_filters(grid, u, 0, n_groups * o, c, grad_weight + begin * o * grid.r * grid.r * c);
  };
  parallel_for(chunks.n_parts, run, n_workers);
}

}  // namespace

void winograd_forward(ConvPass pass, const WinogradImages& x, const WinogradFilters& filters, const WinogradImages& y,
                      std::ptrdiff_t n, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form, const GemmTail& tail) {
  const TileGrid grid(pass, form, n, y.h, y.w, pad_h, pad_w);
  const auto groups = static_cast<std::ptrdiff_t>(filters.size());
  const Partition chunks = chunks_of(groups, kChunkChannels, x, y);
  for (std::ptrdiff_t chunk = 0; chunk < chunks.n_parts; ++chunk) {
    const std::ptrdiff_t begin = chunks.begin(chunk);
    const std::ptrdiff_t end = chunks.end(chunk);
    GemmTail own = tail;
    if (tail.bias != nullptr) {
      own.bias = static_cast<const float*>(tail.bias) + begin * y.c / groups;
    }
    forward_groups(grid, slice(x, begin, end, groups),
                   Filters(filters).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
                   slice(y, begin, end, groups), own);
  }
}

bool ran_winograd_once(ConvPass pass, const WinogradImages& x, const float* weight, const WinogradImages& y,
                       std::ptrdiff_t n, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form, const GemmTail& tail) {
  const TileGrid grid(pass, form, n, y.h, y.w, pad_h, pad_w);
  const std::ptrdiff_t panel = kernels().gemm<float>().vectors * kernels().gemm<float>().width;
  const std::ptrdiff_t panel_bytes = grid.n_filters() * x.c * panel * static_cast<std::ptrdiff_t>(sizeof(float));
  const Partition chunks(ceil_div(y.c, panel), std::max<std::ptrdiff_t>(1, kOnceBytes / panel_bytes));
  // Each chunk reads all transformed tiles.
  if (chunks.n_parts == 1 || grid.n_tiles * grid.n_points() > y.c * grid.n_filters()) {
    return false;
  }
  const auto room = room_for(form, x.c, std::min(chunks.part * panel, y.c));
  const bool transposes = pass == ConvPass::grad_input;
  forward_by_phases(grid, x, y, tail, [&](const auto& f) {
    for (std::ptrdiff_t i = 0; i < chunks.n_parts; ++i) {
      const std::ptrdiff_t first = chunks.begin(i) * panel;
      const std::ptrdiff_t columns = std::min(chunks.end(i) * panel, y.c) - first;
      const auto packed = columns == room->columns ? room : room_for(form, x.c, columns);
      pack_filters(weight, transposes ? y.c : x.c, form, transposes, first, *packed);
      const std::shared_ptr<const Packed<float>> made[] = {packed};
      f(Filters(made), first);
    }
  });
  return true;
}

void winograd_grad_weight(const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight, std::ptrdiff_t n,
                          std::ptrdiff_t groups, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form) {
  const TileGrid grid(ConvPass::grad_weight, form, n, grad_y.h, grad_y.w, pad_h, pad_w);
  const std::ptrdiff_t c = x.c / groups;
  const std::ptrdiff_t o = grad_y.c / groups;
  if (groups > 1 && std::max(c, o) <= kMostOuterChannels) {
    grad_weight_by_groups(grid, x, grad_y, grad_weight, groups);
    return;
  }
  for (std::ptrdiff_t group = 0; group < groups; ++group) {
    grad_weight_by_tiles(grid, slice(x, group, group + 1, groups), slice(grad_y, group, group + 1, groups),
                         grad_weight + group * o * grid.r * grid.r * c);
  }
}

}  // namespace striate
