// Mean pooling: y[n,c,i] = Σ_p x[n,c, i·s + p − pad] / count, padding being 0. The count of a window is that of its pixels
// inside the image, or inside the padded image with count_include_pad.
#include <algorithm>

#include "kernels/table.hpp"
#include "ops/pool.hpp"

namespace striate {
namespace {

// 1 / count, a product over axes.
struct Divisors {
  std::vector<double> inverse[3];

  Divisors(const PoolMaps& maps, const PoolParams& params) {
    for (std::size_t a = 0; a < 3; ++a) {
      const AxisMap& map = maps.forward.axis[a];
      const WindowAxis& axis = maps.window.axis[a];
      const bool counts_padding = params.output_size.empty() && params.count_include_pad;
      for (std::ptrdiff_t i = 0; i < map.n_targets(); ++i) {
        const std::ptrdiff_t begin = axis.position(i, 0);
        const std::ptrdiff_t count = counts_padding ? std::min(begin + axis.kernel, axis.in + axis.pad_end) - begin
                                                    : static_cast<std::ptrdiff_t>(map.at(i).size());
        inverse[a].push_back(params.divisor_override != 0 ? 1.0 : 1.0 / static_cast<double>(count));
      }
    }
    if (params.divisor_override != 0) {
      for (double& value : inverse[0]) {
        value = 1.0 / static_cast<double>(params.divisor_override);
      }
    }
  }

  [[nodiscard]] bool is_uniform() const {
    return std::all_of(std::begin(inverse), std::end(inverse), [](const auto& values) {
      return std::all_of(values.begin(), values.end(), [&](double value) { return value == values.front(); });
    });
  }
  template <class T>
  [[nodiscard]] T at(std::ptrdiff_t d, std::ptrdiff_t h, std::ptrdiff_t w) const {
    return static_cast<T>(inverse[0][static_cast<std::size_t>(d)] * inverse[1][static_cast<std::size_t>(h)] *
                          inverse[2][static_cast<std::size_t>(w)]);
  }
};

// Cuts runs where the divisor of the last axis changes.
std::vector<AxisRun> cut_at_divisors(const GatherPlan& plan, const std::vector<double>& inverse) {
  std::vector<AxisRun> pieces;
  for (const AxisRun& run : plan.runs) {
    std::ptrdiff_t begin = 0;
    const auto value = [&](std::ptrdiff_t k) { return inverse[static_cast<std::size_t>(run.first + k * run.step)]; };
    for (std::ptrdiff_t k = 1; k <= run.n; ++k) {
      if (k == run.n || value(k) != value(begin)) {
        const std::ptrdiff_t first = run.first + begin * run.step;
        pieces.push_back({first, run.step, k - begin, run.source_step, plan.axis[2].at(first)});
        begin = k;
      }
    }
  }
  return pieces;
}

// y = scale(row) · Σ x
template <class T, class Scale>
void run_sum(const GatherPlan& plan, const Array& x, const Array& y, Scale scale) {
  const Image source(x);
  const Image target(y);
  const T* const from = x.data<T>();
  T* const to = y.data<T>();
  const auto kernel = kernels().pool<T>().sum;
  gather_rows<kMaxRowTaps>(plan, source.n, source.channels, [&](const GatherRow& row) {
    const T* taps[kMaxRowTaps];
    for (std::ptrdiff_t t = 0; t < row.n_taps; ++t) {
      const GatherTap& tap = row.taps[t];
      taps[t] = from + source.at(row.image, tap.source[0], tap.source[1], tap.source[2]);
    }
    kernel(taps, row.n_taps, row.run.source_step * source.stride[2], row.run.n, source.channels,
           row.is_last ? scale(row) : T(1), to + target.at(row.image, row.d, row.h, row.run.first),
           row.run.step * target.stride[2], row.continues);
  });
}

// Each pixel of x times its divisor: before a gradient whose windows have different counts.
template <class T>
Array divided(const Array& x, const Divisors& divisors) {
  const Image source(x);
  const Array y = Array::empty(x.dtype(), x.shape(), Layout::channels_last);
  const Image target(y);
  const auto kernel = kernels().pool<T>().sum;
  parallel_for(source.n * source.size[0] * source.size[1], [&](std::ptrdiff_t row) {
    const std::ptrdiff_t h = row % source.size[1];
    const std::ptrdiff_t d = row / source.size[1] % source.size[0];
    const std::ptrdiff_t n = row / source.size[1] / source.size[0];
    for (std::ptrdiff_t w = 0; w < source.size[2]; ++w) {
      const T* const pixel = x.data<T>() + source.at(n, d, h, w);
      kernel(&pixel, 1, 0, 1, source.channels, divisors.at<T>(d, h, w), y.data<T>() + target.at(n, d, h, w), 0, false);
    }
  });
  return y;
}

// Whether the one window is the whole of a large image: then a list of its taps takes longer than their sum (96 channels at
// 112×112, batch 16: 1.62 ms by taps, 1.50 as a reduction; 512 at 7×7 0.02 and 0.06).
bool is_global(const GatherPlan& plan) {
  constexpr std::ptrdiff_t kLarge = 2048;
  std::ptrdiff_t n_pixels = 1;
  for (const AxisMap& axis : plan.axis) {
    n_pixels *= axis.n_sources;
  }
  return n_pixels >= kLarge && std::all_of(std::begin(plan.axis), std::end(plan.axis), [](const AxisMap& axis) {
           return axis.n_targets() == 1 && static_cast<std::ptrdiff_t>(axis.entries.size()) == axis.n_sources;
         });
}

void check_dilation(const char* op, const PoolParams& params) {
  check(std::all_of(params.window.dilation.begin(), params.window.dilation.end(), [](std::ptrdiff_t d) { return d == 1; }),
        op, ": expected dilation=1, got another one; mean pooling has no dilation");
}

}  // namespace

Array avg_pool(const char* op, const Array& x, const PoolParams& params) {
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    check_dilation(op, params);
    PoolMaps maps = make_pool_maps(op, x.shape(), params);
    const Divisors divisors(maps, params);
    if (is_global(maps.forward) && x.size() > 0) {
      std::vector<int> dims;
      for (int axis = 2; axis < x.rank(); ++axis) {
        dims.push_back(axis);
      }
      Array y = unit_channels(reduce(0, unit_channels(x), dims, true));
      const T scale = divisors.at<T>(0, 0, 0);
      for (std::ptrdiff_t i = 0; i < y.size(); ++i) {
        y.data<T>()[i] *= scale;
      }
      return y;
    }
    maps.forward.runs = cut_at_divisors(maps.forward, divisors.inverse[2]);
    const Array y = Array::empty(x.dtype(), maps.y_shape, Layout::channels_last);
    run_sum<T>(maps.forward, unit_channels(x), y,
               [&](const GatherRow& row) { return divisors.at<T>(row.d, row.h, row.run.first); });
    return y;
  });
}

Array avg_pool_grad(const char* op, const Array& grad_y, const Extents& x_shape, const PoolParams& params) {
  return dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const PoolMaps maps = make_pool_maps(op, x_shape, params);
    check(grad_y.shape() == maps.y_shape, op, ": expected grad_y of shape ", maps.y_shape, ", got ", grad_y.shape(),
          "; pass the gradient of this pooling's result");
    const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
    const Divisors divisors(maps, params);
    const Array source = unit_channels(grad_y);
    if (divisors.is_uniform()) {
      const T scale = grad_y.size() > 0 ? divisors.at<T>(0, 0, 0) : T(1);
      run_sum<T>(maps.backward(), source, grad_x, [&](const GatherRow&) { return scale; });
    } else {
      run_sum<T>(maps.backward(), divided<T>(source, divisors), grad_x, [](const GatherRow&) { return T(1); });
    }
    return grad_x;
  });
}

}  // namespace striate
