// Depthwise convolution: y[n,o,i] = bias[o] + Σ_p x[n, o / M, i·s + p·d − pad]·weight[o,0,p], M outputs a channel.
//
// Direct: rows of outputs read rows of pixels, a padded tap is no tap. With M > 1 the channels of x are repeated first. With
// groups of G > 1 channels, M is 1 and y[n,o,i] sums over the G channels of o's group as well.
#include "ops/depthwise.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/table.hpp"
#include "machine/memory.hpp"
#include "ops/gather.hpp"
#include "ops/grouped.hpp"
#include "ops/image.hpp"
#include "ops/map.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr int kMaxTaps = 32;                    // pointers a call
constexpr std::ptrdiff_t kMaxWeightParts = 64;  // partial weight gradients
// Of rows of x and y that are asked for while blocks of channels take turns: L2 has room for them.
constexpr std::ptrdiff_t kMostBytesAhead = 256 * 1024;

struct Maps {
  GatherPlan forward;
  std::ptrdiff_t stride;  // of the last axis
  Window window;
};

Window window_of(const char* op, const Extents& x_shape, const Extents& weight_shape, const ConvParams& params) {
  WindowParams window_params = params.window;
  window_params.kernel_size.assign(weight_shape.begin() + 2, weight_shape.end());
  return make_window(op, spatial(x_shape), window_params);
}

Maps make_maps(const char* op, const Extents& x_shape, const Extents& weight_shape, const ConvParams& params) {
  check(
      x_shape.rank() >= 3 && x_shape.rank() <= 5 && weight_shape.rank() == x_shape.rank() &&
          x_shape[1] == params.groups * weight_shape[1] && weight_shape[0] % x_shape[1] == 0,
      op,
      ": expected a weight of C/groups input channels a group and outputs a multiple of the channels of x, got x of shape ",
      x_shape, ", weight of shape ", weight_shape, " and groups=", params.groups, "; use a general convolution");
  Maps maps;
  maps.window = window_of(op, x_shape, weight_shape, params);
  for (std::size_t i = 0; i < 3; ++i) {
    maps.forward.axis[i] = window_map(maps.window.axis[i]);
  }
  maps.stride = maps.window.axis[2].stride;
  maps.forward.cut(1);
  return maps;
}

// (N, C, …) as (N, C, M, …), each channel M times (stride 0), or each group of M channels apart.
Array with_multiplier_axis(const Array& x, std::ptrdiff_t channels, std::ptrdiff_t multiplier, std::ptrdiff_t channel_stride,
                           std::ptrdiff_t multiplier_stride) {
  Extents shape{x.shape(0), channels, multiplier};
  Extents strides{x.stride(0), channel_stride, multiplier_stride};
  for (int axis = 2; axis < x.rank(); ++axis) {
    shape.push_back(x.shape(axis));
    strides.push_back(x.stride(axis));
  }
  return Array::view(x.storage_ref(), x.dtype(), shape, strides, x.offset());
}

Array repeat_channels(const Array& x, std::ptrdiff_t multiplier) {
  if (multiplier == 1) {
    return unit_channels(x);
  }
  const Array repeated =
      Array::empty(x.dtype(), image_shape(x.shape(0), x.shape(1) * multiplier, spatial(x.shape())), Layout::channels_last);
  copy_into(with_multiplier_axis(repeated, x.shape(1), multiplier, multiplier, 1),
            with_multiplier_axis(x, x.shape(1), multiplier, x.stride(1), 0));
  return repeated;
}

// The sums of each channel's outputs; x is dense, so that they are neighbours.
template <class T>
Array sum_multiplier(const Array& x, std::ptrdiff_t multiplier) {
  if (multiplier == 1) {
    return x;
  }
  const Array sums =
      Array::empty(x.dtype(), image_shape(x.shape(0), x.shape(1) / multiplier, spatial(x.shape())), Layout::channels_last);
  const Partition parts(sums.size(), 1 << 14);
  parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
    for (std::ptrdiff_t i = parts.begin(part); i < parts.end(part); ++i) {
      const T* const from = x.data<T>() + i * multiplier;
      T sum = from[0];
      for (std::ptrdiff_t m = 1; m < multiplier; ++m) {
        sum += from[m];
      }
      sums.data<T>()[i] = sum;
    }
  });
  return sums;
}

// Offsets of a weight's taps from its filter, and back into [tap][O], so that channels are contiguous.
std::vector<std::ptrdiff_t> tap_offsets(const Array& weight) {
  const Image view(weight);
  std::vector<std::ptrdiff_t> offsets;
  for (std::ptrdiff_t d = 0; d < view.size[0]; ++d) {
    for (std::ptrdiff_t h = 0; h < view.size[1]; ++h) {
      for (std::ptrdiff_t w = 0; w < view.size[2]; ++w) {
        offsets.push_back(view.at(0, d, h, w));
      }
    }
  }
  return offsets;
}

// f(value of the weight, its place in [tap][G][O]). `transposes`: lanes are input channels, and turns are the outputs of
// their group.
template <class T, class F>
void each_weight(const Array& weight, bool transposes, F&& f) {
  const std::vector<std::ptrdiff_t> offsets = tap_offsets(weight);
  const std::ptrdiff_t n_outputs = weight.shape(0);
  const std::ptrdiff_t group = weight.shape(1);
  for (std::ptrdiff_t o = 0; o < n_outputs; ++o) {
    for (std::ptrdiff_t i = 0; i < group; ++i) {
      T* const filter = weight.data<T>() + o * weight.stride(0) + i * weight.stride(1);
      const std::ptrdiff_t lane = transposes ? o / group * group + i : o;
      const std::ptrdiff_t turn = transposes ? o % group : i;
      for (std::size_t t = 0; t < offsets.size(); ++t) {
        f(filter[offsets[t]], (static_cast<std::ptrdiff_t>(t) * group + turn) * n_outputs + lane);
      }
    }
  }
}

template <class T>
void pack_weight(const Array& weight, bool transposes, T* packed) {
  each_weight<T>(weight, transposes, [&](const T& value, std::ptrdiff_t at) { packed[at] = value; });
}

// Channels whose lines of pixels, for one row of outputs, stay in L1 for the next row: whole lines of memory, and at least
// as many as `least`, since short reads cost more than that brings.
template <class T>
std::ptrdiff_t channels_in_l1(const GatherPlan& plan, const WindowAxis& width, std::ptrdiff_t in, std::ptrdiff_t n,
                              std::ptrdiff_t least) {
  const std::ptrdiff_t n_lines = plan.axis[0].n_taps * plan.axis[1].n_taps;
  const std::ptrdiff_t channel = (n_lines * (in + width.kernel) + n) * static_cast<std::ptrdiff_t>(sizeof(T));
  constexpr std::ptrdiff_t kLine = kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));
  return std::max(least, cache_sizes().l1_bytes * 3 / 4 / channel / kLine * kLine);
}

// Whether y is stored past the caches: it is larger than they are and of whole lines of memory. Such stores need no fence of
// their own: a task ends with the atomic that claims the next one, which on x86 drains them.
template <class T>
bool streams(const Array& y) {
  constexpr std::ptrdiff_t kLine = kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));
  constexpr std::ptrdiff_t kLeast = 2 * kStreamBytes;  // 19 to 29 MB: 0.93 to 1.13 times as fast
  return y.size() * static_cast<std::ptrdiff_t>(sizeof(T)) > kLeast && y.shape(1) % kLine == 0;
}

// What is to be asked for while rows of y, or of g, are computed: memory of the rows that follow, which mostly are the same
// worker's. Rows of a block of channels are read in pieces, so where there are several blocks, each call asks for a share of
// the next part's rows as they lie. (Zen 4, AVX2, from memory: with the rows that begin the next part 0.83 to 0.97 of the
// time, one image of 144 channels at 56×56, whose parts are a row or two, 0.52.)
template <class T>
class RowsAhead {
 public:
  // Of several depths, the lines of the last. `asks_y`: rows of y are wanted as well.
  RowsAhead(const GatherPlan& plan, const Array& x, const Image& target, const T* y, bool asks_y)
      : plan_(plan), source_(x), target_(target), x_(x.data<T>()), y_(y) {
    const std::ptrdiff_t n_y = target.n * target.size[0] * target.size[1] * target.size[2] * target.channels;
    const bool pays = is_far((x.size() + n_y) * kBytes);
    x_line_ = pays && are_dense(source_) ? source_.stride[1] * kBytes : 0;
    y_row_ = pays && asks_y && are_dense(target_) ? target_.stride[1] * kBytes : 0;
  }

  // What rows [begin, end) need, as far as they lie in one image, and row begin − 1 did not.
  [[nodiscard]] Ahead rows(std::ptrdiff_t begin, std::ptrdiff_t end) const {
    const AxisMap& lines = plan_.axis[1];
    const std::ptrdiff_t n_h = target_.size[1];
    const std::ptrdiff_t h = begin % n_h;
    const std::ptrdiff_t d = begin / n_h % target_.size[0];
    const std::ptrdiff_t image = begin / n_h / target_.size[0];
    const std::ptrdiff_t h_end = std::min(h + end - begin, n_h);
    Ahead ahead{};
    if (image >= target_.n || h_end <= h) {
      return ahead;
    }
    const auto depths = plan_.axis[0].at(d);
    if (x_line_ > 0 && !depths.empty() && !lines.at(h).empty() && !lines.at(h_end - 1).empty()) {
      const bool follows = h > 0 && !lines.at(h - 1).empty();
      const std::ptrdiff_t first = std::max(lines.at(h).front().source, follows ? lines.at(h - 1).back().source + 1 : 0);
      const std::ptrdiff_t n = lines.at(h_end - 1).back().source + 1 - first;
      ahead.x = x_ + source_.at(image, depths.back().source, first, 0);
      ahead.x_bytes = std::max<std::ptrdiff_t>(0, n) * x_line_;
    }
    if (y_row_ > 0) {
      ahead.y = y_ + target_.at(image, d, h, 0);
      ahead.y_bytes = (h_end - h) * y_row_;
    }
    return ahead;
  }

 private:
  static constexpr auto kBytes = static_cast<std::ptrdiff_t>(sizeof(T));

  static bool are_dense(const Image& image) {
    return image.stride[2] == image.channels && image.stride[1] == image.size[2] * image.channels;
  }

  const GatherPlan& plan_;
  Image source_;
  Image target_;
  const T* x_;
  const T* y_;
  std::ptrdiff_t x_line_;
  std::ptrdiff_t y_row_;
};

Ahead share(const Ahead& ahead, std::ptrdiff_t i, std::ptrdiff_t n) {
  const Piece x = share(Piece{ahead.x, ahead.x_bytes}, i, n);
  const Piece y = share(Piece{ahead.y, ahead.y_bytes}, i, n);
  return {.x = x.begin, .x_bytes = x.n_bytes, .y = y.begin, .y_bytes = y.n_bytes};
}

// What a row of y is to a row of x.
enum class Reach { forward, grad_input };

// Rows of y whose windows are lines of neighbouring taps, edges included. The data gradient of stride 1 reads the taps from
// last to first.
template <class T>
class LineRows {
 public:
  // y has n_w pixels a row. Where applies() is false there is no kernel for them.
  LineRows(const GatherPlan& plan, const WindowAxis& width, std::ptrdiff_t group, Reach reach, const Array& x,
           const T* packed, std::ptrdiff_t n_w, const DepthwiseEpilogue<T>& epilogue)
      : plan_(plan),
        width_(width),
        group_(group),
        reverses_(reach == Reach::grad_input && width.stride == 1),
        source_(x),
        x_(x.data<T>()),
        packed_(packed),
        n_w_(n_w),
        epilogue_(epilogue) {
    const DepthwiseKernels<T>& kernel = kernels().depthwise<T>(group);
    applies_ = width.dilation == 1 && kernel.has_lines(width.kernel, width.stride, n_w, source_.channels) &&
               plan.axis[0].n_taps * plan.axis[1].n_taps <= kMaxTaps;
    run_ = reach == Reach::grad_input && width.stride > 1 ? kernel.lines_transposed : kernel.lines;
  }

  [[nodiscard]] bool applies() const { return applies_; }
  [[nodiscard]] std::ptrdiff_t channels() const { return source_.channels; }
  [[nodiscard]] std::ptrdiff_t cost() const {  // multiply-adds of a row
    return n_w_ * channels() * plan_.axis[0].n_taps * plan_.axis[1].n_taps * width_.kernel * group_;
  }

  // Channels go by blocks of nearly equal width. Narrow ones pay where each line is read for more than three rows of y
  // (144 channels at 56×56, 3×3: 0.94 of the time in one block; 240 at 28×28, 5×5: 1.15).
  [[nodiscard]] Partition blocks() const {
    const std::ptrdiff_t least = (plan_.axis[0].n_taps * plan_.axis[1].n_taps <= 3 ? 8 : 2) * kLine;
    const std::ptrdiff_t n_blocks =
        std::max<std::ptrdiff_t>(1, channels() / channels_in_l1<T>(plan_, width_, source_.size[2], n_w_, least));
    return {channels(), ((channels() + n_blocks - 1) / n_blocks + kLine - 1) / kLine * kLine};
  }

  // Channels [c, c_end) of row (image, d, h), to pixels y_step apart; of fewer than a vector, a vector.
  void make(std::ptrdiff_t image, std::ptrdiff_t d, std::ptrdiff_t h, std::ptrdiff_t c, std::ptrdiff_t c_end, T* y,
            std::ptrdiff_t y_step, bool streams, const Ahead& ahead) const {
    // The last block is a vector wide at least: it overlaps, and computes the same.
    c = std::max<std::ptrdiff_t>(0, std::min(c, channels() - kLine));
    const T* pixels[kMaxTaps];
    const T* weights[kMaxTaps];
    std::ptrdiff_t n_lines = 0;
    for (const AxisMap::Entry& in_d : plan_.axis[0].at(d)) {
      for (const AxisMap::Entry& in_h : plan_.axis[1].at(h)) {
        const std::ptrdiff_t first = (in_d.tap * plan_.axis[1].n_taps + in_h.tap) * width_.kernel;
        pixels[n_lines] = x_ + source_.at(image, in_d.source, in_h.source, 0) + c;
        weights[n_lines++] = packed_ + (first + (reverses_ ? width_.kernel - 1 : 0)) * group_ * channels() + c;
      }
    }
    DepthwiseEpilogue<T> here = epilogue_;
    here.bias = epilogue_.bias != nullptr ? epilogue_.bias + c : nullptr;
    run_({.x = pixels,
          .w = weights,
          .n_lines = n_lines,
          .w_step = reverses_ ? -group_ * channels() : group_ * channels(),
          .w_turn = channels(),
          .taps = width_.kernel,
          .stride = width_.stride,
          .pad = reverses_ ? width_.kernel - 1 - width_.pad_begin : width_.pad_begin,
          .in = source_.size[2],
          .pixel = source_.stride[2],
          .n = n_w_,
          .channels = c_end - c,
          .y = y + c,
          .y_step = y_step,
          .epilogue = &here,
          .streams = streams,
          .ahead = ahead});
  }

 private:
  static constexpr std::ptrdiff_t kLine = kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));

  const GatherPlan& plan_;
  const WindowAxis& width_;
  std::ptrdiff_t group_;
  bool reverses_;
  bool applies_;
  Image source_;
  const T* x_;
  const T* packed_;
  std::ptrdiff_t n_w_;
  DepthwiseEpilogue<T> epilogue_;
  void (*run_)(const DepthwiseLines<T>& lines);
};

template <class T>
void run_lines(const LineRows<T>& lines, const GatherPlan& plan, std::ptrdiff_t group, const Array& x, const Array& y,
               RowSums* sums, const Finish& finish) {
  const Image target(y);
  constexpr std::ptrdiff_t kLeastTaskCost = 1 << 16;  // multiply-adds
  constexpr std::ptrdiff_t kMostTaskCost = 1 << 20;
  constexpr std::ptrdiff_t kTasksAimed = 64;
  const std::ptrdiff_t channels = lines.channels();
  const std::ptrdiff_t n_rows = target.n * target.size[0] * target.size[1];
  const std::ptrdiff_t row_values = target.size[2] * channels;
  const std::ptrdiff_t cost = std::clamp(n_rows * lines.cost() / kTasksAimed, kLeastTaskCost, kMostTaskCost);
  const Partition blocks = lines.blocks();
  std::ptrdiff_t n_part = cost / std::max<std::ptrdiff_t>(1, lines.cost()) + 1;
  if (blocks.n_parts > 1 || !finish.is_empty()) {
    n_part = std::min(n_part, kMostBytesAhead / (2 * row_values * static_cast<std::ptrdiff_t>(sizeof(T))) + 1);
  }
  const Partition rows(n_rows, n_part);
  if (sums != nullptr && !sums->start(y, rows.part * target.size[2])) {
    sums = nullptr;
  }
  const bool streams_y = sums == nullptr && finish.is_empty() && group == 1 && streams<T>(y);
  const RowsAhead<T> ahead(plan, x, Image(y), y.data<T>(), !streams_y);
  parallel_for(rows.n_parts, [&](std::ptrdiff_t part) {
    const std::ptrdiff_t n_here = rows.end(part) - rows.begin(part);
    const Ahead next = ahead.rows(rows.end(part), rows.end(part) + n_here);
    T* const y_part = y.data<T>() + rows.begin(part) * row_values;
    for (std::ptrdiff_t block = 0; block < blocks.n_parts; ++block) {
      for (std::ptrdiff_t row = rows.begin(part); row < rows.end(part); ++row) {
        const std::ptrdiff_t h = row % target.size[1];
        const std::ptrdiff_t d = row / target.size[1] % target.size[0];
        const std::ptrdiff_t image = row / target.size[1] / target.size[0];
        lines.make(image, d, h, blocks.begin(block), blocks.end(block), y_part + (row - rows.begin(part)) * row_values,
                   channels, streams_y,
                   blocks.n_parts == 1 ? ahead.rows(row + 1, row + 2)
                                       : share(next, block * n_here + row - rows.begin(part), blocks.n_parts * n_here));
        if (sums != nullptr) {
          sums->add(row * target.size[2], (row + 1) * target.size[2], blocks.begin(block), blocks.end(block));
        }
      }
    }
    finish.run(y_part, n_here * row_values);
  });
}

// Rows of y read rows of x through packed weights; forward and data gradient differ in their plan alone.
template <class T>
void run_rows(const GatherPlan& plan, const WindowAxis& width, std::ptrdiff_t group, Reach reach, const Array& x,
              const T* packed, const Array& y, const DepthwiseEpilogue<T>& epilogue, RowSums* sums, const Finish& finish) {
  const LineRows<T> lines(plan, width, group, reach, x, packed, Image(y).size[2], epilogue);
  if (lines.applies()) {
    run_lines(lines, plan, group, x, y, sums, finish);
    return;
  }
  const Image source(x);
  const Image target(y);
  const T* const from = x.data<T>();
  T* const to = y.data<T>();
  const auto kernel = kernels().depthwise<T>(group).row;
  gather_rows<kMaxTaps>(plan, source.n, group * source.channels, [&](const GatherRow& row) {
    const T* taps[kMaxTaps];
    const T* weights[kMaxTaps];
    for (std::ptrdiff_t t = 0; t < row.n_taps; ++t) {
      const GatherTap& tap = row.taps[t];
      taps[t] = from + source.at(row.image, tap.source[0], tap.source[1], tap.source[2]);
      weights[t] = packed + tap.label * group * source.channels;
    }
    kernel(taps, weights, row.n_taps, row.run.source_step * source.stride[2], row.run.n, source.channels,
           to + target.at(row.image, row.d, row.h, row.run.first), row.run.step * target.stride[2], row.continues,
           row.is_last ? &epilogue : nullptr);
  });
  finish.run(y);
}

// Adds the products of rows [begin, end) of grad_y to sum, [tap][channels], where rows are lines of neighbouring taps.
template <class T>
void add_lines(const GatherPlan& plan, const WindowAxis& width, const Array& grad_y, const Array& x, std::ptrdiff_t begin,
               std::ptrdiff_t end, T* sum) {
  const Image source(x);
  const Image target(grad_y);
  const std::ptrdiff_t channels = source.channels;
  constexpr std::ptrdiff_t kLine = kAlignment / static_cast<std::ptrdiff_t>(sizeof(T));
  // 144 channels at 56×56: 60 GFLOP/s by 32 channels, 71 by 128; from memory, at once 2.8 ms for 5.5.
  const std::ptrdiff_t block = channels_in_l1<T>(plan, width, source.size[2], target.size[2], 16 * kLine);
  const RowsAhead<T> ahead(plan, x, Image(grad_y), grad_y.data<T>(), true);
  const std::ptrdiff_t n_blocks = (channels - kLine) / block + 1;  // the last is a vector wide at least
  const std::ptrdiff_t row_bytes = 2 * target.size[2] * channels * static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t n_together = n_blocks == 1 ? end - begin : kMostBytesAhead / row_bytes + 1;
  for (std::ptrdiff_t first = begin; first < end; first += n_together) {
    const std::ptrdiff_t last = std::min(end, first + n_together);
    const Ahead next = ahead.rows(last, last + n_together);
    for (std::ptrdiff_t i = 0; i < n_blocks; ++i) {
      const std::ptrdiff_t c = i * block;
      const std::ptrdiff_t n_channels = i + 1 < n_blocks ? block : channels - c;
      for (std::ptrdiff_t row = first; row < last; ++row) {
        const std::ptrdiff_t h = row % target.size[1];
        const std::ptrdiff_t d = row / target.size[1] % target.size[0];
        const std::ptrdiff_t image = row / target.size[1] / target.size[0];
        const T* pixels[kMaxTaps];
        T* sums[kMaxTaps];
        std::ptrdiff_t n_lines = 0;
        for (const AxisMap::Entry& in_d : plan.axis[0].at(d)) {
          for (const AxisMap::Entry& in_h : plan.axis[1].at(h)) {
            pixels[n_lines] = x.data<T>() + source.at(image, in_d.source, in_h.source, 0) + c;
            sums[n_lines++] = sum + (in_d.tap * plan.axis[1].n_taps + in_h.tap) * width.kernel * channels + c;
          }
        }
        kernels().depthwise<T>(1).lines_grad_weight(
            {.x = pixels,
             .n_lines = n_lines,
             .taps = width.kernel,
             .stride = width.stride,
             .pad = width.pad_begin,
             .in = source.size[2],
             .pixel = source.stride[2],
             .n = target.size[2],
             .channels = n_channels,
             .g = grad_y.data<T>() + target.at(image, d, h, 0) + c,
             .g_step = target.stride[2],
             .grad_w = sums,
             .w_step = channels,
             .ahead = n_blocks == 1 ? ahead.rows(row + 1, row + 2)
                                    : share(next, i * (last - first) + row - first, n_blocks * (last - first))});
      }
    }
  }
}

template <class T>
void run_grad_weight(const GatherPlan& plan, const WindowAxis& width, const Array& grad_y, const Array& x,
                     const Array& grad_weight) {
  const Image source(x);
  const Image target(grad_y);
  const std::ptrdiff_t n_weights = grad_weight.size();
  const std::ptrdiff_t group = grad_weight.shape(1);
  const std::ptrdiff_t n_rows = target.n * target.size[0] * target.size[1];
  constexpr std::ptrdiff_t kLeastPixels = 64;  // of a part, for which its sums cost little
  const Partition parts(n_rows, std::max(kLeastPixels / std::max<std::ptrdiff_t>(target.size[2], 1) + 1,
                                         (n_rows + kMaxWeightParts - 1) / kMaxWeightParts));
  const Buffer<T> partial(std::max<std::ptrdiff_t>(parts.n_parts, 1) * n_weights);  // [part][tap][G][O]
  std::fill_n(partial.data(), n_weights, T(0));
  const KernelTable& table = kernels();
  const bool has_lines = group == 1 && width.dilation == 1 && plan.axis[0].n_taps * plan.axis[1].n_taps <= kMaxTaps &&
                         table.depthwise<T>(1).has_lines(width.kernel, width.stride, target.size[2], source.channels);
  parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
    T* const sum = partial.data() + part * n_weights;
    std::fill_n(sum, n_weights, T(0));
    if (has_lines) {
      add_lines<T>(plan, width, grad_y, x, parts.begin(part), parts.end(part), sum);
      return;
    }
    const T* taps[kMaxTaps];
    T* sums[kMaxTaps];
    for (std::ptrdiff_t row = parts.begin(part); row < parts.end(part); ++row) {
      const std::ptrdiff_t h = row % target.size[1];
      const std::ptrdiff_t d = row / target.size[1] % target.size[0];
      const std::ptrdiff_t image = row / target.size[1] / target.size[0];
      for (const AxisRun& run : plan.runs) {
        std::ptrdiff_t n_taps = 0;
        const auto flush = [&] {
          table.depthwise<T>(group).grad_weight(taps, n_taps, run.source_step * source.stride[2],
                                                grad_y.data<T>() + target.at(image, d, h, run.first),
                                                run.step * target.stride[2], run.n, source.channels, sums);
          n_taps = 0;
        };
        for (const AxisMap::Entry& in_d : plan.axis[0].at(d)) {
          for (const AxisMap::Entry& in_h : plan.axis[1].at(h)) {
            const std::ptrdiff_t label = (in_d.tap * plan.axis[1].n_taps + in_h.tap) * plan.axis[2].n_taps;
            for (const AxisMap::Entry& in_w : run.entries) {
              if (n_taps == kMaxTaps) {
                flush();
              }
              taps[n_taps] = x.data<T>() + source.at(image, in_d.source, in_h.source, in_w.source);
              sums[n_taps++] = sum + (label + in_w.tap) * group * source.channels;
            }
          }
        }
        flush();
      }
    }
  });
  // Part i + step is added to part i, for step 1, 2, 4, …
  const Partition chunks(n_weights, 2048);
  parallel_for(chunks.n_parts, [&](std::ptrdiff_t chunk) {
    const std::ptrdiff_t begin = chunks.begin(chunk);
    for (std::ptrdiff_t step = 1; step < parts.n_parts; step *= 2) {
      for (std::ptrdiff_t i = 0; i + step < parts.n_parts; i += 2 * step) {
        table.norm<T>().add(partial.data() + i * n_weights + begin, partial.data() + (i + step) * n_weights + begin,
                            chunks.end(chunk) - begin);
      }
    }
  });
  each_weight<T>(grad_weight, false, [&](T& value, std::ptrdiff_t at) { value = partial[at]; });
}

template <class T>
DepthwiseEpilogue<T> epilogue_of(const Fused& fused, const Array& bias) {
  return {.bias = fused.bias != nullptr ? bias.data<T>() : nullptr,
          .clamps = fused.clamps,
          .lo = static_cast<T>(fused.lo),
          .hi = static_cast<T>(fused.hi)};
}

// Pixels of a result for another kernel to read.
template <class T>
class DepthwisePixels final : public RowSource<T> {
 public:
  DepthwisePixels(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params)
      : x_(unit_channels(x)),
        maps_(make_maps(op, x.shape(), weight.shape(), params)),
        packed_(weight.size()),
        bias_(dense_bias(fused)),
        target_(result_of(x_, maps_.window)),
        lines_(maps_.forward, maps_.window.axis[2], 1, Reach::forward, x_, packed_.data(), target_.size[2],
               epilogue_of<T>(fused, bias_)),
        blocks_(lines_.blocks()),
        ahead_(maps_.forward, x_, target_, nullptr, false),
        finish_(fused, x_, {}, false) {
    pack_weight(weight, false, packed_.data());
  }

  [[nodiscard]] bool applies() const { return lines_.applies(); }

  void make(std::ptrdiff_t begin, std::ptrdiff_t end, T* rows) const override {
    const std::ptrdiff_t n_values = target_.size[2] * target_.channels;
    for (std::ptrdiff_t block = 0; block < blocks_.n_parts; ++block) {
      for (std::ptrdiff_t row = begin / line(); row < end / line(); ++row) {
        lines_.make(row / target_.size[1] / target_.size[0], row / target_.size[1] % target_.size[0], row % target_.size[1],
                    blocks_.begin(block), blocks_.end(block), rows + (row - begin / line()) * n_values, target_.channels,
                    false, {});
      }
    }
    finish_.run(rows, (end - begin) * target_.channels);
  }

  [[nodiscard]] std::ptrdiff_t line() const override { return target_.size[2]; }

  [[nodiscard]] Piece ahead(std::ptrdiff_t begin, std::ptrdiff_t end) const override {
    const Ahead next = ahead_.rows(begin / line(), end / line());
    return {next.x, next.x_bytes};
  }

 private:
  static Image result_of(const Array& x, const Window& window) {
    Image image(x);
    for (std::size_t i = 0; i < 3; ++i) {
      image.size[i] = window.axis[i].out;
    }
    return image;
  }

  Array x_;
  Maps maps_;
  Buffer<T> packed_;
  Array bias_;
  Image target_;
  LineRows<T> lines_;
  Partition blocks_;
  RowsAhead<T> ahead_;
  Finish finish_;
};

// Whether the kernels of depthwise.isa.cpp take the groups: one input channel a group, or few enough that groups share
// vectors.
bool shares_vectors(ConvPass pass, DType dtype, const Extents& weight_shape, std::ptrdiff_t groups) {
  const std::ptrdiff_t group = weight_shape[1];
  const std::ptrdiff_t channels = groups * group;
  if (group == 1) {
    return weight_shape[0] % channels == 0;
  }
  const std::ptrdiff_t width = dtype == DType::float64 ? kernels().gemm_f64.width : kernels().gemm_f32.width;
  // In a weight gradient, where a group is a vector, a tile of it needs a broadcast for each product, and no shuffle.
  const std::ptrdiff_t most = pass == ConvPass::grad_weight ? width - 1 : width;
  return (group == 2 || group == 4 || group == 8) && group <= most && weight_shape[0] == channels && channels % width == 0;
}

}  // namespace

bool depthwise_applies(DType dtype, std::ptrdiff_t channels, const Extents& weight_shape, std::ptrdiff_t groups) {
  return groups > 1 && channels == groups * weight_shape[1] &&
         (shares_vectors(ConvPass::forward, dtype, weight_shape, groups) || grouped_applies(weight_shape, groups));
}

double depthwise_flops(ConvPass pass, const ConvShape& shape) {
  const std::ptrdiff_t channels = shape.groups * shape.c;
  const std::ptrdiff_t n_outputs = shape.groups * shape.o;
  if (!shares_vectors(pass, shape.dtype, {n_outputs, shape.c}, shape.groups)) {
    return 0;
  }
  // Cycles, in each of which a core at its peak does two multiply-adds of vectors: of one multiply-add, of a byte, and of a
  // weight that is packed or unpacked. Fitted to one core of an Intel Xeon with 2 MB of L2: all passes of 14 depthwise
  // layers take 0.6 to 1.8 times as long, with AVX2 and with AVX-512.
  constexpr double kLines = 0.5;
  constexpr double kRows = 1.5;
  constexpr double kGradWeight = 1.0;
  constexpr double kByte = 0.2;
  constexpr double kWeight = 8;
  return dispatch_float("explain", shape.dtype, [&](auto zero) {
    using T = decltype(zero);
    const bool is_forward = pass == ConvPass::forward;
    const WindowAxis& line = shape.window.axis[2];
    const bool has_lines = line.dilation == 1 && kernels().depthwise<T>(shape.c).has_lines(
                                                     line.kernel, line.stride, is_forward ? line.out : line.in, n_outputs);
    const double each = pass == ConvPass::grad_weight ? kGradWeight : has_lines ? kLines : kRows;
    const std::ptrdiff_t vectors = (n_outputs + kernels().gemm<T>().width - 1) / kernels().gemm<T>().width;
    const std::ptrdiff_t products = shape.n * shape.window.n_outputs() * shape.window.n_taps() * vectors * shape.c;
    const std::ptrdiff_t repeated = n_outputs == channels ? 0 : 2 * n_outputs;  // a copy with every output's own channel
    const std::ptrdiff_t values =
        shape.n * (shape.window.n_inputs() * (channels + repeated) + shape.window.n_outputs() * n_outputs);
    const std::ptrdiff_t weights = n_outputs * shape.c * shape.window.n_taps();
    const double cycles = each * static_cast<double>(products) + kByte * sizeof(T) * static_cast<double>(values) +
                          kWeight * static_cast<double>(weights);
    return 4 * kernels().gemm_f32.width * cycles;
  });
}

void depthwise_conv(const char* op, const Array& x, const Array& weight, const Array& y, const Fused& fused,
                    const ConvParams& params, RowSums* sums, const Finish& finish) {
  if (!shares_vectors(ConvPass::forward, x.dtype(), weight.shape(), params.groups)) {
    grouped_conv(x, weight, y, fused, window_of(op, x.shape(), weight.shape(), params), params.groups);
    finish.run(y);
    return;
  }
  dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Maps maps = make_maps(op, x.shape(), weight.shape(), params);
    const Buffer<T> packed(weight.size());
    pack_weight(weight, false, packed.data());
    const Array bias = dense_bias(fused);
    run_rows<T>(maps.forward, maps.window.axis[2], weight.shape(1), Reach::forward,
                repeat_channels(x, weight.shape(0) / x.shape(1)), packed.data(), y, epilogue_of<T>(fused, bias), sums,
                finish);
  });
}

template <class T>
std::unique_ptr<const RowSource<T>> depthwise_pixels(const char* op, const Array& x, const Array& weight, const Fused& fused,
                                                     const ConvParams& params) {
  if (params.groups != x.shape(1) || weight.shape(0) != x.shape(1)) {
    return nullptr;
  }
  auto pixels = std::make_unique<DepthwisePixels<T>>(op, x, weight, fused, params);
  return pixels->applies() ? std::move(pixels) : nullptr;
}
template std::unique_ptr<const RowSource<float>> depthwise_pixels(const char*, const Array&, const Array&, const Fused&,
                                                                  const ConvParams&);
template std::unique_ptr<const RowSource<double>> depthwise_pixels(const char*, const Array&, const Array&, const Fused&,
                                                                   const ConvParams&);

Array depthwise_conv_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                                const ConvParams& params) {
  if (!shares_vectors(ConvPass::grad_input, grad_y.dtype(), weight.shape(), params.groups)) {
    return grouped_conv_grad_input(grad_y, weight, x_shape, window_of(op, x_shape, weight.shape(), params), params.groups);
  }
  return dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Maps maps = make_maps(op, x_shape, weight.shape(), params);
    const std::ptrdiff_t n_outputs = weight.shape(0);
    GatherPlan backward;
    for (int i = 0; i < 3; ++i) {
      backward.axis[i] = transposed(maps.forward.axis[i]);
    }
    backward.cut(maps.stride);
    const Array grad_x =
        Array::empty(grad_y.dtype(), image_shape(x_shape[0], n_outputs, spatial(x_shape)), Layout::channels_last);
    const Buffer<T> packed(weight.size());
    pack_weight(weight, true, packed.data());
    run_rows<T>(backward, maps.window.axis[2], weight.shape(1), Reach::grad_input, unit_channels(grad_y), packed.data(),
                grad_x, {nullptr, false, T(0), T(0)}, nullptr, {});
    return sum_multiplier<T>(grad_x, n_outputs / x_shape[1]);
  });
}

Array depthwise_conv_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                                 const ConvParams& params) {
  if (!shares_vectors(ConvPass::grad_weight, x.dtype(), weight_shape, params.groups)) {
    return grouped_conv_grad_weight(grad_y, x, weight_shape, window_of(op, x.shape(), weight_shape, params), params.groups);
  }
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Maps maps = make_maps(op, x.shape(), weight_shape, params);
    const Array grad_weight = Array::empty(x.dtype(), weight_shape, Layout::channels_last);
    run_grad_weight<T>(maps.forward, maps.window.axis[2], unit_channels(grad_y),
                       repeat_channels(x, weight_shape[0] / x.shape(1)), grad_weight);
    return grad_weight;
  });
}

}  // namespace striate
