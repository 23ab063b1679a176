// Operators: pure functions of Arrays. Each checks its arguments once, allocates its result and runs in parallel.
#pragma once

#include <array>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "striate/machine.hpp"
#include "striate/tensor.hpp"
#include "striate/window.hpp"

namespace striate {

// ---- convolution (ops/conv.cpp) ----

// Which algorithm float32 convolutions take. `automatic` decides by a cost model among those whose error growth is within
// the budget; another one is taken wherever it applies (Winograd: two spatial axes, 3×3, for winograd2 also 5×5, stride 1,
// for winograd4 also 2, no dilation, one group or groups of 16 channels or more), else direct.
enum class ConvAlgorithm : int { automatic, direct, winograd2, winograd4, winograd5, winograd6 };

struct ConvParams {
  WindowParams window;  // kernel_size is taken from the weight
  std::ptrdiff_t groups = 1;
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;  // of this call, before what is set for all; automatic: as is set
};

// What may be fused behind a convolution or a linear layer: y = f(acc + bias + add), or f(acc + bias) + add, where f is a
// clamp to [lo, hi], an element-wise operator of one operand, or nothing.
struct Fused {
  const Array* bias = nullptr;
  const Array* add = nullptr;  // of the result's shape and dtype
  bool adds_last = false;
  bool clamps = false;
  double lo = 0;
  double hi = 0;
  int map = -1;  // find_map_op, with its parameters a and b
  double a = 0;
  double b = 0;
  const Array* into = nullptr;  // convolutions: memory of the result's shape, neighbouring channels, to write it to
};

// What may be fused before a pointwise convolution, which reads f((x − mean)·scale + shift), f nothing or min(max(·, 0),
// most), or x·gate, made where it is multiplied.
struct Prologue {
  const Array* mean = nullptr;   // (C,), or null for 0
  const Array* scale = nullptr;  // (C,), or null for 1
  const Array* shift = nullptr;  // (C,), or null for 0
  const Array* gate = nullptr;   // (N, C, 1, …); then there is no scale
  bool has_relu = false;
  double most = std::numeric_limits<double>::quiet_NaN();  // NaN: no upper end
};

// What may be fused behind a data gradient: y = acc + add, and 0 where `relu`, what a ReLU gave, is not positive: the
// gradient of that ReLU. Both of the result's shape and dtype.
struct GradTail {
  const Array* add = nullptr;
  const Array* relu = nullptr;
};

// Of all convolutions whose call names none.
void set_conv_algorithm(ConvAlgorithm algorithm);
[[nodiscard]] ConvAlgorithm conv_algorithm();
[[nodiscard]] const char* algorithm_name(ConvAlgorithm algorithm);

// The error an algorithm may add, relative to Σ|x||w| over a tile: u = 2⁻²⁴ times the growth of its transforms, below.
inline constexpr double kDefaultErrorBudget = 1e-5;
void set_error_budget(double budget);
[[nodiscard]] double get_error_budget();
// Whether a forward pass and a data gradient take the algorithm of batch 1, so that a sample's bits do not depend on the
// batch it is in.
void set_batch_invariant(bool is_invariant);
[[nodiscard]] bool is_batch_invariant();
// |Aᵀ|[(|G| 1 |Gᵀ|) ⊙ (|Bᵀ| 1 |B|)]|A| / r², its largest element, for F(2×2, 3×3), F(4×4, 3×3), F(6×6, 3×3), F(2×2, 5×5),
// and F(4×4, 3×3) and F(5×5, 3×3) of stride 2, and F(5×5, 3×3).
inline constexpr std::array<double, 7> kWinogradErrorGrowth{7.1112, 62.651, 508.754, 45.2711, 21.7519, 44.6025, 164.065};

enum class ConvPass : int { forward = 1, grad_input = 2, grad_weight = 3 };

// The cost model: the cycles that one core takes are a sum of kinds of work, each with a coefficient.
//   gemm      pairs of vector multiply-adds of the indirect GEMM
//   tile      register tiles times taps
//   outer     pairs of vector multiply-adds of a weight gradient
//   copy      values that a weight gradient copies first
//   sum       vectors of its sums that are read and written
//   product   pairs of vector multiply-adds between Winograd's transforms
//   byte      bytes of weights or of sums from behind L2
//   read, write, filter   vectors of channels times tiles (or filters) that F(2×2), F(4×4), F(6×6) of 3×3 transform: of the
//             side that is read, of the side that is written, of filters
enum class ConvCost : int { gemm, tile, outer, copy, sum, product, byte, read, write = 10, filter = 13 };
inline constexpr int kConvCosts = 16;
using ConvCosts = std::array<double, kConvCosts>;
[[nodiscard]] const char* conv_cost_name(int index);
[[nodiscard]] ConvCosts conv_costs(Isa isa);
// Coefficients measured on this machine in place of the shipped ones; all zero: the shipped ones.
void set_conv_costs(Isa isa, const ConvCosts& costs);

// What the choice thinks of one algorithm for one convolution.
struct ConvVerdict {
  const char* algorithm;
  bool is_chosen;
  double flops;        // what one core at its peak could do in the predicted time; 0 where there is no prediction
  ConvCosts work;      // what the prediction is made of
  double error_bound;  // that it adds to the direct algorithm's, relative to Σ|x||w| over a tile
  std::string reason;
};
// All algorithms for one pass of a convolution of these shapes, as it would run now.
[[nodiscard]] std::vector<ConvVerdict> explain_conv(const char* op, ConvPass pass, const Extents& x_shape,
                                                    const Extents& weight_shape, const ConvParams& params, DType dtype);

// The algorithms that this pass can take, the first being the one that it would take now.
[[nodiscard]] std::vector<ConvAlgorithm> conv_algorithms(const char* op, ConvPass pass, const Extents& x_shape,
                                                         const Extents& weight_shape, const ConvParams& params, DType dtype);
// Likewise of a transposed convolution, whose forward pass is the data gradient of a convolution.
[[nodiscard]] std::vector<ConvAlgorithm> conv_transpose_algorithms(const char* op, ConvPass pass, const Extents& x_shape,
                                                                   const Extents& weight_shape, const ConvParams& params,
                                                                   std::span<const std::ptrdiff_t> output_padding,
                                                                   DType dtype);

// x (N, C, *spatial), weight (O, C / groups, *kernel), bias (O,) → y (N, O, *out), channels-last.
[[nodiscard]] Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params);
[[nodiscard]] Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
                         const Prologue& first);
// The shape of its result, (N, O, *out).
[[nodiscard]] Extents conv_shape(const char* op, const Extents& x_shape, const Extents& weight_shape,
                                 const ConvParams& params);
// A depthwise convolution (params, and what `first` says behind it except an addend), then a pointwise one (`fused`): equal
// to two calls to the bit, without the image between where it is large.
[[nodiscard]] Array separable_conv(const char* op, const Array& x, const Array& depthwise_weight, const Fused& first,
                                   const ConvParams& params, const Array& pointwise_weight, const Fused& fused);
// grad_y (N, O, *out) → grad_x (N, C, *spatial).
[[nodiscard]] Array conv_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                                    const ConvParams& params, const GradTail& grad_tail = {});
// → grad_weight (O, C / groups, *kernel), stored like a weight.
[[nodiscard]] Array conv_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                                     const ConvParams& params);

// x (N, C, *spatial), weight (C, O / groups, *kernel) → y (N, O, *out): the data gradient of a convolution from O to C
// channels.
[[nodiscard]] Array conv_transpose(const char* op, const Array& x, const Array& weight, const Fused& fused,
                                   const ConvParams& params, std::span<const std::ptrdiff_t> output_padding);
[[nodiscard]] Array conv_transpose_grad_input(const char* op, const Array& grad_y, const Array& weight,
                                              const Extents& x_shape, const ConvParams& params,
                                              std::span<const std::ptrdiff_t> output_padding);
[[nodiscard]] Array conv_transpose_grad_weight(const char* op, const Array& grad_y, const Array& x,
                                               const Extents& weight_shape, const ConvParams& params,
                                               std::span<const std::ptrdiff_t> output_padding);

// ---- matrix products (ops/linear.cpp) ----

// x (…, K), weight (N, K), bias (N,) → y (…, N).
[[nodiscard]] Array linear(const Array& x, const Array& weight, const Fused& fused);
// a (…, M, K), b (…, K, N) → (…, M, N); leading axes broadcast; rank-1 operands as in NumPy's matmul.
[[nodiscard]] Array matmul(const Array& a, const Array& b);

// ---- pooling (ops/max_pool.cpp, ops/avg_pool.cpp) ----

// x (N, C, *spatial) → y (N, C, *out), channels-last. Padding counts as −∞ for a maximum and as 0 for a mean.
struct PoolParams {
  WindowParams window;
  std::vector<std::ptrdiff_t> output_size;  // adaptive pooling, which ignores `window`: −1 keeps an axis
  bool count_include_pad = true;            // mean: padding is counted
  std::ptrdiff_t divisor_override = 0;      // mean: divide by this instead of the count; 0 is off
};

struct MaxPooled {
  Array y;
  Array taps;  // uint8 or int32, laid out as y: which tap each maximum came from
};

[[nodiscard]] Array max_pool(const char* op, const Array& x, const PoolParams& params);
[[nodiscard]] MaxPooled max_pool_taps(const char* op, const Array& x, const PoolParams& params);
// grad_y → grad_x: each gradient goes to the place its maximum came from, sums in rising order of outputs.
[[nodiscard]] Array max_pool_grad(const char* op, const Array& grad_y, const Array& taps, const Extents& x_shape,
                                  const PoolParams& params);
// The adjoint of max_pool_grad: reads x where the maxima came from.
[[nodiscard]] Array max_pool_pick(const char* op, const Array& x, const Array& taps, const PoolParams& params);
// int64 positions in the flattened spatial axes of x.
[[nodiscard]] Array max_pool_indices(const char* op, const Array& taps, const Extents& x_shape, const PoolParams& params);

// Σ / count by the divisor rule of PoolParams, and its adjoint.
[[nodiscard]] Array avg_pool(const char* op, const Array& x, const PoolParams& params);
[[nodiscard]] Array avg_pool_grad(const char* op, const Array& grad_y, const Extents& x_shape, const PoolParams& params);

// ---- shape (ops/shape.cpp, ops/index.cpp) ----

// A view when strides allow, else a row-major (or channels-last) copy in logical order.
[[nodiscard]] Array reshape(const Array& x, const Extents& shape, bool to_channels_last = false);
// A view of x[begin + step · i] per axis, step at least 1; and its gradient, zero outside.
[[nodiscard]] Array slice(const Array& x, const Extents& begin, const Extents& size, const Extents& step);
[[nodiscard]] Array slice_grad(const Array& grad_y, const Extents& shape, const Extents& begin, const Extents& step);
[[nodiscard]] std::vector<Array> split(const Array& x, std::span<const std::ptrdiff_t> sizes, int dim);
[[nodiscard]] Array concat(std::span<const Array> tensors, int dim);  // laid out as the largest of them
[[nodiscard]] Array flip(const Array& x, std::span<const int> dims);
[[nodiscard]] Array pixel_shuffle(const Array& x, std::ptrdiff_t factor);
[[nodiscard]] Array pixel_unshuffle(const Array& x, std::ptrdiff_t factor);
[[nodiscard]] Array triangle(const Array& x, std::ptrdiff_t diagonal, bool is_upper);

// y[…, i, …] = x[…, index[…, i, …], …] at axis dim; and the sum of src over the places that index names.
[[nodiscard]] Array gather(const Array& x, const Array& index, int dim);
[[nodiscard]] Array scatter_add(const Array& src, const Array& index, const Extents& shape, int dim);
// y[p, …] = x[i₀[p], i₁[p], …, …] for index tensors of one shape over the first axes, negative ones from the end.
[[nodiscard]] Array index_rows(const Array& x, std::span<const Array> indices);
[[nodiscard]] Array index_add(const Array& grad_y, std::span<const Array> indices, const Extents& shape);
[[nodiscard]] Array nonzero(const Array& mask);                         // (rank, count) int64, in row-major order
[[nodiscard]] Array one_hot(const Array& x, std::ptrdiff_t n_classes);  // int64; n_classes < 0: the largest index + 1

// ---- copies (ops/copy.cpp) ----

[[nodiscard]] Array clone(const Array& x);  // dense, in x's own order of axes
[[nodiscard]] Array convert(const Array& x,
                            DType dtype);  // likewise; floats round to nearest even, to integers they truncate
[[nodiscard]] Array relayout(const Array& x,
                             Layout layout);  // x itself when it has the layout; else a copy, and it is counted

// A copy of x; throws NonFiniteError, naming x by `what`, where an element is not finite. For the few numbers that a pass
// depends on, such as a loss.
[[nodiscard]] Array require_finite(const Array& x, const std::string& what);

// ---- element-wise (ops/map.cpp) ----

// Operators are found by name once and called by index; kernels/map.hpp lists them.
struct MapInfo {
  const char* name;
  int n_inputs;
  const char* parameters[2];  // null: unused
};
[[nodiscard]] int n_map_ops();
[[nodiscard]] MapInfo map_info(int op);
[[nodiscard]] int find_map_op(const char* name);  // throws std::invalid_argument
[[nodiscard]] Array map(int op, std::span<const Array* const> inputs, double a = 0, double b = 0);
// The dtype that operands promote to, by PyTorch's rule; throws DTypeError.
[[nodiscard]] DType result_type(const char* op, std::span<const Array* const> operands);

// ---- reductions (ops/reduce.cpp) ----

// op: 0 sum, 1 product, 2 maximum, 3 minimum; no dims means all. Sums and products of integers are int64.
[[nodiscard]] Array reduce(int op, const Array& x, std::span<const int> dims, bool keepdim);
// Σ x / n of float32 or float64.
[[nodiscard]] Array mean(const Array& x, std::span<const int> dims, bool keepdim);
// Its gradient, of `shape`: grad_y viewed as `kept`, where the axes of the mean have size 1, over the number of its
// elements.
[[nodiscard]] Array mean_grad(const Array& grad_y, const Extents& kept, const Extents& shape);

// ---- rows along one axis (ops/softmax.cpp) ----

// op: 0 softmax(x), 1 log_softmax(x), 2 and 3 their gradients (x is grad_y, y the output). dim = 1 gives channels-last.
[[nodiscard]] Array rows_op(int op, const Array& x, const Array* y, int dim);
// Index of the first largest (or smallest) element over dim, or in the flattened array; int64. NaN wins.
[[nodiscard]] Array argument(const char* op, bool is_max, const Array& x, int dim, bool is_flat, bool keepdim);

// −Σ_c w[c]·((1 − smoothing)·[c = t] + smoothing / C)·log p[c], x (N, C, …), target (N, …) of integers.
enum class Reduction : int { none, sum, mean };
struct ClassLossParams {
  bool is_logits;  // x are logits (cross-entropy), else log-probabilities (nll)
  double smoothing;
  std::int64_t ignore_index;
  Reduction reduction;  // the mean divides by the weights of the targets that count
};
struct ClassLoss {
  Array loss;
  Array log_sum;  // per target, for the gradient
  Array total;    // Σ of the targets' weights
};
[[nodiscard]] ClassLoss class_loss(const char* op, const Array& x, const Array& target, const Array* weight,
                                   const ClassLossParams& params);
[[nodiscard]] Array class_loss_grad(const char* op, const Array& grad_y, const Array& x, const Array& target,
                                    const Array* weight, const Array& log_sum, const Array& total,
                                    const ClassLossParams& params);

// ---- random numbers (ops/random.cpp) ----

// Draw number `call` of the generator `seed`; element e in memory order depends on (seed, call, e) only.
struct Draw {
  std::uint64_t seed;
  std::uint64_t call;
};
[[nodiscard]] Array random_uniform(const Extents& shape, DType dtype, const Draw& draw);  // [0, 1)
[[nodiscard]] Array random_normal(const Extents& shape, DType dtype, const Draw& draw);
// low … high − 1
[[nodiscard]] Array random_integers(const Extents& shape, std::int64_t low, std::int64_t high, const Draw& draw);
[[nodiscard]] Array random_permutation(std::ptrdiff_t n, const Draw& draw);
// False with probability p; laid out as `like`.
[[nodiscard]] Array random_mask(const Array& like, double p, const Draw& draw);

// ---- normalisation (ops/batch_norm.cpp) ----

// Per channel of x (N, C, *spatial): mean, biased variance (C,), and y = (x − mean)/√(var + eps)·weight + bias.
// weight and bias (C,) may be null.
struct BatchNormed {
  Array y;
  Array mean;
  Array var;
};
// With a tail y is that plus `add`, then through a ReLU, which ends at `most` where that is a number.
struct NormTail {
  const Array* add = nullptr;  // of x's shape
  bool has_relu = false;
  double most = std::numeric_limits<double>::quiet_NaN();
};
[[nodiscard]] BatchNormed batch_norm_training(const char* op, const Array& x, const Array* weight, const Array* bias,
                                              double eps, const NormTail& tail = {});
// y = (x − mean)/√(var + eps)·weight + bias with statistics given.
[[nodiscard]] Array batch_norm_eval(const char* op, const Array& x, const Array& mean, const Array& var, const Array* weight,
                                    const Array* bias, double eps, const NormTail& tail = {});

// What it multiplies x − mean by: weight/√(var + eps), (C,).
[[nodiscard]] Array batch_norm_scale(const Array& var, const Array* weight, double eps);

// A convolution with its result's statistics, which are taken where the rows are made; nothing but a bias may follow it.
[[nodiscard]] BatchNormed conv_moments(const char* op, const Array& x, const Array& weight, const Array* bias,
                                       const ConvParams& params);

struct NormGradients {
  Array grad_x;
  Array grad_weight;
  Array grad_bias;
};
// `is_training`: mean and var depend on x. All three gradients come from the same two passes. With a ReLU in the tail, which
// has no addend, grad_y is that behind it; weight and bias tell again from x where it passes.
[[nodiscard]] NormGradients batch_norm_grad(const char* op, const Array& grad_y, const Array& x, const Array* weight,
                                            const Array& mean, const Array& var, double eps, bool is_training,
                                            const NormTail& tail = {}, const Array* bias = nullptr);
// Statistics per image and group (N, groups), or per row (rows,).
struct GroupNormed {
  Array y;
  Array mean;
  Array invstd;
};
// Each group of channels of each image, normalised by its own statistics; groups == C is an instance norm.
// (ops/group_norm.cpp)
[[nodiscard]] GroupNormed group_norm(const char* op, const Array& x, std::ptrdiff_t groups, const Array* weight,
                                     const Array* bias, double eps);
[[nodiscard]] NormGradients group_norm_grad(const char* op, const Array& grad_y, const Array& x, const Array* weight,
                                            const Array& mean, const Array& invstd, std::ptrdiff_t groups);
// Rows over the last n_axes axes; weight and bias have their shape. (ops/layer_norm.cpp)
[[nodiscard]] GroupNormed layer_norm(const char* op, const Array& x, int n_axes, const Array* weight, const Array* bias,
                                     double eps);
[[nodiscard]] NormGradients layer_norm_grad(const char* op, const Array& grad_y, const Array& x, int n_axes,
                                            const Array* weight, const Array& mean, const Array& invstd);
// running ← (1 − momentum)·running + momentum·value in place, value being the mean and n / (n − 1) times the variance of a
// batch.
void batch_norm_update(const char* op, const Array& running_mean, const Array& running_var, const Array& mean,
                       const Array& var, std::ptrdiff_t n, double momentum);

// ---- the machine's own limits (ops/probe.cpp) ----

enum class Stream : std::uint8_t { copy, copy_nt, triad, read };

// Floating-point operations per second of independent multiply-adds on all threads, with the vectors of the active
// instruction set. Runs for about `seconds`; the best of several stretches.
[[nodiscard]] double measure_fma(DType dtype, double seconds);
// Bytes per second that a stream over `bytes` per array moves on all threads, reads plus writes, best of `repeats`.
[[nodiscard]] double measure_stream(Stream stream, std::ptrdiff_t bytes, int repeats);

// ---- resizing and padding (ops/resample.cpp, ops/pad.cpp) ----

struct ResampleParams {
  std::vector<std::ptrdiff_t> size;  // of the spatial axes of y
  std::vector<double> scale_factor;  // as given, per axis; 0 where only the size is known
  bool is_bilinear = false;          // else nearest
  bool align_corners = false;
  bool antialias = false;
};
// x (N, C, *spatial) → y (N, C, *size), channels-last; and its adjoint.
[[nodiscard]] Array resample(const char* op, const Array& x, const ResampleParams& params);
[[nodiscard]] Array resample_grad(const char* op, const Array& grad_y, const Extents& x_shape, const ResampleParams& params);

// Axis i grows by begin[i] and end[i] elements of `value`; a negative count crops.
[[nodiscard]] Array pad(const Array& x, const Extents& begin, const Extents& end, double value);

}  // namespace striate
