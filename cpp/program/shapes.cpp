// Shape functions: the sizes of results as expressions of the sizes of operands. Kernels have checked the operands already.
#include <algorithm>
#include <unordered_map>

#include "striate/program.hpp"

namespace striate {
namespace {

using Shapes = std::vector<Shape>;

Dim ceil_div(const Dim& a, const Dim& b) { return floor_div(a + b - 1, b); }

// One size of a broadcast: 1 gives way to any other size.
Dim broadcast(const ShapeQuery& q, const Dim& a, const Dim& b) {
  if (a.value() == b.value()) {
    return q.same(a, b);
  }
  return a.value() == 1 ? b : a;
}

// Sizes aligned at the last axis; those missing in front count as 1.
Shape broadcast(const ShapeQuery& q, const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape out = longer;
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    Dim& into = out[out.size() - shorter.size() + i];
    into = broadcast(q, into, shorter[i]);
  }
  return out;
}

Shape broadcast(const ShapeQuery& q) {
  Shape out;
  for (std::size_t i = 0; i < q.n_inputs(); ++i) {
    out = q.has_input(i) ? broadcast(q, out, q.input(i)) : out;
  }
  return out;
}

Shapes broadcast_fn(const ShapeQuery& q) { return {broadcast(q)}; }
Shapes same_fn(const ShapeQuery& q) { return {q.input(0)}; }
Shapes shape_fn(const ShapeQuery& q) { return {q.dims("shape")}; }
Shapes x_shape_fn(const ShapeQuery& q) { return {q.dims("x_shape")}; }
Shapes weight_shape_fn(const ShapeQuery& q) { return {q.dims("weight_shape")}; }

// Reductions. An empty list of axes means all of them.
Shapes reduce_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0);
  std::vector<int> axes = q.axes("dim", q.rank(0));
  if (axes.empty()) {
    axes = ShapeQuery(Node{}, {}).axes("dim", q.rank(0));
  }
  const bool keeps = q.flag("keepdim", false);
  Shape out;
  for (int a = 0; a < q.rank(0); ++a) {
    const bool is_reduced = std::find(axes.begin(), axes.end(), a) != axes.end();
    if (!is_reduced) {
      out.push_back(x[static_cast<std::size_t>(a)]);
    } else if (keeps) {
      out.emplace_back(1);
    }
  }
  return {out};
}

Shapes permute_fn(const ShapeQuery& q) {
  Shape out;
  for (const int axis : q.axes("dims", q.rank(0))) {
    out.push_back(q.input(0)[static_cast<std::size_t>(axis)]);
  }
  return {out};
}

std::size_t one_axis(const ShapeQuery& q, std::size_t operand = 0) {
  return static_cast<std::size_t>(q.axes("dim", q.rank(operand)).at(0));
}

Shapes concat_fn(const ShapeQuery& q) {
  const std::size_t axis = one_axis(q);
  Shape out = q.input(0);
  for (std::size_t i = 1; i < q.n_inputs(); ++i) {
    const Shape& shape = q.input(i, out.size());
    for (std::size_t a = 0; a < out.size(); ++a) {
      out[a] = a == axis ? out[a] + shape[a] : q.same(out[a], shape[a]);
    }
  }
  return {out};
}

Shapes split_fn(const ShapeQuery& q) {
  const std::size_t axis = one_axis(q);
  Shapes out;
  for (const Dim& size : q.dims("sizes")) {
    out.push_back(q.input(0));
    out.back()[axis] = size;
  }
  return out;
}

// As make_flatten_memory() in program/call.cpp.
Shapes flatten_memory_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 1);
  return {{x[0], product(std::span(x).subspan(1))}};
}

// As make_joined() there: the first channels of a buffer.
Shapes joined_fn(const ShapeQuery& q) {
  Shape out = q.input(0, 2);
  out[1] = q.dim("n_channels");
  return {out};
}

Shapes slice_fn(const ShapeQuery& q) { return {q.dims("size")}; }
Shapes index_shape_fn(const ShapeQuery& q) { return {q.input(1)}; }

Shapes index_fn(const ShapeQuery& q) {
  Shape out = q.input(1);
  const Shape& x = q.input(0, q.n_inputs() - 1);
  out.insert(out.end(), x.begin() + static_cast<std::ptrdiff_t>(q.n_inputs()) - 1, x.end());
  return {out};
}

Shapes one_hot_fn(const ShapeQuery& q) {
  Shape out = q.input(0);
  out.push_back(q.dim("num_classes"));
  return {out};
}

Shapes pixel_shuffle_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 4);
  const Dim r = q.dim("factor");
  return {{x[0], floor_div(x[1], r * r), x[2] * r, x[3] * r}};
}

Shapes pixel_unshuffle_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 4);
  const Dim r = q.dim("factor");
  return {{x[0], x[1] * r * r, floor_div(x[2], r), floor_div(x[3], r)}};
}

Shapes linear_fn(const ShapeQuery& q) {
  Shape out = q.input(0, 1);
  const Shape& weight = q.input(1, 2);
  q.same(out.back(), weight[1]);
  out.back() = weight[0];
  return {out};
}

// Leading axes broadcast; an operand of one axis is a row on the left and a column on the right, and leaves no axis behind.
Shapes matmul_fn(const ShapeQuery& q) {
  const Shape& a = q.input(0, 1);
  const Shape& b = q.input(1, 1);
  const std::size_t lead_a = a.size() > 2 ? a.size() - 2 : 0;
  const std::size_t lead_b = b.size() > 2 ? b.size() - 2 : 0;
  using Diff = std::ptrdiff_t;
  Shape out = broadcast(q, Shape(a.begin(), a.begin() + static_cast<Diff>(lead_a)),
                        Shape(b.begin(), b.begin() + static_cast<Diff>(lead_b)));
  q.same(a.back(), b.size() > 1 ? b[b.size() - 2] : b[0]);
  if (a.size() > 1) {
    out.push_back(a[a.size() - 2]);
  }
  if (b.size() > 1) {
    out.push_back(b.back());
  }
  return {out};
}

// ---- windows ----

Dim at(const std::vector<Dim>& list, std::size_t i) { return i < list.size() ? list[i] : list.at(0); }

struct Pads {
  std::vector<Dim> begin;
  std::vector<Dim> end;
};

// Either attributes pad_begin and pad_end, or `padding` as a list of pairs.
Pads pads(const ShapeQuery& q, std::size_t n_axes) {
  if (q.has("pad_begin")) {
    return {q.dims("pad_begin"), q.dims("pad_end")};
  }
  Pads out{std::vector<Dim>(n_axes, Dim(0)), std::vector<Dim>(n_axes, Dim(0))};
  const auto* list = q.has("padding") ? q.attribute("padding").as<Attribute::List>() : nullptr;
  for (std::size_t i = 0; list != nullptr && i < n_axes; ++i) {
    const auto* pair = list->at(i).as<Attribute::List>();
    const auto side = [&](std::size_t k) {
      const auto* n = pair == nullptr ? nullptr : pair->at(k).as<std::int64_t>();
      if (n == nullptr) {
        throw std::logic_error(text(q.op(), ": expected pairs of numbers as 'padding', got ", q.attribute("padding").str()));
      }
      return Dim(static_cast<std::ptrdiff_t>(*n));
    };
    out.begin[i] = side(0);
    out.end[i] = side(1);
  }
  return out;
}

std::vector<Dim> list_or(const ShapeQuery& q, const char* name, std::size_t n_axes, const Dim& otherwise) {
  return q.has(name) ? q.dims(name) : std::vector<Dim>(n_axes, otherwise);
}

// As make_window() in tensor/window.cpp, on Dims.
std::vector<Dim> window_out(const ShapeQuery& q, std::span<const Dim> spatial, const std::vector<Dim>& kernel) {
  const std::size_t n = spatial.size();
  const std::vector<Dim> stride = q.has("stride")        ? q.dims("stride")
                                  : q.has("kernel_size") ? kernel
                                                         : list_or(q, "stride", n, 1);
  const std::vector<Dim> dilation = list_or(q, "dilation", n, 1);
  const std::string mode = q.string("padding", "explicit");
  const Pads pad = mode == "explicit" ? pads(q, n) : Pads{std::vector<Dim>(n, Dim(0)), std::vector<Dim>(n, Dim(0))};
  std::vector<Dim> out;
  for (std::size_t i = 0; i < n; ++i) {
    const Dim step = at(stride, i);
    if (mode == "same") {
      out.push_back(ceil_div(spatial[i], step));
      continue;
    }
    const Dim reach = at(dilation, i) * (at(kernel, i) - 1) + 1;
    const Dim room = spatial[i] + at(pad.begin, i) + at(pad.end, i) - reach;
    if (q.flag("ceil_mode", false)) {  // the last window starts inside the input or before it
      out.push_back(minimum(ceil_div(room, step) + 1, ceil_div(spatial[i] + at(pad.begin, i), step)));
    } else {
      out.push_back(floor_div(room, step) + 1);
    }
  }
  return out;
}

std::span<const Dim> spatial(const Shape& shape) { return std::span(shape).subspan(2); }

Shapes conv_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 3);
  const Shape& weight = q.input(1, x.size());
  Shape out{x[0], weight[0]};
  q.same(x[1], weight[1] * q.dim("groups", 1));
  const auto sizes = window_out(q, spatial(x), {weight.begin() + 2, weight.end()});
  out.insert(out.end(), sizes.begin(), sizes.end());
  return q.flag("moments", false) ? Shapes{out, {out[1]}, {out[1]}} : Shapes{out};
}

// Operand 5 is the depthwise weight, operand 1 the pointwise one.
Shapes separable_conv_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 4);
  const Shape& pointwise = q.input(1, 4);
  const Shape& depthwise = q.input(5, 4);
  q.same(x[1], depthwise[0]);
  q.same(x[1], pointwise[1]);
  Shape out{x[0], pointwise[0]};
  const auto sizes = window_out(q, spatial(x), {depthwise.begin() + 2, depthwise.end()});
  out.insert(out.end(), sizes.begin(), sizes.end());
  return {out};
}

// As make_transposed_window(), on Dims.
Shapes conv_transpose_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 3);
  const Shape& weight = q.input(1, x.size());
  const std::size_t n = x.size() - 2;
  const std::vector<Dim> stride = list_or(q, "stride", n, 1);
  const std::vector<Dim> dilation = list_or(q, "dilation", n, 1);
  const std::vector<Dim> extra = list_or(q, "output_padding", n, 0);
  const Pads pad = pads(q, n);
  q.same(x[1], weight[0]);
  Shape out{x[0], weight[1] * q.dim("groups", 1)};
  for (std::size_t i = 0; i < n; ++i) {
    out.push_back((x[i + 2] - 1) * at(stride, i) - at(pad.begin, i) - at(pad.end, i) +
                  at(dilation, i) * (weight[i + 2] - 1) + 1 + at(extra, i));
  }
  return {out};
}

Shape pooled(const ShapeQuery& q) {
  const Shape& x = q.input(0, 3);
  Shape out{x[0], x[1]};
  if (q.has("output_size")) {
    const auto sizes = q.dims("output_size");
    for (std::size_t i = 0; i + 2 < x.size(); ++i) {
      const Dim& size = at(sizes, i);
      out.push_back(size.is_constant() && size.value() < 0 ? x[i + 2] : size);
    }
    return out;
  }
  const auto sizes = window_out(q, spatial(x), q.dims("kernel_size"));
  out.insert(out.end(), sizes.begin(), sizes.end());
  return out;
}

Shapes pool_fn(const ShapeQuery& q) { return {pooled(q)}; }
Shapes pool_taps_fn(const ShapeQuery& q) { return {pooled(q), pooled(q)}; }

Shapes pad_fn(const ShapeQuery& q) {
  Shape out = q.input(0);
  const auto begin = q.dims("begin");
  const auto end = q.dims("end");
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = out[i] + at(begin, i) + at(end, i);
  }
  return {out};
}

Shapes interpolate_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 2);
  Shape out{x[0], x[1]};
  const auto sizes = q.dims("size");
  out.insert(out.end(), sizes.begin(), sizes.end());
  return {out};
}

// ---- losses, random numbers, resampling ----

// A scalar, or a value a target where reduction="none"; then what the gradient needs.
Shapes class_loss_fn(const ShapeQuery& q) {
  Shape rows = q.input(0, 1);
  rows.erase(rows.begin() + (rows.size() > 1 ? 1 : 0));
  return {q.string("reduction", "mean") == "none" ? rows : Shape{}, rows, {}};
}

Shapes second_fn(const ShapeQuery& q) { return {q.input(1)}; }
Shapes n_fn(const ShapeQuery& q) { return {{q.dim("n")}}; }
Shapes dropout_fn(const ShapeQuery& q) { return {q.input(0), q.input(0)}; }

Shapes dropout_channels_fn(const ShapeQuery& q) {
  Shape mask(q.input(0, 2).size(), Dim(1));
  mask[0] = q.input(0)[0];
  mask[1] = q.input(0)[1];
  return {q.input(0), mask};
}

// ---- normalisation, states ----

Shapes batch_norm_training_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0, 2);
  return {x, {x[1]}, {x[1]}};
}

Shapes batch_norm_grad_fn(const ShapeQuery& q) {
  const Shape& x = q.input(1, 2);
  return {x, {x[1]}, {x[1]}};
}

// The last axes, that layer_norm normalises over.
std::size_t n_normalised(const ShapeQuery& q, const Shape& x) {
  const std::ptrdiff_t n = q.dim("n_axes").value();
  if (n < 0 || n > static_cast<std::ptrdiff_t>(x.size())) {
    throw std::logic_error(text(q.op(), ": expected 'n_axes' from 0 to ", x.size(), ", got ", n));
  }
  return static_cast<std::size_t>(n);
}

Shapes layer_norm_fn(const ShapeQuery& q) {
  const Shape& x = q.input(0);
  const auto n_rows = x.size() - n_normalised(q, x);
  const Shape rows{product(std::span(x).first(n_rows))};
  return {x, rows, rows};
}

Shapes layer_norm_grad_fn(const ShapeQuery& q) {
  const Shape& x = q.input(1);
  const Shape last(x.end() - static_cast<std::ptrdiff_t>(n_normalised(q, x)), x.end());
  return {x, last, last};
}

Shapes group_norm_fn(const ShapeQuery& q) {
  const Shape groups{q.input(0, 1)[0], q.dim("num_groups")};
  return {q.input(0), groups, groups};
}

// Updates return their states anew.
Shapes update_fn(const ShapeQuery& q) {
  Shapes out;
  for (std::ptrdiff_t i = 0; i < q.dim("n_states").value(); ++i) {
    out.push_back(q.input(static_cast<std::size_t>(i)));
  }
  return out;
}

using Table = std::unordered_map<std::string, ShapeFn>;

void fill_elementwise(Table& table) {
  for (const char* op : {"gelu_tanh",
                         "gelu_tanh_grad",
                         "huber",
                         "huber_grad",
                         "bce_logits",
                         "bce_logits_grad",
                         "prelu",
                         "prelu_grad",
                         "prelu_grad_weight",
                         "maximum_grad",
                         "minimum_grad",
                         "add",
                         "sub",
                         "mul",
                         "div",
                         "pow",
                         "maximum",
                         "minimum",
                         "eq",
                         "ne",
                         "lt",
                         "le",
                         "gt",
                         "ge",
                         "logical_and",
                         "logical_or",
                         "logical_not",
                         "logical_xor",
                         "where",
                         "neg",
                         "abs",
                         "exp",
                         "log",
                         "sqrt",
                         "square",
                         "reciprocal",
                         "rsqrt",
                         "sign",
                         "floor",
                         "ceil",
                         "round",
                         "trunc",
                         "sin",
                         "cos",
                         "log1p",
                         "expm1",
                         "erf",
                         "relu",
                         "relu6",
                         "leaky_relu",
                         "elu",
                         "selu",
                         "gelu",
                         "silu",
                         "mish",
                         "sigmoid",
                         "tanh",
                         "hardswish",
                         "hardsigmoid",
                         "softplus",
                         "clip",
                         "isnan",
                         "isinf",
                         "isfinite",
                         "relu_grad",
                         "relu6_grad",
                         "leaky_relu_grad",
                         "elu_grad",
                         "selu_grad",
                         "gelu_grad",
                         "silu_grad",
                         "mish_grad",
                         "sigmoid_grad",
                         "tanh_grad",
                         "hardswish_grad",
                         "hardsigmoid_grad",
                         "softplus_grad",
                         "clip_grad",
                         "abs_grad"}) {
    table[op] = broadcast_fn;
  }
  for (const char* op : {"clone", "to", "require_finite", "relayout", "softmax", "log_softmax", "softmax_grad",
                         "log_softmax_grad", "full_like", "flip", "triangle"}) {
    table[op] = same_fn;
  }
}

Table make_table() {
  Table table;
  fill_elementwise(table);
  for (const char* op :
       {"sum", "mean", "max", "min", "prod", "argmax", "argmin", "var", "logsumexp", "amax", "amin", "all", "any"}) {
    table[op] = reduce_fn;
  }
  for (const char* op : {"reshape", "expand", "spread", "mean_grad", "slice_grad", "scatter_add", "index_add", "full"}) {
    table[op] = shape_fn;
  }
  for (const char* op : {"batch_norm_update", "sgd_step", "adam_step", "rmsprop_step"}) {
    table[op] = update_fn;
  }
  table["layer_norm"] = layer_norm_fn;
  table["layer_norm_grad"] = layer_norm_grad_fn;
  for (const std::string name : {"group_norm", "instance_norm"}) {
    table[name] = group_norm_fn;
    table[name + "_grad"] = batch_norm_grad_fn;
  }
  table["interpolate"] = interpolate_fn;
  table["interpolate_grad"] = x_shape_fn;
  table["batch_norm_training"] = batch_norm_training_fn;
  table["batch_norm_eval"] = same_fn;
  table["batch_norm_grad"] = batch_norm_grad_fn;
  for (const char* op : {"rand", "randn", "randint"}) {
    table[op] = shape_fn;
  }
  for (const char* op : {"cross_entropy", "nll_loss"}) {
    table[op] = class_loss_fn;
    table[std::string(op) + "_grad"] = second_fn;
  }
  table["randperm"] = n_fn;
  table["dropout"] = dropout_fn;
  table["dropout2d"] = dropout_channels_fn;
  table["mask_scale"] = second_fn;
  table["buffer"] = shape_fn;
  table["place"] = second_fn;
  table["joined"] = joined_fn;
  table["flatten_memory"] = flatten_memory_fn;
  table["permute"] = permute_fn;
  table["concat"] = concat_fn;
  table["split"] = split_fn;
  table["slice"] = slice_fn;
  table["gather"] = index_shape_fn;
  table["index"] = index_fn;
  table["one_hot"] = one_hot_fn;
  table["pixel_shuffle"] = pixel_shuffle_fn;
  table["pixel_unshuffle"] = pixel_unshuffle_fn;
  table["linear"] = linear_fn;
  table["matmul"] = matmul_fn;
  table["pad"] = pad_fn;
  table["separable_conv2d"] = separable_conv_fn;
  for (const std::string axes : {"1d", "2d", "3d"}) {
    table["conv" + axes] = conv_fn;
    table["conv_transpose" + axes] = conv_transpose_fn;
    for (const std::string name : {"conv", "conv_transpose"}) {
      table[name + axes + "_grad_input"] = x_shape_fn;
      table[name + axes + "_grad_weight"] = weight_shape_fn;
    }
    for (const std::string name : {"max_pool", "adaptive_max_pool", "avg_pool", "adaptive_avg_pool"}) {
      table[name + axes] = pool_fn;
      table[name + axes + "_taps"] = pool_taps_fn;
      table[name + axes + "_indices"] = same_fn;
      table[name + axes + "_grad"] = x_shape_fn;
      table[name + axes + "_pick"] = index_shape_fn;
    }
  }
  return table;
}

}  // namespace

ShapeFn shape_function(const std::string& op) {
  static const Table table = make_table();
  const auto found = table.find(op);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace striate
