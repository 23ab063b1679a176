// Batch-norm with what stands beside it: an addition and a ReLU behind, its statistics before.
#include <algorithm>

#include "program/rewrite.hpp"

namespace striate {
namespace {

std::size_t addend_of(const Node& norm) { return norm.op == "batch_norm_training" ? 3 : 5; }

}  // namespace

void Rewrite::fuse_norm() {
  for (Node& node : nodes_) {
    if (node.op == "add" && node.inputs[0] != node.inputs[1]) {
      Node* norm = nullptr;
      std::size_t at = 0;
      for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
        Node* const before = norm_before(node, i);
        const bool fits = before != nullptr && before->attribute("relu") == nullptr &&
                          before->inputs.size() <= addend_of(*before) &&
                          values(value(node.inputs[1 - i]).shape) == values(value(node.outputs[0]).shape) &&
                          values(value(node.inputs[i]).shape) == values(value(node.outputs[0]).shape) &&
                          value(node.inputs[1 - i]).dtype == value(node.outputs[0]).dtype;
        if (fits && (norm == nullptr || before > norm)) {
          norm = before;
          at = i;
        }
      }
      // The batch-norm stays where it is: its statistics may be read before the addition.
      const Node* const other = norm == nullptr ? nullptr : maker(node.inputs[1 - at]);
      if (norm != nullptr && (other == nullptr || other < norm)) {
        replace_operand(*norm, addend_of(*norm), node.inputs[1 - at]);
        norm->outputs[0] = node.outputs[0];
        maker_[static_cast<std::size_t>(node.outputs[0])] = norm;
        forget(node);
      }
    } else if (node.op == "relu" || node.op == "relu6") {
      Node* const norm = norm_before(node, 0);
      if (norm != nullptr && norm->attribute("relu") == nullptr) {
        take_relu(*norm, node);
      }
    } else if (node.op == "batch_norm_grad") {
      fuse_norm_grad(node);
    }
  }
  count();
}

void Rewrite::take_relu(Node& norm, Node& relu) {
  set_attribute(norm, "relu", true);
  if (relu.op == "relu6") {
    set_attribute(norm, "hi", 6.0);
  }
  norm.outputs[0] = relu.outputs[0];
  maker_[static_cast<std::size_t>(relu.outputs[0])] = &norm;
  forget(relu);
}

void Rewrite::fuse_norm_grad(Node& grad) {
  Node* const relu = private_maker(grad, 0);
  if (relu == nullptr || (relu->op != "relu_grad" && relu->op != "relu6_grad")) {
    return;
  }
  const ValueId between = relu->inputs[1];
  Node* const norm = maker(between);
  if (norm == nullptr || norm->op != "batch_norm_training" || norm->outputs[0] != between || norm->inputs.size() > 3 ||
      norm->inputs[0] != grad.inputs[1]) {
    return;
  }
  if (relu->op == "relu6_grad") {
    const auto six = std::find_if(nodes_.begin(), nodes_.end(),
                                  [&](const Node& node) { return node.op == "relu6" && node.inputs[0] == between; });
    if (six == nodes_.end() || n_readers(between) != 2 || norm->attribute("relu") != nullptr) {
      return;
    }
    take_relu(*norm, *six);
    set_attribute(grad, "hi", 6.0);
  } else if (norm->attribute("relu") == nullptr || norm->attribute("hi") != nullptr) {
    return;
  }
  replace_operand(grad, 0, relu->inputs[0]);
  if (norm->inputs.size() > 2 && norm->inputs[2] != kNoValue) {
    replace_operand(grad, 5, norm->inputs[2]);
  }
  set_attribute(grad, "relu", true);
  forget(*relu);
}

void Rewrite::join_moments() {
  const auto is_given = [](const Node& node, std::size_t i) { return i < node.inputs.size() && node.inputs[i] != kNoValue; };
  for (Node& norm : nodes_) {
    Node* const conv = norm.op == "batch_norm_training" ? maker(norm.inputs[0]) : nullptr;
    if (conv == nullptr || !is_convolution(*conv) || conv->outputs.size() != 1 || has_activation(*conv) ||
        is_given(*conv, 3) || is_given(*conv, 4)) {
      continue;
    }
    conv->inputs.resize(std::min<std::size_t>(conv->inputs.size(), 3));
    conv->outputs.insert(conv->outputs.end(), norm.outputs.begin() + 1, norm.outputs.end());
    set_attribute(*conv, "moments", true);
    norm.inputs.resize(4, kNoValue);
    norm.inputs = {norm.inputs[0], norm.outputs[1], norm.outputs[2], norm.inputs[1], norm.inputs[2], norm.inputs[3]};
    while (norm.inputs.back() == kNoValue) {
      norm.inputs.pop_back();
    }
    norm.outputs.resize(1);
    norm.op = "batch_norm_eval";
  }
  count();
}

Node* Rewrite::norm_before(const Node& node, std::size_t i) const {
  Node* const before = maker(node.inputs[i]);
  const bool is_norm = before != nullptr && (before->op == "batch_norm_training" || before->op == "batch_norm_eval");
  return is_norm && before->outputs[0] == node.inputs[i] && n_readers(node.inputs[i]) == 1 ? before : nullptr;
}

}  // namespace striate
