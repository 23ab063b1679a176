// Every operator that a graph may hold, by the name and the attributes it is recorded with.
#include "program/call.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>
#include <string_view>

#include "ops/map.hpp"
#include "striate/optim.hpp"
#include "striate/state.hpp"

namespace striate {
namespace {

using Results = std::span<Array>;
using Make = Call (*)(const Attributes& a);

const Array* given(Operands in, std::size_t i) { return i < in.size() ? in[i] : nullptr; }

std::vector<Array> rest(Operands in, std::size_t first) {
  std::vector<Array> arrays;
  for (std::size_t i = first; i < in.size(); ++i) {
    arrays.push_back(*in[i]);
  }
  return arrays;
}

bool ends_with(const std::string& name, std::string_view tail) { return std::string_view(name).ends_with(tail); }
bool starts_with(const std::string& name, std::string_view head) { return std::string_view(name).starts_with(head); }

// ---- convolution and products ----

// Channels from `at` on of a buffer, as many as the shape says.
Array channels_of(const Array& buffer, std::ptrdiff_t at, std::ptrdiff_t channels) {
  Extents begin(buffer.rank(), 0);
  begin[1] = at;
  Extents size = buffer.shape();
  size[1] = channels;
  return slice(buffer, begin, size, Extents(buffer.rank(), 1));
}

// What follows the sums. Operand 2 is the bias, operand 3 what is added, operand 4 a buffer of which the result is channels
// into_at and on. Attributes: lo and hi of a clamp, or `map` (an element-wise operator) with its parameters map_a and map_b;
// adds_last. Attributes of a convolution before it begin with `first_`.
struct Tail {
  Fused fused;
  std::ptrdiff_t into_at = 0;

  explicit Tail(const Attributes& a, const std::string& prefix = "") {
    const auto has = [&](const char* name) { return a.has((prefix + name).c_str()); };
    const auto real = [&](const char* name) { return a.real((prefix + name).c_str()); };
    fused.adds_last = prefix.empty() && a.flag("adds_last");
    fused.clamps = has("lo");
    if (fused.clamps) {
      fused.lo = real("lo");
      fused.hi = real("hi");
    }
    if (has("map")) {
      const std::string map = a.word((prefix + "map").c_str());
      fused.map = find_map_op(map.c_str());
      check<std::invalid_argument>(map_info(fused.map).n_inputs == 1, a.op(), ": expected a 'map' of one operand, got ",
                                   map);
      fused.a = real("map_a");
      fused.b = real("map_b");
    }
    into_at = prefix.empty() && a.has("into_at") ? a.integer("into_at") : 0;
  }
  // Calls f(fused) for these operands; the result has this many channels.
  template <class F>
  Array run(Operands in, std::ptrdiff_t channels, F&& f) const {
    Fused made = fused;
    made.bias = given(in, 2);
    made.add = given(in, 3);
    Array into;
    if (const Array* const buffer = given(in, 4)) {
      into = channels_of(*buffer, into_at, channels);
      made.into = &into;
    }
    return f(made);
  }
};

// Operands 5 to 8 of a forward pass are what comes before it: mean, scale, shift, or a gate. Operands 2 and 3 of a data
// gradient are its tail's. Results 1 and 2 of a forward pass with `moments` are the mean and variance of the first.
Call make_conv(const Attributes& a) {
  const ConvParams params = conv_params(a);
  const std::string& op = a.op();
  if (ends_with(op, "_grad_input")) {
    return [op, params, shape = a.extents("x_shape")](Operands in, Results out) {
      out[0] = conv_grad_input(op.c_str(), *in[0], *in[1], shape, params, {.add = given(in, 2), .relu = given(in, 3)});
    };
  }
  if (ends_with(op, "_grad_weight")) {
    return [op, params, shape = a.extents("weight_shape")](Operands in, Results out) {
      out[0] = conv_grad_weight(op.c_str(), *in[0], *in[1], shape, params);
    };
  }
  if (a.flag("moments")) {
    return [op, params](Operands in, Results out) {
      const BatchNormed made = conv_moments(op.c_str(), *in[0], *in[1], given(in, 2), params);
      out[0] = made.y;
      out[1] = made.mean;
      out[2] = made.var;
    };
  }
  Prologue first;
  first.has_relu = a.flag("first_relu");
  if (a.has("first_hi")) {
    first.most = a.real("first_hi");
  }
  return [op, params, first, tail = Tail(a)](Operands in, Results out) {
    Prologue before = first;
    before.mean = given(in, 5);
    before.scale = given(in, 6);
    before.shift = given(in, 7);
    before.gate = given(in, 8);
    out[0] = tail.run(in, in[1]->shape(0), [&](const Fused& fused) {
      return in.size() > 5 ? conv(op.c_str(), *in[0], *in[1], fused, params, before)
                           : conv(op.c_str(), *in[0], *in[1], fused, params);
    });
  };
}

// Operand 1 is the pointwise weight, 5 and 6 are weight and bias of the depthwise convolution before it.
Call make_separable_conv(const Attributes& a) {
  return [op = a.op(), params = conv_params(a), first = Tail(a, "first_"), tail = Tail(a)](Operands in, Results out) {
    Fused before = first.fused;
    before.bias = given(in, 6);
    out[0] = tail.run(in, in[1]->shape(0), [&](const Fused& fused) {
      return separable_conv(op.c_str(), *in[0], *in[5], before, params, *in[1], fused);
    });
  };
}

Call make_conv_transpose(const Attributes& a) {
  const ConvParams params = conv_params(a);
  const std::string& op = a.op();
  const auto extra = a.sizes("output_padding");
  if (ends_with(op, "_grad_input")) {
    return [op, params, extra, shape = a.extents("x_shape")](Operands in, Results out) {
      out[0] = conv_transpose_grad_input(op.c_str(), *in[0], *in[1], shape, params, extra);
    };
  }
  if (ends_with(op, "_grad_weight")) {
    return [op, params, extra, shape = a.extents("weight_shape")](Operands in, Results out) {
      out[0] = conv_transpose_grad_weight(op.c_str(), *in[0], *in[1], shape, params, extra);
    };
  }
  return [op, params, extra, tail = Tail(a)](Operands in, Results out) {
    out[0] = tail.run(in, in[1]->shape(1) * params.groups,
                      [&](const Fused& fused) { return conv_transpose(op.c_str(), *in[0], *in[1], fused, params, extra); });
  };
}

Call make_linear(const Attributes& a) {
  return [tail = Tail(a)](Operands in, Results out) {
    out[0] = tail.run(in, 0, [&](const Fused& fused) { return linear(*in[0], *in[1], fused); });
  };
}

Call make_matmul(const Attributes&) {
  return [](Operands in, Results out) { out[0] = matmul(*in[0], *in[1]); };
}

// ---- pooling ----

PoolParams pool_params(const Attributes& a) {
  PoolParams params;
  params.output_size = a.sizes("output_size");
  params.window.kernel_size = a.sizes("kernel_size");
  params.window.stride = a.sizes("stride");
  params.window.dilation = a.sizes("dilation");
  if (params.window.dilation.empty()) {
    params.window.dilation.assign(params.window.kernel_size.size(), 1);
  }
  const auto padding = a.sizes("padding");
  for (std::size_t i = 0; i + 1 < padding.size(); i += 2) {
    params.window.pad_begin.push_back(padding[i]);
    params.window.pad_end.push_back(padding[i + 1]);
  }
  params.window.ceil_mode = a.flag("ceil_mode");
  params.count_include_pad = a.flag("count_include_pad");
  params.divisor_override = a.has("divisor_override") ? a.integer("divisor_override") : 0;
  return params;
}

Call make_avg_pool(const Attributes& a) {
  if (ends_with(a.op(), "_grad")) {
    return [op = a.op(), params = pool_params(a), shape = a.extents("x_shape")](Operands in, Results out) {
      out[0] = avg_pool_grad(op.c_str(), *in[0], shape, params);
    };
  }
  return [op = a.op(), params = pool_params(a)](Operands in, Results out) { out[0] = avg_pool(op.c_str(), *in[0], params); };
}

Call make_max_pool(const Attributes& a) {
  const std::string& op = a.op();
  const PoolParams params = pool_params(a);
  if (ends_with(op, "_taps")) {
    return [op, params](Operands in, Results out) {
      const MaxPooled pooled = max_pool_taps(op.c_str(), *in[0], params);
      out[0] = pooled.y;
      out[1] = pooled.taps;
    };
  }
  if (ends_with(op, "_grad")) {
    return [op, params, shape = a.extents("x_shape")](Operands in, Results out) {
      out[0] = max_pool_grad(op.c_str(), *in[0], *in[1], shape, params);
    };
  }
  if (ends_with(op, "_pick")) {
    return [op, params](Operands in, Results out) { out[0] = max_pool_pick(op.c_str(), *in[0], *in[1], params); };
  }
  if (ends_with(op, "_indices")) {
    return [op, params, shape = a.extents("x_shape")](Operands in, Results out) {
      out[0] = max_pool_indices(op.c_str(), *in[0], shape, params);
    };
  }
  return [op, params](Operands in, Results out) { out[0] = max_pool(op.c_str(), *in[0], params); };
}

// ---- normalisation ----

NormTail with(NormTail tail, const Array* add) {
  tail.add = add;
  return tail;
}

Call make_batch_norm(const Attributes& a) {
  const double eps = a.real("eps");
  NormTail tail;
  tail.has_relu = a.flag("relu");
  if (a.has("hi")) {
    tail.most = a.real("hi");
  }
  if (a.op() == "batch_norm_training") {
    return [eps, tail](Operands in, Results out) {
      const BatchNormed normed =
          batch_norm_training("batch_norm", *in[0], given(in, 1), given(in, 2), eps, with(tail, given(in, 3)));
      out[0] = normed.y;
      out[1] = normed.mean;
      out[2] = normed.var;
    };
  }
  if (a.op() == "batch_norm_eval") {
    return [eps, tail](Operands in, Results out) {
      out[0] =
          batch_norm_eval("batch_norm", *in[0], *in[1], *in[2], given(in, 3), given(in, 4), eps, with(tail, given(in, 5)));
    };
  }
  return [eps, tail, is_training = a.flag("training")](Operands in, Results out) {
    const NormGradients g = batch_norm_grad("batch_norm_grad", *in[0], *in[1], given(in, 2), *in[3], *in[4], eps,
                                            is_training, tail, given(in, 5));
    out[0] = g.grad_x;
    out[1] = g.grad_weight;
    out[2] = g.grad_bias;
  };
}

void give(const GroupNormed& normed, Results out) {
  out[0] = normed.y;
  out[1] = normed.mean;
  out[2] = normed.invstd;
}

void give(const NormGradients& g, Results out) {
  out[0] = g.grad_x;
  out[1] = g.grad_weight;
  out[2] = g.grad_bias;
}

Call make_group_norm(const Attributes& a) {
  const std::ptrdiff_t groups = a.integer("num_groups");
  if (ends_with(a.op(), "_grad")) {
    return [op = a.op(), groups](Operands in, Results out) {
      give(group_norm_grad(op.c_str(), *in[0], *in[1], given(in, 2), *in[3], *in[4], groups), out);
    };
  }
  return [op = a.op(), groups, eps = a.real("eps")](Operands in, Results out) {
    give(group_norm(op.c_str(), *in[0], groups, given(in, 1), given(in, 2), eps), out);
  };
}

Call make_layer_norm(const Attributes& a) {
  return [n_axes = a.axis("n_axes"), eps = a.real("eps")](Operands in, Results out) {
    give(layer_norm("layer_norm", *in[0], n_axes, given(in, 1), given(in, 2), eps), out);
  };
}

Call make_layer_norm_grad(const Attributes& a) {
  return [n_axes = a.axis("n_axes")](Operands in, Results out) {
    give(layer_norm_grad("layer_norm_grad", *in[0], *in[1], n_axes, given(in, 2), *in[3], *in[4]), out);
  };
}

// ---- rows, reductions, losses ----

template <int kOp>
Call make_reduce(const Attributes& a) {
  return [dims = a.axes("dim"), keepdim = a.flag("keepdim")](Operands in, Results out) {
    out[0] = reduce(kOp, *in[0], dims, keepdim);
  };
}

Call make_mean(const Attributes& a) {
  return [dims = a.axes("dim"), keepdim = a.flag("keepdim")](Operands in, Results out) {
    out[0] = mean(*in[0], dims, keepdim);
  };
}
Call make_mean_grad(const Attributes& a) {
  return [kept = a.extents("kept"), shape = a.extents("shape")](Operands in, Results out) {
    out[0] = mean_grad(*in[0], kept, shape);
  };
}

template <int kOp>
Call make_rows(const Attributes& a) {
  return [dim = a.axis("dim")](Operands in, Results out) { out[0] = rows_op(kOp, *in[0], kOp < 2 ? nullptr : in[1], dim); };
}

Call make_argument(const Attributes& a) {
  const bool is_flat = !a.has("dim");
  return [op = a.op(), is_flat, dim = is_flat ? 0 : a.axis("dim"), keepdim = a.flag("keepdim")](Operands in, Results out) {
    out[0] = argument(op.c_str(), op == "argmax", *in[0], dim, is_flat, keepdim);
  };
}

Call make_class_loss(const Attributes& a) {
  const std::string word = a.word("reduction");
  const ClassLossParams params{.is_logits = starts_with(a.op(), "cross_entropy"),
                               .smoothing = a.real("label_smoothing"),
                               .ignore_index = a.integer("ignore_index"),
                               .reduction = word == "mean"  ? Reduction::mean
                                            : word == "sum" ? Reduction::sum
                                                            : Reduction::none};
  if (ends_with(a.op(), "_grad")) {
    return [op = a.op(), params](Operands in, Results out) {
      out[0] = class_loss_grad(op.c_str(), *in[0], *in[1], *in[2], given(in, 3), *in[4], *in[5], params);
    };
  }
  return [op = a.op(), params](Operands in, Results out) {
    const ClassLoss loss = class_loss(op.c_str(), *in[0], *in[1], given(in, 2), params);
    out[0] = loss.loss;
    out[1] = loss.log_sum;
    out[2] = loss.total;
  };
}

// ---- resizing, shape ----

Call make_resample(const Attributes& a) {
  ResampleParams params;
  params.size = a.sizes("size");
  params.scale_factor = a.reals("scale_factor");
  params.is_bilinear = a.word("mode") == "bilinear";
  params.align_corners = a.flag("align_corners");
  params.antialias = a.flag("antialias");
  if (ends_with(a.op(), "_grad")) {
    return [params, shape = a.extents("x_shape")](Operands in, Results out) {
      out[0] = resample_grad("interpolate", *in[0], shape, params);
    };
  }
  return [params](Operands in, Results out) { out[0] = resample("interpolate", *in[0], params); };
}

Call make_pad(const Attributes& a) {
  return [begin = a.extents("begin"), end = a.extents("end"), value = a.real("value")](Operands in, Results out) {
    out[0] = pad(*in[0], begin, end, value);
  };
}

Call make_clone(const Attributes&) {
  return [](Operands in, Results out) { out[0] = clone(*in[0]); };
}

Call make_require_finite(const Attributes& a) {
  return [what = a.word("what")](Operands in, Results out) { out[0] = require_finite(*in[0], what); };
}

Call make_convert(const Attributes& a) {
  return [dtype = a.dtype("dtype")](Operands in, Results out) { out[0] = convert(*in[0], dtype); };
}

Call make_relayout(const Attributes& a) {
  return [layout = a.flag("channels_last") ? Layout::channels_last : Layout::row_major](Operands in, Results out) {
    out[0] = relayout(*in[0], layout);
  };
}

Call make_reshape(const Attributes& a) {
  return [shape = a.extents("shape"), to_channels_last = a.flag("to_channels_last")](Operands in, Results out) {
    out[0] = reshape(*in[0], shape, to_channels_last);
  };
}

// (N, C, *spatial) as (N, *spatial · C), the order of channels-last memory.
Call make_flatten_memory(const Attributes&) {
  return [](Operands in, Results out) {
    const Array x = relayout(*in[0], Layout::channels_last);
    std::ptrdiff_t length = 1;
    for (int axis = 1; axis < x.rank(); ++axis) {
      length *= x.shape(axis);
    }
    out[0] = Array::view(x.storage_ref(), x.dtype(), {x.shape(0), length}, {length, 1}, x.offset());
  };
}

Call make_permute(const Attributes& a) {
  return [dims = a.axes("dims")](Operands in, Results out) { out[0] = in[0]->permute(dims); };
}

Call make_expand(const Attributes& a) {
  return [shape = a.extents("shape")](Operands in, Results out) { out[0] = in[0]->broadcast_to(shape); };
}

Call make_spread(const Attributes& a) {
  return [kept = a.extents("kept"), shape = a.extents("shape")](Operands in, Results out) {
    out[0] = reshape(*in[0], kept).broadcast_to(shape);
  };
}

Call make_slice(const Attributes& a) {
  return [begin = a.extents("begin"), size = a.extents("size"), step = a.extents("step")](Operands in, Results out) {
    out[0] = slice(*in[0], begin, size, step);
  };
}

Call make_slice_grad(const Attributes& a) {
  return [shape = a.extents("shape"), begin = a.extents("begin"), step = a.extents("step")](Operands in, Results out) {
    out[0] = slice_grad(*in[0], shape, begin, step);
  };
}

Call make_split(const Attributes& a) {
  return [sizes = a.sizes("sizes"), dim = a.axis("dim")](Operands in, Results out) {
    const std::vector<Array> parts = split(*in[0], sizes, dim);
    std::copy(parts.begin(), parts.end(), out.begin());
  };
}

Call make_concat(const Attributes& a) {
  return [dim = a.axis("dim")](Operands in, Results out) { out[0] = concat(rest(in, 0), dim); };
}

// ---- concatenation in place: a buffer, whoever writes to channels of it, and its first channels as the result ----

Call make_buffer(const Attributes& a) {
  return [shape = a.extents("shape"), dtype = a.dtype("dtype")](Operands, Results out) {
    out[0] = Array::empty(dtype, shape, Layout::channels_last);
  };
}

Call make_place(const Attributes& a) {
  return [at = a.integer("into_at")](Operands in, Results out) {
    out[0] = channels_of(*in[0], at, in[1]->shape(1));
    check(out[0].shape() == in[1]->shape(), "place: expected values of shape ", out[0].shape(), ", got ", in[1]->shape(),
          "; they must fit their channels");
    copy_into(out[0], *in[1]);
  };
}

Call make_joined(const Attributes& a) {
  return [n = a.integer("n_channels")](Operands in, Results out) { out[0] = channels_of(*in[0], 0, n); };
}

Call make_flip(const Attributes& a) {
  return [dims = a.axes("dims")](Operands in, Results out) { out[0] = flip(*in[0], dims); };
}

Call make_pixel_shuffle(const Attributes& a) {
  return [is_inverse = a.op() == "pixel_unshuffle", factor = a.integer("factor")](Operands in, Results out) {
    out[0] = is_inverse ? pixel_unshuffle(*in[0], factor) : pixel_shuffle(*in[0], factor);
  };
}

Call make_triangle(const Attributes& a) {
  return [diagonal = a.integer("diagonal"), is_upper = a.flag("is_upper")](Operands in, Results out) {
    out[0] = triangle(*in[0], diagonal, is_upper);
  };
}

Call make_one_hot(const Attributes& a) {
  return [n = a.integer("num_classes")](Operands in, Results out) { out[0] = one_hot(*in[0], n); };
}

Call make_gather(const Attributes& a) {
  return [dim = a.axis("dim")](Operands in, Results out) { out[0] = gather(*in[0], *in[1], dim); };
}

Call make_scatter_add(const Attributes& a) {
  return [shape = a.extents("shape"), dim = a.axis("dim")](Operands in, Results out) {
    out[0] = scatter_add(*in[0], *in[1], shape, dim);
  };
}

Call make_index(const Attributes&) {
  return [](Operands in, Results out) { out[0] = index_rows(*in[0], rest(in, 1)); };
}

Call make_index_add(const Attributes& a) {
  return [shape = a.extents("shape")](Operands in, Results out) { out[0] = index_add(*in[0], rest(in, 1), shape); };
}

Call make_map(const Attributes& a) {
  const int op = find_map_op(a.op().c_str());
  const MapInfo info = map_info(op);
  const auto parameter = [&](int i) { return info.parameters[i] == nullptr ? 0.0 : a.real(info.parameters[i]); };
  return [op, p = parameter(0), q = parameter(1)](Operands in, Results out) { out[0] = map(op, in, p, q); };
}

void fill(const Array& y, double value) {
  const Array one = Array::empty(DType::float64, {});
  *one.data<double>() = value;
  assign(y, convert(one, y.dtype()).broadcast_to(y.shape()));
}

Call make_full(const Attributes& a) {
  const DType dtype = a.dtype("dtype");
  const double value = a.real("value");
  if (a.op() == "full_like") {
    return [dtype, value](Operands in, Results out) {
      out[0] = Array::empty_like(dtype, *in[0]);
      fill(out[0], value);
    };
  }
  return [dtype, value, shape = a.extents("shape")](Operands, Results out) {
    out[0] = Array::empty(dtype, shape);
    fill(out[0], value);
  };
}

// ---- random numbers ----

// The number of a draw: from attributes, or counted from a state (seed, draws) where there is one.
struct DrawFrom {
  std::uint64_t seed;
  std::uint64_t call;

  explicit DrawFrom(const Attributes& a)
      : seed(static_cast<std::uint64_t>(a.integer("seed"))), call(static_cast<std::uint64_t>(a.integer("call"))) {}
  [[nodiscard]] Draw at(const Array* state) const {
    if (state == nullptr) {
      return {seed, call};
    }
    check(state->dtype() == DType::int64 && state->shape() == Extents{2}, "random: expected a state of int64(2,), got ",
          dtype_name(state->dtype()), state->shape(), "; record again");
    const auto* const held = state->data<std::int64_t>();
    return {static_cast<std::uint64_t>(held[0]), static_cast<std::uint64_t>(held[state->stride(0)]) + call};
  }
};

Call make_random(const Attributes& a) {
  const DrawFrom draw(a);
  if (a.op() == "randperm") {
    return [draw, n = a.integer("n")](Operands in, Results out) { out[0] = random_permutation(n, draw.at(given(in, 0))); };
  }
  const Extents shape = a.extents("shape");
  if (a.op() == "randint") {
    return [draw, shape, low = a.integer("low"), high = a.integer("high")](Operands in, Results out) {
      out[0] = random_integers(shape, low, high, draw.at(given(in, 0)));
    };
  }
  return [draw, shape, dtype = a.dtype("dtype"), is_normal = a.op() == "randn"](Operands in, Results out) {
    const Draw at = draw.at(given(in, 0));
    out[0] = is_normal ? random_normal(shape, dtype, at) : random_uniform(shape, dtype, at);
  };
}

Call make_dropout(const Attributes& a) {
  const double p = a.real("p");
  const double scale = p < 1 ? 1 / (1 - p) : 0;
  return [draw = DrawFrom(a), p, scale, by_channel = a.op() == "dropout2d", multiply = find_map_op("mask_scale")](
             Operands in, Results out) {
    const Array& x = *in[0];
    const Draw at = draw.at(given(in, 1));
    if (by_channel) {
      Extents kept(x.rank(), 1);
      kept[0] = x.shape(0);
      kept[1] = x.shape(1);
      out[1] = reshape(random_mask(Array::empty(DType::boolean, {x.shape(0), x.shape(1)}), p, at), kept);
    } else {
      out[1] = random_mask(x, p, at);
    }
    const Array* const operands[] = {&out[1], &x};
    out[0] = map(multiply, operands, scale, 0);
  };
}

// ---- changes of state ----

// Pure: results are changed copies of the first n_states operands, or with in_place those operands themselves.
struct Change {
  std::size_t n_states;
  bool is_in_place;

  explicit Change(const Attributes& a)
      : n_states(static_cast<std::size_t>(a.integer("n_states"))), is_in_place(a.flag("in_place")) {}

  void begin(Operands in, Results out) const {
    for (std::size_t i = 0; i < n_states; ++i) {
      out[i] = is_in_place ? *in[i] : clone(*in[i]);
    }
  }
};

Call make_batch_norm_update(const Attributes& a) {
  return [change = Change(a), n = a.integer("n_values"), momentum = a.real("momentum")](Operands in, Results out) {
    change.begin(in, out);
    batch_norm_update("batch_norm", out[0], out[1], *in[2], *in[3], n, momentum);
  };
}

double read_number(const Array& x) {
  check(x.size() == 1, "step: expected a number of one element, got ", x.shape(), "; reshape it to ()");
  const Array wide = convert(x, DType::float64);
  return *wide.data<double>();
}

// A step of an optimizer for n_params parameters. Operands: all parameters, then each kind of state that is `held`, then all
// gradients, then the run-time numbers that `scalars` names.
class Step {
 public:
  explicit Step(const Attributes& a) : change_(a), n_params_(a.has("n_params") ? a.axis("n_params") : 1) {
    for (const int is_held : a.axes("held")) {
      held_.push_back(is_held != 0);
    }
    scalars_ = a.words("scalars");
  }

  struct Lists {
    Tensors params;
    Tensors grads;
    std::array<Tensors, 3> states;
  };
  // Calls f(lists) with the results in place of what changes.
  template <class F>
  void run(Operands in, Results out, F&& f) const {
    change_.begin(in, out);
    const auto n = static_cast<std::size_t>(n_params_);
    std::vector<Array> grads;
    for (std::size_t i = 0; i < n; ++i) {
      grads.push_back(*in[change_.n_states + i]);
    }
    Lists lists{.params = out.first(n), .grads = grads, .states = {}};
    std::size_t kind = 1;
    for (std::size_t i = 0; i < held_.size(); ++i) {
      lists.states[i] = held_[i] ? Tensors(out.subspan(n * kind++, n)) : Tensors();
    }
    f(lists);
  }

  // A hyper-parameter: an operand where `scalars` names it, else `fixed`.
  [[nodiscard]] double number(const char* name, double fixed, Operands in) const {
    for (std::size_t i = 0; i < scalars_.size(); ++i) {
      if (scalars_[i] == name) {
        return read_number(*in[change_.n_states + static_cast<std::size_t>(n_params_) + i]);
      }
    }
    return fixed;
  }

 private:
  Change change_;
  int n_params_;
  std::vector<bool> held_;
  std::vector<std::string> scalars_;
};

double real_or_zero(const Attributes& a, const char* name) { return a.has(name) ? a.real(name) : 0; }

Call make_sgd(const Attributes& a) {
  const SgdParams fixed{.lr = real_or_zero(a, "lr"),
                        .momentum = real_or_zero(a, "momentum"),
                        .dampening = real_or_zero(a, "dampening"),
                        .weight_decay = real_or_zero(a, "weight_decay"),
                        .is_nesterov = a.flag("nesterov"),
                        .maximizes = a.flag("maximize"),
                        .is_first = a.flag("is_first")};
  return [step = Step(a), fixed](Operands in, Results out) {
    SgdParams params = fixed;
    params.lr = step.number("lr", fixed.lr, in);
    params.momentum = step.number("momentum", fixed.momentum, in);
    params.dampening = step.number("dampening", fixed.dampening, in);
    params.weight_decay = step.number("weight_decay", fixed.weight_decay, in);
    step.run(in, out, [&](const Step::Lists& lists) { sgd(lists.params, lists.grads, lists.states[0], params); });
  };
}

Call make_adam(const Attributes& a) {
  const AdamParams fixed{.lr = real_or_zero(a, "lr"),
                         .beta1 = real_or_zero(a, "beta1"),
                         .beta2 = real_or_zero(a, "beta2"),
                         .eps = real_or_zero(a, "eps"),
                         .weight_decay = real_or_zero(a, "weight_decay"),
                         .is_decoupled = a.flag("is_decoupled"),
                         .maximizes = a.flag("maximize"),
                         .n_steps = real_or_zero(a, "n_steps")};
  return [step = Step(a), fixed](Operands in, Results out) {
    AdamParams params = fixed;
    params.lr = step.number("lr", fixed.lr, in);
    params.beta1 = step.number("beta1", fixed.beta1, in);
    params.beta2 = step.number("beta2", fixed.beta2, in);
    params.eps = step.number("eps", fixed.eps, in);
    params.weight_decay = step.number("weight_decay", fixed.weight_decay, in);
    params.n_steps = step.number("n_steps", fixed.n_steps, in);
    step.run(in, out, [&](const Step::Lists& lists) {
      adam(lists.params, lists.grads, lists.states[0], lists.states[1], lists.states[2], params);
    });
  };
}

Call make_rmsprop(const Attributes& a) {
  const RmspropParams fixed{.lr = real_or_zero(a, "lr"),
                            .alpha = real_or_zero(a, "alpha"),
                            .eps = real_or_zero(a, "eps"),
                            .weight_decay = real_or_zero(a, "weight_decay"),
                            .momentum = real_or_zero(a, "momentum"),
                            .maximizes = a.flag("maximize")};
  return [step = Step(a), fixed](Operands in, Results out) {
    RmspropParams params = fixed;
    params.lr = step.number("lr", fixed.lr, in);
    params.alpha = step.number("alpha", fixed.alpha, in);
    params.eps = step.number("eps", fixed.eps, in);
    params.weight_decay = step.number("weight_decay", fixed.weight_decay, in);
    params.momentum = step.number("momentum", fixed.momentum, in);
    step.run(in, out, [&](const Step::Lists& lists) {
      rmsprop(lists.params, lists.grads, lists.states[0], lists.states[1], lists.states[2], params);
    });
  };
}

Call make_assign(const Attributes&) {
  return [](Operands in, Results out) {
    assign(*in[0], *in[1]);
    out[0] = *in[0];
  };
}

const std::map<std::string, Make, std::less<>>& table() {
  static const std::map<std::string, Make, std::less<>> rows = [] {
    std::map<std::string, Make, std::less<>> made{
        {"linear", make_linear},
        {"matmul", make_matmul},
        {"separable_conv2d", make_separable_conv},
        {"batch_norm_training", make_batch_norm},
        {"batch_norm_eval", make_batch_norm},
        {"batch_norm_grad", make_batch_norm},
        {"batch_norm_update", make_batch_norm_update},
        {"group_norm", make_group_norm},
        {"group_norm_grad", make_group_norm},
        {"instance_norm", make_group_norm},
        {"instance_norm_grad", make_group_norm},
        {"layer_norm", make_layer_norm},
        {"layer_norm_grad", make_layer_norm_grad},
        {"sum", make_reduce<0>},
        {"mean", make_mean},
        {"mean_grad", make_mean_grad},
        {"prod", make_reduce<1>},
        {"max", make_reduce<2>},
        {"min", make_reduce<3>},
        {"softmax", make_rows<0>},
        {"log_softmax", make_rows<1>},
        {"softmax_grad", make_rows<2>},
        {"log_softmax_grad", make_rows<3>},
        {"argmax", make_argument},
        {"argmin", make_argument},
        {"cross_entropy", make_class_loss},
        {"cross_entropy_grad", make_class_loss},
        {"nll_loss", make_class_loss},
        {"nll_loss_grad", make_class_loss},
        {"interpolate", make_resample},
        {"interpolate_grad", make_resample},
        {"pad", make_pad},
        {"clone", make_clone},
        {"to", make_convert},
        {"require_finite", make_require_finite},
        {"relayout", make_relayout},
        {"reshape", make_reshape},
        {"flatten_memory", make_flatten_memory},
        {"permute", make_permute},
        {"expand", make_expand},
        {"spread", make_spread},
        {"slice", make_slice},
        {"slice_grad", make_slice_grad},
        {"split", make_split},
        {"concat", make_concat},
        {"buffer", make_buffer},
        {"place", make_place},
        {"joined", make_joined},
        {"flip", make_flip},
        {"pixel_shuffle", make_pixel_shuffle},
        {"pixel_unshuffle", make_pixel_shuffle},
        {"triangle", make_triangle},
        {"one_hot", make_one_hot},
        {"gather", make_gather},
        {"scatter_add", make_scatter_add},
        {"index", make_index},
        {"index_add", make_index_add},
        {"full", make_full},
        {"full_like", make_full},
        {"rand", make_random},
        {"randn", make_random},
        {"randint", make_random},
        {"randperm", make_random},
        {"dropout", make_dropout},
        {"dropout2d", make_dropout},
        {"assign", make_assign},
        {"sgd_step", make_sgd},
        {"adam_step", make_adam},
        {"rmsprop_step", make_rmsprop},
    };
    for (const char* const axes : {"1d", "2d", "3d"}) {
      for (const char* const tail : {"", "_grad_input", "_grad_weight"}) {
        made[text("conv", axes, tail)] = make_conv;
        made[text("conv_transpose", axes, tail)] = make_conv_transpose;
      }
      for (const char* const prefix : {"", "adaptive_"}) {
        for (const char* const tail : {"", "_grad"}) {
          made[text(prefix, "avg_pool", axes, tail)] = make_avg_pool;
        }
        for (const char* const tail : {"", "_grad", "_taps", "_pick", "_indices"}) {
          made[text(prefix, "max_pool", axes, tail)] = make_max_pool;
        }
      }
    }
    for (int op = 0; op < n_map_ops(); ++op) {
      made.emplace(map_info(op).name, make_map);
    }
    return made;
  }();
  return rows;
}

}  // namespace

bool has_call(const std::string& op) { return table().contains(op); }

ConvParams conv_params(const Attributes& a) {
  ConvParams params;
  params.window.stride = a.sizes("stride");
  params.window.dilation = a.sizes("dilation");
  params.window.pad_begin = a.sizes("pad_begin");
  params.window.pad_end = a.sizes("pad_end");
  if (a.has("padding")) {
    const std::string word = a.word("padding");
    params.window.padding = word == "same" ? Padding::same : word == "valid" ? Padding::valid : Padding::explicit_;
  }
  params.groups = a.integer("groups");
  params.algorithm = a.algorithm();
  return params;
}

Call make_call(const Attributes& attributes) {
  const auto found = table().find(attributes.op());
  check<std::invalid_argument>(found != table().end(), attributes.op(),
                               ": expected an operator of the core, got one that only Python has; compute it outside");
  return found->second(attributes);
}

}  // namespace striate
