#include "ops/winograd.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/winograd_tiles.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kLeastTasks = 8;              // fewer blocks of tiles than this go by phases
constexpr std::ptrdiff_t kLeastBlock = 24;             // tiles for which reading the filters from L3 costs little
constexpr std::ptrdiff_t kSmallBlock = 12;             // tiles, where L2 holds the filters
constexpr std::ptrdiff_t kLeastBlockMacs = 500'000;    // for which a thread costs more than it brings
constexpr std::ptrdiff_t kChunkChannels = 128;         // of the groups that are transformed at a time
constexpr std::ptrdiff_t kPackedLines = 64;            // of a panel, transformed at a time
constexpr std::ptrdiff_t kLinesBetween = 1;            // of a panel's points, which would share sets of the caches without
constexpr std::ptrdiff_t kSpilledBlock = 36;           // tiles of a block that does not stay in L2
constexpr std::ptrdiff_t kSuperBlockBytes = 64 << 20;  // most transformed tiles kept between phases
// More filters than this, and twice as many where points share them, are read once, by phases.
constexpr std::ptrdiff_t kBlockFilterBytes = 4 << 20;
// Filters that serve once and take more are transformed panel by panel, each by the worker that multiplies it.
constexpr std::ptrdiff_t kOnceBytes = 4 << 20;

// The filters of some neighbouring groups.
using Filters = std::span<const std::shared_ptr<const Packed<float>>>;

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
// `sums`, which may be null, are told of blocks of whole lines of tiles.
void forward_by_blocks(const TileGrid& grid, const WinogradImages& x, Filters filters, const WinogradImages& y,
                       const GemmTail& tail, std::ptrdiff_t block, RowSums* sums) {
  const std::ptrdiff_t v_row = row_stride(x.c, filters[0]->width);
  const std::ptrdiff_t v_plane = plane_stride(block, v_row);
  const std::ptrdiff_t m_row = row_stride(y.c, filters[0]->width);
  const std::ptrdiff_t m_plane = plane_stride(block, m_row);
  const int n_workers = thread_count();
  const std::ptrdiff_t scratch_size = grid.n_points() * (v_plane + m_plane);
  const WorkerBuffer<float> scratch(n_workers, scratch_size);
  const Partition blocks(grid.n_tiles, block);
  const bool asks = is_far(grid.n_images() * (x.image_bytes() + y.image_bytes()));
  const auto run = [&](std::ptrdiff_t task, int worker) {
    float* const mine = scratch.of(worker);
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
    if (sums != nullptr) {
      const std::ptrdiff_t line = grid.out_step * y.w;
      sums->add(first / grid.columns * line, (first + count) / grid.columns * line, 0, y.c);
    }
  };
  parallel_for(blocks.n_parts, run, n_workers);
}

// Few tiles or many filters: all tiles are transformed, then each filter is read once, by the points' owners, which keep
// the tiles of a point in L2 (panels outermost: half the speed at 128 channels, batch 16).
// multiply_all(V, products, blocks) is to multiply all rows.
template <class MultiplyAll>
void forward_by_phases(const TileGrid& grid, const WinogradImages& x, const WinogradImages& y, const GemmTail& tail,
                       MultiplyAll&& multiply_all) {
  const std::ptrdiff_t width = kernels().gemm<float>().width;
  const std::ptrdiff_t v_row = row_stride(x.c, width);
  const std::ptrdiff_t m_row = row_stride(y.c, width);
  const std::ptrdiff_t tile_bytes = bytes_of(grid.n_points() * (v_row + m_row));
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
    multiply_all(v, products, Partition(count, rows));
    const Partition out(count, std::max<std::ptrdiff_t>(1, 2048 / y.c));
    parallel_for(out.n_parts, [&](std::ptrdiff_t task) {
      to_images(grid, products, y, first + out.begin(task), out.end(task) - out.begin(task), out.begin(task), tail);
    });
  }
}

// One group's filters, of which U = G g Gᵀ is made. See pack_winograd.
struct FilterSource {
  const float* weight;
  std::ptrdiff_t c;
  int form;
  bool transposes;

  [[nodiscard]] std::ptrdiff_t n_taps() const { return kWinogradForm[form].r * kWinogradForm[form].r; }
  // Taps are packed as the points will lie, for some lines: a transform is one over all of them.
  static Partition parts(const Packed<float>& packed) { return {packed.k - kLinesBetween, kPackedLines}; }
  [[nodiscard]] std::ptrdiff_t scratch_size(const Packed<float>& packed) const {
    return n_taps() * parts(packed).part * packed.panel;
  }

  // A part of panel p of `packed`, whose first column is `column`.
  void pack(const Packed<float>& packed, std::ptrdiff_t p, std::ptrdiff_t part, std::ptrdiff_t column, float* taps) const {
    const GemmKernels<float>& kernel = kernels().gemm<float>();
    const std::ptrdiff_t begin = parts(packed).begin(part);
    const std::ptrdiff_t count = parts(packed).end(part) - begin;
    const std::ptrdiff_t wide = packed.panel_columns(p);
    const std::ptrdiff_t n_columns = std::min(packed.columns - p * packed.panel, packed.panel);
    const std::ptrdiff_t tap_size = parts(packed).part * packed.panel;
    for (std::ptrdiff_t tap = 0; tap < n_taps(); ++tap) {
      if (transposes) {  // flipped
        kernel.pack(weight + (begin * n_taps() + n_taps() - 1 - tap) * c + column, n_taps() * c, 1, count, n_columns, wide,
                    taps + tap * tap_size);
      } else {
        kernel.pack(weight + (column * n_taps() + tap) * c + begin, 1, n_taps() * c, count, n_columns, wide,
                    taps + tap * tap_size);
      }
    }
    const Planes from{.data = taps, .row = 0, .plane = tap_size, .side = kWinogradForm[form].r};
    const Planes to{.data = packed.panel_data(p) + begin * wide,
                    .row = 0,
                    .plane = packed.k * wide,
                    .side = kWinogradForm[form].n_filter()};
    kernels().winograd.filter[form](from.source(0), to.target(0), count * wide);
  }

  void pack_all(const Packed<float>& packed) const {
    const Partition of_panel = parts(packed);
    const int n_workers = thread_count();
    const WorkerBuffer<float> scratch(n_workers, scratch_size(packed));
    const auto run = [&](std::ptrdiff_t task, int worker) {
      const std::ptrdiff_t p = task / of_panel.n_parts;
      pack(packed, p, task % of_panel.n_parts, p * packed.panel, scratch.of(worker));
    };
    parallel_for(packed.n_panels * of_panel.n_parts, run, n_workers);
  }
};

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
    FilterSource{.weight = weight + group * o * r * r * c, .c = c, .form = form, .transposes = transposes}.pack_all(*packed);
    filters.push_back(packed);
  }
  return filters;
}

namespace {

// Whether lines of tiles are lines of the whole result, one after another.
bool makes_result(const TileGrid& grid, const WinogradImages& y, const GemmTail& tail) {
  return grid.rows * grid.out_step == y.h && y.stride_w == y.c && y.stride_h == y.w * y.c &&
         y.stride_n == y.h * y.stride_h && y.data == tail.result->data<float>() &&
         tail.result->size() == grid.n_images() * y.stride_n;
}

void forward_groups(const TileGrid& grid, const WinogradImages& x, Filters filters, const WinogradImages& y,
                    const GemmTail& tail) {
  const std::ptrdiff_t tile_rows = kernels().gemm<float>().rows;
  const std::ptrdiff_t l2 = cache_sizes().l2_bytes;
  const std::ptrdiff_t tile_bytes =
      bytes_of(grid.n_points() * (row_stride(x.c, filters[0]->width) + row_stride(y.c, filters[0]->width)));
  const std::ptrdiff_t tile_macs = grid.n_points() * x.c * y.c / static_cast<std::ptrdiff_t>(filters.size());
  const std::ptrdiff_t filter_bytes = bytes_of(tile_macs / grid.n_points() * grid.n_filters());
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
    forward_by_phases(grid, x, y, tail, [&](const Planes& v, const Planes& products, const Partition& blocks) {
      const std::ptrdiff_t n_panels = count_panels(filters);
      // Blocks of rows last: a panel of a point is read by all of them while it is near.
      parallel_for(n_panels * grid.n_points(), [&](std::ptrdiff_t task) {
        for (std::ptrdiff_t b = 0; b < blocks.n_parts; ++b) {
          multiply(filters, v, products, task / n_panels, grid.filter_of(task / n_panels), task % n_panels, blocks.begin(b),
                   blocks.end(b) - blocks.begin(b), [](std::ptrdiff_t) {});
        }
      });
    });
  } else {
    block = ceil_div(grid.n_tiles, n_blocks);
    // Pixels that somebody sums are made in whole lines of tiles, where L2 holds as many.
    const std::ptrdiff_t lines = std::max<std::ptrdiff_t>(1, block / grid.columns);
    RowSums* sums = nullptr;
    if (tail.sums != nullptr && lines * grid.columns <= std::max(block, fit) && makes_result(grid, y, tail) &&
        tail.sums->start(*tail.result, lines * grid.out_step * y.w)) {
      block = lines * grid.columns;
      sums = tail.sums;
    }
    forward_by_blocks(grid, x, filters, y, tail, block, sums);
  }
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
  const Partition panels(y.c, panel);
  // Each panel reads all transformed tiles, which are there at once.
  const std::ptrdiff_t n_rows = grid.n_tiles * grid.n_points();
  if (panels.n_parts < kLeastTasks || bytes_of(grid.n_filters() * x.c * y.c) <= kOnceBytes ||
      n_rows > y.c * grid.n_filters() || bytes_of(n_rows * (x.c + y.c)) > kSuperBlockBytes) {
    return false;
  }
  const bool transposes = pass == ConvPass::grad_input;
  const FilterSource source{.weight = weight, .c = transposes ? y.c : x.c, .form = form, .transposes = transposes};
  const int n_workers = thread_count();
  // A panel a worker; the last one may be narrower.
  std::vector<std::shared_ptr<const Packed<float>>> rooms;
  for (int i = 0; i < n_workers; ++i) {
    rooms.push_back(room_for(form, x.c, panel));
  }
  const std::shared_ptr<const Packed<float>> last = room_for(form, x.c, y.c - panels.begin(panels.n_parts - 1));
  const WorkerBuffer<float> scratch(n_workers, source.scratch_size(*last));
  forward_by_phases(grid, x, y, tail, [&](const Planes& v, const Planes& products, const Partition& blocks) {
    const auto run = [&](std::ptrdiff_t task, int worker) {
      const auto& own = task + 1 < panels.n_parts ? rooms[static_cast<std::size_t>(worker)] : last;
      for (std::ptrdiff_t part = 0; part < FilterSource::parts(*own).n_parts; ++part) {
        source.pack(*own, 0, part, panels.begin(task), scratch.of(worker));
      }
      const Planes own_products = products.from(panels.begin(task));
      for (std::ptrdiff_t point = 0; point < grid.n_points(); ++point) {
        for (std::ptrdiff_t b = 0; b < blocks.n_parts; ++b) {
          multiply(Filters(&own, 1), v, own_products, point, grid.filter_of(point), 0, blocks.begin(b),
                   blocks.end(b) - blocks.begin(b), [](std::ptrdiff_t) {});
        }
      }
    };
    parallel_for(panels.n_parts, run, n_workers);
  });
  return true;
}

}  // namespace striate
