// The loop that pooling and its gradients share: rows of target pixels, each reading a list of rows of source pixels.
#pragma once

#include <algorithm>
#include <vector>

#include "machine/threads.hpp"
#include "striate/window.hpp"

namespace striate {

struct GatherPlan {
  AxisMap axis[3];
  std::vector<AxisRun> runs;  // of axis 2

  // `step` as in axis_runs().
  void cut(std::ptrdiff_t step) { runs = axis_runs(axis[2], step); }
};

struct GatherTap {
  std::ptrdiff_t source[3];  // of the run's first target
  std::int32_t label;        // (tap 0 · taps 1 + tap 1) · taps 2 + tap 2
};

struct GatherRow {
  std::ptrdiff_t image;
  std::ptrdiff_t d;
  std::ptrdiff_t h;
  const AxisRun& run;
  const GatherTap* taps;
  std::ptrdiff_t n_taps;
  bool continues;  // not the first call for these targets
  bool is_last;
};

// f(GatherRow) for every image and row of targets, with at most kMaxTaps taps a call. Taps come in rising order of their
// source (of their old target for transposed maps). `channels` only sizes the tiles.
template <int kMaxTaps, class F>
void gather_rows(const GatherPlan& plan, std::ptrdiff_t n_images, std::ptrdiff_t channels, F&& f) {
  const std::ptrdiff_t size_d = plan.axis[0].n_targets();
  const std::ptrdiff_t size_h = plan.axis[1].n_targets();
  const std::ptrdiff_t n_rows = n_images * size_d * size_h;
  if (n_rows == 0) {
    return;
  }
  const auto n_entries = [&](int i) { return static_cast<std::ptrdiff_t>(plan.axis[i].entries.size()); };
  const std::ptrdiff_t row_cost = n_entries(0) * n_entries(1) / (size_d * size_h) * n_entries(2) * channels;
  constexpr std::ptrdiff_t kTileCost = 1 << 16;  // elements read by a tile: some microseconds
  const Partition rows(n_rows, kTileCost / std::max<std::ptrdiff_t>(row_cost, 1));
  parallel_for(rows.n_parts, [&](std::ptrdiff_t part) {
    GatherTap taps[kMaxTaps];
    for (std::ptrdiff_t row = rows.begin(part); row < rows.end(part); ++row) {
      const std::ptrdiff_t h = row % size_h;
      const std::ptrdiff_t d = row / size_h % size_d;
      const std::ptrdiff_t image = row / size_h / size_d;
      for (const AxisRun& run : plan.runs) {
        std::ptrdiff_t n_taps = 0;
        bool continues = false;
        for (const AxisMap::Entry& in_d : plan.axis[0].at(d)) {
          for (const AxisMap::Entry& in_h : plan.axis[1].at(h)) {
            const std::ptrdiff_t label = (in_d.tap * plan.axis[1].n_taps + in_h.tap) * plan.axis[2].n_taps;
            for (const AxisMap::Entry& in_w : run.entries) {
              if (n_taps == kMaxTaps) {
                f(GatherRow{image, d, h, run, taps, n_taps, continues, false});
                continues = true;
                n_taps = 0;
              }
              taps[n_taps++] = {{in_d.source, in_h.source, in_w.source}, static_cast<std::int32_t>(label + in_w.tap)};
            }
          }
        }
        f(GatherRow{image, d, h, run, taps, n_taps, continues, true});
      }
    }
  });
}

}  // namespace striate
