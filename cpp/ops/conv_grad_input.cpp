// The data gradient of convolutions, and transposed convolutions: by phases of the strides, or by lines of the kernel.
#include <algorithm>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/conv_passes.hpp"
#include "ops/packed.hpp"
#include "ops/shape.hpp"

namespace striate {
namespace {

// The positions of grad_x with one remainder by the strides: all see the same taps, so they are a plain convolution of
// grad_y (sub-pixel decomposition).
struct Phase {
  Position first;
  std::vector<Position> taps;
  std::vector<Position> kernel_taps;  // positions in the kernel of the same
};

// `by_lines`: along the width there is one phase, with the first tap of each line of the kernel.
std::vector<Phase> make_phases(const Window& window, bool by_lines) {
  Position stride = spatial(window, &WindowAxis::stride);
  Position kernel = spatial(window, &WindowAxis::kernel);
  if (by_lines) {
    stride[2] = kernel[2] = 1;
  }
  std::vector<Phase> phases;
  for (std::ptrdiff_t phase = 0; phase < stride[0] * stride[1] * stride[2]; ++phase) {
    Phase found{.first = {phase / (stride[1] * stride[2]), phase / stride[2] % stride[1], phase % stride[2]},
                .taps = {},
                .kernel_taps = {}};
    const auto steps = [&](std::size_t axis, std::ptrdiff_t tap, std::ptrdiff_t& position) {
      if (by_lines && axis == 2) {
        position = 0;
        return true;
      }
      const WindowAxis& a = window.axis[axis];
      const std::ptrdiff_t distance = found.first[axis] + a.pad_begin - tap * a.dilation;
      position = distance / a.stride;
      return distance % a.stride == 0;
    };
    Position at{};
    for (std::ptrdiff_t d = 0; d < kernel[0]; ++d) {
      for (std::ptrdiff_t p = 0; p < kernel[1]; ++p) {
        for (std::ptrdiff_t q = 0; q < kernel[2]; ++q) {
          if (steps(0, d, at[0]) && steps(1, p, at[1]) && steps(2, q, at[2])) {
            found.taps.push_back(at);
            found.kernel_taps.push_back({d, p, q});
          }
        }
      }
    }
    phases.push_back(std::move(found));
  }
  return phases;
}

// The filters of phases, for each phase those of every group: `columns` neighbouring values of a tap, for all filters.
template <class T>
std::shared_ptr<const PackedList<T>> pack_phases(const Array& weight, const std::vector<Phase>& phases,
                                                 const ConvGeometry& geometry, std::ptrdiff_t columns) {
  std::uint64_t key = derived_key(ConvPass::grad_input, geometry.groups, columns);
  for (const WindowAxis& axis : geometry.window.axis) {
    key = derived_key(key, axis.stride, axis.dilation, axis.pad_begin);
  }
  return cached<T>(weight, key, [&] {
    const Array dense = dense_weight(weight);
    const Position weight_stride = spatial_strides(dense);
    const std::ptrdiff_t ld = dense.stride(0);
    PackedList<T> list;
    for (const Phase& phase : phases) {
      std::vector<std::ptrdiff_t> offsets;
      for (const Position& tap : phase.kernel_taps) {
        offsets.push_back(tap[0] * weight_stride[0] + tap[1] * weight_stride[1] + tap[2] * weight_stride[2]);
      }
      for (std::ptrdiff_t g = 0; g < geometry.groups; ++g) {
        list.push_back(pack<T>(dense.data<T>() + g * geometry.o * ld, offsets, geometry.o, ld, columns, 1));
      }
    }
    return list;
  });
}

// Positions of grad_x of a phase.
Position phase_grid(const Phase& phase, const Window& window, const Position& stride) {
  Position grid{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    grid[axis] = std::max<std::ptrdiff_t>(0, (window.axis[axis].in - phase.first[axis] + stride[axis] - 1) / stride[axis]);
  }
  return grid;
}

constexpr std::ptrdiff_t kPartValues = 1 << 19;  // that products give before they are added up: they stay in the caches

// The data gradient by lines of the kernel: a product gives, for every position of grad_y, its part in a line of grad_x, a
// run of kernel · C values; those of neighbours overlap, and are added up where they meet.
template <class T>
void run_by_lines(const Array& grad_y, const Array& weight, const Array& grad_x, const GemmTail& tail,
                  const ConvGeometry& geometry) {
  const Window& window = geometry.window;
  const WindowAxis& width = window.axis[2];
  const std::ptrdiff_t c = geometry.c;
  const std::ptrdiff_t columns = width.kernel * c;
  const std::vector<Phase> phases = make_phases(window, true);
  const auto packed = pack_phases<T>(weight, phases, geometry, columns);
  Position stride = spatial(window, &WindowAxis::stride);
  stride[2] = 1;
  const Position strides = spatial_strides(grad_x);
  const GemmKernels<T>& kernel = kernels().gemm<T>();
  for (std::size_t i = 0; i < phases.size(); ++i) {
    const Phase& phase = phases[i];
    Position grid = phase_grid(phase, window, stride);
    grid[2] = width.out;
    const std::ptrdiff_t line_size = width.out * columns;
    const std::ptrdiff_t image_size = grid[0] * grid[1] * line_size;
    const Overlap<T> overlap{.n = phase.taps.empty() ? 0 : width.out,
                             .kernel = width.kernel,
                             .stride = width.stride,
                             .pad = width.pad_begin,
                             .channels = c,
                             .bias = static_cast<const T*>(tail.bias),
                             .clamps = tail.clamps,
                             .lo = static_cast<T>(tail.lo),
                             .hi = static_cast<T>(tail.hi)};
    const Partition images(geometry.n, std::max<std::ptrdiff_t>(1, kPartValues / std::max<std::ptrdiff_t>(1, image_size)));
    const Buffer<T> parts(std::min(images.part, geometry.n) * image_size + kernel.width);
    for (std::ptrdiff_t some = 0; some < images.n_parts; ++some) {
      const std::ptrdiff_t first = images.begin(some);
      const std::ptrdiff_t n = images.end(some) - first;
      if (!phase.taps.empty()) {
        indirect_gemm(std::vector<Gemm<T>>{
            {.a = {.x = grad_y.data<T>() + first * grad_y.stride(0),
                   .stride_n = grad_y.stride(0),
                   .stride = spatial_strides(grad_y),
                   .in = spatial(window, &WindowAxis::out),
                   .n = n,
                   .grid = grid,
                   .step = {1, 1, 1},
                   .taps = phase.taps},
             .b = (*packed)[i],
             .y = {.y = parts.data(), .stride_n = image_size, .stride = {grid[1] * line_size, line_size, columns}},
             .tail = {}}});
      }
      const Partition lines(n * grid[0] * grid[1],
                            std::max<std::ptrdiff_t>(1, 16384 / std::max<std::ptrdiff_t>(1, line_size)));
      parallel_for(lines.n_parts, [&](std::ptrdiff_t part) {
        for (std::ptrdiff_t line = lines.begin(part); line < lines.end(part); ++line) {
          const std::ptrdiff_t image = first + line / (grid[0] * grid[1]);
          const std::ptrdiff_t d = phase.first[0] + line / grid[1] % grid[0] * stride[0];
          const std::ptrdiff_t h = phase.first[1] + line % grid[1] * stride[1];
          kernel.overlap(parts.data() + line * line_size, overlap,
                         grad_x.data<T>() + image * grad_x.stride(0) + d * strides[0] + h * strides[1], strides[2],
                         width.in);
        }
      });
    }
  }
}

}  // namespace

template <class T>
bool goes_by_lines(const ConvGeometry& geometry) {
  const std::ptrdiff_t lane = kernels().gemm<T>().width;
  const WindowAxis& width = geometry.window.axis[2];
  return geometry.groups == 1 && geometry.c < lane && width.dilation == 1 &&
         width.kernel * round_up(geometry.c, lane) * width.in >
             round_up(width.kernel * geometry.c, lane) * width.out * width.stride;
}

// Whether the parts of a line of grad_x that the kernel's lines give follow one another and share nothing: then the phases
// along the width are one product, which reads grad_y once.
bool joins_lines(const Array& grad_x, const ConvGeometry& geometry) {
  const WindowAxis& width = geometry.window.axis[2];
  return geometry.groups == 1 && width.kernel > 1 && width.kernel == width.stride && width.dilation == 1 &&
         width.pad_begin == 0 && width.in == width.out * width.stride && spatial_strides(grad_x)[2] == geometry.c;
}

// The data gradient, and the transposed convolution: a product for each phase.
template <class T>
void run_grad_input(const Array& grad_y, const Array& weight, const Array& grad_x, const GemmTail& tail,
                    const ConvGeometry& geometry) {
  if (ran_winograd<T>(ConvPass::grad_input, grad_y, weight, grad_x, tail, geometry)) {
    return;
  }
  if (goes_by_lines<T>(geometry)) {
    run_by_lines<T>(grad_y, weight, grad_x, tail, geometry);
    return;
  }
  const Window& window = geometry.window;
  const bool joins = joins_lines(grad_x, geometry);
  const std::ptrdiff_t n_joined = joins ? window.axis[2].kernel : 1;  // pixels of a row of a product
  const std::vector<Phase> phases = make_phases(window, joins);
  const auto packed = pack_phases<T>(weight, phases, geometry, n_joined * geometry.c);
  const Buffer<T> biases(joins ? n_joined * geometry.c : 0);
  for (std::ptrdiff_t i = 0; joins && tail.bias != nullptr && i < n_joined; ++i) {
    std::copy_n(static_cast<const T*>(tail.bias), geometry.c, biases.data() + i * geometry.c);
  }
  const bool is_zero_without_taps = tail.bias == nullptr && !tail.clamps && !tail.adds;
  if (is_zero_without_taps && std::any_of(phases.begin(), phases.end(), [](const Phase& p) { return p.taps.empty(); })) {
    fill_zero(grad_x);
  }
  const Position stride = spatial(window, &WindowAxis::stride);
  const Position strides = spatial_strides(grad_x);
  for (std::size_t i = 0; i < phases.size(); ++i) {
    const Phase& phase = phases[i];
    if (is_zero_without_taps && phase.taps.empty()) {
      continue;
    }
    const std::ptrdiff_t offset = phase.first[0] * strides[0] + phase.first[1] * strides[1] + phase.first[2] * strides[2];
    std::vector<Gemm<T>> products;
    for (std::ptrdiff_t g = 0; g < geometry.groups; ++g) {
      GemmTail group_tail = tail;
      if (tail.bias != nullptr) {
        group_tail.bias = joins ? biases.data() : static_cast<const T*>(tail.bias) + g * geometry.c;
      }
      products.push_back({.a = {.x = grad_y.data<T>() + g * geometry.o,
                                .stride_n = grad_y.stride(0),
                                .stride = spatial_strides(grad_y),
                                .in = spatial(window, &WindowAxis::out),
                                .n = geometry.n,
                                .grid = phase_grid(phase, window, stride),
                                .step = {1, 1, 1},
                                .taps = phase.taps},
                          .b = (*packed)[i * static_cast<std::size_t>(geometry.groups) + static_cast<std::size_t>(g)],
                          .y = {.y = grad_x.data<T>() + g * geometry.c + offset,
                                .stride_n = grad_x.stride(0),
                                .stride = {strides[0] * stride[0], strides[1] * stride[1], strides[2] * stride[2]}},
                          .tail = group_tail});
    }
    indirect_gemm(std::move(products));
  }
}

#define STRIATE_INSTANTIATE(T)                         \
  template bool goes_by_lines<T>(const ConvGeometry&); \
  template void run_grad_input<T>(const Array&, const Array&, const Array&, const GemmTail&, const ConvGeometry&);
STRIATE_INSTANTIATE(float)
STRIATE_INSTANTIATE(double)

}  // namespace striate
