// What comes before a pointwise convolution joins it: a batch-norm that could not be folded, a gate, a depthwise
// convolution. Its pixels are then made where they are multiplied.
#include <algorithm>

#include "program/rewrite.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

bool has_input(const Node& node, std::size_t i) { return i < node.inputs.size() && node.inputs[i] != kNoValue; }

bool takes_moments(const Node& node) { return node.attribute("moments") != nullptr; }

bool is_explicit(const Node& node) {
  const Attribute* const padding = node.attribute("padding");
  const auto* const word = padding == nullptr ? nullptr : padding->as<std::string>();
  return word == nullptr || *word == "explicit" || *word == "valid";
}

}  // namespace

bool Rewrite::is_pointwise(const Node& node) const {
  if (!is_convolution(node) || takes_moments(node) || node.inputs.size() > 5 || !is_explicit(node)) {
    return false;
  }
  const Shape& weight = value(node.inputs[1]).shape;
  return std::all_of(weight.begin() + 2, weight.end(), [](const Dim& size) { return size == Dim(1); }) &&
         all_are(node, "stride", 1) && all_are(node, "pad_begin", 0) && all_are(node, "pad_end", 0) &&
         all_are(node, "groups", 1);
}

void Rewrite::fuse_inputs() {
  for (Node& node : nodes_) {
    Node* const before = node.op.empty() || !is_pointwise(node) ? nullptr : private_maker(node, 0);
    if (before == nullptr) {
      continue;
    }
    if (before->op == "batch_norm_eval") {
      take_norm(node, *before);
    } else if (before->op == "mul") {
      take_gate(node, *before);
    } else if (before->op == "conv2d") {
      take_depthwise(node, *before);
    }
  }
  count();
}

void Rewrite::take_norm(Node& conv, Node& norm) {
  const Array* const mean = constant_of(norm.inputs[1]);
  const Array* const var = constant_of(norm.inputs[2]);
  const Array* const weight = has_input(norm, 3) ? constant_of(norm.inputs[3]) : nullptr;
  const bool is_known = mean != nullptr && var != nullptr && (weight != nullptr || !has_input(norm, 3));
  if (!is_known || has_input(norm, 5) || (has_input(norm, 4) && constant_of(norm.inputs[4]) == nullptr)) {
    return;
  }
  const Array scale = batch_norm_scale(*var, weight, number_of(norm, "eps", 0));
  Node fused = conv;
  fused.inputs.resize(8, kNoValue);
  fused.inputs[0] = norm.inputs[0];
  fused.inputs[5] = norm.inputs[1];
  fused.inputs[6] = constant(scale);
  fused.inputs[7] = has_input(norm, 4) ? norm.inputs[4] : kNoValue;
  if (norm.attribute("relu") != nullptr) {
    set_attribute(fused, "first_relu", *norm.attribute("relu"));
  }
  if (norm.attribute("hi") != nullptr) {
    set_attribute(fused, "first_hi", *norm.attribute("hi"));
  }
  conv = std::move(fused);
  norm = {};
}

void Rewrite::take_gate(Node& conv, Node& gate) {
  const Shape& image = value(conv.inputs[0]).shape;
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    const Value& by = value(gate.inputs[i]);
    const Value& x = value(gate.inputs[1 - i]);
    // Equal in every pass, not in the recorded one alone: a size of 1 may be repeated.
    const bool is_gate = by.shape.size() == image.size() && by.shape[0] == image[0] && by.shape[1] == image[1] &&
                         by.dtype == x.dtype &&
                         std::all_of(by.shape.begin() + 2, by.shape.end(), [](const Dim& size) { return size == Dim(1); });
    if (is_gate && x.shape == image) {
      conv.inputs.resize(9, kNoValue);
      conv.inputs[0] = gate.inputs[1 - i];
      conv.inputs[8] = gate.inputs[i];
      gate = {};
      return;
    }
  }
}

void Rewrite::take_depthwise(Node& conv, Node& depthwise) {
  const Shape& weight = value(depthwise.inputs[1]).shape;
  const Dim& channels = value(depthwise.inputs[0]).shape[1];
  const bool fits = conv.op == "conv2d" && weight[1] == Dim(1) && channels.value() > 1 &&
                    weight[0].value() == channels.value() && depthwise.inputs.size() < 4 &&
                    depthwise.attribute("adds_last") == nullptr && !takes_moments(depthwise);
  if (!fits) {
    return;
  }
  Node fused{"separable_conv2d", depthwise.attributes, conv.inputs, conv.outputs};
  std::erase_if(fused.attributes, [](const auto& entry) {
    return entry.first == "lo" || entry.first == "hi" || entry.first.starts_with("map");
  });
  for (const char* const name : {"lo", "hi", "map", "map_a", "map_b"}) {
    if (depthwise.attribute(name) != nullptr) {
      set_attribute(fused, text("first_", name).c_str(), *depthwise.attribute(name));
    }
  }
  for (const char* const name : {"lo", "hi", "map", "map_a", "map_b", "adds_last", "into_at"}) {
    if (conv.attribute(name) != nullptr) {
      set_attribute(fused, name, *conv.attribute(name));
    }
  }
  fused.inputs.resize(7, kNoValue);
  fused.inputs[0] = depthwise.inputs[0];
  fused.inputs[5] = depthwise.inputs[1];
  fused.inputs[6] = has_input(depthwise, 2) ? depthwise.inputs[2] : kNoValue;
  conv = std::move(fused);
  depthwise = {};
}

}  // namespace striate
