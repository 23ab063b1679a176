// Winograd's weight gradient: sums over tiles of products of transformed gradients and pixels.
//
// Tiles and sums that one core makes are used by that core, except where the sums are much larger than the tiles: lines of
// memory that another core wrote come from its caches, seven times as slow where the two have no L3 in common.
#include <algorithm>

#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/winograd_tiles.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kRowBlock = 256;         // tiles that a weight gradient sums in one chain
constexpr std::ptrdiff_t kMostParts = 16;         // of a weight gradient's sum,
constexpr std::ptrdiff_t kParts = 8;              // where that many are not cheap beside the tiles
constexpr std::ptrdiff_t kLineTiles = 12;         // of which a line of points is made at a time, a row of the register tile
constexpr std::ptrdiff_t kMostLines = 3;          // of points, that a task takes
constexpr std::ptrdiff_t kLeastOutputs = 64;      // of a task, where lines alone are few tasks
constexpr std::ptrdiff_t kFewSumBytes = 1 << 20;  // of which four shares of the tiles have their own, of 4 MB two
constexpr std::ptrdiff_t kLinePartBytes = 8 << 20;  // of pixels, that tasks read again and again
constexpr std::ptrdiff_t kOuterChannels = 32;       // of the groups that a weight gradient's task takes
constexpr std::ptrdiff_t kMostOuterChannels = 64;   // of a group; larger ones are cut by tiles
constexpr std::ptrdiff_t kSmallMacs = 4'000'000;    // one thread does fewer as fast as two

// Bytes of the cache that neighbouring cores share, or of a small one where its size is unknown.
std::ptrdiff_t most_shared() { return std::max<std::ptrdiff_t>(cache_sizes().l3_bytes, 8 << 20); }

// The outputs of a point's sums are cut into register tiles of nearly equal height; some neighbouring ones.
struct OutputTiles {
  std::ptrdiff_t o;
  std::ptrdiff_t n = ceil_div(o, kernels().gemm<float>().rows);
  std::ptrdiff_t begin = 0;
  std::ptrdiff_t end = n;
  [[nodiscard]] std::ptrdiff_t first(std::ptrdiff_t tile) const { return tile * o / n; }
};

// Σ over rows of Z[row][o]·V[row][c] of one point, added to what u holds if `adds`; z and u begin with the first output of
// `tiles`. Before each tile ask().
template <class F>
void accumulate(const PlaneRows& z, const PlaneRows& v, std::ptrdiff_t n_rows, const OutputTiles& tiles, std::ptrdiff_t c,
                const PlaneRows& u, bool adds, F&& ask) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const std::ptrdiff_t begin = tiles.first(tiles.begin);
  for (std::ptrdiff_t column = 0; column < c; column += panel) {
    const std::ptrdiff_t n_columns = std::min(panel, c - column);
    for (std::ptrdiff_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const std::ptrdiff_t at = tiles.first(tile) - begin;
      const std::ptrdiff_t height = tiles.first(tile + 1) - begin - at;
      ask();
      kernel.outer[height - 1][ceil_div(n_columns, kernel.width) - 1](z.data + at, z.row, v.data + column, v.row, n_rows,
                                                                      u.data + at * u.row + column, u.row, n_columns, adds);
    }
  }
}

// Likewise over all points of a filter.
template <class F>
void accumulate(const TileGrid& grid, const Planes& z, const Planes& v, std::ptrdiff_t filter, std::ptrdiff_t n_rows,
                const OutputTiles& tiles, std::ptrdiff_t c, const Planes& u, bool adds, F&& ask) {
  grid.for_points(filter, [&](std::ptrdiff_t point) {
    accumulate(z.rows(point), v.rows(point), n_rows, tiles, c, u.rows(filter), adds, ask);
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

// Values of the room that to_line() needs: a line of pixels of n tiles, a row of a plane each.
std::ptrdiff_t line_room(const TileGrid& grid, std::ptrdiff_t n, std::ptrdiff_t row, bool reads_around) {
  const std::ptrdiff_t n_steps = std::min(n, grid.columns) - 1;
  return round_up((n_steps * grid.step_of(reads_around) + grid.extent_of(reads_around)) * row, kWinogradLine);
}

// Line p of the points of tiles first … first + count − 1 becomes rows of planes, of that line's points alone.
void to_line(WinogradLine transform, const TileGrid& grid, const WinogradImages& images, bool reads_around, std::ptrdiff_t p,
             std::ptrdiff_t first, std::ptrdiff_t count, const Planes& planes, float* room) {
  const std::ptrdiff_t step = grid.step_of(reads_around);
  for (std::ptrdiff_t i = 0; i < count;) {
    const std::ptrdiff_t column = (first + i) % grid.columns;
    const std::ptrdiff_t n = std::min(grid.columns - column, count - i);
    const std::ptrdiff_t n_pixels = (n - 1) * step + grid.extent_of(reads_around);
    const std::ptrdiff_t w = column * step - (reads_around ? grid.pad_w : 0);
    const WinogradSource source = grid.source(images, first + i, reads_around);
    transform({.x = source.x,
               .stride_h = source.stride_h,
               .stride_w = source.stride_w,
               .h_begin = source.h_begin,
               .h_end = source.h_end,
               .w_begin = std::clamp<std::ptrdiff_t>(-w, 0, n_pixels),
               .w_end = std::clamp<std::ptrdiff_t>(images.w - w, 0, n_pixels),
               .n = n,
               .step = step,
               .y = planes.data + i * planes.row,
               .row = planes.row,
               .plane = planes.plane,
               .room = room},
              images.c, static_cast<int>(p));
    i += n;
  }
}

// A weight gradient's sums: of n_parts shares of the tiles, each [filter][o][c].
struct Sums {
  Buffer<float> data;
  std::ptrdiff_t row, plane, part;  // values from one o, one filter and one share to the next
  std::ptrdiff_t n_parts;
  int side;

  Sums(const TileGrid& grid, std::ptrdiff_t o, std::ptrdiff_t c, std::ptrdiff_t n)
      : data(n * grid.n_filters() * plane_of(o, c)),
        row(row_of(c)),
        plane(plane_of(o, c)),
        part(grid.n_filters() * plane),
        n_parts(n),
        side(grid.n_side_filters) {}

  static std::ptrdiff_t row_of(std::ptrdiff_t c) { return round_up(c, kernels().gemm<float>().width); }
  static std::ptrdiff_t plane_of(std::ptrdiff_t o, std::ptrdiff_t c) { return plane_stride(o, row_of(c)); }

  [[nodiscard]] Planes of(std::ptrdiff_t i) const {
    return {.data = data.data() + i * part, .row = row, .plane = plane, .side = side};
  }

  // Their sum becomes the gradients of filters.
  void finish(const TileGrid& grid, std::ptrdiff_t o, std::ptrdiff_t c, float* grad_weight) const {
    const Partition outputs(o, std::max<std::ptrdiff_t>(1, 4096 / c));
    parallel_for(outputs.n_parts, [&](std::ptrdiff_t task) {
      const Planes total = of(0);
      const std::ptrdiff_t begin = outputs.begin(task);
      const std::ptrdiff_t length = (outputs.end(task) - begin) * row;
      for (std::ptrdiff_t i = 1; i < n_parts; ++i) {
        for (std::ptrdiff_t filter = 0; filter < grid.n_filters(); ++filter) {
          float* const to = total.data + filter * plane + begin * row;
          const float* const from = to + i * part;
          for (std::ptrdiff_t k = 0; k < length; ++k) {
            to[k] += from[k];
          }
        }
      }
      to_filters(grid, total, begin, outputs.end(task), c, grad_weight);
    });
  }
};

// Products ask for the pixels of the `count` tiles from `first` on: f(ask), where ask() is to be called n_turns times.
// (Zen 4, AVX2: 64 channels at 56×56, 32×32 and 128×128 0.84 to 0.94 of the time, 32 at 256×256 0.85.)
template <class F>
void asking_for(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, std::ptrdiff_t first,
                std::ptrdiff_t count, std::ptrdiff_t n_turns, F&& f) {
  const std::ptrdiff_t n_bytes =
      count * bytes_of(grid.in_step * grid.in_step * x.c + grid.out_step * grid.out_step * grad_y.c);
  if (!is_far(grid.n_images() * (x.image_bytes() + grad_y.image_bytes())) || n_bytes > 2 * cache_sizes().l2_bytes) {
    f([] {});
    return;
  }
  TilesAhead of_x(grid, x, TilesAhead::Use::read_around, first, count, n_turns);
  TilesAhead of_grad(grid, grad_y, TilesAhead::Use::read, first, count, n_turns);
  f([&] {
    of_x.turn();
    of_grad.turn();
  });
}

// Calls of ask() by accumulate(), a point.
std::ptrdiff_t turns_of(std::ptrdiff_t o, std::ptrdiff_t c) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  return ceil_div(o, kernel.rows) * ceil_div(c, kernel.vectors * kernel.width);
}

bool is_small(const TileGrid& grid, std::ptrdiff_t o, std::ptrdiff_t c) {
  return grid.n_tiles * grid.n_points() * c * o <= kSmallMacs;
}

// Few sums: shares of the tiles are tasks, which go from pixels to sums in one core's L2, block by block.
void grad_weight_by_parts(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight) {
  const std::ptrdiff_t width = kernels().gemm<float>().width;
  const std::ptrdiff_t o = grad_y.c;
  const std::ptrdiff_t c = x.c;
  const int n_points = grid.n_points();
  const std::ptrdiff_t v_row = row_stride(c, width);
  const std::ptrdiff_t z_row = row_stride(o, width);
  const std::ptrdiff_t tile_bytes = bytes_of(n_points * (v_row + z_row));
  const std::ptrdiff_t sum_bytes = bytes_of(grid.n_filters() * Sums::plane_of(o, c));
  std::ptrdiff_t n_parts = kMostParts * kMostParts * sum_bytes <= grid.n_tiles * tile_bytes ? kMostParts : kParts;
  n_parts = is_small(grid, o, c) ? 1 : n_parts;
  // As many as cost less traffic than the tiles would.
  while (n_parts > 1 &&
         (n_parts * sum_bytes > grid.n_tiles * tile_bytes || n_parts * 2 * kernels().gemm<float>().rows > grid.n_tiles)) {
    n_parts /= 2;
  }
  const std::ptrdiff_t fit = std::clamp<std::ptrdiff_t>(cache_sizes().l2_bytes / 2 / tile_bytes, 16, kRowBlock);
  const std::ptrdiff_t block = std::min(fit, ceil_div(grid.n_tiles, n_parts));
  const std::ptrdiff_t v_plane = plane_stride(block, v_row);
  const std::ptrdiff_t z_plane = plane_stride(block, z_row);
  const int n_workers = thread_count();
  const std::ptrdiff_t scratch_size = n_points * (v_plane + z_plane);
  const WorkerBuffer<float> scratch(n_workers, scratch_size);
  const Sums sums(grid, o, c, n_parts);
  const auto run = [&](std::ptrdiff_t part, int worker) {
    float* const mine = scratch.of(worker);
    const Planes v{.data = mine, .row = v_row, .plane = v_plane, .side = grid.n};
    const Planes z{.data = mine + n_points * v_plane, .row = z_row, .plane = z_plane, .side = grid.n};
    const std::ptrdiff_t begin = part * grid.n_tiles / n_parts;
    const std::ptrdiff_t end = (part + 1) * grid.n_tiles / n_parts;
    for (std::ptrdiff_t first = begin; first < end; first += block) {
      const std::ptrdiff_t count = std::min(block, end - first);
      to_planes(grid.input, grid, x, true, first, count, v, 0);
      to_planes(kernels().winograd.grad_output[grid.form], grid, grad_y, false, first, count, z, 0);
      asking_for(grid, x, grad_y, first + count, count, n_points * turns_of(o, c), [&](const auto& ask) {
        for (std::ptrdiff_t filter = 0; filter < grid.n_filters(); ++filter) {
          accumulate(grid, z, v, filter, count, {o}, c, sums.of(part), first > begin, ask);
        }
      });
    }
  };
  parallel_for(n_parts, run, n_workers);
  sums.finish(grid, o, c, grad_weight);
}

// Lines of points are tasks, of a share of the tiles each: their tiles stay in one core's L2, and their sums in its caches.
// Tasks read the same pixels, from L3, so all take one super block of tiles before any takes the next.
void grad_weight_by_lines(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t o = grad_y.c;
  const std::ptrdiff_t c = x.c;
  const std::ptrdiff_t last = grid.n_side_filters - 1;  // line of filters, which all lines of points from there on share
  const std::ptrdiff_t sum_bytes = bytes_of(grid.n_filters() * Sums::plane_of(o, c));
  const std::ptrdiff_t aimed = kLineTiles * kernel.rows;
  std::ptrdiff_t n_parts = sum_bytes <= kFewSumBytes ? 4 : sum_bytes <= 4 * kFewSumBytes ? 2 : 1;
  while (n_parts > 1 && grid.n_tiles < n_parts * 2 * aimed) {
    n_parts /= 2;
  }
  // The lines of a part, one after another, are cut into equal runs, some of them in the middle of a line's outputs. That
  // changes no sum, so it may depend on the number of workers.
  const int n_workers = thread_count();
  const std::ptrdiff_t n_runs = std::clamp<std::ptrdiff_t>(ceil_div(2 * n_workers, n_parts), ceil_div(grid.n, kMostLines),
                                                           grid.n * std::max<std::ptrdiff_t>(1, o / kLeastOutputs));
  const std::ptrdiff_t n_tiles = OutputTiles{o}.n;
  const auto tiles_before = [&](std::ptrdiff_t run, std::ptrdiff_t line) {
    const std::ptrdiff_t n_lines = line < last ? 1 : grid.n - last;
    return std::clamp<std::ptrdiff_t>((run * grid.n * n_tiles / n_runs - line * n_tiles) / n_lines, 0, n_tiles);
  };
  const std::ptrdiff_t pixel_bytes = bytes_of(grid.in_step * grid.in_step * c + grid.out_step * grid.out_step * o);
  const std::ptrdiff_t super_bytes = std::min(n_parts * kLinePartBytes, most_shared() / 2);
  const Partition supers(grid.n_tiles, std::max(n_parts * aimed, super_bytes / pixel_bytes));
  const std::ptrdiff_t v_row = row_stride(c, kernel.width);
  const std::ptrdiff_t z_row = row_stride(o, kernel.width);
  const std::ptrdiff_t block = std::min(aimed, grid.n_tiles);
  const std::ptrdiff_t v_plane = plane_stride(block, v_row);
  const std::ptrdiff_t z_plane = plane_stride(block, z_row);
  const std::ptrdiff_t room_size = std::max(line_room(grid, block, v_row, true), line_room(grid, block, z_row, false));
  const std::ptrdiff_t scratch_size = grid.n * (v_plane + z_plane) + room_size;
  const WorkerBuffer<float> scratch(n_workers, scratch_size);
  const Sums sums(grid, o, c, n_parts);
  for (std::ptrdiff_t super = 0; super < supers.n_parts; ++super) {
    const std::ptrdiff_t n_super = supers.end(super) - supers.begin(super);
    const auto take = [&](std::ptrdiff_t task, int worker) {
      const std::ptrdiff_t run = task % n_runs;
      const std::ptrdiff_t part = task / n_runs;
      const std::ptrdiff_t begin = supers.begin(super) + part * n_super / n_parts;
      const std::ptrdiff_t end = supers.begin(super) + (part + 1) * n_super / n_parts;
      const Planes u = sums.of(part);
      float* const mine = scratch.of(worker);
      // Of one line of points.
      const Planes v{.data = mine, .row = v_row, .plane = v_plane, .side = grid.n};
      const Planes z{.data = mine + grid.n * v_plane, .row = z_row, .plane = z_plane, .side = grid.n};
      float* const room = mine + grid.n * (v_plane + z_plane);
      const auto add_line = [&](std::ptrdiff_t first, std::ptrdiff_t count, std::ptrdiff_t p, const auto& ask) {
        const std::ptrdiff_t line = std::min(p, last);
        const OutputTiles tiles{.o = o, .n = n_tiles, .begin = tiles_before(run, line), .end = tiles_before(run + 1, line)};
        if (tiles.begin == tiles.end) {
          return;
        }
        const WinogradImages own = slice(grad_y, tiles.first(tiles.begin), tiles.first(tiles.end), o);
        to_line(kernels().winograd.input_line[grid.form], grid, x, true, p, first, count, v, room);
        to_line(kernels().winograd.grad_output_line[grid.form], grid, own, false, p, first, count, z, room);
        for (std::ptrdiff_t q = 0; q < grid.n; ++q) {
          const std::ptrdiff_t column = std::min(q, last);
          const PlaneRows to = u.from(tiles.first(tiles.begin) * u.row).rows(line * grid.n_side_filters + column);
          accumulate(z.rows(q), v.rows(q), count, tiles, c, to, super > 0 || first > begin || p > line || q > column, ask);
        }
      };
      for (std::ptrdiff_t first = begin; first < end; first += block) {
        const std::ptrdiff_t count = std::min(block, end - first);
        const std::ptrdiff_t n_turns = grid.n_points() * turns_of(o, c) / n_runs;
        asking_for(grid, x, grad_y, first + count, std::min(block, end - first - count), n_turns, [&](const auto& ask) {
          for (std::ptrdiff_t p = 0; p < grid.n; ++p) {
            add_line(first, count, p, ask);
          }
        });
      }
    };
    parallel_for(n_parts * n_runs, take, n_workers);
  }
  sums.finish(grid, o, c, grad_weight);
}

// Few tiles, many sums: all tiles are transformed, then outputs are tasks, whose sums become gradients in one core's L2.
void grad_weight_by_outputs(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y,
                            float* grad_weight) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t o = grad_y.c;
  const std::ptrdiff_t c = x.c;
  const int n_points = grid.n_points();
  const std::ptrdiff_t v_row = row_stride(c, kernel.width);
  const std::ptrdiff_t z_row = row_stride(o, kernel.width);
  const std::ptrdiff_t v_plane = plane_stride(grid.n_tiles, v_row);
  const std::ptrdiff_t z_plane = plane_stride(grid.n_tiles, z_row);
  const Buffer<float> scratch(n_points * (v_plane + z_plane));
  const Planes v{.data = scratch.data(), .row = v_row, .plane = v_plane, .side = grid.n};
  const Planes z{.data = scratch.data() + n_points * v_plane, .row = z_row, .plane = z_plane, .side = grid.n};
  const Partition tiles(grid.n_tiles, std::max<std::ptrdiff_t>(1, 2048 / c));
  parallel_for(tiles.n_parts, [&](std::ptrdiff_t task) {
    const std::ptrdiff_t begin = tiles.begin(task);
    to_planes(grid.input, grid, x, true, begin, tiles.end(task) - begin, v, begin);
    to_planes(kernels().winograd.grad_output[grid.form], grid, grad_y, false, begin, tiles.end(task) - begin, z, begin);
  });
  const std::ptrdiff_t fit = cache_sizes().l2_bytes / bytes_of(grid.n_filters() * Sums::row_of(c));
  const Partition outputs(o, std::clamp(fit / kernel.rows, std::ptrdiff_t{1}, std::ptrdiff_t{4}) * kernel.rows);
  const int n_workers = thread_count();
  const Sums sums(grid, std::min(outputs.part, o), c, n_workers);  // one a worker
  const auto run = [&](std::ptrdiff_t task, int worker) {
    const std::ptrdiff_t begin = outputs.begin(task);
    const std::ptrdiff_t n = outputs.end(task) - begin;
    const Planes u = sums.of(worker);
    for (std::ptrdiff_t filter = 0; filter < grid.n_filters(); ++filter) {
      for (std::ptrdiff_t row = 0; row < grid.n_tiles; row += kRowBlock) {
        accumulate(grid, z.from(row * z_row + begin), v.from(row * v_row), filter, std::min(kRowBlock, grid.n_tiles - row),
                   {n}, c, u, row > 0, [] {});
      }
    }
    to_filters(grid, u, 0, n, c, grad_weight + begin * grid.r * grid.r * c);
  };
  parallel_for(outputs.n_parts, run, n_workers);
}

void grad_weight_by_tiles(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight) {
  const std::ptrdiff_t sum_bytes = bytes_of(grid.n_filters() * Sums::plane_of(grad_y.c, x.c));
  const std::ptrdiff_t tile_bytes = bytes_of(grid.n_tiles * grid.n_points() * (x.c + grad_y.c));
  const bool are_few = 2 * sum_bytes > 3 * tile_bytes && tile_bytes <= most_shared() / 4 * 3;
  if (sum_bytes <= cache_sizes().l2_bytes / 2 && (!are_few || is_small(grid, grad_y.c, x.c))) {
    grad_weight_by_parts(grid, x, grad_y, grad_weight);
  } else if (are_few) {
    grad_weight_by_outputs(grid, x, grad_y, grad_weight);
  } else {
    grad_weight_by_lines(grid, x, grad_y, grad_weight);
  }
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
  const std::ptrdiff_t tile_bytes = bytes_of(grid.n_points() * (v_row + z_row));
  const Partition blocks(grid.n_tiles, std::clamp<std::ptrdiff_t>(cache_sizes().l2_bytes / 2 / tile_bytes, 16, kRowBlock));
  const std::ptrdiff_t v_plane = plane_stride(std::min(blocks.part, grid.n_tiles), v_row);
  const std::ptrdiff_t z_plane = plane_stride(std::min(blocks.part, grid.n_tiles), z_row);
  const std::ptrdiff_t u_plane = plane_stride(chunks.part * o, u_row);
  const std::ptrdiff_t scratch_size = grid.n_points() * (v_plane + z_plane) + grid.n_filters() * u_plane;
  const int n_workers = thread_count();
  const WorkerBuffer<float> scratch(n_workers, scratch_size);
  const auto run = [&](std::ptrdiff_t chunk, int worker) {
    const std::ptrdiff_t begin = chunks.begin(chunk);
    const std::ptrdiff_t n_groups = chunks.end(chunk) - begin;
    const WinogradImages own_x = slice(x, begin, begin + n_groups, groups);
    const WinogradImages own_grad_y = slice(grad_y, begin, begin + n_groups, groups);
    float* const mine = scratch.of(worker);
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
          accumulate(grid, z.from(group * o), v.from(group * c), filter, count, {o}, c, u.from(group * o * u_row), block > 0,
                     [] {});
        }
      }
    }
    to_filters(grid, u, 0, n_groups * o, c, grad_weight + begin * o * grid.r * grid.r * c);
  };
  parallel_for(chunks.n_parts, run, n_workers);
}

}  // namespace

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
