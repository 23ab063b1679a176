// Convolution of groups: y[n,g·O+o,i] = bias[g·O+o] + Σ_p Σ_c x[n, g·C+c, i·s + p·d − pad]·weight[g·O+o,c,p].
//
// Forward and data gradient run the GEMM's tiles. The pixels that a tile reads lie at the same places for every group, but
// for an offset: their pointers are found once, and a tile of pixels takes all groups in turn. (A GEMM a group, which finds
// them again for products of 144 values, takes 1.1 to 1.5 times as long.) The weight gradient copies some groups' channels
// of some lines of x and grad_y, so that a group's are neighbours in L1, and multiplies them tap by tap.
#include "ops/grouped.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "machine/threads.hpp"
#include "ops/image.hpp"
#include "ops/packed.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kMostGroup = 64;  // channels; more fill the GEMM's blocks by themselves
constexpr std::ptrdiff_t kTiles = 8;       // that take a group's weights in turn
constexpr std::ptrdiff_t kOutside = -1;

// Targets of one axis that read through the same taps: first, first + step, …
struct Phase {
  std::ptrdiff_t first;
  std::ptrdiff_t step;
  std::ptrdiff_t n;
  std::vector<std::ptrdiff_t> taps;
  std::vector<std::ptrdiff_t> sources;  // [n][taps], or kOutside

  [[nodiscard]] std::ptrdiff_t n_taps() const { return static_cast<std::ptrdiff_t>(taps.size()); }
  [[nodiscard]] const std::ptrdiff_t* at(std::ptrdiff_t i) const { return sources.data() + i * n_taps(); }
};

std::vector<Phase> phases_of(const AxisMap& map, std::ptrdiff_t step) {
  std::vector<Phase> phases;
  for (std::ptrdiff_t first = 0; first < std::min(step, map.n_targets()); ++first) {
    Phase phase{.first = first, .step = step, .n = 0, .taps = {}, .sources = {}};
    for (std::ptrdiff_t target = first; target < map.n_targets(); target += step, ++phase.n) {
      for (const AxisMap::Entry& entry : map.at(target)) {
        phase.taps.push_back(entry.tap);
      }
    }
    std::sort(phase.taps.begin(), phase.taps.end());
    phase.taps.erase(std::unique(phase.taps.begin(), phase.taps.end()), phase.taps.end());
    phase.sources.assign(static_cast<std::size_t>(phase.n) * phase.taps.size(), kOutside);
    for (std::ptrdiff_t i = 0; i < phase.n; ++i) {
      for (const AxisMap::Entry& entry : map.at(first + i * step)) {
        const auto tap = std::lower_bound(phase.taps.begin(), phase.taps.end(), entry.tap) - phase.taps.begin();
        phase.sources[static_cast<std::size_t>(i * phase.n_taps() + tap)] = entry.source;
      }
    }
    phases.push_back(std::move(phase));
  }
  return phases;
}

// Rows of y that read through the same taps: one phase of each axis, all groups.
template <class T>
struct Product {
  const Phase* axis[3];
  const PackedList<T>& b;
  const Array& x;
  const Array& y;
  GemmTail tail;
};

struct RowIndex {
  std::ptrdiff_t image;
  std::ptrdiff_t i[3];
};

template <class T>
RowIndex row_index(const Product<T>& product, std::ptrdiff_t row) {
  RowIndex index{};
  for (int axis = 2; axis >= 0; --axis) {
    index.i[axis] = row % product.axis[axis]->n;
    row /= product.axis[axis]->n;
  }
  index.image = row;
  return index;
}

template <class T>
struct Tile {
  int rows;
  T* y[kMaxTileRows];
};

// Finds a tile's rows, and where their taps lie for the first group: a[t·rows + m].
template <class T>
void place_tile(const Product<T>& product, std::ptrdiff_t row, Tile<T>& tile, const T* outside, const T** a) {
  const Image source(product.x);
  const Image target(product.y);
  const Phase& depth = *product.axis[0];
  const Phase& height = *product.axis[1];
  const Phase& width = *product.axis[2];
  for (int m = 0; m < tile.rows; ++m) {
    const RowIndex index = row_index(product, row + m);
    tile.y[m] = product.y.template data<T>() + target.at(index.image, depth.first + index.i[0] * depth.step,
                                                         height.first + index.i[1] * height.step,
                                                         width.first + index.i[2] * width.step);
    const T** to = a + m;
    for (std::ptrdiff_t d = 0; d < depth.n_taps(); ++d) {
      const std::ptrdiff_t in_d = depth.at(index.i[0])[d];
      for (std::ptrdiff_t h = 0; h < height.n_taps(); ++h) {
        const std::ptrdiff_t in_h = height.at(index.i[1])[h];
        const T* const line = product.x.template data<T>() + source.at(index.image, in_d, in_h, 0);
        const bool is_line_outside = in_d == kOutside || in_h == kOutside;
        const std::ptrdiff_t* const in_w = width.at(index.i[2]);
        for (std::ptrdiff_t w = 0; w < width.n_taps(); ++w, to += tile.rows) {
          *to = is_line_outside || in_w[w] == kOutside ? outside : line + in_w[w] * source.stride[2];
        }
      }
    }
  }
}

// Multiplies rows [begin, end) by the weights of groups [first, last).
template <class T>
void run_rows(const Product<T>& product, std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t first, std::ptrdiff_t last,
              const T* zero, const T** scratch) {
  const GemmKernels<T>& kernel = kernels().gemm<T>();
  const Packed<T>& any = *product.b[0];
  bool is_finite = true;
  for (std::ptrdiff_t group = first; group < last; ++group) {
    is_finite = is_finite && product.b[static_cast<std::size_t>(group)]->is_finite;
  }
  // Zeros that stand for padding must not meet a weight that is not finite: then rows go one by one, without those taps.
  const std::ptrdiff_t most_rows = is_finite ? kernel.rows : 1;
  const T* const outside = is_finite ? zero : nullptr;
  const std::ptrdiff_t n_tiles = (end - begin + most_rows - 1) / most_rows;
  const std::ptrdiff_t n_pointers = any.n_taps * kernel.rows;
  const T** const moved = scratch + kTiles * n_pointers;
  Epilogue<T> epilogue{.bias = nullptr,
                       .clamps = product.tail.clamps,
                       .streams = false,
                       .lo = static_cast<T>(product.tail.lo),
                       .hi = static_cast<T>(product.tail.hi)};
  Tile<T> tiles[kTiles];
  std::ptrdiff_t row = begin;
  for (std::ptrdiff_t block = 0; block < n_tiles; block += kTiles) {
    const std::ptrdiff_t n_block = std::min(kTiles, n_tiles - block);
    for (std::ptrdiff_t i = 0; i < n_block; ++i) {
      // Tiles of nearly equal height: a short last tile would waste the registers.
      tiles[i].rows = static_cast<int>((end - row + n_tiles - block - i - 1) / (n_tiles - block - i));
      place_tile(product, row, tiles[i], outside, scratch + i * n_pointers);
      row += tiles[i].rows;
    }
    for (std::ptrdiff_t group = first; group < last; ++group) {
      const Packed<T>& b = *product.b[static_cast<std::size_t>(group)];
      for (std::ptrdiff_t i = 0; i < n_block; ++i) {
        const T* const* const base = scratch + i * n_pointers;
        for (std::ptrdiff_t p = 0; p < b.n_taps * tiles[i].rows; ++p) {
          moved[p] = is_finite || base[p] != nullptr ? base[p] + group * b.k : nullptr;
        }
        for (std::ptrdiff_t panel = 0; panel < b.n_panels; ++panel) {
          const std::ptrdiff_t column = group * b.columns + panel * b.panel;
          if (product.tail.bias != nullptr) {
            epilogue.bias = static_cast<const T*>(product.tail.bias) + column;
          }
          const auto vectors = static_cast<std::size_t>(b.panel_columns(panel) / b.width);
          kernel.tile[tiles[i].rows - 1][vectors - 1](moved, b.n_taps, b.k, b.panel_data(panel), tiles[i].y, column,
                                                      std::min(b.panel, b.columns - panel * b.panel), epilogue);
        }
      }
    }
  }
}

template <class T>
void run_product(const Product<T>& product) {
  constexpr double kTasksAimed = 64;
  constexpr double kLeastTaskFlops = 5e5;   // below this a thread costs more than it brings
  constexpr double kMostTaskFlops = 1.6e7;  // above this the last task of a thread leaves the others waiting
  const Packed<T>& any = *product.b[0];
  const auto groups = static_cast<std::ptrdiff_t>(product.b.size());
  const std::ptrdiff_t n_rows = product.x.shape(0) * product.axis[0]->n * product.axis[1]->n * product.axis[2]->n;
  if (n_rows == 0 || any.columns == 0) {
    return;
  }
  const double flops = 2.0 * static_cast<double>(any.n_taps * any.k * any.columns) + 1.0;  // of a row of one group
  const double aimed =
      std::clamp(flops * static_cast<double>(n_rows * groups) / kTasksAimed, kLeastTaskFlops, kMostTaskFlops);
  const std::ptrdiff_t tile_rows = kernels().gemm<T>().rows;
  const std::ptrdiff_t block = kTiles * tile_rows;
  const Partition of_groups(groups,
                            static_cast<std::ptrdiff_t>(aimed / (flops * static_cast<double>(std::min(block, n_rows)))));
  const Partition of_rows(
      n_rows,
      std::max<std::ptrdiff_t>(
          1, static_cast<std::ptrdiff_t>(aimed / (flops * static_cast<double>(std::min(of_groups.part, groups)))) / block) *
          block);
  const std::ptrdiff_t channels = groups * any.k;
  const Buffer<T> zero(channels);
  std::fill_n(zero.data(), channels, T(0));
  const int n_workers = thread_count();
  const std::ptrdiff_t n_pointers = (kTiles + 1) * any.n_taps * tile_rows;
  const WorkerBuffer<const T*> scratch(n_workers, n_pointers);
  parallel_for(
      of_rows.n_parts * of_groups.n_parts,
      [&](std::ptrdiff_t task, int worker) {
        const std::ptrdiff_t rows = task / of_groups.n_parts;
        const std::ptrdiff_t part = task % of_groups.n_parts;
        run_rows(product, of_rows.begin(rows), of_rows.end(rows), of_groups.begin(part), of_groups.end(part), zero.data(),
                 scratch.of(worker));
      },
      n_workers);
}

// y's rows, phase by phase: one phase forward, stride³ of them in the data gradient. `transposes`: the weight's outputs are
// what is read.
template <class T>
void run_phases(const AxisMap (&maps)[3], const std::ptrdiff_t (&steps)[3], const Array& x, const Array& weight,
                bool transposes, std::ptrdiff_t groups, const Array& y, const GemmTail& tail) {
  const Image filter(weight);
  const std::ptrdiff_t c = weight.shape(1);
  const std::ptrdiff_t o = weight.shape(0) / groups;
  const std::ptrdiff_t ld = weight.stride(0);
  std::vector<Phase> phases[3];
  for (std::size_t axis = 0; axis < 3; ++axis) {
    phases[axis] = phases_of(maps[axis], steps[axis]);
  }
  for (const Phase& d : phases[0]) {
    for (const Phase& h : phases[1]) {
      for (const Phase& w : phases[2]) {
        std::vector<std::ptrdiff_t> offsets;
        for (const std::ptrdiff_t tap_d : d.taps) {
          for (const std::ptrdiff_t tap_h : h.taps) {
            for (const std::ptrdiff_t tap_w : w.taps) {
              offsets.push_back(filter.at(0, tap_d, tap_h, tap_w));
            }
          }
        }
        std::uint64_t key = derived_key(groups, transposes);
        for (const std::ptrdiff_t offset : offsets) {
          key = derived_key(key, offset);
        }
        const auto packed = cached<T>(weight, key, [&] {
          PackedList<T> list;
          for (std::ptrdiff_t group = 0; group < groups; ++group) {
            const T* const from = weight.data<T>() + group * o * ld;
            list.push_back(transposes ? pack<T>(from, offsets, o, ld, c, 1) : pack<T>(from, offsets, c, 1, o, ld));
          }
          return list;
        });
        run_product<T>({.axis = {&d, &h, &w}, .b = *packed, .x = x, .y = y, .tail = tail});
      }
    }
  }
}

// Some lines of outputs of one image and depth.
struct Slab {
  std::ptrdiff_t image;
  std::ptrdiff_t d;
  std::ptrdiff_t begin;
  std::ptrdiff_t end;
};

// Copies `channels` of lines [begin, end) of x, from the given one on, into panels [line][pixel][panel], panel_stride apart.
template <class T>
void copy_lines(const Array& x, std::ptrdiff_t image, std::ptrdiff_t d, std::ptrdiff_t begin, std::ptrdiff_t end,
                std::ptrdiff_t first, std::ptrdiff_t channels, std::ptrdiff_t panel, std::ptrdiff_t panel_stride,
                const T** pixels, T* out) {
  const Image view(x);
  const T** next = pixels;
  for (std::ptrdiff_t h = begin; h < end; ++h) {
    for (std::ptrdiff_t w = 0; w < view.size[2]; ++w) {
      *next++ = x.data<T>() + view.at(image, d, h, w);
    }
  }
  (void)kernels().gemm<T>().pack_lanes(pixels, first, next - pixels, channels, panel, panel_stride, out);
}

// How a weight gradient is cut.
struct OuterPlan {
  const Window& window;
  std::ptrdiff_t c;        // input channels of a group
  std::ptrdiff_t o;        // output channels of a group
  std::ptrdiff_t c_panel;  // rounded up to vectors
  std::ptrdiff_t o_panel;
  std::ptrdiff_t lines;    // of outputs in a slab
  std::ptrdiff_t x_lines;  // that a slab reads
  std::ptrdiff_t groups;   // copied at once, so that runs of whole lines of memory are read

  [[nodiscard]] std::ptrdiff_t x_panel() const { return x_lines * window.axis[2].in * c_panel; }
  [[nodiscard]] std::ptrdiff_t g_panel() const { return lines * window.axis[2].out * o_panel; }
  [[nodiscard]] std::ptrdiff_t n_sums() const { return window.n_taps() * c * o_panel; }  // of a group
};

template <class T>
OuterPlan plan_outer(const Window& window, std::ptrdiff_t c, std::ptrdiff_t o, std::ptrdiff_t groups) {
  const std::ptrdiff_t lanes = kernels().gemm<T>().width;
  const auto round_up = [&](std::ptrdiff_t n) { return (n + lanes - 1) / lanes * lanes; };
  OuterPlan plan{.window = window,
                 .c = c,
                 .o = o,
                 .c_panel = round_up(c),
                 .o_panel = round_up(o),
                 .lines = 1,
                 .x_lines = 1,
                 .groups = 1};
  const WindowAxis& height = window.axis[1];
  const WindowAxis& width = window.axis[2];
  const std::ptrdiff_t line = height.stride * width.in * plan.c_panel + width.out * plan.o_panel;
  const std::ptrdiff_t fit = cache_sizes().l1_bytes * 3 / 4 / static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t least = (height.reach() - height.stride) * width.in * plan.c_panel;
  plan.lines = std::clamp<std::ptrdiff_t>((fit - least) / std::max<std::ptrdiff_t>(line, 1),
                                          std::min<std::ptrdiff_t>(4, height.out), std::max<std::ptrdiff_t>(height.out, 1));
  if (c == plan.c_panel && o == plan.o_panel) {
    constexpr std::ptrdiff_t kRun = 64;  // values
    plan.groups = std::clamp<std::ptrdiff_t>(kRun / std::min(c, o), 1, groups);
  }
  plan.x_lines = std::min(height.in, (plan.lines - 1) * height.stride + height.reach());
  return plan;
}

// sums[tap][c][o_panel] += the products of some lines that were copied, for one group and one tap of the first axis.
template <class T>
void add_lines(const OuterPlan& plan, const Slab& slab, std::ptrdiff_t tap_d, std::ptrdiff_t first, const T* x,
               const T* grad_y, T* sums) {
  const GroupedKernels<T>& kernel = kernels().grouped<T>();
  const std::ptrdiff_t lanes = kernels().gemm<T>().width;
  const WindowAxis& height = plan.window.axis[1];
  const WindowAxis& width = plan.window.axis[2];
  const std::ptrdiff_t n_vectors = plan.o_panel / lanes;
  for (std::ptrdiff_t p = 0; p < height.kernel; ++p) {
    const WindowAxis::Range rows = height.outputs_inside(p);
    const std::ptrdiff_t h = std::max(rows.begin, slab.begin);
    const std::ptrdiff_t n_lines = std::min(rows.end, slab.end) - h;
    for (std::ptrdiff_t q = 0; q < width.kernel && n_lines > 0; ++q) {
      const WindowAxis::Range columns = width.outputs_inside(q);
      const std::ptrdiff_t tap = (tap_d * height.kernel + p) * width.kernel + q;
      const T* const from =
          x + ((height.position(h, p) - first) * width.in + width.position(columns.begin, q)) * plan.c_panel;
      const T* const grad = grad_y + ((h - slab.begin) * width.out + columns.begin) * plan.o_panel;
      for (std::ptrdiff_t vector = 0; vector < n_vectors && columns.begin < columns.end; vector += kernel.vectors) {
        const auto vectors = static_cast<std::size_t>(std::min<std::ptrdiff_t>(kernel.vectors, n_vectors - vector));
        const std::ptrdiff_t n_row_parts = (plan.c + kernel.rows[vectors - 1] - 1) / kernel.rows[vectors - 1];
        for (std::ptrdiff_t part = 0; part < n_row_parts; ++part) {
          const std::ptrdiff_t m = part * plan.c / n_row_parts;
          const std::ptrdiff_t n_rows = (part + 1) * plan.c / n_row_parts - m;
          kernel.outer[n_rows - 1][vectors - 1]({.x = from + m,
                                                 .x_line = height.stride * width.in * plan.c_panel,
                                                 .x_pixel = width.stride * plan.c_panel,
                                                 .g = grad + vector * lanes,
                                                 .g_line = width.out * plan.o_panel,
                                                 .g_pixel = plan.o_panel,
                                                 .n_lines = n_lines,
                                                 .n = columns.end - columns.begin,
                                                 .y = sums + (tap * plan.c + m) * plan.o_panel + vector * lanes,
                                                 .ld = plan.o_panel});
        }
      }
    }
  }
}

// Scratch of a worker.
template <class T>
struct Copies {
  const T** pixels;
  T* x;       // [group][line][pixel][c_panel]
  T* grad_y;  // [group][line][pixel][o_panel]
};

// Adds the products of one slab to the sums of groups [begin, end), which are sums_step apart.
template <class T>
void add_slab(const OuterPlan& plan, const AxisMap& depths, const Slab& slab, const Array& x, const Array& grad_y,
              std::ptrdiff_t begin, std::ptrdiff_t end, const Copies<T>& copies, T* sums, std::ptrdiff_t sums_step) {
  const WindowAxis& height = plan.window.axis[1];
  const std::ptrdiff_t n_groups = end - begin;
  copy_lines<T>(grad_y, slab.image, slab.d, slab.begin, slab.end, begin * plan.o, n_groups * plan.o, plan.o_panel,
                plan.g_panel(), copies.pixels, copies.grad_y);
  const std::ptrdiff_t first = std::clamp<std::ptrdiff_t>(height.position(slab.begin, 0), 0, height.in);
  const std::ptrdiff_t last =
      std::clamp<std::ptrdiff_t>(height.position(slab.end - 1, height.kernel - 1) + 1, first, height.in);
  for (const AxisMap::Entry& in_d : depths.at(slab.d)) {
    copy_lines<T>(x, slab.image, in_d.source, first, last, begin * plan.c, n_groups * plan.c, plan.c_panel, plan.x_panel(),
                  copies.pixels, copies.x);
    for (std::ptrdiff_t group = 0; group < n_groups; ++group) {
      add_lines<T>(plan, slab, in_d.tap, first, copies.x + group * plan.x_panel(), copies.grad_y + group * plan.g_panel(),
                   sums + group * sums_step);
    }
  }
}

template <class T>
void run_grad_weight(const Array& grad_y, const Array& x, const Window& window, std::ptrdiff_t groups,
                     const Array& grad_weight) {
  constexpr std::ptrdiff_t kTasksAimed = 32;
  constexpr std::ptrdiff_t kMostSums = 1 << 20;  // values of partial sums
  const Image target(grad_y);
  const OuterPlan plan = plan_outer<T>(window, grad_weight.shape(1), grad_weight.shape(0) / groups, groups);
  const AxisMap depths = window_map(window.axis[0]);
  const std::ptrdiff_t n_sums = plan.n_sums();
  const Partition slabs(target.size[1], plan.lines);
  const std::ptrdiff_t n_slabs = target.n * target.size[0] * slabs.n_parts;
  const Partition blocks(groups, plan.groups);
  const std::ptrdiff_t most_parts = std::max<std::ptrdiff_t>(
      1, std::min(kTasksAimed / blocks.n_parts, kMostSums / std::max<std::ptrdiff_t>(1, groups * n_sums)));
  const Partition parts(n_slabs, (n_slabs + most_parts - 1) / most_parts);
  const std::ptrdiff_t n_parts = std::max<std::ptrdiff_t>(1, parts.n_parts);
  const int n_workers = thread_count();
  const std::ptrdiff_t n_pixels = std::max(plan.x_lines * window.axis[2].in, plan.lines * window.axis[2].out);
  const std::ptrdiff_t n_scratch = plan.groups * (plan.x_panel() + plan.g_panel());
  const Buffer<T> sums(groups * n_parts * n_sums);  // [group][part][tap][c][o_panel]
  const WorkerBuffer<T> scratch(n_workers, n_scratch);
  const WorkerBuffer<const T*> pixels(n_workers, n_pixels);
  parallel_for(
      blocks.n_parts * n_parts,
      [&](std::ptrdiff_t task, int worker) {
        const std::ptrdiff_t begin = blocks.begin(task / n_parts);
        const std::ptrdiff_t end = blocks.end(task / n_parts);
        const std::ptrdiff_t part = task % n_parts;
        T* const sum = sums.data() + (begin * n_parts + part) * n_sums;
        for (std::ptrdiff_t group = 0; group < end - begin; ++group) {
          std::fill_n(sum + group * n_parts * n_sums, n_sums, T(0));
        }
        T* const copies = scratch.of(worker);
        for (std::ptrdiff_t i = parts.begin(part); i < parts.end(part); ++i) {
          const std::ptrdiff_t at = i / slabs.n_parts;
          add_slab<T>(plan, depths,
                      {.image = at / target.size[0],
                       .d = at % target.size[0],
                       .begin = slabs.begin(i % slabs.n_parts),
                       .end = slabs.end(i % slabs.n_parts)},
                      x, grad_y, begin, end,
                      {.pixels = pixels.of(worker), .x = copies, .grad_y = copies + plan.groups * plan.x_panel()}, sum,
                      n_parts * n_sums);
        }
      },
      n_workers);
  // Part i + step is added to part i, for step 1, 2, 4, …, and the sums are written in the weight's order.
  parallel_for(groups, [&](std::ptrdiff_t group) {
    T* const sum = sums.data() + group * n_parts * n_sums;
    for (std::ptrdiff_t step = 1; step < n_parts; step *= 2) {
      for (std::ptrdiff_t i = 0; i + step < n_parts; i += 2 * step) {
        kernels().norm<T>().add(sum + i * n_sums, sum + (i + step) * n_sums, n_sums);
      }
    }
    for (std::ptrdiff_t o = 0; o < plan.o; ++o) {
      T* const to = grad_weight.data<T>() + (group * plan.o + o) * grad_weight.stride(0);
      for (std::ptrdiff_t t = 0; t < window.n_taps() * plan.c; ++t) {
        to[t] = sum[t * plan.o_panel + o];
      }
    }
  });
}

}  // namespace

bool grouped_applies(const Extents& weight_shape, std::ptrdiff_t groups) {
  return groups > 1 && weight_shape[1] <= kMostGroup && weight_shape[0] <= groups * kMostGroup;
}

void grouped_conv(const Array& x, const Array& weight, const Array& y, const Fused& fused, const Window& window,
                  std::ptrdiff_t groups) {
  dispatch_float("conv", x.dtype(), [&](auto zero) {
    const Array bias = dense_bias(fused);
    const GemmTail tail{.bias = fused.bias == nullptr ? nullptr : static_cast<const void*>(bias.bytes()),
                        .clamps = fused.clamps,
                        .lo = fused.lo,
                        .hi = fused.hi};
    const AxisMap maps[3] = {window_map(window.axis[0]), window_map(window.axis[1]), window_map(window.axis[2])};
    run_phases<decltype(zero)>(maps, {1, 1, 1}, unit_channels(x), dense_weight(weight), false, groups, y, tail);
  });
}

Array grouped_conv_grad_input(const Array& grad_y, const Array& weight, const Extents& x_shape, const Window& window,
                              std::ptrdiff_t groups) {
  const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
  dispatch_float("conv", grad_y.dtype(), [&](auto zero) {
    const AxisMap maps[3] = {transposed(window_map(window.axis[0])), transposed(window_map(window.axis[1])),
                             transposed(window_map(window.axis[2]))};
    const std::ptrdiff_t steps[3] = {window.axis[0].stride, window.axis[1].stride, window.axis[2].stride};
    run_phases<decltype(zero)>(maps, steps, unit_channels(grad_y), dense_weight(weight), true, groups, grad_x, {});
  });
  return grad_x;
}

Array grouped_conv_grad_weight(const Array& grad_y, const Array& x, const Extents& weight_shape, const Window& window,
                               std::ptrdiff_t groups) {
  const Array grad_weight = Array::empty(x.dtype(), weight_shape, Layout::channels_last);
  dispatch_float("conv", x.dtype(), [&](auto zero) {
    run_grad_weight<decltype(zero)>(unit_channels(grad_y), unit_channels(x), window, groups, grad_weight);
  });
  return grad_weight;
}

}  // namespace striate
