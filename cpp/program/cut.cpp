// A record that leaves the core in the middle, as pieces that do not.
#include <algorithm>
#include <stdexcept>

#include "striate/program.hpp"

namespace striate {
namespace {

void check_calls(const Graph& graph, std::span<const HostCall> calls) {
  check<std::invalid_argument>(graph.states().empty() && graph.scalars().empty(),
                               "cut: expected a graph of inputs only beside host calls, got ", graph.states().size(),
                               " states and ", graph.scalars().size(),
                               " scalars; keep random draws and changes of states out of it");
  std::size_t n_nodes = 0;
  for (const HostCall& call : calls) {
    check<std::invalid_argument>(call.n_nodes >= n_nodes && call.n_nodes <= graph.nodes().size(),
                                 "cut: expected host calls in the order of nodes, got one after ", call.n_nodes, " of ",
                                 graph.nodes().size(), " nodes; give them as they were recorded");
    n_nodes = call.n_nodes;
    for (const ValueId id : call.results) {
      check<std::invalid_argument>(graph.value(id).kind == ValueKind::input,
                                   "cut: expected results of host calls among the inputs, got a ",
                                   kind_name(graph.value(id).kind), "; add them as inputs");
    }
  }
}

class Cutter {
 public:
  Cutter(const Graph& graph, std::span<const HostCall> calls)
      : graph_(graph), calls_(calls), made_in_(graph.values().size(), 0), last_read_in_(graph.values().size(), -1) {
    find_readers();
  }

  std::vector<GraphPiece> pieces() {
    std::vector<GraphPiece> out;
    int n_known = -1;
    for (std::size_t i = 0; i <= calls_.size(); ++i) {
      const int n_before = n_known;
      n_known = n_inputs_known(i);
      out.push_back(piece(static_cast<int>(i), n_before, n_known));
    }
    return out;
  }

 private:
  // The piece that a node is in.
  [[nodiscard]] int piece_of(std::size_t node) const {
    const auto after = std::find_if(calls_.begin(), calls_.end(), [&](const HostCall& call) { return call.n_nodes > node; });
    return static_cast<int>(after - calls_.begin());
  }

  void read(ValueId id, int piece) {
    if (id != kNoValue) {
      int& last = last_read_in_[static_cast<std::size_t>(id)];
      last = std::max(last, piece);
    }
  }

  // From the end to the beginning: which nodes are needed, and up to which piece each value is read.
  void find_readers() {
    const int last = static_cast<int>(calls_.size());
    for (const ValueId id : graph_.results()) {
      read(id, last + 1);  // by the caller
    }
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      for (const ValueId id : calls_[i].operands) {
        read(id, static_cast<int>(i) + 1);
      }
    }
    is_needed_.assign(graph_.nodes().size(), false);
    for (std::size_t at = graph_.nodes().size(); at-- > 0;) {
      const Node& node = graph_.nodes()[at];
      const int own = piece_of(at);
      for (const ValueId id : node.outputs) {
        made_in_[static_cast<std::size_t>(id)] = own;
        is_needed_[at] = is_needed_[at] || last_read_in_[static_cast<std::size_t>(id)] >= 0;
      }
      for (std::size_t k = 0; is_needed_[at] && k < node.inputs.size(); ++k) {
        read(node.inputs[k], own);
      }
    }
  }

  // Inputs that the caller or an earlier host call gives.
  [[nodiscard]] int n_inputs_known(std::size_t piece) const {
    std::size_t n_later = 0;
    for (std::size_t i = piece; i < calls_.size(); ++i) {
      n_later += calls_[i].results.size();
    }
    return static_cast<int>(graph_.inputs().size() - n_later);
  }

  [[nodiscard]] GraphPiece piece(int at, int n_before, int n_known) const {
    std::vector<ValueId> inputs(graph_.inputs().begin(), graph_.inputs().begin() + n_known);
    std::vector<Node> nodes;
    std::vector<ValueId> results;
    for (std::size_t i = 0; i < graph_.nodes().size(); ++i) {
      if (!is_needed_[i] || piece_of(i) != at) {
        continue;
      }
      const Node& node = graph_.nodes()[i];
      nodes.push_back(node);
      for (const ValueId id : node.inputs) {
        const bool is_earlier = id != kNoValue && graph_.value(id).kind == ValueKind::result && made_in(id) < at;
        if (is_earlier && std::find(inputs.begin(), inputs.end(), id) == inputs.end()) {
          inputs.push_back(id);
        }
      }
      for (const ValueId id : node.outputs) {
        if (last_read_in_[static_cast<std::size_t>(id)] > at) {
          results.push_back(id);
        }
      }
    }
    std::vector<Guard> guards;
    for (const Guard& guard : graph_.guards()) {
      const int last = std::max(guard.a.last_input(), guard.b.last_input());
      if (last >= n_before && last < n_known) {
        guards.push_back(guard);
      }
    }
    return {graph_.part(nodes, inputs, std::move(guards), results), inputs, results};
  }

  [[nodiscard]] int made_in(ValueId id) const { return made_in_[static_cast<std::size_t>(id)]; }

  const Graph& graph_;
  std::span<const HostCall> calls_;
  std::vector<int> made_in_;       // of results: the piece
  std::vector<int> last_read_in_;  // the last piece that reads a value; −1: none
  std::vector<bool> is_needed_;    // of each node
};

}  // namespace

std::vector<GraphPiece> cut(const Graph& graph, std::span<const HostCall> calls) {
  check_calls(graph, calls);
  return Cutter(graph, calls).pieces();
}

}  // namespace striate
