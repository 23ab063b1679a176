// Memory that is written where it is needed: parts of a concatenation, states, all parameters in one step.
#include <algorithm>
#include <string_view>

#include "program/rewrite.hpp"

namespace striate {
namespace {

Attribute size_attribute(const Dim& dim) {
  return dim.is_constant() ? Attribute(static_cast<std::int64_t>(dim.value())) : Attribute(dim);
}

bool writes_into(const Node& node) {
  return (is_convolution(node) || node.op == "conv_transpose1d" || node.op == "conv_transpose2d" ||
          node.op == "conv_transpose3d") &&
         node.inputs.size() < 4;
}

std::string to_text(const Node& node) {
  std::string out;
  for (const auto& [name, attribute] : node.attributes) {
    out += text(name, "=", attribute.str(), ";");
  }
  return out;
}

}  // namespace

void Rewrite::concat_in_place() {
  std::vector<std::vector<Node>> before(nodes_.size());
  std::vector<bool> is_placed(graph_.values().size(), false);
  std::vector<std::size_t> concats;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (joins_channels(nodes_[i])) {
      concats.push_back(i);
    }
  }
  std::stable_sort(concats.begin(), concats.end(),
                   [&](std::size_t a, std::size_t b) { return nodes_[a].inputs.size() > nodes_[b].inputs.size(); });
  std::vector<bool> is_done(nodes_.size(), false);
  for (const std::size_t i : concats) {
    const std::vector<ValueId> parts = nodes_[i].inputs;
    if (is_done[i] || std::any_of(parts.begin(), parts.end(), [&](ValueId id) { return is_placed[index(id)]; })) {
      continue;
    }
    std::vector<std::size_t> group;  // this one, and those that are its first channels
    for (const std::size_t j : concats) {
      const std::vector<ValueId>& own = nodes_[j].inputs;
      if (!is_done[j] && own.size() <= parts.size() && std::equal(own.begin(), own.end(), parts.begin())) {
        group.push_back(j);
        is_done[j] = true;
      }
    }
    const std::size_t earliest = *std::min_element(group.begin(), group.end());
    // The buffer is there before the first part is made.
    const ValueId buffer = result_like(nodes_[i].outputs[0]);
    is_placed.resize(graph_.values().size(), false);
    std::size_t first = i;
    std::vector<ValueId> placed;
    Dim at = 0;
    for (const ValueId part : parts) {
      Node* const writer = maker(part);
      const Dim channels = value(part).shape[1];
      if (writer != nullptr && writes_into(*writer)) {
        writer->inputs.resize(5, kNoValue);
        writer->inputs[4] = buffer;
        set_attribute(*writer, "into_at", size_attribute(at));
        first = std::min(first, static_cast<std::size_t>(writer - nodes_.data()));
        placed.push_back(part);
      } else {
        const std::size_t where = writer == nullptr ? earliest : static_cast<std::size_t>(writer - nodes_.data()) + 1;
        const ValueId copy = result_like(part);
        Node place{"place", {}, {buffer, part}, {copy}};
        set_attribute(place, "into_at", size_attribute(at));
        before[where].push_back(std::move(place));
        first = std::min(first, where);
        placed.push_back(copy);
      }
      is_placed.resize(graph_.values().size(), false);
      is_placed[index(part)] = true;
      at = at + channels;
    }
    Node make{"buffer", {}, {}, {buffer}};
    Attribute::List shape;
    for (const Dim& size : value(nodes_[i].outputs[0]).shape) {
      shape.emplace_back(size);
    }
    set_attribute(make, "shape", std::move(shape));
    set_attribute(make, "dtype", value(nodes_[i].outputs[0]).dtype);
    before[first].insert(before[first].begin(), std::move(make));
    for (const std::size_t j : group) {
      Node joined{"joined", {}, {buffer}, nodes_[j].outputs};
      const auto n_parts = static_cast<std::ptrdiff_t>(nodes_[j].inputs.size());
      joined.inputs.insert(joined.inputs.end(), placed.begin(), placed.begin() + n_parts);
      set_attribute(joined, "n_channels", size_attribute(value(joined.outputs[0]).shape[1]));
      nodes_[j] = std::move(joined);
    }
  }
  std::vector<Node> ordered;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    std::move(before[i].begin(), before[i].end(), std::back_inserter(ordered));
    ordered.push_back(std::move(nodes_[i]));
  }
  nodes_ = std::move(ordered);
  count();
}

bool Rewrite::joins_channels(const Node& node) const {
  if (node.op != "concat" || number_of(node, "dim", 0) != 1 || node.inputs.size() < 2) {
    return false;
  }
  const Value& y = value(node.outputs[0]);
  bool fits = y.layout == ValueLayout::channels_last && y.shape.size() >= 3;
  for (const ValueId part : node.inputs) {
    fits = fits && value(part).dtype == y.dtype && std::count(node.inputs.begin(), node.inputs.end(), part) == 1;
  }
  return fits;
}

void Rewrite::change_in_place() {
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    Node& change = nodes_[i];
    const Attribute* const n_states = change.op == "assign" ? nullptr : change.attribute("n_states");
    if (n_states == nullptr || n_states->as<std::int64_t>() == nullptr) {
      continue;
    }
    const auto n = static_cast<std::size_t>(*n_states->as<std::int64_t>());
    std::vector<std::size_t> assigns(n, 0);
    bool fits = n == change.outputs.size();
    for (std::size_t k = 0; fits && k < n; ++k) {
      for (std::size_t j = i + 1; j < nodes_.size(); ++j) {
        const Node& node = nodes_[j];
        if (node.op == "assign" && node.inputs[0] == change.inputs[k] && node.inputs[1] == change.outputs[k]) {
          assigns[k] = j;
          break;
        }
        fits = fits && !reads(node, change.inputs[k]);  // as it was before the change
      }
      fits = fits && assigns[k] > 0 && n_readers(change.outputs[k]) == 1;
    }
    if (!fits) {
      continue;
    }
    set_attribute(change, "in_place", true);
    for (std::size_t k = 0; k < n; ++k) {
      Node& assign = nodes_[assigns[k]];
      change.outputs[k] = assign.outputs[0];
      assign = {};
    }
  }
  count();
}

void Rewrite::join_steps() {
  for (std::size_t i = nodes_.size(); i-- > 0;) {
    const Node& last = nodes_[i];
    if (!std::string_view(last.op).ends_with("_step") || last.attribute("in_place") == nullptr ||
        last.attribute("n_params") != nullptr) {
      continue;
    }
    const auto n_states = static_cast<std::size_t>(number_of(last, "n_states", 1));
    const std::vector<ValueId> numbers(last.inputs.begin() + static_cast<std::ptrdiff_t>(n_states) + 1, last.inputs.end());
    std::vector<std::size_t> steps;
    for (std::size_t j = 0; j <= i; ++j) {
      const Node& node = nodes_[j];
      if (node.op == last.op && to_text(node) == to_text(last) &&
          std::vector<ValueId>(node.inputs.begin() + static_cast<std::ptrdiff_t>(n_states) + 1, node.inputs.end()) ==
              numbers &&
          is_unread_between(node, n_states, j, i)) {
        steps.push_back(j);
      }
    }
    Node joined{last.op, last.attributes, {}, {}};
    for (std::size_t kind = 0; kind <= n_states; ++kind) {  // parameters, states, gradients
      for (const std::size_t j : steps) {
        joined.inputs.push_back(nodes_[j].inputs[kind]);
        if (kind < n_states) {
          joined.outputs.push_back(nodes_[j].outputs[kind]);
        }
      }
    }
    joined.inputs.insert(joined.inputs.end(), numbers.begin(), numbers.end());
    set_attribute(joined, "n_params", static_cast<std::int64_t>(steps.size()));
    set_attribute(joined, "n_states", static_cast<std::int64_t>(steps.size() * n_states));
    for (const std::size_t j : steps) {
      nodes_[j] = {};
    }
    nodes_[i] = std::move(joined);
  }
  count();
}

bool Rewrite::is_unread_between(const Node& step, std::size_t n_states, std::size_t begin, std::size_t end) const {
  for (std::size_t j = begin + 1; j <= end; ++j) {
    for (std::size_t k = 0; k < n_states; ++k) {
      if (reads(nodes_[j], step.outputs[k]) || reads(nodes_[j], step.inputs[k])) {
        return false;
      }
    }
  }
  return true;
}

bool Rewrite::reads(const Node& node, ValueId id) const {
  constexpr std::string_view kViews[] = {"reshape", "permute", "expand",         "spread",
                                         "slice",   "split",   "flatten_memory", "relayout"};
  return std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId operand) {
    for (;;) {
      if (operand == id) {
        return true;
      }
      const Node* const made_by = maker(operand);
      if (made_by == nullptr || std::find(std::begin(kViews), std::end(kViews), made_by->op) == std::end(kViews)) {
        return false;
      }
      operand = made_by->inputs[0];
    }
  });
}

}  // namespace striate
