// Graph: the one record of what was computed. The recorder fills it; autograd, compile, ONNX and explain read it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "striate/dim.hpp"
#include "striate/ops.hpp"

namespace striate {

// An attribute of a node: nothing, a number, a text, a dtype, a size with its origin, or a list of these.
struct Attribute {
  using List = std::vector<Attribute>;
  std::variant<std::monostate, bool, std::int64_t, double, std::string, DType, Dim, List> value;

  Attribute() = default;
  template <class T>
    requires(!std::is_same_v<std::remove_cvref_t<T>, Attribute>)
  Attribute(T&& v) : value(std::forward<T>(v)) {}  // NOLINT: any of the alternatives is an attribute

  [[nodiscard]] bool is_none() const { return std::holds_alternative<std::monostate>(value); }
  template <class T>
  [[nodiscard]] const T* as() const {
    return std::get_if<T>(&value);
  }
  [[nodiscard]] std::string str() const;
};

using ValueId = int;
inline constexpr ValueId kNoValue = -1;  // an operand that was not given

enum class ValueKind : std::uint8_t {
  input,     // changes with every call; its axes are the origin of Dims
  scalar,    // a run-time number (learning rate): 0 axes, changes with every call
  state,     // lives across calls and changes only by assign
  constant,  // met by an operator, but not made by one
  result,    // made by a node
};
enum class ValueLayout : std::uint8_t { row_major, channels_last, strided };

[[nodiscard]] const char* kind_name(ValueKind kind);
[[nodiscard]] const char* layout_name(ValueLayout layout);
[[nodiscard]] ValueLayout value_layout(const Array& array);

struct Value {
  ValueKind kind;
  DType dtype;
  ValueLayout layout;
  Shape shape;
  std::string name;  // of inputs, scalars and states
  Array array;       // of states and constants: the memory itself
  int node = -1;     // of results: who made it, as which result
  int output = 0;
};

// One operator call. `assign` is the only one with an effect: its first operand is a state (or the result of the assign
// before), and its result is the state from then on.
struct Node {
  std::string op;
  std::vector<std::pair<std::string, Attribute>> attributes;  // in the order of their names
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  bool has_fixed_shape = false;  // no shape function: the sizes hold for the recorded inputs only

  [[nodiscard]] const Attribute* attribute(const std::string& name) const;  // null when absent
};

// A fact about sizes that Python used while recording; the record holds for inputs of which it stays true.
struct Guard {
  enum class Relation : std::uint8_t { equal, not_equal, less, less_equal };
  Dim a;
  Relation relation;
  Dim b;

  [[nodiscard]] bool holds(std::span<const Extents> inputs) const;
  [[nodiscard]] std::string str() const;
};

class Graph {
 public:
  // Filling. Every axis of an input starts a Dim. Names are taken once; throws std::invalid_argument.
  ValueId add_input(const std::string& name, const Array& example);
  ValueId add_scalar(const std::string& name, const Array& example);
  ValueId add_state(const std::string& name, const Array& array);
  ValueId add_constant(const Array& array);
  ValueId add_result_like(ValueId id);  // a value of the same type, which a node of with_nodes() makes
  // Appends a call whose kernels returned `results`. Throws std::logic_error when the shape function disagrees with them.
  std::vector<ValueId> add_node(const std::string& op, std::vector<std::pair<std::string, Attribute>> attributes,
                                std::vector<ValueId> inputs, std::span<const Array> results);
  // state ← value, after all nodes so far and before all that follow; returns the state's new value.
  ValueId assign(ValueId state, ValueId value);
  void add_guard(const Dim& a, Guard::Relation relation, const Dim& b);  // dropped when it always holds
  void set_results(std::vector<ValueId> results);

  // Reading.
  [[nodiscard]] const std::vector<Value>& values() const { return values_; }
  [[nodiscard]] const Value& value(ValueId id) const;
  [[nodiscard]] const std::vector<Node>& nodes() const { return nodes_; }
  [[nodiscard]] const std::vector<Guard>& guards() const { return guards_; }
  [[nodiscard]] const std::vector<ValueId>& inputs() const { return inputs_; }
  [[nodiscard]] const std::vector<ValueId>& scalars() const { return scalars_; }
  [[nodiscard]] const std::vector<ValueId>& states() const { return states_; }
  [[nodiscard]] const std::vector<ValueId>& results() const { return results_; }
  [[nodiscard]] ValueId state_of(ValueId id) const;   // the state that an assign's result stands for, or id itself
  [[nodiscard]] ValueId latest(ValueId state) const;  // the state's value after the last assign
  // How many of a node's first operands change, which is how states do. Throws std::logic_error for an attribute 'in_place'
  // that no change has.
  [[nodiscard]] static std::size_t n_changed(const Node& node);
  // The operand whose memory a node writes to, beside states: a buffer of the same graph, or nothing.
  [[nodiscard]] static ValueId written_buffer(const Node& node);
  [[nodiscard]] std::vector<std::string> fixed_ops() const;  // ops without shape function that met a Dim, each once
  // Throws std::logic_error unless every operand is defined before its use, states are read in their order of assigns, and
  // every shape follows from its node.
  void validate() const;
  void check_order() const;                  // the first of these only
  [[nodiscard]] std::string str() const;     // one line a value or node; equal graphs give equal text
  [[nodiscard]] std::uint64_t hash() const;  // of the text and of the content of constants

  // What a graph consists of, as a reader of files finds it: sizes of inputs are Dims, results have no sizes yet unless no
  // shape function gives them.
  struct Parts {
    std::vector<Value> values;
    std::vector<Node> nodes;
    std::vector<Guard> guards;  // beside those that operators need
    std::vector<ValueId> inputs;
    std::vector<ValueId> scalars;
    std::vector<ValueId> states;
    std::vector<ValueId> results;
  };
  // Trusts nothing: works sizes out anew, and throws std::logic_error unless every id, kind, operand and attribute is one
  // that the operators of the core can run with.
  [[nodiscard]] static Graph from_parts(Parts parts);

  // The same inputs, scalars, states, guards and results with other nodes, which make values of this graph; constants and
  // results that are no longer used are gone, and values have new ids.
  [[nodiscard]] Graph with_nodes(const std::vector<Node>& nodes) const;
  // Likewise, with other inputs, guards and results, too. Inputs may be any values of this graph, whose sizes stay
  // expressions of its inputs; the first of them must be inputs of this graph, so that these expressions keep their meaning.
  [[nodiscard]] Graph part(const std::vector<Node>& nodes, const std::vector<ValueId>& inputs, std::vector<Guard> guards,
                           const std::vector<ValueId>& results) const;

  // How much there is; what was added after a mark is forgotten by rewind().
  struct Mark {
    std::size_t n_values = 0;
    std::size_t n_nodes = 0;
    std::size_t n_guards = 0;
  };
  [[nodiscard]] Mark mark() const { return {values_.size(), nodes_.size(), guards_.size()}; }
  void rewind(const Mark& mark);

 private:
  ValueId add_value(Value value);
  void take_name(const std::string& name);

  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<Guard> guards_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> scalars_;
  std::vector<ValueId> states_;
  std::vector<ValueId> results_;
};

// Inputs that a record does not hold for: record again with these.
struct GuardError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Equal to the given graph up to rounding: constants are folded, batch-norm in evaluation goes into the weights before it,
// activations and one addition into the convolution, product or batch-norm before them, the statistics of a batch-norm in
// training into the convolution before it, a flattening before a linear layer into the order of that layer's weights;
// concatenations of channels are written in place; changes of states happen in place, and steps of one optimizer become one;
// dead nodes are gone.
[[nodiscard]] Graph fuse(const Graph& graph);
// Equal to the given graph to the bit, with less memory and more time: results of batch-norm, activations, sums and products
// that are read again long after are made again there, where their operands are kept anyway.
[[nodiscard]] Graph recompute(const Graph& graph);

// Where a record leaves the core: others read `operands` after so many nodes and make `results`, which are inputs of the
// graph.
struct HostCall {
  std::size_t n_nodes = 0;
  std::vector<ValueId> operands;
  std::vector<ValueId> results;
};

// What runs between two host calls. `inputs` and `results` are what its graph has under the same names, as values of the
// whole graph.
struct GraphPiece {
  Graph graph;
  std::vector<ValueId> inputs;
  std::vector<ValueId> results;
};

// The pieces before, between and behind host calls, given in their order: one more than calls. A piece has all inputs that
// are known by then, behind them what it reads of earlier pieces, and the guards that it is the first to know all inputs of.
// Nodes that nobody needs are gone. Constants that only a host call or the caller reads are in no piece. Throws
// std::invalid_argument for a graph with states or scalars, and for calls that do not fit it.
[[nodiscard]] std::vector<GraphPiece> cut(const Graph& graph, std::span<const HostCall> calls);

// What a plan decides that shows in the bits of a result. Of a convolution that is its algorithm; `automatic` stands for
// every other node.
struct PlanChoices {
  std::string kernels;                    // the instruction set that they are for
  std::vector<Extents> inputs;            // shapes
  std::ptrdiff_t samples_at_a_time = 0;   // 0: all at once
  std::vector<ConvAlgorithm> algorithms;  // of each node

  friend bool operator==(const PlanChoices&, const PlanChoices&) = default;
};

// A graph in a file: a safetensors file whose tensors are the constants and states, in the order of their memory, and whose
// metadata holds the rest as JSON under "striate_program". Equal graphs, metadata and choices give equal bytes.
struct GraphFile {
  Graph graph;
  std::map<std::string, std::string> metadata;  // what the writer added
  std::vector<PlanChoices> pinned;              // for the Program that runs the graph
};

// Atomic, as write_safetensors. Throws std::invalid_argument for metadata of the reserved name and for operators that only
// Python has, all of which it names; std::system_error when the system refuses.
void save_graph(const Graph& graph, const std::string& path, const std::map<std::string, std::string>& metadata = {},
                std::span<const PlanChoices> pinned = {});

// Constants are read-only views of the mapped file, which nobody may change meanwhile; states are copies. Throws FormatError
// (see safetensors.hpp) for anything that no graph can be, naming the file and the node or key; std::system_error when the
// system refuses.
[[nodiscard]] GraphFile load_graph(const std::string& path);

// Whether the core computes this operator, so that a Program may hold it.
[[nodiscard]] bool has_call(const std::string& op);

// A graph with nothing left to decide, run again and again. Shapes are planned when they are first met: attributes and sizes
// become numbers, and everything the pass asks memory for gets its place in one block, an arena.
class Program {
 public:
  // `watched` are the weights that constants of the graph were made from: after a change of one a run throws GuardError.
  // `pinned` choices are taken for their shapes with their kernels, whatever is set and whatever the cost model and the
  // caches of this machine would say; for others a plan chooses itself. Throws std::invalid_argument where an operator has
  // no kernel in the core, all of which the text names, and for choices that this graph can't take.
  explicit Program(Graph graph, std::vector<Array> watched = {}, std::vector<PlanChoices> pinned = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Inputs and scalars in the order of the graph; results likewise. Results are the caller's: no later call changes them.
  // Thread-safe: each concurrent call has an arena of its own, the first calls for a shape excepted. States are shared; a
  // graph that assigns them is run by one thread at a time. Throws ShapeError, DTypeError, GuardError.
  [[nodiscard]] std::vector<Array> run(std::span<const Array> inputs, std::span<const Array> scalars) const;
  // Runs once more, and returns the seconds that each node took.
  [[nodiscard]] std::vector<double> profile(std::span<const Array> inputs, std::span<const Array> scalars) const;

  [[nodiscard]] const Graph& graph() const;
  [[nodiscard]] bool is_stale() const;  // a watched weight has changed
  // How inputs of these shapes run now. A large batch may run a few samples at a time, so that a layer's images stay in the
  // caches for the next; the algorithms are then those of `choices` for such a part.
  [[nodiscard]] PlanChoices choices(std::span<const Extents> inputs) const;
  // What to pin: the choices for the recorded shapes, for those that have run and are still planned, and for the parts of
  // such batches; and all that are pinned already.
  [[nodiscard]] std::vector<PlanChoices> choices_to_pin() const;

  // Of the plan that ran last.
  struct Memory {
    std::ptrdiff_t arena_bytes = 0;
    std::ptrdiff_t least_bytes = 0;  // most that was alive at one moment
    std::ptrdiff_t n_plans = 0;
    std::ptrdiff_t n_arenas = 0;  // over all plans
  };
  [[nodiscard]] Memory memory() const;
  // Most that arenas of plans other than the last may hold; the plan used longest ago goes first.
  void set_cache_bytes(std::ptrdiff_t bytes);

 private:
  [[nodiscard]] std::vector<Array> run_once(std::span<const Array> inputs, std::span<const Array> scalars,
                                            std::vector<double>* seconds) const;
  [[nodiscard]] std::vector<Array> run_parts(std::span<const Array> inputs, std::ptrdiff_t n_samples,
                                             std::vector<double>* seconds) const;

  struct Body;
  std::unique_ptr<Body> body_;
};

// What a shape function sees: a node's attributes and the shapes of its operands (empty for one not given).
class ShapeQuery {
 public:
  ShapeQuery(const Node& node, std::vector<const Value*> operands) : node_(node), operands_(std::move(operands)) {}

  [[nodiscard]] const std::string& op() const { return node_.op; }
  [[nodiscard]] std::size_t n_inputs() const { return operands_.size(); }
  [[nodiscard]] bool has_input(std::size_t i) const { return i < operands_.size() && operands_[i] != nullptr; }
  [[nodiscard]] const Shape& input(std::size_t i) const;                          // throws std::logic_error when absent
  [[nodiscard]] const Shape& input(std::size_t i, std::size_t least_rank) const;  // or of fewer axes
  [[nodiscard]] int rank(std::size_t i) const { return static_cast<int>(input(i).size()); }
  [[nodiscard]] bool has(const char* name) const;  // present and not none
  [[nodiscard]] Dim dim(const char* name) const;
  [[nodiscard]] Dim dim(const char* name, const Dim& otherwise) const;
  [[nodiscard]] bool flag(const char* name, bool otherwise) const;
  [[nodiscard]] std::string string(const char* name, const char* otherwise) const;
  [[nodiscard]] std::vector<Dim> dims(const char* name) const;  // a list, or one number as a list of one
  [[nodiscard]] std::vector<int> axes(const char* name,
                                      int rank) const;               // likewise, from the end when negative; all when none
  [[nodiscard]] const Attribute& attribute(const char* name) const;  // throws std::logic_error when absent

  // Two sizes that this op needs equal, as one of them: a constant when there is one. What is equal now but not always
  // becomes a guard of the graph.
  Dim same(const Dim& a, const Dim& b) const;
  [[nodiscard]] const std::vector<std::pair<Dim, Dim>>& equalities() const { return equalities_; }

 private:
  const Node& node_;
  std::vector<const Value*> operands_;
  mutable std::vector<std::pair<Dim, Dim>> equalities_;
};

// The sizes of an op's results, from the sizes of its operands. Registered once per op name.
using ShapeFn = std::vector<Shape> (*)(const ShapeQuery& query);
[[nodiscard]] ShapeFn shape_function(const std::string& op);  // null when there is none

}  // namespace striate
