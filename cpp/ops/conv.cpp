// Convolution, its gradients and transposed convolution, for one to three spatial axes: checks, what follows the sums, and
// which kernels take them.
#include "machine/memory.hpp"
#include "ops/conv_passes.hpp"
#include "ops/depthwise.hpp"
#include "ops/map.hpp"
#include "ops/pointwise.hpp"
#include "ops/shape.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

Array channels_last(const Array& x) { return x.has_unit_channels() ? x : relayout(x, Layout::channels_last); }

std::span<const std::ptrdiff_t> spatial_sizes(const Extents& shape) {
  return {shape.begin() + 2, static_cast<std::size_t>(shape.rank() - 2)};
}

Extents output_shape(std::ptrdiff_t n, std::ptrdiff_t channels, const Window& window, std::ptrdiff_t WindowAxis::*field,
                     int rank) {
  Extents shape{n, channels};
  for (int axis = 2; axis < rank; ++axis) {
    shape.push_back(window.axis[static_cast<std::size_t>(axis + 3 - rank)].*field);
  }
  return shape;
}

// Checks shared by all passes; `x_shape` is (N, C, *spatial).
ConvGeometry make_geometry(const char* op, const Extents& x_shape, const Extents& weight_shape, const ConvParams& params) {
  check(weight_shape.rank() >= 3 && weight_shape.rank() <= 5, op,
        ": expected weight of 3 to 5 axes (O, C/groups, *kernel), got ", weight_shape, "; see the op's documentation");
  check(x_shape.rank() == weight_shape.rank(), op, ": expected x of ", weight_shape.rank(), " axes (N, C, *spatial), got ",
        x_shape, "; add the batch axis or choose the op for this many axes");
  check(params.groups >= 1, op, ": expected groups of at least 1, got ", params.groups, "; pass groups=1");
  check(weight_shape[0] % params.groups == 0, op, ": expected output channels divisible by groups=", params.groups,
        ", got weight.shape ", weight_shape, "; change groups or the weight");
  check(x_shape[1] % params.groups == 0 && x_shape[1] / params.groups == weight_shape[1], op,
        ": expected weight with C/groups = ", x_shape[1], "/", params.groups, " input channels, got ", weight_shape[1],
        " in weight.shape ", weight_shape, " with groups=", params.groups, "; x.shape is ", x_shape);
  WindowParams window = params.window;
  const auto kernel = spatial_sizes(weight_shape);
  window.kernel_size.assign(kernel.begin(), kernel.end());
  return {.window = make_window(op, spatial_sizes(x_shape), window),
          .n = x_shape[0],
          .groups = params.groups,
          .c = weight_shape[1],
          .o = weight_shape[0] / params.groups,
          .algorithm = params.algorithm};
}

void check_same_dtype(const char* op, const Array& x, const Array& weight) {
  check<DTypeError>(x.dtype() == weight.dtype(), op, ": expected tensors of one dtype, got ", dtype_name(x.dtype()), " and ",
                    dtype_name(weight.dtype()), "; convert one with .to()");
}

void check_bias(const char* op, const Array* bias, const Array& x, std::ptrdiff_t channels) {
  if (bias == nullptr) {
    return;
  }
  check_same_dtype(op, x, *bias);
  check(bias->rank() == 1 && bias->shape(0) == channels, op, ": expected bias of shape (", channels, ",), got ",
        bias->shape(), "; one value per output channel");
}

// Whether the kernels of few channels a group take this pass.
bool goes_by_groups(ConvPass pass, const ConvGeometry& geometry, const Extents& x_shape, const Extents& weight_shape,
                    DType dtype) {
  return depthwise_applies(dtype, x_shape[1], weight_shape, geometry.groups) &&
         choose_winograd(pass, shape_of(geometry, x_shape.rank(), dtype)) < 0;
}

// Whether a clamp follows the sums at once, with no addend between.
bool clamps_sums(const Fused& fused) { return fused.clamps && (fused.add == nullptr || fused.adds_last); }

// What follows the sums; `bias` is the dense copy of fused.bias that keeps the pointer alive.
GemmTail make_tail(const Fused& fused, const Array& bias, bool clamps) {
  return {.bias = fused.bias == nullptr ? nullptr : static_cast<const void*>(bias.bytes()),
          .clamps = clamps,
          .lo = fused.lo,
          .hi = fused.hi};
}

// Where a result goes: fused.into where the kernels can write there, else new memory.
Array make_result(const char* op, DType dtype, const Extents& shape, const Fused& fused, bool takes_strides) {
  if (fused.into == nullptr) {
    return Array::empty(dtype, shape, Layout::channels_last);
  }
  check(fused.into->shape() == shape && fused.into->dtype() == dtype, op, ": expected memory of shape ", shape,
        " for the result, got ", fused.into->shape(), "; it must match");
  return takes_strides && fused.add == nullptr && fused.into->has_unit_channels()
             ? *fused.into
             : Array::empty(dtype, shape, Layout::channels_last);
}

// The result as the caller wants it: copied to fused.into unless it was computed there.
Array delivered(const Array& y, const Fused& fused) {
  if (fused.into == nullptr || y.bytes() == fused.into->bytes()) {
    return y;
  }
  copy_into(*fused.into, y);
  return *fused.into;
}

// A second operand of what follows, as y lies in memory.
Array dense_operand(const char* op, const char* what, const Array* operand, const Array& y) {
  if (operand == nullptr) {
    return {};
  }
  check_same_dtype(op, y, *operand);
  check(operand->shape() == y.shape(), op, ": expected ", what, " of the result's shape ", y.shape(), ", got ",
        operand->shape(), "; broadcast it first");
  return relayout(*operand, Layout::channels_last);
}

// A convolution's result, with what `fused` says behind it; run(y, tail) computes it.
template <class T, class F>
Array delivered_product(const char* op, const Array& weight, const Fused& fused, const ConvGeometry& geometry, RowSums* sums,
                        F&& run) {
  const Extents y_shape = output_shape(geometry.n, weight.shape(0), geometry.window, &WindowAxis::out, weight.rank());
  const Array y = make_result(op, weight.dtype(), y_shape, fused, true);
  const Array bias = dense_bias(fused);
  const Array addend = dense_operand(op, "an addend", fused.add, y);
  const Finish finish(fused, y, addend, true);
  GemmTail tail = make_tail(fused, bias, fused.clamps);
  tail.finish = finish.is_empty() ? nullptr : &finish;
  tail.sums = sums;
  tail.result = &y;
  if (fused.add != nullptr && !fused.adds_last) {
    tail.adds = true;
    tail.addend = addend.data<T>() - y.data<T>();
  }
  run(y, tail);
  return delivered(y, fused);
}

}  // namespace

Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params) {
  return conv(op, x, weight, fused, params, nullptr);
}

Array conv(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
           RowSums* sums) {
  check_same_dtype(op, x, weight);
  const ConvGeometry geometry = make_geometry(op, x.shape(), weight.shape(), params);
  check_bias(op, fused.bias, x, weight.shape(0));
  if (goes_by_groups(ConvPass::forward, geometry, x.shape(), weight.shape(), x.dtype())) {
    const Extents y_shape = output_shape(geometry.n, weight.shape(0), geometry.window, &WindowAxis::out, x.rank());
    const Array y = make_result(op, x.dtype(), y_shape, fused, false);
    const Array addend = dense_operand(op, "an addend", fused.add, y);
    Fused first = fused;
    first.clamps = clamps_sums(fused);
    depthwise_conv(op, x, weight, y, first, params, sums, Finish(fused, y, addend, false));
    return delivered(y, fused);
  }
  return dispatch_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    return delivered_product<T>(op, weight, fused, geometry, sums, [&](const Array& y, const GemmTail& tail) {
      run_forward<T>(channels_last(x), weight, y, tail, geometry);
    });
  });
}

template <class T>
Array pointwise_conv(const char* op, const Extents& x_shape, const RowSource<T>& pixels, const Array& weight,
                     const Fused& fused) {
  constexpr DType dtype = std::is_same_v<T, double> ? DType::float64 : DType::float32;
  check<DTypeError>(weight.dtype() == dtype, op, ": expected tensors of one dtype, got ", dtype_name(dtype), " and ",
                    dtype_name(weight.dtype()), "; convert one with .to()");
  const ConvGeometry geometry = make_geometry(op, x_shape, weight.shape(), pointwise_params(weight));
  check(geometry.window.n_taps() == 1, op, ": expected a pointwise weight (O, C, 1, ...), got ", weight.shape(),
        "; only products of pixels go by rows that are made");
  check_bias(op, fused.bias, weight, weight.shape(0));
  return delivered_product<T>(op, weight, fused, geometry, nullptr, [&](const Array& y, const GemmTail& tail) {
    run_pointwise<T>(pixels, weight, y, tail, geometry);
  });
}
template Array pointwise_conv(const char*, const Extents&, const RowSource<float>&, const Array&, const Fused&);
template Array pointwise_conv(const char*, const Extents&, const RowSource<double>&, const Array&, const Fused&);

Extents conv_shape(const char* op, const Extents& x_shape, const Extents& weight_shape, const ConvParams& params) {
  const ConvGeometry geometry = make_geometry(op, x_shape, weight_shape, params);
  return output_shape(geometry.n, weight_shape[0], geometry.window, &WindowAxis::out, x_shape.rank());
}

std::vector<ConvVerdict> explain_conv(const char* op, ConvPass pass, const Extents& x_shape, const Extents& weight_shape,
                                      const ConvParams& params, DType dtype) {
  const ConvGeometry geometry = make_geometry(op, x_shape, weight_shape, params);
  const bool has_groups = depthwise_applies(dtype, x_shape[1], weight_shape, params.groups);
  ConvShape shape = shape_of(geometry, x_shape.rank(), dtype);
  std::vector<ConvVerdict> verdicts = explain_choice(pass, shape);
  shape.dtype = dtype;
  const double flops = has_groups ? depthwise_flops(pass, shape) : 0;
  if (has_groups && weight_shape[1] == 1) {
    return {{.algorithm = "depthwise",
             .is_chosen = true,
             .flops = flops,
             .work = {},
             .error_bound = 0,
             .reason = "every channel is a group of its own: memory, not arithmetic, sets the time"}};
  }
  if (has_groups) {
    verdicts[0].algorithm = "grouped";  // directly, with groups of few channels that share a vector or a tile's pixels
  }
  if (flops > 0) {
    verdicts[0].flops = flops;
    verdicts[0].work = {};
  }
  return verdicts;
}

std::vector<ConvAlgorithm> conv_algorithms(const char* op, ConvPass pass, const Extents& x_shape,
                                           const Extents& weight_shape, const ConvParams& params, DType dtype) {
  const ConvGeometry geometry = make_geometry(op, x_shape, weight_shape, params);
  return algorithms_for(pass, shape_of(geometry, x_shape.rank(), dtype));
}

Array conv_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                      const ConvParams& params, const GradTail& grad_tail) {
  check_same_dtype(op, grad_y, weight);
  const ConvGeometry geometry = make_geometry(op, x_shape, weight.shape(), params);
  const Extents y_shape = output_shape(geometry.n, weight.shape(0), geometry.window, &WindowAxis::out, x_shape.rank());
  check(grad_y.shape() == y_shape, op, ": expected grad_y of shape ", y_shape, ", got ", grad_y.shape(),
        "; it must match the output");
  const bool by_groups = goes_by_groups(ConvPass::grad_input, geometry, x_shape, weight.shape(), grad_y.dtype());
  const Array grad_x = by_groups ? depthwise_conv_grad_input(op, grad_y, weight, x_shape, params)
                                 : Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
  const Array addend = dense_operand(op, "an addend", grad_tail.add, grad_x);
  const Array relu = dense_operand(op, "the result of a ReLU", grad_tail.relu, grad_x);
  const Finish finish(grad_x, grad_tail.add == nullptr ? nullptr : &addend, grad_tail.relu == nullptr ? nullptr : &relu);
  if (by_groups) {
    finish.run(grad_x);
    return grad_x;
  }
  dispatch_float(op, grad_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    // Lines are added up; phases do not write neighbours, and some may have no taps.
    if (geometry.window.is_strided() || goes_by_lines<T>(geometry)) {
      run_grad_input<T>(channels_last(grad_y), weight, grad_x, {}, geometry);
      finish.run(grad_x);
      return;
    }
    GemmTail tail;
    if (grad_tail.add != nullptr) {
      tail.adds = true;
      tail.addend = addend.data<T>() - grad_x.data<T>();
    }
    if (grad_tail.relu != nullptr) {
      tail.gates = true;
      tail.gate = relu.data<T>() - grad_x.data<T>();
    }
    run_grad_input<T>(channels_last(grad_y), weight, grad_x, tail, geometry);
  });
  return grad_x;
}

Array conv_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                       const ConvParams& params) {
  check_same_dtype(op, grad_y, x);
  const ConvGeometry geometry = make_geometry(op, x.shape(), weight_shape, params);
  const Extents y_shape = output_shape(geometry.n, weight_shape[0], geometry.window, &WindowAxis::out, x.rank());
  check(grad_y.shape() == y_shape, op, ": expected grad_y of shape ", y_shape, ", got ", grad_y.shape(),
        "; it must match the output");
  if (goes_by_groups(ConvPass::grad_weight, geometry, x.shape(), weight_shape, x.dtype())) {
    return depthwise_conv_grad_weight(op, grad_y, x, weight_shape, params);
  }
  const Array grad_weight = Array::empty(x.dtype(), weight_shape, Layout::channels_last);
  dispatch_float(op, x.dtype(), [&](auto zero) {
    run_grad_weight<decltype(zero)>(channels_last(grad_y), channels_last(x), grad_weight, geometry);
  });
  return grad_weight;
}

namespace {

// The convolution of which a transposed convolution is the data gradient: its input is the result, its output is x.
ConvGeometry make_transposed_geometry(const char* op, const Extents& x_shape, const Extents& weight_shape,
                                      const ConvParams& params, std::span<const std::ptrdiff_t> output_padding) {
  check(weight_shape.rank() >= 3 && weight_shape.rank() <= 5, op,
        ": expected weight of 3 to 5 axes (C, O/groups, *kernel), got ", weight_shape, "; see the op's documentation");
  check(x_shape.rank() == weight_shape.rank(), op, ": expected x of ", weight_shape.rank(), " axes (N, C, *spatial), got ",
        x_shape, "; add the batch axis or choose the op for this many axes");
  check(x_shape[1] == weight_shape[0], op, ": expected weight with C = ", x_shape[1], " input channels first, got ",
        weight_shape[0], " in weight.shape ", weight_shape, "; the layout is (C, O/groups, *kernel)");
  check(params.groups >= 1 && x_shape[1] % params.groups == 0, op, ": expected input channels divisible by groups, got ",
        x_shape[1], " with groups=", params.groups, "; change groups");
  WindowParams window = params.window;
  const auto kernel = spatial_sizes(weight_shape);
  window.kernel_size.assign(kernel.begin(), kernel.end());
  return {.window = make_transposed_window(op, spatial_sizes(x_shape), window, output_padding),
          .n = x_shape[0],
          .groups = params.groups,
          .c = weight_shape[1],
          .o = weight_shape[0] / params.groups,
          .algorithm = params.algorithm};
}

}  // namespace

std::vector<ConvAlgorithm> conv_transpose_algorithms(const char* op, ConvPass pass, const Extents& x_shape,
                                                     const Extents& weight_shape, const ConvParams& params,
                                                     std::span<const std::ptrdiff_t> output_padding, DType dtype) {
  const ConvGeometry geometry = make_transposed_geometry(op, x_shape, weight_shape, params, output_padding);
  const ConvPass of_convolution = pass == ConvPass::forward      ? ConvPass::grad_input
                                  : pass == ConvPass::grad_input ? ConvPass::forward
                                                                 : pass;
  return algorithms_for(of_convolution, shape_of(geometry, x_shape.rank(), dtype));
}

Array conv_transpose(const char* op, const Array& x, const Array& weight, const Fused& fused, const ConvParams& params,
                     std::span<const std::ptrdiff_t> output_padding) {
  check_same_dtype(op, x, weight);
  const ConvGeometry geometry = make_transposed_geometry(op, x.shape(), weight.shape(), params, output_padding);
  check_bias(op, fused.bias, x, geometry.c * geometry.groups);
  const Extents y_shape = output_shape(geometry.n, geometry.c * geometry.groups, geometry.window, &WindowAxis::in, x.rank());
  const Array y = make_result(op, x.dtype(), y_shape, fused, fused.map < 0);  // what follows goes over the whole result
  dispatch_float(op, x.dtype(), [&](auto zero) {
    const Array bias = dense_bias(fused);
    run_grad_input<decltype(zero)>(channels_last(x), weight, y, make_tail(fused, bias, clamps_sums(fused)), geometry);
    Finish(fused, y, dense_operand(op, "an addend", fused.add, y), false).run(y);
  });
  return delivered(y, fused);
}

Array conv_transpose_grad_input(const char* op, const Array& grad_y, const Array& weight, const Extents& x_shape,
                                const ConvParams& params, std::span<const std::ptrdiff_t> output_padding) {
  check_same_dtype(op, grad_y, weight);
  const ConvGeometry geometry = make_transposed_geometry(op, x_shape, weight.shape(), params, output_padding);
  const Array grad_x = Array::empty(grad_y.dtype(), x_shape, Layout::channels_last);
  dispatch_float(op, grad_y.dtype(),
                 [&](auto zero) { run_forward<decltype(zero)>(channels_last(grad_y), weight, grad_x, {}, geometry); });
  return grad_x;
}

Array conv_transpose_grad_weight(const char* op, const Array& grad_y, const Array& x, const Extents& weight_shape,
                                 const ConvParams& params, std::span<const std::ptrdiff_t> output_padding) {
  check_same_dtype(op, grad_y, x);
  const ConvGeometry geometry = make_transposed_geometry(op, x.shape(), weight_shape, params, output_padding);
  const Array grad_weight = Array::empty(x.dtype(), weight_shape, Layout::channels_last);
  dispatch_float(op, x.dtype(), [&](auto zero) {
    run_grad_weight<decltype(zero)>(channels_last(x), channels_last(grad_y), grad_weight, geometry);
  });
  return grad_weight;
}

}  // namespace striate
