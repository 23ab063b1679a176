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
        ": expected x of shape (N, C, *spatial) with 1 to 3 spatial axes, got ", x_shape,
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

// Targets [begin, end) of a line and the sources that they read.
struct Piece {
  std::ptrdiff_t begin;
  std::ptrdiff_t end;
  std::ptrdiff_t first_source;
  std::ptrdiff_t end_source;
};

// The targets of an axis in pieces that read at most `most` sources each; none if one target alone reads more. Sources rise
// with the targets.
std::vector<Piece> cut_line(const AxisMap& axis, std::ptrdiff_t most) {
  std::vector<Piece> pieces;
  for (std::ptrdiff_t w = 0; w < axis.n_targets(); ++w) {
    if (axis.at(w).empty()) {
      if (pieces.empty()) {
        pieces.push_back({w, w, 0, 0});
      }
      pieces.back().end = w + 1;
      continue;
    }
    const std::ptrdiff_t first = axis.at(w).front().source;
    const std::ptrdiff_t end = axis.at(w).back().source + 1;
    if (end - first > most) {
      return {};
    }
    if (pieces.empty() || end - pieces.back().first_source > most) {
      pieces.push_back({w, w, first, end});
    }
    pieces.back().end = w + 1;
    pieces.back().end_source = end;
  }
  return pieces;
}

// Σ over the taps of d and h first, a line of x's width, then Σ over those of w: what neighbours along w share is computed
// once. The line is cut into pieces that stay in the L1 cache. Where d and h only choose lines of x, these are read in
// place. Where few targets share a source it is cheaper to multiply the taps of all axes out (nearest: 4 taps of the
// gradient against 6).
template <class T>
struct Resizer {
  static constexpr std::ptrdiff_t kPiece = 16384 / static_cast<std::ptrdiff_t>(sizeof(T));

  const Maps& maps;
  const AxisMap (&axis)[3];
  Image source;
  Image target;
  const T* from;
  T* to;
  bool streams;
  bool chooses_lines;
  std::vector<ResampleTap<T>> taps;  // of axis 2, as its entries
  std::vector<Piece> pieces;         // none: taps are multiplied out

  Resizer(const Maps& all_maps, const AxisMap (&axes)[3], const Array& x, const Array& y)
      : maps(all_maps), axis(axes), source(x), target(y), from(x.data<T>()), to(y.data<T>()) {
    constexpr auto kLine = static_cast<std::ptrdiff_t>(kAlignment / sizeof(T));
    streams = y.size() * static_cast<std::ptrdiff_t>(sizeof(T)) > kStreamBytes && target.channels % kLine == 0;
    const auto n_entries = [&](int i) { return static_cast<std::ptrdiff_t>(axis[i].entries.size()); };
    const std::ptrdiff_t n_outer = n_entries(0) * n_entries(1);
    const std::ptrdiff_t two_steps = n_outer * axis[2].n_sources + target.size[0] * target.size[1] * n_entries(2);
    const bool is_dense = source.stride[2] == target.channels || source.size[2] == 1;
    chooses_lines = is_dense && chooses(0) && chooses(1);
    if (chooses_lines) {
      pieces.push_back({0, target.size[2], 0, source.size[2]});
    } else if (two_steps < n_outer * n_entries(2)) {
      pieces = cut_line(axis[2], kPiece / std::max<std::ptrdiff_t>(target.channels, 1));
    }
    if (!pieces.empty()) {
      for (const AxisMap::Entry& entry : axis[2].entries) {
        taps.push_back({entry.source, static_cast<T>(weight(2, entry))});
      }
    }
  }

  // Each target of the axis is one source.
  [[nodiscard]] bool chooses(std::size_t i) const {
    for (std::ptrdiff_t target_index = 0; target_index < axis[i].n_targets(); ++target_index) {
      const auto entries = axis[i].at(target_index);
      if (entries.size() != 1 || weight(i, entries.front()) != 1.0) {
        return false;
      }
    }
    return true;
  }

  [[nodiscard]] double weight(std::size_t i, const AxisMap::Entry& entry) const {
    return maps.axis[i].weight[static_cast<std::size_t>(entry.tap)];
  }

  void run() const {
    const std::ptrdiff_t n_rows = target.n * target.size[0] * target.size[1];
    const Partition rows(n_rows, kGrain / 2 / std::max<std::ptrdiff_t>(target.size[2] * target.channels, 1));
    parallel_for(rows.n_parts, [&](std::ptrdiff_t part) {
      for (std::ptrdiff_t row = rows.begin(part); row < rows.end(part); ++row) {
        const std::ptrdiff_t h = row % target.size[1];
        const std::ptrdiff_t d = row / target.size[1] % target.size[0];
        const std::ptrdiff_t image = row / target.size[1] / target.size[0];
        if (pieces.empty()) {
          multiply_out(image, d, h);
        } else if (chooses_lines) {
          const T* const x = from + source.at(image, axis[0].at(d).front().source, axis[1].at(h).front().source, 0);
          kernels().resample<T>().resize_line(x, 0, taps.data(), axis[2].first.data(), target.size[2], target.channels,
                                              to + target.at(image, d, h, 0), streams);
        } else {
          in_two_steps(image, d, h);
        }
      }
    });
  }

  void in_two_steps(std::ptrdiff_t image, std::ptrdiff_t d, std::ptrdiff_t h) const {
    alignas(kAlignment) T line[kPiece];
    const auto resize_line = kernels().resample<T>().resize_line;
    const std::ptrdiff_t channels = target.channels;
    const bool is_dense = source.stride[2] == channels;
    for (const Piece& piece : pieces) {
      const std::ptrdiff_t width = piece.end_source - piece.first_source;
      const std::ptrdiff_t n_calls = is_dense ? 1 : width;
      for (std::ptrdiff_t i = 0; i < n_calls; ++i) {
        const std::ptrdiff_t n = is_dense ? width * channels : channels;
        Sum sum(n, line + i * channels, false);
        for (const AxisMap::Entry& in_d : axis[0].at(d)) {
          for (const AxisMap::Entry& in_h : axis[1].at(h)) {
            sum.add(from + source.at(image, in_d.source, in_h.source, piece.first_source + i),
                    weight(0, in_d) * weight(1, in_h));
          }
        }
        sum.finish();
      }
      resize_line(line, piece.first_source, taps.data(), axis[2].first.data() + piece.begin, piece.end - piece.begin,
                  channels, to + target.at(image, d, h, piece.begin), streams);
    }
  }

  void multiply_out(std::ptrdiff_t image, std::ptrdiff_t d, std::ptrdiff_t h) const {
    for (std::ptrdiff_t w = 0; w < target.size[2]; ++w) {
      Sum sum(target.channels, to + target.at(image, d, h, w), streams);
      for (const AxisMap::Entry& in_d : axis[0].at(d)) {
        for (const AxisMap::Entry& in_h : axis[1].at(h)) {
          const double outer = weight(0, in_d) * weight(1, in_h);
          for (const AxisMap::Entry& in_w : axis[2].at(w)) {
            sum.add(from + source.at(image, in_d.source, in_h.source, in_w.source), outer * weight(2, in_w));
          }
        }
      }
      sum.finish();
    }
  }

  // y[c] = Σ weight·x[c], the terms collected kMaxTaps at a time.
  class Sum {
   public:
    Sum(std::ptrdiff_t n, T* y, bool streams) : n_(n), y_(y), streams_(streams) {}
    void add(const T* x, double weight) {
      if (n_taps_ == kMaxTaps) {
        blend_(taps_, weights_, n_taps_, n_, y_, continues_, false);
        continues_ = true;
        n_taps_ = 0;
      }
      taps_[n_taps_] = x;
      weights_[n_taps_++] = static_cast<T>(weight);
    }
    void finish() { blend_(taps_, weights_, n_taps_, n_, y_, continues_, streams_ && !continues_); }

   private:
    decltype(ResampleKernels<T>::blend) blend_ = kernels().resample<T>().blend;
    std::ptrdiff_t n_;
    T* y_;
    bool streams_;
    bool continues_ = false;
    std::ptrdiff_t n_taps_ = 0;
    const T* taps_[kMaxTaps];
    T weights_[kMaxTaps];
  };
};

}  // namespace

Array resample(const char* op, const Array& x, const ResampleParams& params) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    const Maps maps = make_maps(op, x.shape(), params);
    const AxisMap forward[3] = {maps.axis[0].map, maps.axis[1].map, maps.axis[2].map};
    const Array y = Array::empty(x.dtype(), maps.y_shape, Layout::channels_last);
    const Array source = unit_channels(x);
    Resizer<decltype(zero)>(maps, forward, source, y).run();
    return y;
  });
}

Array resample_grad(const char* op, const Array& grad_y, const Extents& x_shape, const ResampleParams& params) {
  return dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    const Maps maps = make_maps(op, x_shape, params);
    check(grad_y.shape() == maps.y_shape, op, ": expected grad_y of shape ", maps.y_shape, ", got ", grad_y.shape(),
          "; pass the gradient of the resized images");
    const AxisMap backward[3] = {transposed(maps.axis[0].map), transposed(maps.axis[1].map), transposed(maps.axis[2].map)};
    const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
    const Array source = unit_channels(grad_y);
    Resizer<decltype(zero)>(maps, backward, source, grad_x).run();
    return grad_x;
  });
}

}  // namespace striate
