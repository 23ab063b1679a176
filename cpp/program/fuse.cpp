// Rewriting a recorded graph for running it: what can be computed once is, and neighbours become one node.
#include <algorithm>

#include "program/rewrite.hpp"

namespace striate {

void set_attribute(Node& node, const char* name, Attribute value) {
  for (auto& [key, attribute] : node.attributes) {
    if (key == name) {
      attribute = std::move(value);
      return;
    }
  }
  node.attributes.emplace_back(name, std::move(value));
  std::sort(node.attributes.begin(), node.attributes.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
}

bool all_are(const Node& node, const char* name, std::int64_t wanted) {
  const Attribute* const found = node.attribute(name);
  if (found == nullptr || found->is_none()) {
    return true;
  }
  const auto is = [&](const Attribute& size) {
    const auto* const n = size.as<std::int64_t>();
    return n != nullptr && *n == wanted;
  };
  const auto* const list = found->as<Attribute::List>();
  return list == nullptr ? is(*found) : std::all_of(list->begin(), list->end(), is);
}

double number_of(const Node& node, const char* name, double otherwise) {
  const Attribute* found = node.attribute(name);
  if (found == nullptr || found->is_none()) {
    return otherwise;
  }
  const auto* real = found->as<double>();
  const auto* whole = found->as<std::int64_t>();
  return real != nullptr ? *real : whole != nullptr ? static_cast<double>(*whole) : otherwise;
}

Graph Rewrite::run() {
  fold_constants();
  fold_affine();
  join_affine();
  fuse_followers();
  fuse_norm();
  fuse_relu_grad();
  join_moments();
  fold_flatten();
  concat_in_place();
  fuse_inputs();
  change_in_place();
  join_steps();
  remove_dead();
  std::erase_if(nodes_, [](const Node& node) { return node.op.empty(); });
  return graph_.with_nodes(nodes_);
}

void Rewrite::count() {
  n_readers_.assign(graph_.values().size(), 0);
  maker_.assign(graph_.values().size(), nullptr);
  for (Node& node : nodes_) {
    for (const ValueId id : node.inputs) {
      if (id != kNoValue) {
        ++n_readers_[static_cast<std::size_t>(id)];
      }
    }
    for (const ValueId id : node.outputs) {
      maker_[static_cast<std::size_t>(id)] = &node;
    }
  }
  for (const ValueId id : graph_.results()) {
    ++n_readers_[static_cast<std::size_t>(id)];
  }
}

ValueId Rewrite::constant(const Array& array) {
  const ValueId id = graph_.add_constant(array);
  n_readers_.push_back(0);
  maker_.push_back(nullptr);
  return id;
}

const Array* Rewrite::constant_of(ValueId id) const {
  return id != kNoValue && value(id).kind == ValueKind::constant ? &value(id).array : nullptr;
}

Node* Rewrite::private_maker(const Node& node, std::size_t i) const {
  Node* const made_by = i < node.inputs.size() ? maker(node.inputs[i]) : nullptr;
  return made_by != nullptr && made_by->outputs.size() == 1 && n_readers(node.inputs[i]) == 1 ? made_by : nullptr;
}

void Rewrite::absorb(Node& first, Node& second) {
  first.outputs = second.outputs;
  for (const ValueId id : first.outputs) {
    maker_[static_cast<std::size_t>(id)] = &first;
  }
  second = {};
}

void Rewrite::replace_operand(Node& node, std::size_t i, ValueId by) {
  if (node.inputs.size() <= i) {
    node.inputs.resize(i + 1, kNoValue);
  }
  if (node.inputs[i] != kNoValue) {
    --n_readers_[static_cast<std::size_t>(node.inputs[i])];
  }
  node.inputs[i] = by;
  ++n_readers_[static_cast<std::size_t>(by)];
}

void Rewrite::redirect(ValueId from, ValueId to) {
  for (Node& node : nodes_) {
    std::replace(node.inputs.begin(), node.inputs.end(), from, to);
  }
  std::vector<ValueId> results = graph_.results();
  std::replace(results.begin(), results.end(), from, to);
  graph_.set_results(std::move(results));
}

void Rewrite::forget(Node& node) {
  for (const ValueId id : node.inputs) {
    if (id != kNoValue) {
      --n_readers_[static_cast<std::size_t>(id)];
    }
  }
  node = {};
}

ValueId Rewrite::result_like(ValueId id) {
  const ValueId made = graph_.add_result_like(id);
  n_readers_.push_back(0);
  maker_.push_back(nullptr);
  return made;
}

void Rewrite::remove_dead() {
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    const bool has_effect = node->op == "assign" || node->attribute("in_place") != nullptr;
    const bool is_read =
        std::any_of(node->outputs.begin(), node->outputs.end(), [&](ValueId id) { return n_readers(id) > 0; });
    if (!node->op.empty() && !has_effect && !is_read) {
      forget(*node);
    }
  }
}

Graph fuse(const Graph& graph) { return Rewrite(graph).run(); }

}  // namespace striate
