#include "ops/conv2d_choose.hpp"

#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/table.hpp"
#include "striate/error.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

std::atomic<int> forced{static_cast<int>(ConvAlgorithm::automatic)};
std::atomic<double> error_budget{kDefaultErrorBudget};
std::atomic<bool> batch_invariant{false};

double ceil_div(std::ptrdiff_t a, std::ptrdiff_t b) {
  const std::ptrdiff_t whole = (a + b - 1) / b;
  return static_cast<double>(whole);
}

bool winograd_applies(const ConvShape& shape) {
  const WindowAxis& depth = shape.window.axis[0];
  bool applies = shape.dtype == DType::float32 && shape.groups == 1 && depth.in == 1 && depth.kernel == 1 &&
                 depth.stride == 1 && depth.out == 1 && shape.n * shape.c * shape.o > 0;
  for (std::size_t i = 1; i < 3; ++i) {
    const WindowAxis& axis = shape.window.axis[i];
    applies = applies && axis.kernel == 3 && axis.stride == 1 && axis.dilation == 1 && axis.out > 0 && axis.pad_begin >= 0 &&
              axis.pad_begin <= 2 && axis.in + axis.pad_begin + axis.pad_end == axis.out + 2 && axis.pad_end <= 2;
  }
  return applies;
}

// Cycles of one core for one pass, in units that only compare algorithms: a multiply-add of a vector is half a cycle, tiles
// of registers reach a share of that. The coefficients are measured on AVX2 (Zen 3) over 16 to 512 channels, batches 1 and
// 16; per vector, so they serve the other instruction sets.
constexpr double kDirectShare = 0.75;
constexpr double kDirectGradWeightShare = 0.7;
constexpr double kProductShare = 0.72;
constexpr double kBytesPerCycle = 4;  // of memory behind L2
// Cycles of the transforms of one tile for one vector of channels: of the side that is read, and of the side that is
// written, with the misses of either.
constexpr std::array<double, kWinogradSizes> kReadCycles{150, 300, 1300};
constexpr std::array<double, kWinogradSizes> kWriteCycles{120, 250, 1100};

double direct_cycles(ConvPass pass, const ConvShape& shape, double width) {
  const double macs = static_cast<double>(shape.n * shape.window.n_outputs() * shape.window.n_taps() * shape.c * shape.o);
  return macs / width / 2 / (pass == ConvPass::grad_weight ? kDirectGradWeightShare : kDirectShare);
}

double winograd_cycles(ConvPass pass, const ConvShape& shape, int size, double width) {
  const std::ptrdiff_t m = 2 * (size + 1);
  const auto n_points = static_cast<double>((m + 2) * (m + 2));
  const WindowAxis& h = shape.window.axis[1];
  const WindowAxis& w = shape.window.axis[2];
  const bool on_input = pass == ConvPass::grad_input;
  const double tiles =
      static_cast<double>(shape.n) * ceil_div(on_input ? h.in : h.out, m) * ceil_div(on_input ? w.in : w.out, m);
  const auto lanes = static_cast<std::ptrdiff_t>(width);
  const double vectors_c = ceil_div(shape.c, lanes);
  const double vectors_o = ceil_div(shape.o, lanes);
  const auto index = static_cast<std::size_t>(size);
  const double product = n_points * tiles * static_cast<double>(shape.c * shape.o) / width / 2 / kProductShare;
  const double read = on_input ? vectors_o : vectors_c;
  const double written = on_input ? vectors_c : vectors_o;
  const double transforms = tiles * (read * kReadCycles[index] + written * kWriteCycles[index]);
  // The filters' transform, or its adjoint, is done once a call; forward keeps it between calls.
  const double filters =
      static_cast<double>(shape.o) * vectors_c * kWriteCycles[index] * (pass == ConvPass::forward ? 0 : 2);
  // Transformed filters that outgrow L2 are read once, a weight gradient's sums are written and read.
  const double filter_bytes =
      4 * n_points * static_cast<double>(shape.c * shape.o) * (pass == ConvPass::grad_weight ? 2 : 1);
  const double traffic = filter_bytes > static_cast<double>(cache_sizes().l2_bytes) / 2 ? filter_bytes / kBytesPerCycle : 0;
  return product + traffic + transforms + filters;
}

double error_bound(int size) { return kWinogradErrorGrowth[static_cast<std::size_t>(size)] * 0x1p-24; }

// The shape that the choice is made for.
ConvShape planned(ConvPass pass, ConvShape shape) {
  if (batch_invariant && pass != ConvPass::grad_weight) {
    shape.n = std::min<std::ptrdiff_t>(shape.n, 1);
  }
  return shape;
}

}  // namespace

void set_conv_algorithm(ConvAlgorithm algorithm) { forced = static_cast<int>(algorithm); }
ConvAlgorithm conv_algorithm() { return static_cast<ConvAlgorithm>(forced.load()); }
const char* algorithm_name(ConvAlgorithm algorithm) {
  constexpr std::array<const char*, 5> names{"auto", "direct", "winograd2", "winograd4", "winograd6"};
  return names[static_cast<std::size_t>(algorithm)];
}
void set_error_budget(double budget) { error_budget = budget; }
double get_error_budget() { return error_budget; }
void set_batch_invariant(bool is_invariant) { batch_invariant = is_invariant; }
bool is_batch_invariant() { return batch_invariant; }

int choose_winograd(ConvPass pass, const ConvShape& actual) {
  const ConvAlgorithm algorithm = conv_algorithm();
  if (algorithm == ConvAlgorithm::direct || !winograd_applies(actual)) {
    return -1;
  }
  if (algorithm != ConvAlgorithm::automatic) {
    return static_cast<int>(algorithm) - static_cast<int>(ConvAlgorithm::winograd2);
  }
  const ConvShape shape = planned(pass, actual);
  const auto width = static_cast<double>(kernels().gemm_f32.width);
  double least = direct_cycles(pass, shape, width);
  int chosen = -1;
  for (int size = 0; size < kWinogradSizes; ++size) {
    if (error_bound(size) > get_error_budget()) {
      continue;
    }
    const double cycles = winograd_cycles(pass, shape, size, width);
    if (cycles < least) {
      least = cycles;
      chosen = size;
    }
  }
  return chosen;
}

std::vector<ConvVerdict> explain_choice(ConvPass pass, const ConvShape& actual) {
  const int chosen = choose_winograd(pass, actual);
  const bool applies = winograd_applies(actual);
  const ConvShape shape = planned(pass, actual);
  const auto width = static_cast<double>(kernels().gemm_f32.width);
  const auto chosen_name = [](int size) {
    return algorithm_name(static_cast<ConvAlgorithm>(static_cast<int>(ConvAlgorithm::winograd2) + size));
  };
  std::vector<ConvVerdict> verdicts;
  for (int size = -1; size < kWinogradSizes; ++size) {
    ConvVerdict verdict{.algorithm = chosen_name(size),
                        .is_chosen = size == chosen,
                        .flops = 4 * width *
                                 (size < 0  ? direct_cycles(pass, shape, width)
                                  : applies ? winograd_cycles(pass, shape, size, width)
                                            : 0),
                        .error_bound = size < 0 ? 0 : error_bound(size),
                        .reason = {}};
    if (size >= 0 && !applies) {
      verdict.reason = "needs float32, two spatial axes, a 3x3 kernel, stride 1, no dilation, one group, padding 0 to 2";
    } else if (conv_algorithm() != ConvAlgorithm::automatic) {
      verdict.reason = text("striate.machine.algorithm is set to ", algorithm_name(conv_algorithm()));
    } else if (size >= 0 && error_bound(size) > get_error_budget()) {
      verdict.reason = text("its bound is above the budget of ", get_error_budget());
    } else {
      verdict.reason = verdict.is_chosen ? "the least predicted time" : text("slower than ", chosen_name(chosen));
    }
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

}  // namespace striate
