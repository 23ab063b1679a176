#include "ops/conv2d_choose.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "kernels/table.hpp"
#include "striate/error.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

std::atomic<int> forced{static_cast<int>(ConvAlgorithm::automatic)};
std::atomic<double> error_budget{kDefaultErrorBudget};
std::atomic<bool> batch_invariant{false};

constexpr double kSumRows = 128;               // that a weight gradient sums in one chain
constexpr std::ptrdiff_t kLeastGroup = 16;     // channels; the transforms of fewer cost more than the products they save
constexpr std::ptrdiff_t kNearChannels = 256;  // at most, where its operands are not copied
// What transforms cost, relative to those of F(4×4, 3×3); those of F(4×4, 3×3) of stride 2 cost as much (more values, of
// which half pass through).
// F(2×2, 5×5), of as many points: a tile's input is the same; 64 channels in L2 take 0.71 to 0.74 (AVX2) and 0.73 to 0.97
// (AVX-512) of the time on the side that is written, 1.35 to 1.52 and 1.41 for filters.
constexpr double kWrite5 = 0.75;
constexpr double kFilter5 = 1.4;
// F(5×5, 3×3), of stride 1 and of stride 2: both have more points, the former too many for the registers of AVX2.
constexpr double kOfFive = 2;
constexpr double kOfFivePhased = 1.5;

// What there is to choose from.
constexpr std::array kAlgorithms{ConvAlgorithm::direct, ConvAlgorithm::winograd2, ConvAlgorithm::winograd4,
                                 ConvAlgorithm::winograd5, ConvAlgorithm::winograd6};

double ceil_div(std::ptrdiff_t a, std::ptrdiff_t b) {
  const std::ptrdiff_t whole = (a + b - 1) / b;
  return static_cast<double>(whole);
}

// Whether a form runs this pass.
bool form_applies(const WinogradForm& form, ConvPass pass, const ConvShape& shape) {
  const WindowAxis& depth = shape.window.axis[0];
  bool applies = shape.dtype == DType::float32 && depth.in == 1 && depth.kernel == 1 && depth.stride == 1 &&
                 depth.out == 1 && shape.n > 0 && shape.c > 0 && shape.o > 0;
  applies = applies && (shape.groups == 1 || std::min(shape.c, shape.o) >= kLeastGroup);
  for (std::size_t i = 1; i < 3; ++i) {
    const WindowAxis& axis = shape.window.axis[i];
    applies = applies && axis.kernel == form.r && axis.stride == form.stride && axis.dilation == 1 && axis.out > 0 &&
              axis.pad_begin >= 0 && axis.pad_begin < form.r && axis.pad_end < form.r;
    if (form.stride == 1) {
      applies = applies && axis.in + axis.pad_begin + axis.pad_end == axis.out + form.r - 1;
    } else {
      applies = applies && (pass != ConvPass::grad_input || axis.pad_begin == 1);
    }
  }
  return applies;
}

// The algorithm that a form belongs to; the direct one for −1.
ConvAlgorithm algorithm_of(int form) {
  switch (form < 0 ? 0 : kWinogradForm[form].m) {
    case 2:
      return ConvAlgorithm::winograd2;
    case 4:
      return ConvAlgorithm::winograd4;
    case 5:
      return ConvAlgorithm::winograd5;
    case 6:
      return ConvAlgorithm::winograd6;
    default:
      return ConvAlgorithm::direct;
  }
}

// The form of an algorithm that runs this pass, or −1.
int form_of(ConvAlgorithm algorithm, ConvPass pass, const ConvShape& shape) {
  for (int form = 0; form < kWinogradForms; ++form) {
    if (algorithm_of(form) == algorithm && form_applies(kWinogradForm[form], pass, shape)) {
      return form;
    }
  }
  return -1;
}

// Shipped coefficients, in cycles, as `striate tune` finds them: AVX2 and AVX-512 on an Intel Xeon with 2 MB of L2. The
// other instruction sets take AVX2's: work is counted in vectors. AVX2's byte is from memory that two cores share (Zen 4,
// weights evicted before each call, batch 1 to 8, 23 layers): with 0.22 the choice takes 1.001 of the least time, geometric
// mean, with the 0.112 of one core alone 1.07, and 1.53 at the worst.
constexpr ConvCosts kAvx2Costs{1.12, 19.4, 1.09, 0.99, 0.27, 1.25, 0.22, 114, 311, 1825, 98, 289, 860, 146, 203, 510};
constexpr ConvCosts kAvx512Costs{1.26, 30.4, 1.18, 0.7, 1.94, 1.58, 0.149, 149, 380, 1804, 113, 332, 1049, 146, 206, 659};

constexpr int kIsas = 4;
std::array<std::array<std::atomic<double>, kConvCosts>, kIsas> measured_costs{};  // 0: the shipped ones

double cycles_of(const ConvCosts& work) {
  const ConvCosts costs = conv_costs(active_isa());
  double cycles = 0;
  for (std::size_t i = 0; i < work.size(); ++i) {
    cycles += costs[i] * work[i];
  }
  return cycles;
}

double& at(ConvCosts& work, ConvCost kind, int size = 0) {
  return work[static_cast<std::size_t>(kind) + static_cast<std::size_t>(size)];
}

// Bytes of weights, or of sums, that pass through the caches behind L2.
double far_bytes(double bytes) { return bytes > static_cast<double>(cache_sizes().l2_bytes) / 2 ? bytes : 0; }

// Multiplications of vectors, in pairs, and values that change places.
ConvCosts planar_work(ConvPass pass, const ConvShape& shape) {
  const std::ptrdiff_t lanes = kernels().gemm_f32.width;
  const auto lines = static_cast<double>(shape.n * shape.window.axis[1].out);
  const auto terms = static_cast<double>(shape.window.n_taps() * shape.c * shape.o);
  ConvCosts work{};
  at(work, pass == ConvPass::forward ? ConvCost::gemm : ConvCost::outer) =
      lines * ceil_div(shape.window.axis[2].out, lanes) * terms / 2;
  at(work, ConvCost::copy) =
      static_cast<double>(shape.n * (shape.window.n_inputs() * shape.c + shape.window.n_outputs() * shape.o));
  return work;
}

ConvCosts direct_work(ConvPass pass, const ConvShape& shape) {
  const GemmKernels<float>& kernel = kernels().gemm_f32;
  if (goes_by_planes(pass, shape, kernel.width)) {
    return planar_work(pass, shape);
  }
  const auto padded = [&](std::ptrdiff_t n) { return ceil_div(n, kernel.width) * kernel.width; };
  const auto groups = static_cast<double>(shape.groups);
  const auto positions = static_cast<double>(shape.n * shape.window.n_outputs());
  const auto taps = static_cast<double>(shape.window.n_taps());
  const auto c = static_cast<double>(shape.c);
  const auto o = static_cast<double>(shape.o);
  const double pairs = groups * positions * taps / (2.0 * kernel.width);  // of vectors, for one multiplication each
  ConvCosts work{};
  if (pass == ConvPass::grad_weight) {
    const bool lanes_are_outputs = o / padded(shape.o) > 1.1 * c / padded(shape.c);
    const double sums = lanes_are_outputs ? c * padded(shape.o) : o * padded(shape.c);
    at(work, ConvCost::outer) = pairs * sums;
    at(work, ConvCost::sum) = groups * taps * sums / kernel.width * std::ceil(positions / kSumRows);
    const bool copies = shape.window.is_padded() || std::max(shape.c, shape.o) > kNearChannels;
    at(work, ConvCost::copy) = copies ? groups * positions * (taps * c + o) : 0;
    at(work, ConvCost::byte) = 2 * far_bytes(4 * groups * taps * c * o);
    return work;
  }
  const bool is_forward = pass == ConvPass::forward;
  // In a data gradient, positions share a vector of which their channels fill half or less (3×3 gains little by it).
  const bool shares = !is_forward && shape.groups == 1 && 2 * shape.c <= kernel.width && shape.window.n_taps() > 9;
  const double lanes = padded(is_forward ? shape.o : shape.c) * (shares ? 0.5 : 1);
  at(work, ConvCost::gemm) = pairs * (is_forward ? c : o) * lanes;
  // Forward, a pointer stands for the taps of a kernel line, where they are neighbours in memory: with few channels 0.6 to
  // 0.8 of what a pointer a tap would cost.
  const WindowAxis& width = shape.window.axis[2];
  const bool joins = is_forward && shape.groups == 1 && width.dilation == 1;
  const double pointers = joins ? taps / static_cast<double>(width.kernel) : taps;
  at(work, ConvCost::tile) = groups * pointers * std::ceil(positions / kernel.rows) *
                             std::ceil(lanes / static_cast<double>(kernel.vectors * kernel.width));
  at(work, ConvCost::byte) = far_bytes(4 * groups * taps * c * o);
  return work;
}

ConvCosts winograd_work(ConvPass pass, const ConvShape& shape, int form) {
  const auto [m, r, stride] = kWinogradForm[form];
  const int n = kWinogradForm[form].n();
  const auto n_points = static_cast<double>(n * n);
  const auto n_filters = static_cast<double>(kWinogradForm[form].n_filter() * kWinogradForm[form].n_filter());
  const int size = stride > 1 ? 1 : n / 2 - 2;  // coefficients are of 4, 6 and 8 points
  const WindowAxis& h = shape.window.axis[1];
  const WindowAxis& w = shape.window.axis[2];
  const bool on_input = pass == ConvPass::grad_input;
  const std::ptrdiff_t step = on_input ? m * stride : m;
  const double tiles =
      static_cast<double>(shape.n) * ceil_div(on_input ? h.in : h.out, step) * ceil_div(on_input ? w.in : w.out, step);
  const std::ptrdiff_t width = kernels().gemm_f32.width;
  const double vectors_c = ceil_div(shape.c, width);
  const double vectors_o = ceil_div(shape.o, width);
  const auto groups = static_cast<double>(shape.groups);
  const auto c = static_cast<double>(shape.c);
  const auto o = static_cast<double>(shape.o);
  ConvCosts work{};
  // Lanes run over the channels that are written; over the inputs in a weight gradient.
  const double lanes = groups * (pass == ConvPass::forward ? c * vectors_o : o * vectors_c);
  at(work, ConvCost::product) = n_points * tiles * lanes / 2;
  const double values = m != 5 ? 1 : stride == 1 ? kOfFive : kOfFivePhased;
  at(work, ConvCost::read, size) = values * tiles * ceil_div(shape.groups * (on_input ? shape.o : shape.c), width);
  at(work, ConvCost::write, size) =
      (r == 5 ? kWrite5 : values) * tiles * ceil_div(shape.groups * (on_input ? shape.c : shape.o), width);
  // The filters' transform, or its adjoint, is done once a call; forward keeps it between calls.
  at(work, ConvCost::filter, size) = pass == ConvPass::forward ? 0 : (r == 5 ? kFilter5 : 1) * groups * o * vectors_c;
  if (pass == ConvPass::grad_weight) {
    at(work, ConvCost::sum) = n_filters * lanes * std::ceil(tiles / kSumRows);
  }
  // Transformed filters are read once, a weight gradient's sums are written and read.
  at(work, ConvCost::byte) = far_bytes(4 * n_filters * groups * c * o) * (pass == ConvPass::grad_weight ? 2 : 1);
  return work;
}

double error_bound(int form) { return kWinogradErrorGrowth[static_cast<std::size_t>(form)] * 0x1p-24; }

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
  constexpr std::array<const char*, 6> names{"auto", "direct", "winograd2", "winograd4", "winograd5", "winograd6"};
  return names[static_cast<std::size_t>(algorithm)];
}
void set_error_budget(double budget) { error_budget = budget; }
double get_error_budget() { return error_budget; }
void set_batch_invariant(bool is_invariant) { batch_invariant = is_invariant; }
bool is_batch_invariant() { return batch_invariant; }

const char* conv_cost_name(int index) {
  constexpr std::array<const char*, kConvCosts> names{"gemm",   "tile",    "outer",   "copy",   "sum",    "product",
                                                      "byte",   "read2",   "read4",   "read6",  "write2", "write4",
                                                      "write6", "filter2", "filter4", "filter6"};
  return names[static_cast<std::size_t>(index)];
}
ConvCosts conv_costs(Isa isa) {
  ConvCosts costs = isa == Isa::avx512 || isa == Isa::generic512 ? kAvx512Costs : kAvx2Costs;
  const auto& measured = measured_costs[static_cast<std::size_t>(isa)];
  for (std::size_t i = 0; i < costs.size() && measured[0] > 0; ++i) {
    costs[i] = measured[i];
  }
  return costs;
}
void set_conv_costs(Isa isa, const ConvCosts& costs) {
  for (std::size_t i = 0; i < costs.size(); ++i) {
    measured_costs[static_cast<std::size_t>(isa)][i] = costs[i];
  }
}

bool goes_by_planes(ConvPass pass, const ConvShape& shape, std::ptrdiff_t lanes) {
  constexpr std::ptrdiff_t kMostChannels = 4;  // that are read
  // For a pixel of y, in cycles, where a vector's multiplication is half of one.
  constexpr double kRow = 20;      // of a product, besides its multiplications
  constexpr double kOuterRow = 6;  // likewise, of a weight gradient
  constexpr double kValue = 1.25;  // of one that goes to a plane, or comes from one
  const WindowAxis& depth = shape.window.axis[0];
  const WindowAxis& h = shape.window.axis[1];
  const WindowAxis& w = shape.window.axis[2];
  if (pass == ConvPass::grad_input || shape.groups > 1 || shape.c > kMostChannels || shape.o >= lanes || depth.in > 1 ||
      depth.out != 1 || depth.kernel > 1 || depth.pad_begin > 0 || shape.n * shape.c * shape.o * h.out * w.out == 0) {
    return false;
  }
  const auto values = static_cast<double>(shape.window.n_taps() * shape.c);
  const auto o = static_cast<double>(shape.o);
  const double filled = ceil_div(w.out, lanes) / static_cast<double>(w.out);  // vectors of a pixel
  const double planar = values * o * filled / 2;
  if (pass == ConvPass::forward) {
    return planar < values / 2 + kRow;
  }
  const double lines = static_cast<double>(h.kernel) * ceil_div(w.kernel * shape.c, lanes);  // vectors of x's values
  return planar + kValue * (static_cast<double>(shape.c * h.stride * w.stride) + o) < lines * o / 2 + kOuterRow;
}

int choose_winograd(ConvPass pass, const ConvShape& actual) {
  const ConvAlgorithm wanted = actual.algorithm != ConvAlgorithm::automatic ? actual.algorithm : conv_algorithm();
  if (wanted != ConvAlgorithm::automatic) {
    return form_of(wanted, pass, actual);
  }
  const ConvShape shape = planned(pass, actual);
  double least = cycles_of(direct_work(pass, shape));
  int chosen = -1;
  for (const ConvAlgorithm algorithm : kAlgorithms) {
    const int form = form_of(algorithm, pass, actual);
    if (form < 0 || error_bound(form) > get_error_budget()) {
      continue;
    }
    const double cycles = cycles_of(winograd_work(pass, shape, form));
    if (cycles < least) {
      least = cycles;
      chosen = form;
    }
  }
  return chosen;
}

std::vector<ConvAlgorithm> algorithms_for(ConvPass pass, const ConvShape& shape) {
  std::vector<ConvAlgorithm> found{algorithm_of(choose_winograd(pass, shape))};
  for (const ConvAlgorithm algorithm : kAlgorithms) {
    if (algorithm != found[0] && (algorithm == ConvAlgorithm::direct || form_of(algorithm, pass, shape) >= 0)) {
      found.push_back(algorithm);
    }
  }
  return found;
}

std::vector<ConvVerdict> explain_choice(ConvPass pass, const ConvShape& actual) {
  const ConvAlgorithm chosen = algorithm_of(choose_winograd(pass, actual));
  const ConvShape shape = planned(pass, actual);
  const auto width = static_cast<double>(kernels().gemm_f32.width);
  std::vector<ConvVerdict> verdicts;
  for (const ConvAlgorithm algorithm : kAlgorithms) {
    const bool is_direct = algorithm == ConvAlgorithm::direct;
    const int form = form_of(algorithm, pass, actual);
    const ConvCosts work = is_direct ? direct_work(pass, shape) : form < 0 ? ConvCosts{} : winograd_work(pass, shape, form);
    ConvVerdict verdict{.algorithm = algorithm_name(algorithm),
                        .is_chosen = algorithm == chosen,
                        .flops = 4 * width * cycles_of(work),
                        .work = work,
                        .error_bound = form < 0 ? 0 : error_bound(form),
                        .reason = {}};
    if (form < 0 && !is_direct) {
      const bool takes_two = algorithm == ConvAlgorithm::winograd4 || algorithm == ConvAlgorithm::winograd5;
      verdict.reason =
          text("needs float32, two spatial axes, a ", algorithm == ConvAlgorithm::winograd2 ? "3x3 or 5x5" : "3x3",
               " kernel, stride 1", takes_two ? " or 2 (then for grad_input with padding 1)" : "",
               ", no dilation, padding smaller than the kernel, one group or groups of 16 channels or more");
    } else if (conv_algorithm() != ConvAlgorithm::automatic) {
      verdict.reason = text("striate.machine.algorithm is set to ", algorithm_name(conv_algorithm()));
    } else if (form >= 0 && error_bound(form) > get_error_budget()) {
      verdict.reason = text("its bound is above the budget of ", get_error_budget());
    } else {
      verdict.reason = verdict.is_chosen ? "the least predicted time" : text("slower than ", algorithm_name(chosen));
    }
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

}  // namespace striate
