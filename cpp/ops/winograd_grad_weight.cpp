// Winograd's weight gradient: sums over tiles of products of transformed gradients and pixels.
#include <algorithm>
#include <cstdlib>

#include "machine/threads.hpp"
#include "ops/map.hpp"
#include "ops/winograd_tiles.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kLeastSuperBlockBytes = 4 << 20;
constexpr std::ptrdiff_t kRowBlock = 256;          // tiles that a weight gradient sums in one chain
constexpr std::ptrdiff_t kChunkBytes = 4 << 20;    // of sums, that are finished at a time
constexpr std::ptrdiff_t kFilterRows = 96;         // of a point's sums, that are a task
constexpr std::ptrdiff_t kMostParts = 16;          // of a weight gradient's sum
constexpr std::ptrdiff_t kOuterChannels = 32;      // of the groups that a weight gradient's task takes
constexpr std::ptrdiff_t kMostOuterChannels = 64;  // of a group; larger ones are cut by tiles
constexpr std::ptrdiff_t kSmallMacs = 4'000'000;   // one thread does fewer as fast as two

// U[o][c] = Σ over rows of Z[row][o]·V[row][c], of one point, for a range of o, added to what U holds if `adds`. Before each
// tile ask().
template <class F>
void accumulate(const float* z, std::ptrdiff_t z_row, const float* v, std::ptrdiff_t v_row, std::ptrdiff_t rows,
                std::ptrdiff_t o_begin, std::ptrdiff_t o_end, std::ptrdiff_t c, float* u, std::ptrdiff_t u_row, bool adds,
                F&& ask) {
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t panel = kernel.vectors * kernel.width;
  const std::ptrdiff_t n_steps = ceil_div(o_end - o_begin, kernel.rows);
  for (std::ptrdiff_t column = 0; column < c; column += panel) {
    const std::ptrdiff_t n_columns = std::min(panel, c - column);
    for (std::ptrdiff_t step = 0; step < n_steps; ++step) {
      const std::ptrdiff_t o = o_begin + step * (o_end - o_begin) / n_steps;
      const std::ptrdiff_t height = o_begin + (step + 1) * (o_end - o_begin) / n_steps - o;
      ask();
      kernel.outer[height - 1][ceil_div(n_columns, kernel.width) - 1](z + o, z_row, v + column, v_row, rows,
                                                                      u + o * u_row + column, u_row, n_columns, adds);
    }
  }
}

// U[filter] likewise, over all points of a filter and channels `first` on.
template <class F>
void accumulate(const TileGrid& grid, const Planes& z, const Planes& v, std::ptrdiff_t filter, std::ptrdiff_t rows,
                std::ptrdiff_t o_begin, std::ptrdiff_t o_end, std::ptrdiff_t first, std::ptrdiff_t c, const Planes& u,
                bool adds, F&& ask) {
  grid.for_points(filter, [&](std::ptrdiff_t point) {
    accumulate(z.data + point * z.plane, z.row, v.data + point * v.plane + first, v.row, rows, o_begin, o_end, c,
               u.data + filter * u.plane, u.row, adds, ask);
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
  const auto bytes = [&](std::ptrdiff_t values) { return values * static_cast<std::ptrdiff_t>(sizeof(float)); };
  const std::ptrdiff_t sum_bytes = bytes(n_filters * plane_stride(o, u_row));
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
  // Sums of all tiles at once become gradients some filters at a time, while they are in the caches, if tiles leave room
  // there.
  const std::ptrdiff_t step = std::max<std::ptrdiff_t>(tile_rows, kFilterRows / tile_rows * tile_rows);
  const bool by_chunks = !by_parts && block == grid.n_tiles && block * tile_bytes <= cache_sizes().l3_bytes / 2;
  const Partition chunks(o, by_chunks ? std::max(step, kChunkBytes * o / sum_bytes / step * step) : o);
  const std::ptrdiff_t u_plane = plane_stride(std::min(chunks.part, o), u_row);
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
  // The sums, of filters [first, end), become gradients.
  const auto finish = [&](std::ptrdiff_t first, std::ptrdiff_t end) {
    const Partition filters(end - first, std::max<std::ptrdiff_t>(1, 4096 / c));
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
      to_filters(grid, total, begin, filters.end(task), c, grad_weight + first * grid.r * grid.r * c);
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
    finish(0, o);
  } else {
    for (std::ptrdiff_t first = 0; first < grid.n_tiles; first += block) {
      const std::ptrdiff_t count = std::min(block, grid.n_tiles - first);
      const Partition tiles(count, std::max<std::ptrdiff_t>(1, 2048 / c));
      parallel_for(tiles.n_parts, [&](std::ptrdiff_t task) {
        const std::ptrdiff_t begin = tiles.begin(task);
        to_planes(grid.input, grid, x, true, first + begin, tiles.end(task) - begin, v_of(0), begin);
        to_planes(grad_output, grid, grad_y, false, first + begin, tiles.end(task) - begin, z_of(0), begin);
      });
      for (std::ptrdiff_t chunk = 0; chunk < chunks.n_parts; ++chunk) {
        const Partition filters(chunks.end(chunk) - chunks.begin(chunk), step);
        // Those of most points first: the last tasks, which workers share, are small.
        parallel_for(n_filters * filters.n_parts, [&](std::ptrdiff_t task) {
          const std::ptrdiff_t filter = n_filters - 1 - task / filters.n_parts;
          const std::ptrdiff_t begin = filters.begin(task % filters.n_parts);
          const std::ptrdiff_t end = filters.end(task % filters.n_parts);
          for (std::ptrdiff_t row = 0; row < count; row += kRowBlock) {
            Planes v = v_of(0);
            Planes z = z_of(0);
            v.data += row * v.row;
            z.data += row * z.row + chunks.begin(chunk);
            // Each call asks for a share of the next block.
            const std::ptrdiff_t n_row_blocks = ceil_div(count, kRowBlock);
            const Partition next(block, ceil_div(block, n_filters * filters.n_parts * n_row_blocks));
            const std::ptrdiff_t share = task * n_row_blocks + row / kRowBlock;
            const std::ptrdiff_t at = std::min(next.begin(share), block);
            asking_for(first + block + at, next.end(share) - at, end - begin, grid.count_points(filter),
                       [&](const auto& ask) {
                         accumulate(grid, z, v, filter, std::min(kRowBlock, count - row), begin, end, 0, c, sum_of(0),
                                    first + row > 0, ask);
                       });
          }
        });
        if (first + count == grid.n_tiles) {
          finish(chunks.begin(chunk), chunks.end(chunk));
        }
      }
    }
  }
}

// Lines of points are tasks, whose tiles and sums stay in one core's L2: each reads the pixels again, from L3.
void grad_weight_by_lines(const TileGrid& grid, const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight) {
  const auto env = [](const char* name, std::ptrdiff_t other) {
    const char* const text = std::getenv(name);
    return text == nullptr ? other : static_cast<std::ptrdiff_t>(std::atoll(text));
  };
  const std::ptrdiff_t width = kernels().gemm<float>().width;
  const std::ptrdiff_t o = grad_y.c;
  const std::ptrdiff_t c = x.c;
  const std::ptrdiff_t n_lines = grid.n_side_filters;
  const std::ptrdiff_t n_splits = env("LSPLIT", 1);
  const Partition splits(o, ceil_div(o, n_splits));
  const std::ptrdiff_t v_row = row_stride(c, width);
  const std::ptrdiff_t z_row = row_stride(splits.part, width);
  const std::ptrdiff_t u_row = round_up(c, width);
  const std::ptrdiff_t u_plane = plane_stride(o, u_row);
  const auto bytes = [&](std::ptrdiff_t values) { return values * static_cast<std::ptrdiff_t>(sizeof(float)); };
  const std::ptrdiff_t tile_pixels = bytes(grid.in_step * grid.in_step * c + grid.out_step * grid.out_step * o);
  const std::ptrdiff_t block = env("LBLOCK", 48);
  const std::ptrdiff_t n_parts = env("LPARTS", 1);
  const Partition supers(grid.n_tiles, std::max(block * n_parts, env("LSUPER", 8 << 20) / tile_pixels));
  const std::ptrdiff_t v_plane = plane_stride(block, v_row);
  const std::ptrdiff_t z_plane = plane_stride(block, z_row);
  const int n_workers = thread_count();
  const std::ptrdiff_t n_line = std::min(block, grid.columns);
  const std::ptrdiff_t scratch_size =
      grid.n * (v_plane + z_plane) + round_up(std::max((n_line * grid.in_step + grid.n) * v_row, n_line * grid.out_step * z_row), kWinogradLine);
  const Buffer<float> scratch(n_workers * scratch_size);
  const Buffer<float> sums(n_parts * grid.n_filters() * u_plane);
  const WinogradLine input = kernels().winograd.input_line[grid.form];
  const WinogradLine grad_output = kernels().winograd.grad_output_line[grid.form];
  const bool asks = env("LASK", 1) != 0;
  const GemmKernels<float>& kernel = kernels().gemm<float>();
  const std::ptrdiff_t n_panels = ceil_div(c, kernel.vectors * kernel.width);
  const Partition groups(n_lines, env("LGROUP", 1));
  for (std::ptrdiff_t super = 0; super < supers.n_parts; ++super) {
    const std::ptrdiff_t n_super = supers.end(super) - supers.begin(super);
    const auto run = [&](std::ptrdiff_t task, int worker) {
      const std::ptrdiff_t split = task % splits.n_parts;
      const std::ptrdiff_t group = groups.n_parts - 1 - task / splits.n_parts % groups.n_parts;
      const std::ptrdiff_t part = task / splits.n_parts / groups.n_parts;
      const std::ptrdiff_t begin = supers.begin(super) + part * n_super / n_parts;
      const std::ptrdiff_t end = supers.begin(super) + (part + 1) * n_super / n_parts;
      WinogradImages own = grad_y;
      own.data += splits.begin(split);
      own.c = splits.end(split) - splits.begin(split);
      float* const v = scratch.data() + worker * scratch_size;
      float* const z = v + grid.n * v_plane;
      float* const u = sums.data() + part * grid.n_filters() * u_plane + splits.begin(split) * u_row;
      const std::ptrdiff_t line = groups.begin(group);
      const std::ptrdiff_t line_end = groups.end(group) < n_lines ? groups.end(group) : grid.n;
      const std::ptrdiff_t n_turns =
          (line_end - line) * grid.n * n_panels * ceil_div(own.c, kernel.rows);
      float* const room = z + grid.n * z_plane;
      const auto to_line = [&](WinogradLine transform, const WinogradImages& images, bool reads_around, std::ptrdiff_t tile,
                               std::ptrdiff_t n, float* y, std::ptrdiff_t row, std::ptrdiff_t plane, std::ptrdiff_t p) {
        const std::ptrdiff_t step = reads_around ? grid.in_step : grid.out_step;
        const std::ptrdiff_t n_pixels = (n - 1) * step + (reads_around ? grid.extent : grid.out_step);
        const WinogradSource source = grid.source(images, tile, reads_around);
        const std::ptrdiff_t w = tile % grid.columns * step - (reads_around ? grid.pad_w : 0);
        transform({.x = source.x,
                   .stride_h = source.stride_h,
                   .stride_w = source.stride_w,
                   .h_begin = source.h_begin,
                   .h_end = source.h_end,
                   .w_begin = std::clamp<std::ptrdiff_t>(-w, 0, n_pixels),
                   .w_end = std::clamp<std::ptrdiff_t>(images.w - w, 0, n_pixels),
                   .n = n,
                   .step = step,
                   .y = y,
                   .row = row,
                   .plane = plane,
                   .room = room},
                  images.c, static_cast<int>(p));
      };
      for (std::ptrdiff_t first = begin; first < end; first += block) {
        const std::ptrdiff_t count = std::min(block, end - first);
        TilesAhead of_x(grid, x, TilesAhead::Use::read_around, first + count, asks ? std::min(block, end - first - count) : 0, n_turns);
        TilesAhead of_grad(grid, own, TilesAhead::Use::read, first + count, asks ? std::min(block, end - first - count) : 0, n_turns);
        for (std::ptrdiff_t p = line; p < line_end; ++p) {
          for (std::ptrdiff_t i = 0; i < count;) {
            const std::ptrdiff_t n = std::min(grid.columns - (first + i) % grid.columns, count - i);
            to_line(input, x, true, first + i, n, v + i * v_row, v_row, v_plane, p);
            to_line(grad_output, own, false, first + i, n, z + i * z_row, z_row, z_plane, p);
            i += n;
          }
          for (std::ptrdiff_t q = 0; q < grid.n; ++q) {
            const std::ptrdiff_t row = std::min<std::ptrdiff_t>(p, n_lines - 1);
            const std::ptrdiff_t column = std::min<std::ptrdiff_t>(q, n_lines - 1);
            accumulate(z + q * z_plane, z_row, v + q * v_plane, v_row, count, 0, own.c, c,
                       u + (row * n_lines + column) * u_plane, u_row,
                       super > 0 || first > begin || p > row || q > column, [&] {
                         of_x.turn();
                         of_grad.turn();
                       });
          }
        }
      }
    };
    parallel_for(n_parts * groups.n_parts * splits.n_parts, run, n_workers);
  }
  const Partition filters(o, std::max<std::ptrdiff_t>(1, 4096 / c));
  parallel_for(filters.n_parts, [&](std::ptrdiff_t task) {
    const Planes total{.data = sums.data(), .row = u_row, .plane = u_plane, .side = grid.n_side_filters};
    const std::ptrdiff_t begin = filters.begin(task);
    const std::ptrdiff_t length = (filters.end(task) - begin) * u_row;
    for (std::ptrdiff_t part = 1; part < n_parts; ++part) {
      for (std::ptrdiff_t filter = 0; filter < grid.n_filters(); ++filter) {
        float* const to = total.data + filter * u_plane + begin * u_row;
        const float* const from = to + part * grid.n_filters() * u_plane;
        for (std::ptrdiff_t i = 0; i < length; ++i) {
          to[i] += from[i];
        }
      }
    }
    to_filters(grid, total, begin, filters.end(task), c, grad_weight);
  });
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

void winograd_grad_weight(const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight, std::ptrdiff_t n,
                          std::ptrdiff_t groups, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form) {
  const TileGrid grid(ConvPass::grad_weight, form, n, grad_y.h, grad_y.w, pad_h, pad_w);
  const std::ptrdiff_t c = x.c / groups;
  const std::ptrdiff_t o = grad_y.c / groups;
  if (groups > 1 && std::max(c, o) <= kMostOuterChannels) {
    grad_weight_by_groups(grid, x, grad_y, grad_weight, groups);
    return;
  }
  if (groups == 1 && std::getenv("LINES") != nullptr) {
    grad_weight_by_lines(grid, x, grad_y, grad_weight);
    return;
  }
  for (std::ptrdiff_t group = 0; group < groups; ++group) {
    grad_weight_by_tiles(grid, slice(x, group, group + 1, groups), slice(grad_y, group, group + 1, groups),
                         grad_weight + group * o * grid.r * grid.r * c);
  }
}

}  // namespace striate
