// Convolution, its gradients and transposed convolution, for one to three spatial axes: geometry is turned into indirect
// GEMMs.
#include <algorithm>
#include <cstring>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/conv2d_choose.hpp"
#include "ops/depthwise.hpp"
#include "ops/map.hpp"
#include "ops/packed.hpp"
#include "ops/shape.hpp"
#include "ops/winograd.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

// At or below this many channels, the taps of a kernel line are read as one run of kernel_w · C values from a padded copy.
constexpr std::ptrdiff_t kFoldChannels = 4;

struct Geometry {
  Window window;
  std::ptrdiff_t n;
  std::ptrdiff_t groups;
  std::ptrdiff_t c;  // input channels of a group
  std::ptrdiff_t o;  // output channels of a group
};

ConvShape shape_of(const Geometry& geometry, int rank, DType dtype) {
  return {.window = geometry.window,
          .n = geometry.n,
          .groups = geometry.groups,
          .c = geometry.c,
          .o = geometry.o,
          .dtype = rank == 4 ? dtype : DType::float64};
}

Position spatial(const Window& window, std::ptrdiff_t WindowAxis::*field) {
  return {window.axis[0].*field, window.axis[1].*field, window.axis[2].*field};
}

// Strides of the spatial axes, absent ones first with stride 0.
Position spatial_strides(const Array& x) {
  Position strides{0, 0, 0};
  for (int axis = 2; axis < x.rank(); ++axis) {
    strides[static_cast<std::size_t>(axis + 3 - x.rank())] = x.stride(axis);
  }
  return strides;
}

Array channels_last(const Array& x) { return x.has_unit_channels() ? x : relayout(x, Layout::channels_last); }

std::span<const std::ptrdiff_t> spatial_sizes(const Extents& shape) {
  return {shape.begin() + 2, static_cast<std::size_t>(shape.rank() - 2)};
}

Extents output_shape(std::ptrdiff_t n, std::ptrdiff_t channels, const Window& window, std::ptrdiff_t WindowAxis::*field,
                     int rank) {
  Extents shape{n, channels};
  for (int axis = 2; axis < rank; ++axis) {
    shape.push_back(window.axis[static_cast<std::size_t>(axis + 3 - rank)].*field);
  }
  return shape;
}

// Checks shared by all passes; `x_shape` is (N, C, *spatial).
Geometry make_geometry(const char* op, const Extents& x_shape, const Extents& weight_shape, const ConvParams& params) {
  check(weight_shape.rank() >= 3 && weight_shape.rank() <= 5, op,
        ": expected weight of 3 to 5 axes (O, C/groups, *kernel), got ", weight_shape, "; see the op's documentation");
  check(x_shape.rank() == weight_shape.rank(), op, ": expected x of ", weight_shape.rank(), " axes (N, C, *spatial), got ",
        x_shape, "; add the batch axis or choose the op for this many axes");
  check(params.groups >= 1, op, ": expected groups of at least 1, got ", params.groups, "; pass groups=1");
  check(weight_shape[0] % params.groups == 0, op, ": expected output channels divisible by groups=", params.groups,
        ", got weight.shape ", weight_shape, "; change groups or the weight");
  check(x_shape[1] % params.groups == 0 && x_shape[1] / params.groups == weight_shape[1], op,
        ": expected weight with C/groups = ", x_shape[1], "/", params.groups, " input channels, got ", weight_shape[1],
        " in weight.shape ", weight_shape, " with groups=", params.groups, "; x.shape is ", x_shape);
  WindowParams window = params.window;
  const auto kernel = spatial_sizes(weight_shape);
  window.kernel_size.assign(kernel.begin(), kernel.end());
  return {.window = make_window(op, spatial_sizes(x_shape), window),
          .n = x_shape[0],
          .groups = params.groups,
          .c = weight_shape[1],
          .o = weight_shape[0] / params.groups};
}

void check_same_dtype(const char* op, const Array& x, const Array& weight) {
  check<DTypeError>(x.dtype() == weight.dtype(), op, ": expected tensors of one dtype, got ", dtype_name(x.dtype()), " and ",
                    dtype_name(weight.dtype()), "; convert one with .to()");
}

void check_bias(const char* op, const Array* bias, const Array& x, std::ptrdiff_t channels) {
  if (bias == nullptr) {
    return;
  }
  check_same_dtype(op, x, *bias);
  check(bias->rank() == 1 && bias->shape(0) == channels, op, ": expected bias of shape (", channels, ",), got ",
        bias->shape(), "; one value per output channel");
}

// All taps of a window as offsets from output index 0.
std::vector<Position> all_taps(const Window& window) {
  std::vector<Position> taps;
  for (std::ptrdiff_t d = 0; d < window.axis[0].kernel; ++d) {
    for (std::ptrdiff_t p = 0; p < window.axis[1].kernel; ++p) {
      for (std::ptrdiff_t q = 0; q < window.axis[2].kernel; ++q) {
        taps.push_back({window.axis[0].position(0, d), window.axis[1].position(0, p), window.axis[2].position(0, q)});
      }
    }
  }
  return taps;
}

// How the forward pass and the weight gradient read x: tap by tap, or, with few channels, line by line.
template <class T>
struct Reading {
  Gather<T> gather;        // of group 0
  std::ptrdiff_t k;        // values a tap reads
  Array kept;              // owns what gather.x points into
  bool has_slack = false;  // a vector may be read beyond its last value
};

// Copies x into lines padded with zeros, channels dense: (N, D, H, W, C) with the window's padding made real, and slack.
template <class T>
Array padded_copy(const Array& x, const Geometry& geometry, const Position& size) {
  const Window& window = geometry.window;
  const std::ptrdiff_t c = geometry.c;
  const std::ptrdiff_t line_size = size[2] * c;
  const std::ptrdiff_t image_size = size[0] * size[1] * line_size;
  constexpr auto kSlack = static_cast<std::ptrdiff_t>(kAlignment / sizeof(T));
  const Array copy =
      Array::view(Array::empty(x.dtype(), {geometry.n * image_size + kSlack}).storage_ref(), x.dtype(),
                  {geometry.n, size[0], size[1], size[2], c}, {image_size, size[1] * line_size, line_size, c, 1}, 0);
  const Position stride = spatial_strides(x);
  const Position in = spatial(window, &WindowAxis::in);
  const Position begin = spatial(window, &WindowAxis::pad_begin);
  parallel_for(geometry.n * size[0], [&](std::ptrdiff_t task) {
    const std::ptrdiff_t n = task / size[0];
    const std::ptrdiff_t d = task % size[0] - begin[0];
    T* out = copy.data<T>() + task * size[1] * line_size;
    for (std::ptrdiff_t i = 0; i < size[1]; ++i) {
      const std::ptrdiff_t h = i - begin[1];
      T* const line = out + i * line_size;
      if (d < 0 || d >= in[0] || h < 0 || h >= in[1]) {
        std::fill_n(line, line_size, T(0));
        continue;
      }
      const T* const source = x.data<T>() + n * x.stride(0) + d * stride[0] + h * stride[1];
      const std::ptrdiff_t width = std::min(in[2], size[2] - begin[2]);
      std::fill_n(line, begin[2] * c, T(0));
      std::fill(line + (begin[2] + width) * c, line + line_size, T(0));
      if (stride[2] == c) {
        std::copy_n(source, width * c, line + begin[2] * c);
        continue;
      }
      for (std::ptrdiff_t w = 0; w < width; ++w) {
        for (std::ptrdiff_t channel = 0; channel < c; ++channel) {
          line[(w + begin[2]) * c + channel] = source[w * stride[2] + channel];
        }
      }
    }
  });
  return copy;
}

bool folds(const Geometry& geometry) {
  const WindowAxis& width = geometry.window.axis[2];
  return geometry.groups == 1 && geometry.c <= kFoldChannels && width.kernel > 1 && width.dilation == 1;
}

// Whether x is read where it lies although its taps fold: few tiles of a long line meet its edges, and the others read the
// taps of a kernel line as one (7×7, 3→64 at 224×224: 0.96 of the time with a padded copy, 3×3 stride 2 0.9).
template <class T>
bool has_long_lines(const Array& x, const Geometry& geometry) {
  constexpr std::ptrdiff_t kTiles = 8;
  constexpr std::ptrdiff_t kMostTaps = 64;  // that the indirect GEMM joins
  return geometry.window.is_padded() && geometry.window.n_taps() <= kMostTaps && spatial_strides(x)[2] == geometry.c &&
         geometry.window.axis[2].out >= kTiles * kernels().gemm<T>().rows;
}

template <class T>
Reading<T> read_input(const Array& x, const Geometry& geometry, bool is_folded) {
  const Window& window = geometry.window;
  Reading<T> reading{.gather = {.x = x.data<T>(),
                                .stride_n = x.stride(0),
                                .stride = spatial_strides(x),
                                .in = spatial(window, &WindowAxis::in),
                                .n = geometry.n,
                                .grid = spatial(window, &WindowAxis::out),
                                .step = spatial(window, &WindowAxis::stride),
                                .taps = {}},
                     .k = geometry.c,
                     .kept = x};
  const WindowAxis& width = window.axis[2];
  if (!is_folded) {
    reading.gather.taps = all_taps(window);
    return reading;
  }
  Position size{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const WindowAxis& a = window.axis[axis];
    size[axis] = std::max(a.in + a.pad_begin, a.position(a.out - 1, a.kernel - 1) + a.pad_begin + 1);
  }
  const bool is_dense = reading.gather.stride[2] == geometry.c || width.in == 1;
  if (window.is_padded() || !is_dense) {
    reading.kept = padded_copy<T>(x, geometry, size);
    reading.gather.x = reading.kept.template data<T>();
    reading.gather.stride_n = reading.kept.stride(0);
    reading.gather.stride = {reading.kept.stride(1), reading.kept.stride(2), reading.kept.stride(3)};
    reading.gather.in = size;
    reading.has_slack = true;
  } else if (width.in == 1) {
    reading.gather.stride[2] = geometry.c;
  }
  for (std::ptrdiff_t d = 0; d < window.axis[0].kernel; ++d) {
    for (std::ptrdiff_t p = 0; p < window.axis[1].kernel; ++p) {
      reading.gather.taps.push_back({d * window.axis[0].dilation, p * window.axis[1].dilation, 0});
    }
  }
  reading.k = width.kernel * geometry.c;
  return reading;
}

WinogradImages winograd_images(const Array& x) {
  return {.data = x.data<float>(),
          .stride_n = x.stride(0),
          .stride_h = x.stride(2),
          .stride_w = x.stride(3),
          .h = x.shape(2),
          .w = x.shape(3),
          .c = x.shape(1)};
}

// Runs the forward pass or the data gradient by Winograd where that is chosen; `y` is the result.
template <class T>
bool ran_winograd(ConvPass pass, const Array& x, const Array& weight, const Array& y, const GemmTail& tail,
                  const Geometry& geometry) {
  if constexpr (std::is_same_v<T, float>) {
    const int form = choose_winograd(pass, shape_of(geometry, x.rank(), x.dtype()));
    if (form < 0) {
      return false;
    }
    const bool transposes = pass == ConvPass::grad_input;
    const auto packed = cached<T>(weight, derived_key(pass, 100 + form, geometry.groups), [&] {
      const Array dense = dense_weight(weight);
      return pack_winograd(dense.data<T>(), geometry.groups, geometry.o, geometry.c, form, transposes);
    });
    const WindowAxis& h = geometry.window.axis[1];
    const WindowAxis& w = geometry.window.axis[2];
    const auto pad = [&](const WindowAxis& axis) { return transposes ? axis.kernel - 1 - axis.pad_begin : axis.pad_begin; };
    winograd_forward(winograd_images(x), *packed, winograd_images(y), geometry.n, pad(h), pad(w), form, tail);
    return true;
  }
  return false;
}

// Neighbouring outputs of a line that one row of a product computes: several where their channels do not fill a vector, and
// finding a row's pixels takes as long as multiplying them. Their filters are shifted copies with zeros between. LeNet's
// first layer, 5×5 from 1 to 6 channels: 0.75 of the time with AVX2, 0.56 with AVX-512.
template <class T>
std::ptrdiff_t choose_run(const Geometry& geometry) {
  constexpr std::ptrdiff_t kMostRun = 4;
  constexpr std::ptrdiff_t kRowCost = 40;  // in multiply-adds of a vector, beside those that are needed
  const std::ptrdiff_t lane = kernels().gemm<T>().width;
  const Window& window = geometry.window;
  const WindowAxis& width = window.axis[2];
  const auto cost = [&](std::ptrdiff_t run) {
    const std::ptrdiff_t values = (width.kernel + (run - 1) * width.stride) * geometry.c;
    const std::ptrdiff_t products =
        ceil_div(run * geometry.o, lane) * values * window.axis[0].kernel * window.axis[1].kernel;
    const std::ptrdiff_t checked = run == 1 ? 0 : 3 * window.axis[1].stride * width.stride * geometry.c / lane;
    return static_cast<double>(products + kRowCost) / static_cast<double>(run) + static_cast<double>(checked);
  };
  std::ptrdiff_t best = 1;
  double least = 0.8 * cost(1);
  for (std::ptrdiff_t run = 2; run <= kMostRun && geometry.o < lane; ++run) {
    if (width.out % run == 0 && cost(run) < least) {
      best = run;
      least = cost(run);
    }
  }
  return best;
}

// The forward pass by runs of outputs, from x read line by line. Returns false where zeros between filters may meet a value
// that is not finite.
template <class T>
bool ran_by_runs(const Reading<T>& reading, const Array& weight, const Array& y, const GemmTail& tail,
                 const Geometry& geometry, std::ptrdiff_t run) {
  const WindowAxis& width = geometry.window.axis[2];
  const std::ptrdiff_t o = geometry.o;
  const std::ptrdiff_t columns = run * o;
  const std::ptrdiff_t values = reading.k + (run - 1) * width.stride * geometry.c;  // of a line, for one row
  const auto n_lines = static_cast<std::ptrdiff_t>(reading.gather.taps.size());
  const auto packed = cached<T>(weight, derived_key(ConvPass::forward, reading.k, n_lines, run, width.stride), [&] {
    const Array dense = dense_weight(weight);
    const Buffer<T> filters(columns * n_lines * values);
    std::fill_n(filters.data(), columns * n_lines * values, T(0));
    std::vector<std::ptrdiff_t> offsets;
    for (std::ptrdiff_t line = 0; line < n_lines; ++line) {
      offsets.push_back(line * values);
      for (std::ptrdiff_t column = 0; column < columns; ++column) {
        std::copy_n(dense.data<T>() + (column % o * n_lines + line) * reading.k, reading.k,
                    filters.data() + (column * n_lines + line) * values + column / o * width.stride * geometry.c);
      }
    }
    return PackedList<T>{pack<T>(filters.data(), offsets, values, 1, columns, n_lines * values)};
  });
  const Array& x = reading.kept;
  const bool is_dense = x.is_dense(Layout::row_major) || x.is_dense(Layout::channels_last);
  if (!(*packed)[0]->is_finite || !is_dense || !kernels().gemm<T>().all_finite(x.data<T>(), x.size())) {
    return false;
  }
  Gemm<T> product{.a = reading.gather,
                  .b = (*packed)[0],
                  .y = {.y = y.data<T>(), .stride_n = y.stride(0), .stride = spatial_strides(y)},
                  .tail = tail};
  product.a.grid[2] /= run;
  product.a.step[2] *= run;
  product.y.stride[2] *= run;
  const Buffer<T> bias(tail.bias == nullptr ? 0 : columns);
  if (tail.bias != nullptr) {
    for (std::ptrdiff_t i = 0; i < columns; ++i) {
      bias[i] = static_cast<const T*>(tail.bias)[i % o];
    }
    product.tail.bias = bias.data();
  }
  indirect_gemm(std::vector<Gemm<T>>{std::move(product)});
  return true;
}

template <class T>
void run_forward(const Array& x, const Array& weight, const Array& y, const GemmTail& tail, const Geometry& geometry,
                 bool is_folded) {
  if (ran_winograd<T>(ConvPass::forward, x, weight, y, tail, geometry)) {
    return;
  }
  is_folded = is_folded && !has_long_lines<T>(x, geometry);
  const Reading<T> reading = read_input<T>(x, geometry, is_folded);
  if (const std::ptrdiff_t run = is_folded ? choose_run<T>(geometry) : 1;
      run > 1 && tail.sums == nullptr && spatial_strides(y)[2] == geometry.o &&
      ran_by_runs<T>(reading, weight, y, tail, geometry, run)) {
    return;
  }
  const auto n_taps = static_cast<std::ptrdiff_t>(reading.gather.taps.size());
  const std::ptrdiff_t ld = n_taps * reading.k;  // values of one filter
  const auto packed = cached<T>(weight, derived_key(ConvPass::forward, reading.k, n_taps, geometry.groups), [&] {
    const Array dense = dense_weight(weight);
    std::vector<std::ptrdiff_t> offsets;
    for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
      offsets.push_back(t * reading.k);
    }
    PackedList<T> list;
    for (std::ptrdiff_t g = 0; g < geometry.groups; ++g) {
      list.push_back(pack<T>(dense.data<T>() + g * geometry.o * ld, offsets, reading.k, 1, geometry.o, ld));
    }
    return list;
  });
  if (is_folded && geometry.window.is_padded() && !(*packed)[0]->is_finite) {
    // The zeros of the padded copy must not meet a weight that is not finite.
    run_forward<T>(x, weight, y, tail, geometry, false);
    return;
  }
  std::vector<Gemm<T>> products;
  for (std::ptrdiff_t g = 0; g < geometry.groups; ++g) {
    Gemm<T> product{.a = reading.gather,
                    .b = (*packed)[static_cast<std::size_t>(g)],
                    .y = {.y = y.data<T>() + g * geometry.o, .stride_n = y.stride(0), .stride = spatial_strides(y)},
                    .tail = tail};
    product.a.x += g * geometry.c;
    if (tail.bias != nullptr) {
      product.tail.bias = static_cast<const T*>(tail.bias) + g * geometry.o;
    }
    products.push_back(std::move(product));
  }
  indirect_gemm(std::move(products));
}

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
                                                 const Geometry& geometry, std::ptrdiff_t columns) {
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

// Whether the data gradient goes by lines of the kernel: where channels alone fill little of a vector (the first layers of
// a network), and those of a line fill it better.
template <class T>
bool goes_by_lines(const Geometry& geometry) {
  const std::ptrdiff_t lane = kernels().gemm<T>().width;
  const WindowAxis& width = geometry.window.axis[2];
  return geometry.groups == 1 && geometry.c < lane && width.dilation == 1 &&
         width.kernel * round_up(geometry.c, lane) * width.in >
             round_up(width.kernel * geometry.c, lane) * width.out * width.stride;
}

constexpr std::ptrdiff_t kPartValues = 1 << 19;  // that products give before they are added up: they stay in the caches

// The data gradient by lines of the kernel: a product gives, for every position of grad_y, its part in a line of grad_x, a
// run of kernel · C values; those of neighbours overlap, and are added up where they meet.
template <class T>
void run_by_lines(const Array& grad_y, const Array& weight, const Array& grad_x, const GemmTail& tail,
                  const Geometry& geometry) {
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

// The data gradient, and the transposed convolution: a product for each phase.
template <class T>
void run_grad_input(const Array& grad_y, const Array& weight, const Array& grad_x, const GemmTail& tail,
                    const Geometry& geometry) {
  if (ran_winograd<T>(ConvPass::grad_input, grad_y, weight, grad_x, tail, geometry)) {
    return;
  }
  if (goes_by_lines<T>(geometry)) {
    run_by_lines<T>(grad_y, weight, grad_x, tail, geometry);
    return;
  }
  const Window& window = geometry.window;
  const std::vector<Phase> phases = make_phases(window, false);
  const auto packed = pack_phases<T>(weight, phases, geometry, geometry.c);
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
        group_tail.bias = static_cast<const T*>(tail.bias) + g * geometry.c;
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

template <class T>
void run_grad_weight(const Array& grad_y, const Array& x, const Array& grad_weight, const Geometry& geometry,
                     bool is_folded) {
  if constexpr (std::is_same_v<T, float>) {
    const int form = choose_winograd(ConvPass::grad_weight, shape_of(geometry, x.rank(), x.dtype()));
    if (form >= 0) {
      winograd_grad_weight(winograd_images(x), winograd_images(grad_y), grad_weight.data<T>(), geometry.n, geometry.groups,
                           geometry.window.axis[1].pad_begin, geometry.window.axis[2].pad_begin, form);
      return;
    }
  }
  const Reading<T> reading = read_input<T>(x, geometry, is_folded);
  const auto n_taps = static_cast<std::ptrdiff_t>(reading.gather.taps.size());
  const std::ptrdiff_t k = reading.k;
  const std::ptrdiff_t width = kernels().gemm<T>().width;
  // Lanes run over the values of a tap, or over output channels, into a transposed copy, where these fill vectors better and
  // may be read where they lie.
  const auto fill = [&](std::ptrdiff_t n) {
    const std::ptrdiff_t n_lanes = (n + width - 1) / width * width;
    return static_cast<double>(n) / static_cast<double>(n_lanes);
  };
  const bool transposes = fill(geometry.o) > 1.1 * fill(k) && (geometry.o % width == 0 || !reading.has_slack);
  const Buffer<T> transposed(transposes ? geometry.groups * n_taps * k * geometry.o : 0);
  std::vector<OuterProduct<T>> products;
  for (std::ptrdiff_t g = 0; g < geometry.groups; ++g) {
    OuterProduct<T> product{.a = reading.gather,
                            .m = k,
                            .b = grad_y.data<T>() + g * geometry.o,
                            .b_stride_n = grad_y.stride(0),
                            .b_stride = spatial_strides(grad_y),
                            .n = geometry.o,
                            .y = grad_weight.data<T>() + g * geometry.o * n_taps * k,
                            .stride_t = k,
                            .ld = n_taps * k,
                            .swaps = true,
                            .has_slack = reading.has_slack};
    product.a.x += g * geometry.c;
    if (transposes) {
      product.y = transposed.data() + g * n_taps * k * geometry.o;
      product.stride_t = k * geometry.o;
      product.ld = geometry.o;
      product.swaps = false;
    }
    products.push_back(std::move(product));
  }
  outer_product(std::move(products));
  if (transposes) {
    parallel_for(geometry.groups, [&](std::ptrdiff_t g) {
      const T* const from = transposed.data() + g * n_taps * k * geometry.o;
      T* const to = grad_weight.data<T>() + g * geometry.o * n_taps * k;
      for (std::ptrdiff_t o = 0; o < geometry.o; ++o) {
        for (std::ptrdiff_t i = 0; i < n_taps * k; ++i) {
          to[o * n_taps * k + i] = from[i * geometry.o + o];
        }
      }
    });
  }
  if (is_folded && geometry.window.is_padded() &&
      !kernels().gemm<T>().all_finite(grad_weight.data<T>(), grad_weight.size())) {
    // The zeros of the padded copy may have met a gradient that is not finite.
    run_grad_weight<T>(grad_y, x, grad_weight, geometry, false);
  }
}

// Whether the kernels of few channels a group take this pass.
bool goes_by_groups(ConvPass pass, const Geometry& geometry, const Extents& x_shape, const Extents& weight_shape,
                    DType dtype) {
  return depthwise_applies(dtype, x_shape[1], weight_shape, geometry.groups) &&
         choose_winograd(pass, shape_of(geometry, x_shape.rank(), dtype)) < 0;
}

// Whether a clamp follows the sums at once, with no addend between.
bool clamps_sums(const Fused& fused) { return fused.clamps && (fused.add == nullptr || fused.adds_last); }

// What follows the sums; `bias` is the dense copy of fused.bias that keeps the pointer alive.
GemmTail make_tail(const Fused& fused, const Array& bias, bool clamps) {
  return {.bias = fused.bias == nullptr ? nullptr : static_cast<const void*>(bias.bytes()),
          .clamps = clamps,
          .lo = fused.lo,
          .hi = fused.hi};
}

// Where a result goes: fused.into where the kernels can write there, else new memory.
Array make_result(const char* op, DType dtype, const Extents& shape, const Fused& fused, bool takes_strides) {
  if (fused.into == nullptr) {
    return Array::empty(dtype, shape, Layout::channels_last);
  }
  check(fused.into->shape() == shape && fused.into->dtype() == dtype, op, ": expected memory of shape ", shape,
        " for the result, got ", fused.into->shape(), "; it must match");
  return takes_strides && fused.add == nullptr && fused.into->has_unit_channels()
             ? *fused.into
             : Array::empty(dtype, shape, Layout::channels_last);
}

// The result as the caller wants it: copied to fused.into unless it was computed there.
Array delivered(const Array& y, const Fused& fused) {
  if (fused.into == nullptr || y.bytes() == fused.into->bytes()) {
    return y;
  }
  copy_into(*fused.into, y);
  return *fused.into;
}

// A second operand of what follows, as y lies in memory.
Array dense_operand(const char* op, const char* what, const Array* operand, const Array& y) {
  if (operand == nullptr) {
    return {};
  }
  check_same_dtype(op, y, *operand);
  check(operand->shape() == y.shape(), op, ": expected ", what, " of the result's shape ", y.shape(), ", got ",
        operand->shape(), "; broadcast it first");
  return relayout(*operand, Layout::channels_last);
}

Array dense_bias(const Fused& fused) {
  if (fused.bias == nullptr) {
    return {};
  }
  return fused.bias->is_dense(Layout::row_major) ? *fused.bias : relayout(*fused.bias, Layout::row_major);
}

}  // namespace

Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params) {
  return conv(op, x, weight, fused, params, nullptr);
}

Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
           RowSums* sums) {
  check_same_dtype(op, x, weight);
  const Geometry geometry = make_geometry(op, x.shape(), weight.shape(), params);
  check_bias(op, fused.bias, x, weight.shape(0));
  if (goes_by_groups(ConvPass::forward, geometry, x.shape(), weight.shape(), x.dtype())) {
    Fused first = fused;
    first.clamps = clamps_sums(fused);
    const Array y = depthwise_conv(op, x, weight, first, params, sums);
    Finish(fused, y, dense_operand(op, "an addend", fused.add, y), false).run(y);
    return delivered(y, fused);
  }
  const Extents y_shape = output_shape(geometry.n, weight.shape(0), geometry.window, &WindowAxis::out, x.rank());
  const Array y = make_result(op, x.dtype(), y_shape, fused, true);
  dispatch_float(op, x.dtype(), [&](auto zero) {
    const Array bias = dense_bias(fused);
    const Array addend = dense_operand(op, "an addend", fused.add, y);
    const Finish finish(fused, y, addend, true);
    GemmTail tail = make_tail(fused, bias, fused.clamps);
    tail.finish = finish.is_empty() ? nullptr : &finish;
    tail.sums = sums;
    tail.result = &y;
    if (fused.add != nullptr && !fused.adds_last) {
      tail.adds = true;
      tail.addend = addend.data<decltype(zero)>() - y.data<decltype(zero)>();
    }
    run_forward<decltype(zero)>(channels_last(x), weight, y, tail, geometry, folds(geometry));
  });
  return delivered(y, fused);
}

std::vector<ConvVerdict> explain_conv(const char* op, ConvPass pass, const Extents& x_shape, const Extents& weight_shape,
                                      const ConvParams& params, DType dtype) {
  const Geometry geometry = make_geometry(op, x_shape, weight_shape, params);
  const bool has_groups = depthwise_applies(dtype, x_shape[1], weight_shape, params.groups);
  ConvShape shape = shape_of(geometry, x_shape.rank(), dtype);
  std::vector<ConvVerdict> verdicts = explain_choice(pass, shape);
  shape.dtype = dtype;
  const double flops = has_groups ? depthwise_flops(pass, shape) : 0;
  if (has_groups && weight_shape[1] == 1) {
    return {{.algorithm = "depthwise",
             .is_chosen = true,
             .flops = flops,
             .work = {},
             .error_bound = 0,
             .reason = "every channel is a group of its own: memory, not arithmetic, sets the time"}};
  }
  if (has_groups) {
    verdicts[0].algorithm = "grouped";  // directly, with groups of few channels that share a vector or a tile's pixels
  }
  if (flops > 0) {
    verdicts[0].flops = flops;
    verdicts[0].work = {};
  }
  return verdicts;
}

Array conv_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                      const ConvParams& params, const GradTail& grad_tail) {
  check_same_dtype(op, grad_y, weight);
  const Geometry geometry = make_geometry(op, x_shape, weight.shape(), params);
  const Extents y_shape = output_shape(geometry.n, weight.shape(0), geometry.window, &WindowAxis::out, x_shape.rank());
  check(grad_y.shape() == y_shape, op, ": expected grad_y of shape ", y_shape, ", got ", grad_y.shape(),
        "; it must match the output");
  const bool by_groups = goes_by_groups(ConvPass::grad_input, geometry, x_shape, weight.shape(), grad_y.dtype());
  const Array grad_x = by_groups ? depthwise_conv_grad_input(op, grad_y, weight, x_shape, params)
                                 : Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
  const Array addend = dense_operand(op, "an addend", grad_tail.add, grad_x);
  const Array relu = dense_operand(op, "the result of a ReLU", grad_tail.relu, grad_x);
  const Finish finish(grad_x, grad_tail.add == nullptr ? nullptr : &addend, grad_tail.relu == nullptr ? nullptr : &relu);
  if (by_groups) {
    finish.run(grad_x);
    return grad_x;
  }
  dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    // Lines are added up; phases do not write neighbours, and some may have no taps.
    if (geometry.window.is_strided() || goes_by_lines<T>(geometry)) {
      run_grad_input<T>(channels_last(grad_y), weight, grad_x, {}, geometry);
      finish.run(grad_x);
      return;
    }
    GemmTail tail;
    if (grad_tail.add != nullptr) {
      tail.adds = true;
      tail.addend = addend.data<T>() - grad_x.data<T>();
    }
    if (grad_tail.relu != nullptr) {
      tail.gates = true;
      tail.gate = relu.data<T>() - grad_x.data<T>();
    }
    run_grad_input<T>(channels_last(grad_y), weight, grad_x, tail, geometry);
  });
  return grad_x;
}

Array conv_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                       const ConvParams& params) {
  check_same_dtype(op, grad_y, x);
  const Geometry geometry = make_geometry(op, x.shape(), weight_shape, params);
  const Extents y_shape = output_shape(geometry.n, weight_shape[0], geometry.window, &WindowAxis::out, x.rank());
  check(grad_y.shape() == y_shape, op, ": expected grad_y of shape ", y_shape, ", got ", grad_y.shape(),
        "; it must match the output");
  if (goes_by_groups(ConvPass::grad_weight, geometry, x.shape(), weight_shape, x.dtype())) {
    return depthwise_conv_grad_weight(op, grad_y, x, weight_shape, params);
  }
  const Array grad_weight = Array::empty(x.dtype(), weight_shape, Layout::channels_last);
  dispatch_float(op, x.dtype(), [&](auto zero) {
    run_grad_weight<decltype(zero)>(channels_last(grad_y), channels_last(x), grad_weight, geometry, folds(geometry));
  });
  return grad_weight;
}

namespace {

// The convolution of which a transposed convolution is the data gradient: its input is the result, its output is x.
Geometry make_transposed_geometry(const char* op, const Extents& x_shape, const Extents& weight_shape,
                                  const ConvParams& params, std::span<const std::ptrdiff_t> output_padding) {
  check(weight_shape.rank() >= 3 && weight_shape.rank() <= 5, op,
        ": expected weight of 3 to 5 axes (C, O/groups, *kernel), got ", weight_shape, "; see the op's documentation");
  check(x_shape.rank() == weight_shape.rank(), op, ": expected x of ", weight_shape.rank(), " axes (N, C, *spatial), got ",
        x_shape, "; add the batch axis or choose the op for this many axes");
  check(x_shape[1] == weight_shape[0], op, ": expected weight with C = ", x_shape[1], " input channels first, got ",
        weight_shape[0], " in weight.shape ", weight_shape, "; the layout is (C, O/groups, *kernel)");
  check(params.groups >= 1 && x_shape[1] % params.groups == 0, op, ": expected input channels divisible by groups, got ",
        x_shape[1], " with groups=", params.groups, "; change groups");
  WindowParams window = params.window;
  const auto kernel = spatial_sizes(weight_shape);
  window.kernel_size.assign(kernel.begin(), kernel.end());
  return {.window = make_transposed_window(op, spatial_sizes(x_shape), window, output_padding),
          .n = x_shape[0],
          .groups = params.groups,
          .c = weight_shape[1],
          .o = weight_shape[0] / params.groups};
}

}  // namespace

Array conv_transpose(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
                     std::span<const std::ptrdiff_t> output_padding) {
  check_same_dtype(op, x, weight);
  const Geometry geometry = make_transposed_geometry(op, x.shape(), weight.shape(), params, output_padding);
  check_bias(op, fused.bias, x, geometry.c * geometry.groups);
  const Extents y_shape = output_shape(geometry.n, geometry.c * geometry.groups, geometry.window, &WindowAxis::in, x.rank());
  const Array y = make_result(op, x.dtype(), y_shape, fused, fused.map < 0);  // what follows goes over the whole result
  dispatch_float(op, x.dtype(), [&](auto zero) {
    const Array bias = dense_bias(fused);
    run_grad_input<decltype(zero)>(channels_last(x), weight, y, make_tail(fused, bias, clamps_sums(fused)), geometry);
    Finish(fused, y, dense_operand(op, "an addend", fused.add, y), false).run(y);
  });
  return delivered(y, fused);
}

Array conv_transpose_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                                const ConvParams& params, std::span<const std::ptrdiff_t> output_padding) {
  check_same_dtype(op, grad_y, weight);
  const Geometry geometry = make_transposed_geometry(op, x_shape, weight.shape(), params, output_padding);
  const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
  dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    run_forward<decltype(zero)>(channels_last(grad_y), weight, grad_x, {}, geometry, folds(geometry));
  });
  return grad_x;
}

Array conv_transpose_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                                 const ConvParams& params, std::span<const std::ptrdiff_t> output_padding) {
  check_same_dtype(op, grad_y, x);
  const Geometry geometry = make_transposed_geometry(op, x.shape(), weight_shape, params, output_padding);
  const Array grad_weight = Array::empty(x.dtype(), weight_shape, Layout::channels_last);
  dispatch_float(op, x.dtype(), [&](auto zero) {
    run_grad_weight<decltype(zero)>(channels_last(x), channels_last(grad_y), grad_weight, geometry, folds(geometry));
  });
  return grad_weight;
}

}  // namespace striate
