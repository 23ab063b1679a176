#include "striate/window.hpp"

#include <algorithm>

namespace striate {
namespace {

std::ptrdiff_t ceil_div(std::ptrdiff_t a, std::ptrdiff_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// Beyond it sizes of windows and images could overflow.
constexpr std::ptrdiff_t kMost = std::ptrdiff_t{1} << 31;

void check_axis(const char* op, const WindowAxis& axis) {
  check(axis.kernel >= 1 && axis.stride >= 1 && axis.dilation >= 1, op,
        ": expected kernel_size, stride and dilation of at least 1, got kernel_size=", axis.kernel, ", stride=", axis.stride,
        ", dilation=", axis.dilation, "; use positive values");
  check(axis.pad_begin >= 0 && axis.pad_end >= 0, op, ": expected padding of at least 0, got (", axis.pad_begin, ", ",
        axis.pad_end, "); crop with slicing instead");
  check(std::max({axis.kernel, axis.stride, axis.dilation, axis.pad_begin, axis.pad_end}) < kMost, op,
        ": expected kernel_size, stride, dilation and padding below 2^31, got kernel_size=", axis.kernel,
        ", stride=", axis.stride, ", dilation=", axis.dilation, ", padding=(", axis.pad_begin, ", ", axis.pad_end,
        "); use smaller values");
}

void check_lengths(const char* op, std::size_t rank, const WindowParams& params) {
  const auto fits = [&](const std::vector<std::ptrdiff_t>& list) { return list.size() == rank; };
  const bool padding_fits = params.padding != Padding::explicit_ || (fits(params.pad_begin) && fits(params.pad_end));
  check(rank >= 1 && rank <= 3 && fits(params.kernel_size) && fits(params.stride) && fits(params.dilation) && padding_fits,
        op, ": expected one kernel_size, stride, padding and dilation per spatial axis, got ", rank, " spatial axes, ",
        params.kernel_size.size(), " kernel sizes and ", params.stride.size(), " strides; pass one number or one per axis");
}

}  // namespace

WindowAxis::Range WindowAxis::outputs_inside(std::ptrdiff_t tap) const {
  const std::ptrdiff_t first = pad_begin - tap * dilation;  // need j·stride >= first and j·stride < first + in
  const std::ptrdiff_t begin = std::clamp<std::ptrdiff_t>(ceil_div(first, stride), 0, out);
  const std::ptrdiff_t end = std::clamp<std::ptrdiff_t>(ceil_div(first + in, stride), begin, out);
  return {begin, end};
}

WindowAxis::Range WindowAxis::taps_inside(std::ptrdiff_t out_index) const {
  const std::ptrdiff_t start = out_index * stride - pad_begin;
  const std::ptrdiff_t begin = std::clamp<std::ptrdiff_t>(ceil_div(-start, dilation), 0, kernel);
  const std::ptrdiff_t end = std::clamp<std::ptrdiff_t>(ceil_div(in - start, dilation), begin, kernel);
  return {begin, end};
}

Window make_window(const char* op, std::span<const std::ptrdiff_t> spatial, const WindowParams& params) {
  check_lengths(op, spatial.size(), params);
  Window window;
  const std::size_t shift = 3 - spatial.size();
  for (std::size_t i = 0; i < spatial.size(); ++i) {
    WindowAxis& axis = window.axis[i + shift];
    axis = {.in = spatial[i], .kernel = params.kernel_size[i], .stride = params.stride[i], .dilation = params.dilation[i]};
    if (params.padding == Padding::explicit_) {
      axis.pad_begin = params.pad_begin[i];
      axis.pad_end = params.pad_end[i];
    }
    check_axis(op, axis);
    if (params.padding == Padding::same) {
      check(axis.stride == 1, op, ": expected stride=1 with padding='same', got stride=", axis.stride,
            "; give the padding as numbers");
      axis.pad_begin = (axis.reach() - 1) / 2;
      axis.pad_end = axis.reach() - 1 - axis.pad_begin;
    }
    const std::ptrdiff_t room = axis.in + axis.pad_begin + axis.pad_end - axis.reach();
    // With ceil_mode a window may reach beyond the padding by less than a stride, the only one, too.
    const std::ptrdiff_t beyond = params.ceil_mode ? axis.stride - 1 : 0;
    if (room + beyond < 0 || (room < 0 && axis.in == 0)) {
      const std::string less =
          beyond > 0 ? text(" - (stride - 1) = ", std::max<std::ptrdiff_t>(axis.reach() - beyond, 1)) : "";
      throw ShapeError(text(op, ": expected a padded input of at least the dilated kernel size ", axis.reach(), less,
                            ", got size ", axis.in, " with padding (", axis.pad_begin, ", ", axis.pad_end,
                            ") on spatial axis ", i, "; use a smaller kernel or more padding"));
    }
    axis.out = (room + beyond) / axis.stride + 1;
    if (params.ceil_mode && (axis.out - 1) * axis.stride >= axis.in + axis.pad_begin) {
      --axis.out;  // the last window would start in the right padding
    }
  }
  return window;
}

Window make_transposed_window(const char* op, std::span<const std::ptrdiff_t> spatial, const WindowParams& params,
                              std::span<const std::ptrdiff_t> output_padding) {
  check_lengths(op, spatial.size(), params);
  check(output_padding.size() == spatial.size(), op, ": expected one output_padding per spatial axis, got ",
        output_padding.size(), " for ", spatial.size(), " axes; pass one number or one per axis");
  Window window;
  const std::size_t shift = 3 - spatial.size();
  for (std::size_t i = 0; i < spatial.size(); ++i) {
    WindowAxis& axis = window.axis[i + shift];
    axis = {.kernel = params.kernel_size[i],
            .stride = params.stride[i],
            .dilation = params.dilation[i],
            .pad_begin = params.pad_begin[i],
            .pad_end = params.pad_end[i],
            .out = spatial[i]};
    check_axis(op, axis);
    check(output_padding[i] >= 0 && output_padding[i] < std::max(axis.stride, axis.dilation), op,
          ": expected 0 <= output_padding < max(stride, dilation), got output_padding=", output_padding[i],
          " with stride=", axis.stride, " and dilation=", axis.dilation, "; use a smaller output_padding");
    axis.in = (axis.out - 1) * axis.stride - axis.pad_begin - axis.pad_end + axis.reach() + output_padding[i];
    check(axis.in >= 0 && axis.out >= 0, op, ": expected an output of at least size 0, got ", axis.in, " on spatial axis ",
          i, "; use less padding");
  }
  return window;
}

AxisMap window_map(const WindowAxis& axis) {
  AxisMap map{.n_sources = axis.in, .n_taps = axis.kernel, .first = {0}, .entries = {}};
  map.first.reserve(static_cast<std::size_t>(axis.out) + 1);
  map.entries.reserve(static_cast<std::size_t>(axis.out * axis.kernel));
  for (std::ptrdiff_t i = 0; i < axis.out; ++i) {
    const WindowAxis::Range inside = axis.taps_inside(i);
    for (std::ptrdiff_t tap = inside.begin; tap < inside.end; ++tap) {
      map.entries.push_back({axis.position(i, tap), tap});
    }
    map.first.push_back(static_cast<std::ptrdiff_t>(map.entries.size()));
  }
  return map;
}

AxisMap adaptive_map(std::ptrdiff_t in, std::ptrdiff_t out) {
  AxisMap map{.n_sources = in, .n_taps = in, .first = {0}, .entries = {}};
  for (std::ptrdiff_t i = 0; i < out; ++i) {
    for (std::ptrdiff_t source = i * in / out; source < ceil_div((i + 1) * in, out); ++source) {
      map.entries.push_back({source, source});
    }
    map.first.push_back(static_cast<std::ptrdiff_t>(map.entries.size()));
  }
  return map;
}

AxisMap transposed(const AxisMap& map) {
  AxisMap result{.n_sources = map.n_targets(), .n_taps = map.n_taps, .first = {}, .entries = {}};
  result.first.assign(static_cast<std::size_t>(map.n_sources) + 1, 0);
  result.entries.resize(map.entries.size());
  for (const AxisMap::Entry& entry : map.entries) {
    ++result.first[static_cast<std::size_t>(entry.source) + 1];
  }
  for (std::size_t i = 1; i < result.first.size(); ++i) {
    result.first[i] += result.first[i - 1];
  }
  std::vector<std::ptrdiff_t> next(result.first.begin(), result.first.end() - 1);
  for (std::ptrdiff_t target = 0; target < map.n_targets(); ++target) {
    for (const AxisMap::Entry& entry : map.at(target)) {
      const std::ptrdiff_t slot = next[static_cast<std::size_t>(entry.source)]++;
      result.entries[static_cast<std::size_t>(slot)] = {target, entry.tap};
    }
  }
  return result;
}

std::vector<AxisRun> axis_runs(const AxisMap& map, std::ptrdiff_t step) {
  std::vector<AxisRun> runs;
  const auto continues = [&](const AxisRun& run, std::ptrdiff_t target) {
    const auto entries = map.at(target);
    if (entries.size() != run.entries.size()) {
      return false;
    }
    const std::ptrdiff_t source_step = entries.empty() ? 0
                                       : run.n > 1     ? run.source_step
                                                       : entries[0].source - run.entries[0].source;
    return std::equal(entries.begin(), entries.end(), run.entries.begin(), [&](const auto& now, const auto& then) {
      return now.tap == then.tap && now.source == then.source + run.n * source_step;
    });
  };
  for (std::ptrdiff_t residue = 0; residue < std::min(step, map.n_targets()); ++residue) {
    AxisRun run{residue, step, 1, 0, map.at(residue)};
    for (std::ptrdiff_t target = residue + step; target < map.n_targets(); target += step) {
      if (continues(run, target)) {
        if (run.n == 1 && !run.entries.empty()) {
          run.source_step = map.at(target)[0].source - run.entries[0].source;
        }
        ++run.n;
      } else {
        runs.push_back(run);
        run = {target, step, 1, 0, map.at(target)};
      }
    }
    runs.push_back(run);
  }
  return runs;
}

}  // namespace striate
