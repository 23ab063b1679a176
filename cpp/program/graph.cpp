#include "striate/program.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <stdexcept>

#include "program/call.hpp"

namespace striate {
namespace {

std::string number(double x) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x).ptr;  // shortest text that reads back equal
  return {buffer, end};
}

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + "\"";
}

std::string reference(ValueId id) { return id == kNoValue ? "none" : text("%", id); }

std::string references(const std::vector<ValueId>& ids) {
  std::string out;
  for (const ValueId id : ids) {
    out += out.empty() ? "" : ", ";
    out += reference(id);
  }
  return out;
}

std::string type_of(const Value& value) {
  return text(dtype_name(value.dtype), to_string(value.shape), value.layout == ValueLayout::row_major ? "" : " ",
              value.layout == ValueLayout::row_major ? "" : layout_name(value.layout));
}

class Fnv1a {
 public:
  void add(const void* data, std::size_t n) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < n; ++i) {
      state_ = (state_ ^ bytes[i]) * 0x100000001b3ULL;
    }
  }
  [[nodiscard]] std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325ULL;
};

// Elements in logical order, whatever the strides.
void add_content(Fnv1a& hash, const Array& array, int axis, std::ptrdiff_t offset) {
  const std::ptrdiff_t item = item_bytes(array.dtype());
  if (axis == array.rank()) {
    hash.add(array.bytes() + offset * item, static_cast<std::size_t>(item));
    return;
  }
  for (std::ptrdiff_t i = 0; i < array.shape(axis); ++i) {
    add_content(hash, array, axis + 1, offset + i * array.stride(axis));
  }
}

Shape fixed_shape(const Extents& extents) { return {extents.begin(), extents.end()}; }

[[noreturn]] void fail(const std::string& message) { throw std::logic_error(message); }

std::vector<const Value*> operands(const Graph& graph, const Node& node) {
  std::vector<const Value*> list;
  for (const ValueId id : node.inputs) {
    list.push_back(id == kNoValue ? nullptr : &graph.value(id));
  }
  return list;
}

}  // namespace

std::string Attribute::str() const {
  struct Writer {
    std::string operator()(std::monostate) const { return "none"; }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(std::int64_t x) const { return std::to_string(x); }
    std::string operator()(double x) const {
      const std::string s = number(x);
      return s.find_first_of(".en") == std::string::npos ? s + ".0" : s;
    }
    std::string operator()(const std::string& x) const { return quoted(x); }
    std::string operator()(DType x) const { return dtype_name(x); }
    std::string operator()(const Dim& x) const { return x.str(); }
    std::string operator()(const List& list) const {
      std::string out = "[";
      for (std::size_t i = 0; i < list.size(); ++i) {
        out += i > 0 ? ", " : "";
        out += list[i].str();
      }
      return out + "]";
    }
  };
  return std::visit(Writer{}, value);
}

const char* kind_name(ValueKind kind) {
  constexpr const char* names[] = {"input", "scalar", "state", "constant", "result"};
  return names[static_cast<std::size_t>(kind)];
}

const char* layout_name(ValueLayout layout) {
  constexpr const char* names[] = {"row_major", "channels_last", "strided"};
  return names[static_cast<std::size_t>(layout)];
}

ValueLayout value_layout(const Array& array) {
  const bool is_image = array.rank() >= 3 && array.rank() <= 5;
  if (is_image && array.is_dense(Layout::channels_last)) {
    return ValueLayout::channels_last;
  }
  return array.is_dense(Layout::row_major) ? ValueLayout::row_major : ValueLayout::strided;
}

const Attribute* Node::attribute(const std::string& name) const {
  const auto found =
      std::find_if(attributes.begin(), attributes.end(), [&](const auto& entry) { return entry.first == name; });
  return found == attributes.end() ? nullptr : &found->second;
}

bool Guard::holds(std::span<const Extents> sizes) const {
  const std::ptrdiff_t left = a.evaluate(sizes);
  const std::ptrdiff_t right = b.evaluate(sizes);
  switch (relation) {
    case Relation::equal:
      return left == right;
    case Relation::not_equal:
      return left != right;
    case Relation::less:
      return left < right;
    default:
      return left <= right;
  }
}

std::string Guard::str() const {
  constexpr const char* signs[] = {" == ", " != ", " < ", " <= "};
  return a.str() + signs[static_cast<std::size_t>(relation)] + b.str();
}

ValueId Graph::add_value(Value value) {
  values_.push_back(std::move(value));
  return static_cast<ValueId>(values_.size()) - 1;
}

void Graph::take_name(const std::string& name) {
  for (const Value& value : values_) {
    check<std::invalid_argument>(value.name != name || name.empty(), "record: expected each name once, got '", name,
                                 "' again; name inputs, scalars and states differently");
  }
}

ValueId Graph::add_input(const std::string& name, const Array& example) {
  take_name(name);
  Shape shape;
  for (int axis = 0; axis < example.rank(); ++axis) {
    shape.push_back(Dim::input_axis(static_cast<int>(inputs_.size()), axis, example.shape(axis)));
  }
  inputs_.push_back(add_value({ValueKind::input, example.dtype(), value_layout(example), std::move(shape), name, {}}));
  return inputs_.back();
}

ValueId Graph::add_scalar(const std::string& name, const Array& example) {
  take_name(name);
  check(example.rank() == 0, "record: expected scalar '", name, "' without axes, got shape ", example.shape(),
        "; reshape it to ()");
  scalars_.push_back(add_value({ValueKind::scalar, example.dtype(), ValueLayout::row_major, {}, name, {}}));
  return scalars_.back();
}

ValueId Graph::add_state(const std::string& name, const Array& array) {
  take_name(name);
  states_.push_back(
      add_value({ValueKind::state, array.dtype(), value_layout(array), fixed_shape(array.shape()), name, array}));
  return states_.back();
}

ValueId Graph::add_constant(const Array& array) {
  return add_value({ValueKind::constant, array.dtype(), value_layout(array), fixed_shape(array.shape()), {}, array});
}

ValueId Graph::add_result_like(ValueId id) {
  const Value& like = value(id);
  return add_value({ValueKind::result, like.dtype, like.layout, like.shape, {}, {}});
}

std::vector<ValueId> Graph::add_node(const std::string& op, std::vector<std::pair<std::string, Attribute>> attributes,
                                     std::vector<ValueId> inputs, std::span<const Array> results) {
  std::sort(attributes.begin(), attributes.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Node node{op, std::move(attributes), std::move(inputs), {}};
  std::vector<Shape> shapes;
  if (const ShapeFn function = shape_function(op); function != nullptr) {
    const ShapeQuery query(node, operands(*this, node));
    shapes = function(query);
    for (const auto& [a, b] : query.equalities()) {
      add_guard(a, Guard::Relation::equal, b);
    }
    if (shapes.size() != results.size()) {
      fail(text(op, ": expected ", shapes.size(), " results from its shape function, got ", results.size()));
    }
  } else {
    for (const Array& array : results) {
      shapes.push_back(fixed_shape(array.shape()));
    }
    node.has_fixed_shape = true;
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!(striate::values(shapes[i]) == results[i].shape())) {
      fail(text(op, ": expected result ", i, " of shape ", to_string(shapes[i]), " = ",
                to_string(striate::values(shapes[i])), " from its shape function, got ", to_string(results[i].shape()),
                "; one of the two is wrong"));
    }
    Value value{ValueKind::result, results[i].dtype(), value_layout(results[i]), std::move(shapes[i]), {}, {}};
    value.node = static_cast<int>(nodes_.size());
    value.output = static_cast<int>(i);
    node.outputs.push_back(add_value(std::move(value)));
  }
  nodes_.push_back(std::move(node));
  return nodes_.back().outputs;
}

ValueId Graph::assign(ValueId state, ValueId new_value) {
  const Value& of = value(state_of(state));
  const Value& from = value(new_value);
  check<std::invalid_argument>(of.kind == ValueKind::state, "assign: expected a state of the record, got a value of kind ",
                               kind_name(of.kind), "; pass it to record(states=...)");
  check<std::invalid_argument>(latest(state_of(state)) == state, "assign: expected the latest value of state '", of.name,
                               "', got an older one; assign to the state itself");
  Value after{ValueKind::result, of.dtype, of.layout, of.shape, {}, {}};
  check(striate::values(from.shape) == striate::values(of.shape) && from.dtype == of.dtype, "assign: expected ",
        dtype_name(of.dtype), of.shape, " for state '", of.name, "', got ", dtype_name(from.dtype), from.shape,
        "; a state keeps its shape and dtype");
  after.node = static_cast<int>(nodes_.size());
  Node node{"assign", {}, {state, new_value}, {}};
  node.outputs.push_back(add_value(std::move(after)));
  nodes_.push_back(std::move(node));
  return nodes_.back().outputs[0];
}

void Graph::add_guard(const Dim& a, Guard::Relation relation, const Dim& b) {
  const Dim::Bounds difference = (a - b).bounds();
  bool always_holds = false;
  switch (relation) {
    case Guard::Relation::equal:
      always_holds = (a - b).is_constant();
      break;
    case Guard::Relation::not_equal:
      always_holds = (difference.has_lower && difference.lower > 0) || (difference.has_upper && difference.upper < 0);
      break;
    case Guard::Relation::less:
      always_holds = difference.has_upper && difference.upper < 0;
      break;
    case Guard::Relation::less_equal:
      always_holds = difference.has_upper && difference.upper <= 0;
      break;
  }
  const Guard guard{a - b, relation, 0};  // one form, whichever way it was asked
  const auto is_same = [&](const Guard& other) { return other.str() == guard.str(); };
  if (!always_holds && std::none_of(guards_.begin(), guards_.end(), is_same)) {
    guards_.push_back(guard);
  }
}

void Graph::set_results(std::vector<ValueId> results) {
  for (const ValueId id : results) {
    static_cast<void>(value(id));
  }
  results_ = std::move(results);
}

Graph Graph::with_nodes(const std::vector<Node>& nodes) const { return part(nodes, inputs_, guards_, results_); }

Graph Graph::part(const std::vector<Node>& nodes, const std::vector<ValueId>& inputs, std::vector<Guard> guards,
                  const std::vector<ValueId>& results) const {
  std::vector<bool> is_used(values_.size(), false);
  const auto use = [&](const std::vector<ValueId>& ids) {
    for (const ValueId id : ids) {
      if (id != kNoValue) {
        is_used[static_cast<std::size_t>(id)] = true;
      }
    }
  };
  use(inputs);
  use(scalars_);
  use(states_);
  use(results);
  for (const Node& node : nodes) {
    use(node.inputs);
    use(node.outputs);
  }
  Graph out;
  std::vector<ValueId> renamed(values_.size(), kNoValue);
  for (std::size_t id = 0; id < values_.size(); ++id) {
    if (is_used[id]) {
      renamed[id] = out.add_value(values_[id]);
    }
  }
  const auto rename = [&](std::vector<ValueId> ids) {
    for (ValueId& id : ids) {
      id = id == kNoValue ? kNoValue : renamed[static_cast<std::size_t>(id)];
    }
    return ids;
  };
  out.guards_ = std::move(guards);
  out.inputs_ = rename(inputs);
  out.scalars_ = rename(scalars_);
  out.states_ = rename(states_);
  out.results_ = rename(results);
  for (const ValueId id : inputs) {
    Value& given = out.values_[static_cast<std::size_t>(renamed[static_cast<std::size_t>(id)])];
    if (given.kind == ValueKind::result) {
      given = {ValueKind::input, given.dtype, given.layout, given.shape, text("value", id), {}};
    }
  }
  for (const Node& node : nodes) {
    Node copy = node;
    copy.inputs = rename(node.inputs);
    copy.outputs = rename(node.outputs);
    for (std::size_t i = 0; i < copy.outputs.size(); ++i) {
      Value& made = out.values_[static_cast<std::size_t>(copy.outputs[i])];
      made.node = static_cast<int>(out.nodes_.size());
      made.output = static_cast<int>(i);
    }
    out.nodes_.push_back(std::move(copy));
  }
  return out;
}

void Graph::rewind(const Mark& mark) {
  check<std::invalid_argument>(
      mark.n_values <= values_.size() && mark.n_nodes <= nodes_.size() && mark.n_guards <= guards_.size(),
      "graph: expected a mark of this graph, got one with more values, nodes or guards; take it before they are added");
  const auto forget = [&](std::vector<ValueId>& ids) {
    std::erase_if(ids, [&](ValueId id) { return static_cast<std::size_t>(id) >= mark.n_values; });
  };
  forget(inputs_);
  forget(scalars_);
  forget(states_);
  values_.erase(values_.begin() + static_cast<std::ptrdiff_t>(mark.n_values), values_.end());
  nodes_.erase(nodes_.begin() + static_cast<std::ptrdiff_t>(mark.n_nodes), nodes_.end());
  guards_.erase(guards_.begin() + static_cast<std::ptrdiff_t>(mark.n_guards), guards_.end());
}

namespace {

// Whether `ids` are the values of one kind, each once.
void check_list(const Graph& graph, const std::vector<ValueId>& ids, ValueKind kind) {
  std::set<ValueId> seen;
  for (const ValueId id : ids) {
    if (graph.value(id).kind != kind || !seen.insert(id).second) {
      fail(text("graph: expected each ", kind_name(kind), " once among the ", kind_name(kind), "s, got ", reference(id)));
    }
  }
  const auto n = std::count_if(graph.values().begin(), graph.values().end(), [&](const Value& v) { return v.kind == kind; });
  if (n != static_cast<std::ptrdiff_t>(ids.size())) {
    fail(text("graph: expected ", n, " ", kind_name(kind), "s, got ", ids.size()));
  }
}

// Sizes that memory could have.
void check_sizes(const Shape& shape) {
  std::ptrdiff_t n = 1;
  for (const Dim& dim : shape) {
    const bool fits = dim.value() >= 0 && !__builtin_mul_overflow(n, std::max<std::ptrdiff_t>(dim.value(), 1), &n) &&
                      n < std::ptrdiff_t{1} << 56;
    if (!fits || shape.size() > kMaxRank) {
      fail(text("expected at most ", kMaxRank, " sizes of at least 0 that fit into memory, got ", to_string(shape)));
    }
  }
}

}  // namespace

ValueId Graph::written_buffer(const Node& node) {
  if (node.op == "place") {
    return node.inputs[0];
  }
  const bool may_write = node.op.starts_with("conv") || node.op == "separable_conv2d";
  return may_write && node.inputs.size() > 4 ? node.inputs[4] : kNoValue;
}

std::size_t Graph::n_changed(const Node& node) {
  const Attribute* const in_place = node.attribute("in_place");
  const auto* const changes = in_place == nullptr ? nullptr : in_place->as<bool>();
  if (node.op == "assign") {
    return 1;
  }
  if (in_place == nullptr) {
    return 0;
  }
  if (changes == nullptr || node.attribute("n_states") == nullptr) {
    fail("expected attribute 'in_place' to be true or false, beside 'n_states'");
  }
  return *changes ? node.outputs.size() : 0;
}

Graph Graph::from_parts(Parts parts) {
  Graph graph;
  graph.values_ = std::move(parts.values);
  graph.inputs_ = std::move(parts.inputs);
  graph.scalars_ = std::move(parts.scalars);
  graph.states_ = std::move(parts.states);
  check_list(graph, graph.inputs_, ValueKind::input);
  check_list(graph, graph.scalars_, ValueKind::scalar);
  check_list(graph, graph.states_, ValueKind::state);
  for (const Guard& guard : parts.guards) {
    graph.add_guard(guard.a, guard.relation, guard.b);
  }
  std::set<std::string> names;
  std::vector<bool> is_known;
  std::vector<bool> is_state;
  for (Value& v : graph.values_) {
    is_known.push_back(v.kind != ValueKind::result);
    is_state.push_back(v.kind == ValueKind::state);
    v.node = -1;
    if (!v.name.empty() && !names.insert(v.name).second) {
      fail(text("graph: expected each name once, got '", v.name, "' again"));
    }
    check_sizes(v.shape);
    if (v.kind == ValueKind::scalar && !v.shape.empty()) {
      fail(text("graph: expected scalar '", v.name, "' without axes, got ", to_string(v.shape)));
    }
  }
  const auto known = [&](ValueId id) {
    return id >= 0 && static_cast<std::size_t>(id) < is_known.size() && is_known[static_cast<std::size_t>(id)];
  };
  for (Node& node : parts.nodes) {
    const std::size_t at = graph.nodes_.size();
    try {
      for (const ValueId id : node.inputs) {
        if (id != kNoValue && !known(id)) {
          fail(text("expected operands that are made before their use, got ", reference(id)));
        }
      }
      check_operands(node);
      std::vector<Shape> shapes;
      node.has_fixed_shape = false;
      if (const ShapeFn function = shape_function(node.op); function != nullptr) {
        const ShapeQuery query(node, operands(graph, node));
        shapes = function(query);
        for (const auto& [a, b] : query.equalities()) {
          graph.add_guard(a, Guard::Relation::equal, b);
        }
      } else if (node.op == "assign") {
        shapes = {graph.value(node.inputs[0]).shape};
      } else {
        node.has_fixed_shape = true;
        for (const ValueId id : node.outputs) {
          shapes.push_back(graph.value(id).shape);
        }
      }
      if (shapes.size() != node.outputs.size()) {
        fail(text("expected ", shapes.size(), " results, got ", node.outputs.size()));
      }
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const ValueId id = node.outputs[i];
        check_sizes(shapes[i]);
        Value& made = graph.values_[static_cast<std::size_t>(graph.value(id).kind == ValueKind::result ? id : 0)];
        if (graph.value(id).kind != ValueKind::result || made.node >= 0) {
          fail(text("expected results that no other node makes, got ", reference(id)));
        }
        made.shape = std::move(shapes[i]);
        made.node = static_cast<int>(at);
        made.output = static_cast<int>(i);
        is_known[static_cast<std::size_t>(id)] = true;
      }
      for (std::size_t i = 0; i < n_changed(node); ++i) {
        const ValueId state = i < node.inputs.size() ? node.inputs[i] : kNoValue;
        if (state == kNoValue || !is_state[static_cast<std::size_t>(state)]) {
          fail(text("expected changes of states only, got one of ", reference(state)));
        }
        if (graph.value(state).dtype != graph.value(node.outputs[i]).dtype) {
          fail(text("expected ", reference(state), " to keep its dtype"));
        }
        is_state[static_cast<std::size_t>(node.outputs[i])] = true;
      }
      if (const ValueId buffer = written_buffer(node); buffer != kNoValue) {
        const int maker = graph.value(buffer).node;
        if (maker < 0 || static_cast<std::size_t>(maker) >= at ||
            graph.nodes_[static_cast<std::size_t>(maker)].op != "buffer") {
          fail(text("expected a buffer to write to, got ", reference(buffer)));
        }
      }
      static_cast<void>(make_call(Attributes(node.op, node.attributes)));
    } catch (const std::exception& error) {
      fail(text("node ", at, " (", node.op, "): ", error.what()));
    }
    graph.nodes_.push_back(std::move(node));
  }
  for (std::size_t id = 0; id < is_known.size(); ++id) {
    if (!is_known[id]) {
      fail(text("graph: expected a node that makes ", reference(static_cast<ValueId>(id)), ", got none"));
    }
  }
  graph.set_results(std::move(parts.results));
  graph.validate();
  return graph;
}

const Value& Graph::value(ValueId id) const {
  check<std::out_of_range>(id >= 0 && static_cast<std::size_t>(id) < values_.size(), "graph: expected a value from 0 to ",
                           values_.size(), ", got ", id, "; use the ids that the graph returned");
  return values_[static_cast<std::size_t>(id)];
}

ValueId Graph::state_of(ValueId id) const {
  for (;;) {
    const Value& v = value(id);
    if (v.kind != ValueKind::result || nodes_[static_cast<std::size_t>(v.node)].op != "assign") {
      return id;
    }
    id = nodes_[static_cast<std::size_t>(v.node)].inputs[0];
  }
}

ValueId Graph::latest(ValueId state) const {
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    if (node->op == "assign" && state_of(node->outputs[0]) == state) {
      return node->outputs[0];
    }
  }
  return state;
}

std::vector<std::string> Graph::fixed_ops() const {
  std::set<std::string> names;
  for (const Node& node : nodes_) {
    const auto list = operands(*this, node);
    const bool meets_dim = std::any_of(list.begin(), list.end(), [](const Value* v) {
      return v != nullptr && std::any_of(v->shape.begin(), v->shape.end(), [](const Dim& d) { return !d.is_constant(); });
    });
    if (node.has_fixed_shape && meets_dim) {
      names.insert(node.op);
    }
  }
  return {names.begin(), names.end()};
}

void Graph::check_order() const {
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    for (const ValueId id : nodes_[i].inputs) {
      if (id != kNoValue && value(id).kind == ValueKind::result && value(id).node >= static_cast<int>(i)) {
        fail(text("graph: expected operands that are made before their use, got ", reference(id), " at node ", i, " (",
                  nodes_[i].op, ")"));
      }
    }
  }
}

void Graph::validate() const {
  check_order();
  std::vector<ValueId> current(values_.size(), kNoValue);  // of a state: its value now
  for (const ValueId state : states_) {
    current[static_cast<std::size_t>(state)] = state;
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    for (const ValueId id : node.inputs) {
      if (id == kNoValue) {
        continue;
      }
      const ValueId state = state_of(id);
      if (value(state).kind == ValueKind::state && current[static_cast<std::size_t>(state)] != id) {
        fail(text("graph: expected state '", value(state).name, "' to be read as last assigned, got ", reference(id),
                  " at node ", i, " (", node.op, ")"));
      }
    }
    if (node.op == "assign") {
      current[static_cast<std::size_t>(state_of(node.outputs[0]))] = node.outputs[0];
    } else if (const ShapeFn function = shape_function(node.op); function != nullptr) {
      const auto shapes = function(ShapeQuery(node, operands(*this, node)));
      for (std::size_t k = 0; k < node.outputs.size(); ++k) {
        if (k >= shapes.size() || !(to_string(shapes[k]) == to_string(value(node.outputs[k]).shape))) {
          fail(text("graph: expected ", reference(node.outputs[k]), " to have the shape that follows from node ", i, " (",
                    node.op, "), got ", to_string(value(node.outputs[k]).shape)));
        }
      }
    }
  }
}

std::string Graph::str() const {
  std::string out;
  for (std::size_t id = 0; id < values_.size(); ++id) {
    const Value& v = values_[id];
    if (v.kind != ValueKind::result) {
      out += text("%", id, " = ", kind_name(v.kind), v.name.empty() ? "" : " ", v.name.empty() ? "" : quoted(v.name), " : ",
                  type_of(v), "\n");
    }
  }
  for (const Node& node : nodes_) {
    std::string attributes;
    for (const auto& [name, attribute] : node.attributes) {
      attributes += text(attributes.empty() ? "; " : ", ", name, "=", attribute.str());
    }
    std::string types;
    for (const ValueId id : node.outputs) {
      types += types.empty() ? "" : ", ";
      types += type_of(value(id));
    }
    out += text(references(node.outputs), " = ", node.op, "(", references(node.inputs), attributes, ") : ", types,
                node.has_fixed_shape ? " fixed" : "", "\n");
  }
  for (const Guard& guard : guards_) {
    out += text("guard ", guard.str(), "\n");
  }
  return out + text("return ", references(results_), "\n");
}

std::uint64_t Graph::hash() const {
  Fnv1a hash;
  const std::string body = str();
  hash.add(body.data(), body.size());
  for (const Value& v : values_) {
    if (v.kind == ValueKind::constant) {
      add_content(hash, v.array, 0, 0);
    }
  }
  return hash.state();
}

}  // namespace striate
