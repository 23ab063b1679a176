// Trading time for memory: cheap results that a backward pass reads are made again there, not kept.
#include <algorithm>
#include <list>
#include <string_view>

#include "striate/program.hpp"

namespace striate {
namespace {

constexpr std::size_t kLeastDistance = 8;  // nodes that a value must outlive unread

// A pass over memory, whose result follows from its operands alone.
bool is_cheap(const Node& node) {
  constexpr std::string_view kNames[] = {"batch_norm_training",
                                         "batch_norm_eval",
                                         "add",
                                         "relu",
                                         "relu6",
                                         "clip",
                                         "silu",
                                         "tanh",
                                         "hardswish",
                                         "hardsigmoid",
                                         "sigmoid",
                                         "leaky_relu",
                                         "elu",
                                         "selu",
                                         "gelu",
                                         "gelu_tanh",
                                         "mish",
                                         "mul",
                                         "softplus"};
  return std::find(std::begin(kNames), std::end(kNames), node.op) != std::end(kNames);
}

bool is_view(const Node& node) {
  constexpr std::string_view kNames[] = {"reshape", "permute", "expand", "spread", "slice", "split", "flatten_memory"};
  return std::find(std::begin(kNames), std::end(kNames), node.op) != std::end(kNames);
}

class Recompute {
 public:
  explicit Recompute(const Graph& graph)
      : graph_(graph), nodes_(graph.nodes()), before_(nodes_.size()), uses_(graph.values().size()) {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      add_uses(nodes_[i], i);
    }
    for (const ValueId id : graph.results()) {
      uses_[index(id)].push_back({nodes_.size(), nullptr});
    }
  }

  Graph run() {
    // The last first: what is made again reads values that are then made again before it.
    for (std::size_t i = nodes_.size(); i-- > 0;) {
      if (is_cheap(nodes_[i]) && nodes_[i].attribute("in_place") == nullptr) {
        move_late_uses(i);
      }
    }
    std::vector<Node> nodes;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      nodes.insert(nodes.end(), before_[i].begin(), before_[i].end());
      nodes.push_back(nodes_[i]);
    }
    return graph_.with_nodes(nodes);
  }

 private:
  struct Use {
    std::size_t at;  // the node of the graph that reads, or before which a node made again does
    Node* node;      // null: a result of the graph
  };

  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  void add_uses(Node& node, std::size_t at) {
    for (const ValueId id : node.inputs) {
      if (id != kNoValue) {
        uses_[index(id)].push_back({at, &node});
      }
    }
  }

  // Whether an operand is there until `last` anyway, unchanged until `late`.
  [[nodiscard]] bool lasts(ValueId id, std::size_t made, std::size_t late, std::size_t last) const {
    const Value& value = graph_.value(id);
    if (value.kind == ValueKind::state) {
      return std::none_of(nodes_.begin() + static_cast<std::ptrdiff_t>(made),
                          nodes_.begin() + static_cast<std::ptrdiff_t>(late), [&](const Node& node) {
                            const auto end = node.inputs.begin() + static_cast<std::ptrdiff_t>(Graph::n_changed(node));
                            return std::find(node.inputs.begin(), end, id) != end;
                          });
    }
    if (value.kind != ValueKind::result) {
      return true;
    }
    const std::vector<Use>& uses = uses_[index(id)];
    return value.node >= 0 && Graph::n_changed(nodes_[static_cast<std::size_t>(value.node)]) == 0 &&
           std::any_of(uses.begin(), uses.end(), [&](const Use& use) { return use.at >= last; });
  }

  // Those beyond the longest stretch of nodes that do not read a value read a copy that is made behind it.
  void move_late_uses(std::size_t i) {
    const ValueId id = nodes_[i].outputs[0];
    std::vector<Use> uses = uses_[index(id)];
    std::stable_sort(uses.begin(), uses.end(), [](const Use& a, const Use& b) { return a.at < b.at; });
    std::size_t first_late = 0;
    std::size_t longest = 0;
    for (std::size_t k = 0; k < uses.size(); ++k) {
      const std::size_t distance = uses[k].at - (k == 0 ? i : uses[k - 1].at);
      if (distance > longest) {
        longest = distance;
        first_late = k;
      }
      if (uses[k].node == nullptr || is_view(*uses[k].node) || Graph::n_changed(*uses[k].node) > 0) {
        return;
      }
    }
    if (first_late == 0 || longest < kLeastDistance) {
      return;
    }
    const std::size_t late = uses[first_late].at;
    const std::vector<ValueId>& inputs = nodes_[i].inputs;
    if (!std::all_of(inputs.begin(), inputs.end(),
                     [&](ValueId input) { return input == kNoValue || lasts(input, i, late, uses.back().at); })) {
      return;
    }
    Node& copy = before_[late].emplace_front(nodes_[i]);
    for (ValueId& output : copy.outputs) {
      output = graph_.add_result_like(output);
      uses_.emplace_back();
    }
    for (std::size_t k = first_late; k < uses.size(); ++k) {
      std::replace(uses[k].node->inputs.begin(), uses[k].node->inputs.end(), id, copy.outputs[0]);
    }
    uses_[index(copy.outputs[0])].assign(uses.begin() + static_cast<std::ptrdiff_t>(first_late), uses.end());
    uses.resize(first_late);
    uses_[index(id)] = std::move(uses);
    add_uses(copy, late);
  }

  Graph graph_;
  std::vector<Node> nodes_;
  std::vector<std::list<Node>> before_;  // of each node: those that are made again
  std::vector<std::vector<Use>> uses_;   // of each value
};

}  // namespace

Graph recompute(const Graph& graph) { return Recompute(graph).run(); }

}  // namespace striate
