// Resizing: y[n,c,i] = Σ_p weight(i, p)·x[n,c,p], the product of one small linear map per axis.
//
// nearest: output i copies input ⌊i·step⌋. bilinear: it blends the two inputs around (i + ½)·step − ½, or around
// i·(in − 1)/(out − 1) with align_corners. antialias: a triangle as wide as the step. step = in/out, or 1/scale_factor when
// given.
#include <cmath>

#include "kernels/table.hpp"
#include "machine/memory.hpp"
#include "ops/gather.hpp"
#include "ops/image.hpp"
#include "ops/map.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

constexpr int kMaxTaps = 32;

// An AxisMap whose entries carry weights; the tap of an entry is its place in `weight`.
struct Weighted {
  AxisMap map;
  std::vector<double> weight;

  void add(std::ptrdiff_t source, double value) {
    map.entries.push_back({source, static_cast<std::ptrdiff_t>(weight.size())});
    weight.push_back(value);
  }
};

Weighted make_axis(std::ptrdiff_t in, std::ptrdiff_t out, double scale, const ResampleParams& params) {
  Weighted axis;
  axis.map.n_sources = in;
  axis.map.first.push_back(0);
  const double n = static_cast<double>(in);
  const double aligned = out > 1 ? (n - 1) / static_cast<double>(out - 1) : 0.0;
  const double free = scale > 0 ? 1.0 / scale : n / static_cast<double>(out);
  const double step = params.is_bilinear && params.align_corners ? aligned : free;
  for (std::ptrdiff_t i = 0; i < out; ++i) {
    const double at = static_cast<double>(i);
    if (!params.is_bilinear) {
      const std::ptrdiff_t source = scale > 0 ? static_cast<std::ptrdiff_t>(at / scale) : i * in / out;
      axis.add(std::min(source, in - 1), 1.0);
    } else if (params.antialias) {
      const double support = std::max(step, 1.0);
      const double centre = step * (at + 0.5);
      const auto first = std::max<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(centre - support + 0.5), 0);
      const auto last = std::min(static_cast<std::ptrdiff_t>(centre + support + 0.5), in);
      const auto triangle = [&](std::ptrdiff_t j) {
        return std::max(0.0, 1.0 - std::abs((static_cast<double>(j) - centre + 0.5) / support));
      };
      double total = 0;
      for (std::ptrdiff_t j = first; j < last; ++j) {
        total += triangle(j);
      }
      for (std::ptrdiff_t j = first; j < last; ++j) {
        axis.add(j, triangle(j) / total);
      }
    } else {
      const double position = params.align_corners ? at * step : std::max((at + 0.5) * step - 0.5, 0.0);
      const std::ptrdiff_t low = std::min(static_cast<std::ptrdiff_t>(position), in - 1);
      const double part = std::min(std::max(position - static_cast<double>(low), 0.0), 1.0);
      axis.add(low, low + 1 < in ? 1.0 - part : 1.0);
      if (low + 1 < in && part > 0) {
        axis.add(low + 1, part);
      }
    }
    axis.map.first.push_back(static_cast<std::ptrdiff_t>(axis.map.entries.size()));
  }
  axis.map.n_taps = std::max<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(axis.weight.size()), 1);
  return axis;
}

struct Maps {
  Weighted axis[3];
  Extents y_shape;
};

Maps make_maps(const char* op, const Extents& x_shape, const ResampleParams& params) {
  check(x_shape.rank() >= 3 && x_shape.rank() <= 5, op,
        ": expected x of shape (N, C, *spatial) with 1 to 3 spatial axes, got ", to_string(x_shape),
        "; add or remove axes with reshape");
  const auto n_axes = static_cast<std::size_t>(x_shape.rank() - 2);
  check(params.size.size() == n_axes && params.scale_factor.size() == n_axes, op, ": expected a size for each of ", n_axes,
        " spatial axes, got ", params.size.size(), "; pass one number or one per axis");
  Maps maps;
  for (std::size_t i = 0; i < 3; ++i) {
    if (i + n_axes < 3) {
      maps.axis[i] = make_axis(1, 1, 0, {});
      continue;
    }
    const std::size_t own = i + n_axes - 3;
    const std::ptrdiff_t in = x_shape[static_cast<int>(own) + 2];
    check(in >= 1 && params.size[own] >= 1, op, ": expected sizes of at least 1, got ", in, " resized to ", params.size[own],
          " on spatial axis ", own, "; use positive sizes");
    maps.axis[i] = make_axis(in, params.size[own], params.scale_factor[own], params);
  }
  maps.y_shape = image_shape(x_shape[0], x_shape[1], params.size);
  return maps;
}

// One axis of targets at a time would need a buffer between; the taps of all axes are few, so they are multiplied out.
template <class T>
void run(const Maps& maps, const AxisMap (&axis)[3], const Array& x, const Array& y) {
  const Image source(x);
  const Image target(y);
  const T* const from = x.data<T>();
  T* const to = y.data<T>();
  const auto blend = kernels().resample<T>().blend;
  const std::ptrdiff_t n_rows = target.n * target.size[0] * target.size[1];
  const std::ptrdiff_t cost = target.size[2] * target.channels * 4;
  const Partition rows(n_rows, (1 << 16) / std::max<std::ptrdiff_t>(cost, 1));
  constexpr auto kLine = static_cast<std::ptrdiff_t>(kAlignment / sizeof(T));
  const bool streams = y.size() * static_cast<std::ptrdiff_t>(sizeof(T)) > kStreamBytes && target.channels % kLine == 0;
  const auto weight = [&](std::size_t i, const AxisMap::Entry& entry) {
    return maps.axis[i].weight[static_cast<std::size_t>(entry.tap)];
  };
  parallel_for(rows.n_parts, [&](std::ptrdiff_t part) {
    const T* taps[kMaxTaps];
    T weights[kMaxTaps];
    for (std::ptrdiff_t row = rows.begin(part); row < rows.end(part); ++row) {
      const std::ptrdiff_t h = row % target.size[1];
      const std::ptrdiff_t d = row / target.size[1] % target.size[0];
      const std::ptrdiff_t image = row / target.size[1] / target.size[0];
      for (std::ptrdiff_t w = 0; w < target.size[2]; ++w) {
        T* const out = to + target.at(image, d, h, w);
        std::ptrdiff_t n_taps = 0;
        bool continues = false;
        for (const AxisMap::Entry& in_d : axis[0].at(d)) {
          for (const AxisMap::Entry& in_h : axis[1].at(h)) {
            const double outer = weight(0, in_d) * weight(1, in_h);
            for (const AxisMap::Entry& in_w : axis[2].at(w)) {
              if (n_taps == kMaxTaps) {
                blend(taps, weights, n_taps, target.channels, out, continues, false);
                continues = true;
                n_taps = 0;
              }
              taps[n_taps] = from + source.at(image, in_d.source, in_h.source, in_w.source);
              weights[n_taps++] = static_cast<T>(outer * weight(2, in_w));
            }
          }
        }
        blend(taps, weights, n_taps, target.channels, out, continues, streams && !continues);
      }
    }
  });
}

}  // namespace

Array resample(const char* op, const Array& x, const ResampleParams& params) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    const Maps maps = make_maps(op, x.shape(), params);
    const AxisMap forward[3] = {maps.axis[0].map, maps.axis[1].map, maps.axis[2].map};
    const Array y = Array::empty(x.dtype(), maps.y_shape, Layout::channels_last);
    run<decltype(zero)>(maps, forward, unit_channels(x), y);
    return y;
  });
}

Array resample_grad(const char* op, const Array& grad_y, const Extents& x_shape, const ResampleParams& params) {
  return dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    const Maps maps = make_maps(op, x_shape, params);
    check(grad_y.shape() == maps.y_shape, op, ": expected grad_y of shape ", to_string(maps.y_shape), ", got ",
          to_string(grad_y.shape()), "; pass the gradient of the resized images");
    const AxisMap backward[3] = {transposed(maps.axis[0].map), transposed(maps.axis[1].map), transposed(maps.axis[2].map)};
    const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
    run<decltype(zero)>(maps, backward, unit_channels(grad_y), grad_x);
    return grad_x;
  });
}

}  // namespace striate
