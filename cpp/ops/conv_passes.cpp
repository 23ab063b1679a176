// Forward pass and weight gradient of convolutions: both read x, tap by tap or, with few channels, line by line.
#include <algorithm>
#include <cstring>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/conv_passes.hpp"
#include "ops/packed.hpp"
#include "ops/planar.hpp"
#include "ops/shape.hpp"
#include "ops/winograd.hpp"

namespace striate {
namespace {

// At or below this many channels, the taps of a kernel line are read as one run of kernel_w · C values from a padded copy.
constexpr std::ptrdiff_t kFoldChannels = 4;

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
Array padded_copy(const Array& x, const ConvGeometry& geometry, const Position& size) {
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

bool folds(const ConvGeometry& geometry) {
  const WindowAxis& width = geometry.window.axis[2];
  return geometry.groups == 1 && geometry.c <= kFoldChannels && width.kernel > 1 && width.dilation == 1;
}

// Whether x is read where it lies although its taps fold: few tiles of a long line meet its edges, and the others read the
// taps of a kernel line as one (7×7, 3→64 at 224×224: 0.96 of the time with a padded copy, 3×3 stride 2 0.9).
template <class T>
bool has_long_lines(const Array& x, const ConvGeometry& geometry) {
  constexpr std::ptrdiff_t kTiles = 8;
  constexpr std::ptrdiff_t kMostTaps = 64;  // that the indirect GEMM joins
  return geometry.window.is_padded() && geometry.window.n_taps() <= kMostTaps && spatial_strides(x)[2] == geometry.c &&
         geometry.window.axis[2].out >= kTiles * kernels().gemm<T>().rows;
}

template <class T>
Reading<T> read_input(const Array& x, const ConvGeometry& geometry, bool is_folded) {
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

}  // namespace

template <class T>
bool ran_winograd(ConvPass pass, const Array& x, const Array& weight, const Array& y, const GemmTail& tail,
                  const ConvGeometry& geometry) {
  if constexpr (std::is_same_v<T, float>) {
    const int form = choose_winograd(pass, shape_of(geometry, x.rank(), x.dtype()));
    if (form < 0) {
      return false;
    }
    const bool transposes = pass == ConvPass::grad_input;
    const auto pad = [&](const WindowAxis& axis) {
      return transposes ? (axis.kernel - 1 - axis.pad_begin) / axis.stride : axis.pad_begin;
    };
    const std::ptrdiff_t pad_h = pad(geometry.window.axis[1]);
    const std::ptrdiff_t pad_w = pad(geometry.window.axis[2]);
    const auto pack_all = [&] {
      const Array dense = dense_weight(weight);
      return pack_winograd(dense.data<T>(), geometry.groups, geometry.o, geometry.c, form, transposes);
    };
    const auto run_once = [&] {
      return geometry.groups == 1 && ran_winograd_once(pass, winograd_images(x), dense_weight(weight).data<T>(),
                                                       winograd_images(y), geometry.n, pad_h, pad_w, form, tail);
    };
    const auto packed = cached_or<T>(weight, derived_key(pass, 100 + form, geometry.groups), pack_all, run_once);
    if (packed != nullptr) {
      winograd_forward(pass, winograd_images(x), *packed, winograd_images(y), geometry.n, pad_h, pad_w, form, tail);
    }
    return true;
  }
  return false;
}

namespace {

template <class T>
bool goes_by_planes(ConvPass pass, const Array& x, const ConvGeometry& geometry) {
  return goes_by_planes(pass, shape_of(geometry, x.rank(), x.dtype()), kernels().gemm<T>().width);
}

template <class T>
PlanarConv<T> planar_conv(const Array& x, const ConvGeometry& geometry) {
  return {.x = x.data<T>(),
          .stride_n = x.stride(0),
          .stride_h = spatial_strides(x)[1],
          .stride_w = spatial_strides(x)[2],
          .n = geometry.n,
          .c = geometry.c,
          .o = geometry.o,
          .h = geometry.window.axis[1],
          .w = geometry.window.axis[2]};
}

// Returns false where zeros beside the image would meet a weight that is not finite.
template <class T>
bool ran_by_planes(const Array& x, const Array& weight, const Array& y, const GemmTail& tail, const ConvGeometry& geometry) {
  if (!goes_by_planes<T>(ConvPass::forward, x, geometry) || tail.adds || tail.gates || tail.sums != nullptr ||
      spatial_strides(y)[2] != geometry.o) {
    return false;
  }
  const auto filters = cached<T>(weight, derived_key(ConvPass::forward, 200), [&] {
    const Array dense = dense_weight(weight);
    return PackedList<T>{pack_planar<T>(dense.data<T>(), geometry.o, dense.size() / geometry.o)};
  });
  if (geometry.window.axis[2].is_padded() && !(*filters)[0]->is_finite) {
    return false;
  }
  planar_forward<T>(planar_conv<T>(x, geometry), *(*filters)[0],
                    {.y = y.data<T>(), .stride_n = y.stride(0), .stride = spatial_strides(y)}, tail);
  return true;
}

// The filters of all groups, whose taps read k values each.
template <class T>
std::shared_ptr<const PackedList<T>> packed_filters(const Array& weight, const ConvGeometry& geometry, std::ptrdiff_t k,
                                                    std::ptrdiff_t n_taps) {
  return cached<T>(weight, derived_key(ConvPass::forward, k, n_taps, geometry.groups), [&] {
    const std::ptrdiff_t ld = n_taps * k;  // values of one filter
    const Array dense = dense_weight(weight);
    std::vector<std::ptrdiff_t> offsets;
    for (std::ptrdiff_t t = 0; t < n_taps; ++t) {
      offsets.push_back(t * k);
    }
    PackedList<T> list;
    for (std::ptrdiff_t g = 0; g < geometry.groups; ++g) {
      list.push_back(pack<T>(dense.data<T>() + g * geometry.o * ld, offsets, k, 1, geometry.o, ld));
    }
    return list;
  });
}

template <class T>
void forward(const Array& x, const Array& weight, const Array& y, const GemmTail& tail, const ConvGeometry& geometry,
             bool is_folded) {
  if (ran_winograd<T>(ConvPass::forward, x, weight, y, tail, geometry) || ran_by_planes<T>(x, weight, y, tail, geometry)) {
    return;
  }
  is_folded = is_folded && !has_long_lines<T>(x, geometry);
  const Reading<T> reading = read_input<T>(x, geometry, is_folded);
  const auto n_taps = static_cast<std::ptrdiff_t>(reading.gather.taps.size());
  const auto packed = packed_filters<T>(weight, geometry, reading.k, n_taps);
  if (is_folded && geometry.window.is_padded() && !(*packed)[0]->is_finite) {
    // The zeros of the padded copy must not meet a weight that is not finite.
    forward<T>(x, weight, y, tail, geometry, false);
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

template <class T>
void grad_weight_of(const Array& grad_y, const Array& x, const Array& grad_weight, const ConvGeometry& geometry,
                    bool is_folded) {
  if constexpr (std::is_same_v<T, float>) {
    const int form = choose_winograd(ConvPass::grad_weight, shape_of(geometry, x.rank(), x.dtype()));
    if (form >= 0) {
      winograd_grad_weight(winograd_images(x), winograd_images(grad_y), grad_weight.data<T>(), geometry.n, geometry.groups,
                           geometry.window.axis[1].pad_begin, geometry.window.axis[2].pad_begin, form);
      return;
    }
  }
  if (goes_by_planes<T>(ConvPass::grad_weight, x, geometry)) {
    planar_grad_weight<T>(planar_conv<T>(x, geometry),
                          {.y = grad_y.data<T>(), .stride_n = grad_y.stride(0), .stride = spatial_strides(grad_y)},
                          grad_weight.data<T>());
    // Else a zero beside an image or a line may have met a value that is not finite.
    if (kernels().gemm<T>().all_finite(grad_weight.data<T>(), grad_weight.size())) {
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
    grad_weight_of<T>(grad_y, x, grad_weight, geometry, false);
  }
}

}  // namespace

template <class T>
void run_forward(const Array& x, const Array& weight, const Array& y, const GemmTail& tail, const ConvGeometry& geometry) {
  forward<T>(x, weight, y, tail, geometry, folds(geometry));
}

template <class T>
void run_pointwise(const RowSource<T>& pixels, const Array& weight, const Array& y, const GemmTail& tail,
                   const ConvGeometry& geometry) {
  const auto packed = packed_filters<T>(weight, geometry, geometry.c, 1);
  Gemm<T> product{.a = made_rows<T>(geometry.n, spatial(geometry.window, &WindowAxis::out)),
                  .b = (*packed)[0],
                  .y = {.y = y.data<T>(), .stride_n = y.stride(0), .stride = spatial_strides(y)},
                  .tail = tail,
                  .source = &pixels};
  indirect_gemm(std::vector<Gemm<T>>{std::move(product)});
}

template <class T>
void run_grad_weight(const Array& grad_y, const Array& x, const Array& grad_weight, const ConvGeometry& geometry) {
  grad_weight_of<T>(grad_y, x, grad_weight, geometry, folds(geometry));
}

#define STRIATE_INSTANTIATE(T)                                                                                             \
  template bool ran_winograd<T>(ConvPass, const Array&, const Array&, const Array&, const GemmTail&, const ConvGeometry&); \
  template void run_forward<T>(const Array&, const Array&, const Array&, const GemmTail&, const ConvGeometry&);            \
  template void run_pointwise<T>(const RowSource<T>&, const Array&, const Array&, const GemmTail&, const ConvGeometry&);   \
  template void run_grad_weight<T>(const Array&, const Array&, const Array&, const ConvGeometry&);
STRIATE_INSTANTIATE(float)
STRIATE_INSTANTIATE(double)

}  // namespace striate
