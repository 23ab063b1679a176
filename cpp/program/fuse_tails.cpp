// What follows a convolution or product joins it: activations, an addition, and, behind a data gradient, that of a ReLU.
#include <algorithm>
#include <limits>
#include <string_view>

#include "program/rewrite.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

bool is_strided(const Node& node) { return !all_are(node, "stride", 1); }

bool takes_tail(const Node& node) {
  return is_convolution(node) || node.op == "linear" || node.op == "conv_transpose1d" || node.op == "conv_transpose2d" ||
         node.op == "conv_transpose3d";
}

bool is_activation(const Node& node) {
  constexpr std::string_view kNames[] = {"relu",        "relu6",   "clip",      "silu",       "hardswish",
                                         "hardsigmoid", "sigmoid", "tanh",      "leaky_relu", "elu",
                                         "selu",        "gelu",    "gelu_tanh", "mish",       "softplus"};
  return std::find(std::begin(kNames), std::end(kNames), node.op) != std::end(kNames);
}

void add_activation(Node& conv, const Node& activation) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (activation.op == "relu" || activation.op == "relu6") {
    set_attribute(conv, "lo", 0.0);
    set_attribute(conv, "hi", activation.op == "relu" ? kInfinity : 6.0);
  } else if (activation.op == "clip") {
    set_attribute(conv, "lo", number_of(activation, "lo", -kInfinity));
    set_attribute(conv, "hi", number_of(activation, "hi", kInfinity));
  } else {
    const MapInfo info = map_info(find_map_op(activation.op.c_str()));
    const auto parameter = [&](int i) {
      return info.parameters[i] == nullptr ? 0.0 : number_of(activation, info.parameters[i], 0);
    };
    set_attribute(conv, "map", activation.op);
    set_attribute(conv, "map_a", parameter(0));
    set_attribute(conv, "map_b", parameter(1));
  }
}

// Of two nodes that an addition may join; a data gradient with strides comes before one without, which adds where it
// stores.
bool is_later(const Node& a, const Node& b) {
  const bool differ = is_data_gradient(a) && is_data_gradient(b) && is_strided(a) != is_strided(b);
  return differ ? is_strided(b) : &a > &b;
}

}  // namespace

void Rewrite::fuse_followers() {
  for (Node& node : nodes_) {
    if (node.outputs.size() != 1 || !is_floating(value(node.outputs[0]).dtype)) {
      continue;
    }
    if (node.op == "add") {
      fuse_add(node);
    } else if (is_activation(node)) {
      Node* const before = private_maker(node, 0);
      if (before != nullptr && takes_tail(*before) && !has_activation(*before) &&
          before->attribute("adds_last") == nullptr) {
        add_activation(*before, node);
        absorb(*before, node);
      }
    }
  }
}

void Rewrite::fuse_add(Node& add) {
  Node* best = nullptr;
  ValueId addend = kNoValue;
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    Node* const before = private_maker(add, i);
    const ValueId other = add.inputs[1 - i];
    // Sizes that are equal in the record are equal in every pass: the addition made them guards.
    const Extents shape = values(value(add.outputs[0]).shape);
    const bool fits =
        before != nullptr &&
        (is_convolution(*before) ? before->inputs.size() < 4 : is_data_gradient(*before) && before->inputs.size() == 2) &&
        values(value(other).shape) == shape && values(value(add.inputs[i]).shape) == shape &&
        value(other).dtype == value(add.outputs[0]).dtype && add.inputs[0] != add.inputs[1];
    if (fits && (best == nullptr || is_later(*before, *best))) {
      best = before;
      addend = other;
    }
  }
  if (best == nullptr) {
    return;
  }
  Node fused = *best;
  const std::size_t at = is_convolution(fused) ? 3 : 2;
  fused.inputs.resize(at + 1, kNoValue);
  fused.inputs[at] = addend;
  if (has_activation(fused)) {
    set_attribute(fused, "adds_last", true);
  }
  fused.outputs = add.outputs;
  maker_[static_cast<std::size_t>(fused.outputs[0])] = &add;
  *best = {};
  add = std::move(fused);
}

void Rewrite::fuse_relu_grad() {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].op == "relu_grad") {
      found.push_back(i);
    }
  }
  for (std::size_t i : found) {
    Node* before = private_maker(nodes_[i], 0);
    const Node* const pool = before == nullptr || before->inputs.size() < 2 ? nullptr : maker(before->inputs[1]);
    if (pool != nullptr && pool->op.ends_with("_taps") && before->op == pool->op.substr(0, pool->op.size() - 5) + "_grad" &&
        pool->outputs[1] == before->inputs[1] && pool->inputs[0] == nodes_[i].inputs[1]) {
      Node pool_grad = *before;
      const ValueId passed = result_like(pool_grad.inputs[0]);
      Node relu_grad{"relu_grad", nodes_[i].attributes, {pool_grad.inputs[0], pool->outputs[0]}, {passed}};
      pool_grad.inputs[0] = passed;
      pool_grad.outputs = nodes_[i].outputs;
      nodes_[i] = std::move(pool_grad);
      *before = std::move(relu_grad);
      count();
      i = static_cast<std::size_t>(before - nodes_.data());
      before = private_maker(nodes_[i], 0);
    }
    Node& relu = nodes_[i];
    if (before == nullptr || !is_data_gradient(*before) || before->inputs.size() > 3) {
      continue;
    }
    Node fused = *before;
    fused.inputs.resize(4, kNoValue);
    fused.inputs[3] = relu.inputs[1];
    fused.outputs = relu.outputs;
    *before = {};
    relu = std::move(fused);
    count();
  }
}

}  // namespace striate
