// Graphs as files: a safetensors file of constants and states, and the rest as JSON in its metadata.
//
// {"version": 1, "inputs": [id…], "scalars": […], "states": […], "results": […],
//  "values": [{"kind": "input", "dtype": "float32", "layout": "channels_last", "shape": [1, 3, 32, 32], "name": "input0"},
//             {"kind": "constant", "tensor": "constant.1", "axes": [0, 2, 3, 1]},
//             {"kind": "result", "dtype": "float32", "layout": "channels_last"}, …],
//  "nodes": [{"op": "conv2d", "attributes": {"groups": 1, …}, "inputs": [0, 1, null], "outputs": [2]}, …],
//  "guards": [["i0.0 - 3", "==", 0], …],
//  "plans": [{"kernels": "avx2", "inputs": [[1, 3, 32, 32]], "samples_at_a_time": 0, "algorithms": ["winograd4", null]}, …]}
//
// Ids count the values. Sizes of an input are those it was recorded with; a size that follows from them is a text as Dim
// writes it. `axes` are a tensor's axes in the order of its memory, where that is not the logical one. Sizes of results are
// worked out when reading; only operators without shape function have theirs. Plans are those that are pinned, and absent
// without one; their algorithms are of each node, null where it is no convolution. An attribute is null, true or false, a
// whole number, a number with a fraction, a text, a list of these, or {"dtype": name}, {"dim": text}, {"real":
// "inf"|"-inf"|"nan"}.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>

#include "program/call.hpp"
#include "program/choices.hpp"
#include "striate/ops.hpp"
#include "striate/program.hpp"
#include "striate/safetensors.hpp"
#include "tensor/json.hpp"

namespace striate {
namespace {

constexpr const char* kEntry = "striate_program";
constexpr std::int64_t kVersion = 1;
constexpr std::size_t kMostBytes = std::size_t{16} << 20;  // of the JSON text
constexpr const char* kSigns[] = {"==", "!=", "<", "<="};
constexpr ValueKind kKinds[] = {ValueKind::input, ValueKind::scalar, ValueKind::state, ValueKind::constant,
                                ValueKind::result};
constexpr ValueLayout kLayouts[] = {ValueLayout::row_major, ValueLayout::channels_last, ValueLayout::strided};

// Names of operators that have no kernel in the core, each once.
template <class Names>
std::string missing_ops(const Names& names) {
  std::set<std::string> seen;
  std::string missing;
  for (const std::string& name : names) {
    if (!has_call(name) && seen.insert(name).second) {
      missing += text(missing.empty() ? "" : ", ", "'", name, "'");
    }
  }
  return missing;
}

std::vector<std::string> ops_of(const std::vector<Node>& nodes) {
  std::vector<std::string> names;
  for (const Node& node : nodes) {
    names.push_back(node.op);
  }
  return names;
}

// ---- writing ----

std::string quoted(const std::string& value) {
  std::string out;
  append_json_string(out, value);
  return out;
}

template <class List, class F>
std::string list_of(const List& list, F&& write) {
  std::string out = "[";
  for (const auto& item : list) {
    out += out.size() > 1 ? "," : "";
    out += write(item);
  }
  return out + "]";
}

std::string ids_of(const std::vector<ValueId>& ids) {
  return list_of(ids, [](ValueId id) { return id == kNoValue ? std::string("null") : std::to_string(id); });
}

std::string written(const Dim& dim) { return dim.is_constant() ? dim.str() : quoted(dim.str()); }

std::string written(double x) {
  if (!std::isfinite(x)) {
    return text("{\"real\":\"", std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf", "\"}");
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x).ptr;  // shortest text that reads back equal
  const std::string out(buffer, end);
  return out.find_first_of(".e") == std::string::npos ? out + ".0" : out;
}

std::string written(const Attribute& attribute) {
  struct Writer {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(std::int64_t x) const { return std::to_string(x); }
    std::string operator()(double x) const { return written(x); }
    std::string operator()(const std::string& x) const { return quoted(x); }
    std::string operator()(DType x) const { return text("{\"dtype\":\"", dtype_name(x), "\"}"); }
    std::string operator()(const Dim& x) const { return text("{\"dim\":", quoted(x.str()), "}"); }
    std::string operator()(const Attribute::List& list) const {
      return list_of(list, [](const Attribute& item) { return written(item); });
    }
  };
  return std::visit(Writer{}, attribute.value);
}

// The axes of a dense array from the slowest to the fastest in memory; in logical order where memory has gaps.
std::vector<int> memory_axes(const Array& array) {
  std::vector<int> axes;
  for (int axis = 0; axis < array.rank(); ++axis) {
    axes.push_back(axis);
  }
  if (array.is_dense(Layout::row_major)) {
    return axes;
  }
  std::vector<int> by_stride = axes;
  std::stable_sort(by_stride.begin(), by_stride.end(), [&](int a, int b) {
    const auto step = [&](int axis) { return array.shape(axis) > 1 ? array.stride(axis) : 0; };  // size 1: anywhere
    return step(a) > step(b);
  });
  return array.permute(by_stride).is_dense(Layout::row_major) ? by_stride : axes;
}

std::string values_of(const Graph& graph, std::vector<std::pair<std::string, Array>>& tensors) {
  std::size_t id = 0;
  return list_of(graph.values(), [&](const Value& v) {
    std::string out = text("{\"kind\":\"", kind_name(v.kind), "\"");
    if (v.kind == ValueKind::constant || v.kind == ValueKind::state) {
      const std::vector<int> axes = memory_axes(v.array);
      tensors.emplace_back(text(kind_name(v.kind), ".", id), v.array.permute(axes));
      out += text(",\"tensor\":", quoted(tensors.back().first));
      if (!std::is_sorted(axes.begin(), axes.end())) {
        out += text(",\"axes\":", list_of(axes, [](int axis) { return std::to_string(axis); }));
      }
    } else {
      out += text(",\"dtype\":\"", dtype_name(v.dtype), "\",\"layout\":\"", layout_name(v.layout), "\"");
    }
    const bool has_sizes = v.kind == ValueKind::result && graph.nodes()[static_cast<std::size_t>(v.node)].has_fixed_shape;
    if (v.kind == ValueKind::input || has_sizes) {
      out += text(",\"shape\":", list_of(v.shape, [](const Dim& dim) { return std::to_string(dim.value()); }));
    }
    ++id;
    return out + (v.name.empty() ? "}" : text(",\"name\":", quoted(v.name), "}"));
  });
}

std::string node_of(const Node& node) {
  std::string attributes;
  for (const auto& [name, attribute] : node.attributes) {
    attributes += text(attributes.empty() ? "" : ",", quoted(name), ":", written(attribute));
  }
  return text("{\"op\":", quoted(node.op), ",\"attributes\":{", attributes, "},\"inputs\":", ids_of(node.inputs),
              ",\"outputs\":", ids_of(node.outputs), "}");
}

std::string plan_of(const PlanChoices& choices) {
  const auto sizes = [](const Extents& shape) {
    return list_of(shape, [](std::ptrdiff_t extent) { return std::to_string(extent); });
  };
  return text("{\"kernels\":", quoted(choices.kernels), ",\"inputs\":", list_of(choices.inputs, sizes),
              ",\"samples_at_a_time\":", choices.samples_at_a_time, ",\"algorithms\":",
              list_of(choices.algorithms,
                      [](ConvAlgorithm algorithm) {
                        return algorithm == ConvAlgorithm::automatic ? "null" : quoted(algorithm_name(algorithm));
                      }),
              "}");
}

std::string guard_of(const Guard& guard) {
  return text("[", written(guard.a), ",\"", kSigns[static_cast<std::size_t>(guard.relation)], "\",", written(guard.b), "]");
}

// ---- reading ----

class GraphReader {
 public:
  GraphReader(const std::string& path, std::vector<std::pair<std::string, Array>> tensors)
      : path_(path), n_tensors_(tensors.size()), tensors_(tensors.begin(), tensors.end()) {}

  // Fills the graph and the pinned choices.
  void read(const std::string& source, GraphFile& file) {
    if (source.size() > kMostBytes) {
      refuse(text("at most ", kMostBytes, " bytes"), text(source.size()));
    }
    const Json json = parse_json(source, "program", text("entry '", kEntry, "' of '", path_, "'"));
    const Members top =
        members(json, {"version", "inputs", "scalars", "states", "results", "values", "nodes", "guards"}, {"plans"});
    if (const std::int64_t version = whole(*top.at("version"), 0, kMostNumber); version != kVersion) {
      refuse(text("version ", kVersion), text("version ", version, "; it was written by another version of striate"));
    }
    Graph::Parts parts;
    parts.inputs = ids(*top.at("inputs"), false);
    parts.scalars = ids(*top.at("scalars"), false);
    parts.states = ids(*top.at("states"), false);
    parts.results = ids(*top.at("results"), false);
    read_values(list(*top.at("values")), parts);
    place_ = text("entry '", kEntry, "'");
    read_nodes(list(*top.at("nodes")), parts);
    place_ = text("entry '", kEntry, "'");
    parts.guards = read_guards(list(*top.at("guards")));
    place_ = text("entry '", kEntry, "'");
    if (const auto plans = top.find("plans"); plans != top.end()) {
      file.pinned = read_plans(list(*plans->second));
      place_ = text("entry '", kEntry, "'");
    }
    if (used_.size() != n_tensors_) {
      refuse(text(used_.size(), " tensors, those that the graph has"), text(n_tensors_));
    }
    if (const std::string missing = missing_ops(ops_of(parts.nodes)); !missing.empty()) {
      refuse("operators of the core", missing);
    }
    try {
      file.graph = Graph::from_parts(std::move(parts));
      for (const PlanChoices& choices : file.pinned) {
        check_choices(file.graph, choices);
      }
    } catch (const std::exception& error) {
      throw FormatError(text("program: expected a graph that can run in '", path_, "', got: ", error.what(),
                             " (the file is damaged, or was written by another version of striate)"));
    }
  }

 private:
  static constexpr std::int64_t kMostNumber = std::numeric_limits<std::int64_t>::max();
  using Members = std::map<std::string, const Json*, std::less<>>;

  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    throw FormatError(
        text("program: expected ", expected, " in ", place_, " of '", path_, "', got ", got, "; the file is damaged"));
  }

  static std::string kind_of(const Json& json) {
    constexpr const char* names[] = {"null", "true or false", "a whole number", "a number", "a text", "a list", "an object"};
    return names[json.value.index()];
  }

  template <class T>
  const T& as(const Json& json, const char* what) const {
    const T* found = json.as<T>();
    if (found == nullptr) {
      refuse(what, kind_of(json));
    }
    return *found;
  }

  const Json::List& list(const Json& json) const { return as<Json::List>(json, "a list"); }
  const std::string& word(const Json& json) const { return as<std::string>(json, "a text"); }

  std::int64_t whole(const Json& json, std::int64_t least, std::int64_t most) const {
    const std::int64_t number = as<std::int64_t>(json, "a whole number");
    if (number < least || number > most) {
      refuse(text("a number from ", least, " to ", most), text(number));
    }
    return number;
  }

  // The members of an object, which has all keys of `needed` and others of `possible` only.
  Members members(const Json& json, std::initializer_list<const char*> needed,
                  std::initializer_list<const char*> possible) const {
    Members found;
    for (const auto& [key, value] : as<Json::Object>(json, "an object")) {
      const auto is_key = [&name = key](const char* other) { return name == other; };
      if (std::none_of(needed.begin(), needed.end(), is_key) && std::none_of(possible.begin(), possible.end(), is_key)) {
        refuse("keys of the format only", text("'", key, "'"));
      }
      found.emplace(key, &value);
    }
    for (const char* key : needed) {
      if (!found.contains(key)) {
        refuse(text("key '", key, "'"), "none of that name");
      }
    }
    return found;
  }

  template <class T, std::size_t kCount, class Name>
  T one_of(const Json& json, const T (&options)[kCount], Name&& name, const char* what) const {
    const std::string& found = word(json);
    for (const T option : options) {
      if (found == name(option)) {
        return option;
      }
    }
    refuse(what, text("'", found, "'"));
  }

  DType dtype(const Json& json) const {
    constexpr DType options[kDTypes] = {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int8,
                                        DType::uint8,   DType::int32,   DType::int64,   DType::boolean};
    return one_of(json, options, dtype_name, "the name of a dtype");
  }

  std::vector<ValueId> ids(const Json& json, bool may_miss) const {
    std::vector<ValueId> out;
    for (const Json& item : list(json)) {
      const bool is_missing = may_miss && item.as<std::monostate>() != nullptr;
      out.push_back(is_missing ? kNoValue : static_cast<ValueId>(whole(item, 0, std::numeric_limits<ValueId>::max())));
    }
    return out;
  }

  Extents sizes(const Json& json) const {
    const Json::List& items = list(json);
    if (items.size() > kMaxRank) {
      refuse(text("at most ", kMaxRank, " axes"), text(items.size()));
    }
    Extents out;
    for (const Json& item : items) {
      out.push_back(static_cast<std::ptrdiff_t>(whole(item, 0, std::int64_t{1} << 48)));
    }
    return out;
  }

  // The tensor of a constant or a state, its axes in logical order.
  Array tensor(const Members& value) {
    const std::string& key = word(*value.at("tensor"));
    const auto found = tensors_.find(key);
    if (found == tensors_.end() || !used_.insert(key).second) {
      refuse("a tensor of this file that no other value has", text("'", key, "'"));
    }
    const Array& array = found->second;
    const auto given = value.find("axes");
    if (given == value.end()) {
      return array;
    }
    const Json::List& items = list(*given->second);
    std::vector<int> inverse(static_cast<std::size_t>(array.rank()), -1);
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto axis = static_cast<std::size_t>(whole(items[i], 0, kMaxRank));
      if (items.size() != inverse.size() || axis >= inverse.size() || inverse[axis] >= 0) {
        refuse(text("each axis of tensor '", key, "' of shape ", to_string(array.shape()), " once"), text("axis ", axis));
      }
      inverse[axis] = static_cast<int>(i);
    }
    if (items.size() != inverse.size()) {
      refuse(text(inverse.size(), " axes for tensor '", key, "'"), text(items.size()));
    }
    return array.permute(inverse);
  }

  void read_values(const Json::List& items, Graph::Parts& parts) {
    for (const ValueId id : parts.inputs) {
      inputs_.emplace_back();
      if (static_cast<std::size_t>(id) >= items.size()) {
        refuse(text("ids below ", items.size()), text(id));
      }
    }
    for (std::size_t id = 0; id < items.size(); ++id) {
      place_ = text("value ", id);
      parts.values.push_back(read_value(items[id], static_cast<ValueId>(id), parts.inputs));
    }
  }

  Value read_value(const Json& json, ValueId id, const std::vector<ValueId>& inputs) {
    const auto& kind_at = as<Json::Object>(json, "an object");
    const auto found = std::find_if(kind_at.begin(), kind_at.end(), [](const auto& entry) { return entry.first == "kind"; });
    if (found == kind_at.end()) {
      refuse("key 'kind'", "none of that name");
    }
    Value value{one_of(found->second, kKinds, kind_name, "a kind of value"), {}, {}, {}, {}, {}};
    if (value.kind == ValueKind::constant || value.kind == ValueKind::state) {
      const Members m = value.kind == ValueKind::state ? members(json, {"kind", "tensor", "name"}, {"axes"})
                                                       : members(json, {"kind", "tensor"}, {"axes"});
      const Array array = tensor(m);
      array.storage().seal();
      value.array = value.kind == ValueKind::state ? clone(array) : array;
      value.dtype = value.array.dtype();
      value.layout = value_layout(value.array);
      const Extents shape = value.array.shape();
      value.shape = {shape.begin(), shape.end()};
      value.name = m.contains("name") ? word(*m.at("name")) : "";
      return value;
    }
    const Members m = value.kind == ValueKind::input    ? members(json, {"kind", "dtype", "layout", "shape", "name"}, {})
                      : value.kind == ValueKind::scalar ? members(json, {"kind", "dtype", "layout", "name"}, {})
                                                        : members(json, {"kind", "dtype", "layout"}, {"shape"});
    value.dtype = dtype(*m.at("dtype"));
    value.layout = one_of(*m.at("layout"), kLayouts, layout_name, "a layout");
    value.name = m.contains("name") ? word(*m.at("name")) : "";
    const Extents shape = m.contains("shape") ? sizes(*m.at("shape")) : Extents();
    const auto at = std::find(inputs.begin(), inputs.end(), id);
    for (int axis = 0; axis < shape.rank(); ++axis) {
      value.shape.push_back(value.kind == ValueKind::input
                                ? Dim::input_axis(static_cast<int>(at - inputs.begin()), axis, shape[axis])
                                : Dim(shape[axis]));
    }
    if (value.kind == ValueKind::input && at != inputs.end()) {
      inputs_[static_cast<std::size_t>(at - inputs.begin())] = shape;
    }
    return value;
  }

  Dim dim(const std::string& source) const {
    try {
      return Dim::parse(source, inputs_);
    } catch (const std::exception& error) {
      refuse("a size", text(source.size() < 60 ? source : "a long text", " (", error.what(), ")"));
    }
  }

  Dim dim(const Json& json) const {
    const auto* number = json.as<std::int64_t>();
    return number != nullptr ? Dim(static_cast<std::ptrdiff_t>(*number)) : dim(word(json));
  }

  Attribute attribute(const Json& json) const {
    if (const auto* items = json.as<Json::List>()) {
      Attribute::List out;
      for (const Json& item : *items) {
        out.push_back(attribute(item));
      }
      return out;
    }
    if (const auto* object = json.as<Json::Object>()) {
      if (object->size() != 1) {
        refuse("an object of one key as an attribute", text(object->size(), " keys"));
      }
      const auto& [key, value] = object->front();
      if (key == "dtype") {
        return dtype(value);
      }
      if (key == "dim") {
        return dim(word(value));
      }
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      constexpr double numbers[] = {kInfinity, -kInfinity, 0};
      if (key == "real") {
        const double found =
            one_of(value, numbers, [](double x) { return x > 0   ? "inf"
                                                         : x < 0 ? "-inf"
                                                                 : "nan"; }, "inf, -inf or nan");
        return found == 0 ? std::numeric_limits<double>::quiet_NaN() : found;
      }
      refuse("dtype, dim or real as the key of an attribute", text("'", key, "'"));
    }
    if (const auto* truth = json.as<bool>()) {
      return *truth;
    }
    if (const auto* number = json.as<std::int64_t>()) {
      return *number;
    }
    if (const auto* real = json.as<double>()) {
      return *real;
    }
    const auto* found = json.as<std::string>();
    return found != nullptr ? Attribute(*found) : Attribute();
  }

  void read_nodes(const Json::List& items, Graph::Parts& parts) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      place_ = text("node ", i);
      const Members m = members(items[i], {"op", "attributes", "inputs", "outputs"}, {});
      Node node{word(*m.at("op")), {}, {}, {}};
      place_ += text(" (", node.op, ")");
      node.inputs = ids(*m.at("inputs"), true);
      node.outputs = ids(*m.at("outputs"), false);
      for (const auto& [name, value] : as<Json::Object>(*m.at("attributes"), "an object")) {
        node.attributes.emplace_back(name, attribute(value));
      }
      std::sort(node.attributes.begin(), node.attributes.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
      parts.nodes.push_back(std::move(node));
    }
  }

  std::vector<Guard> read_guards(const Json::List& items) {
    std::vector<Guard> out;
    for (std::size_t i = 0; i < items.size(); ++i) {
      place_ = text("guard ", i);
      const Json::List& parts = list(items[i]);
      if (parts.size() != 3) {
        refuse("a size, a relation and a size", text("a list of ", parts.size()));
      }
      constexpr Guard::Relation relations[] = {Guard::Relation::equal, Guard::Relation::not_equal, Guard::Relation::less,
                                               Guard::Relation::less_equal};
      const auto relation = one_of(
          parts[1], relations, [](Guard::Relation r) { return kSigns[static_cast<std::size_t>(r)]; }, "==, !=, < or <=");
      out.push_back({dim(parts[0]), relation, dim(parts[2])});
    }
    return out;
  }

  std::vector<PlanChoices> read_plans(const Json::List& items) {
    constexpr ConvAlgorithm algorithms[] = {ConvAlgorithm::direct, ConvAlgorithm::winograd2, ConvAlgorithm::winograd4,
                                            ConvAlgorithm::winograd5, ConvAlgorithm::winograd6};
    std::vector<PlanChoices> out;
    for (std::size_t i = 0; i < items.size(); ++i) {
      place_ = text("plan ", i);
      const Members m = members(items[i], {"kernels", "inputs", "samples_at_a_time", "algorithms"}, {});
      PlanChoices choices{.kernels = word(*m.at("kernels")),
                          .inputs = {},
                          .samples_at_a_time = static_cast<std::ptrdiff_t>(
                              whole(*m.at("samples_at_a_time"), 0, std::numeric_limits<std::ptrdiff_t>::max())),
                          .algorithms = {}};
      for (const Json& item : list(*m.at("inputs"))) {
        choices.inputs.push_back(sizes(item));
      }
      for (const Json& item : list(*m.at("algorithms"))) {
        const bool is_none = item.as<std::monostate>() != nullptr;
        choices.algorithms.push_back(is_none ? ConvAlgorithm::automatic
                                             : one_of(item, algorithms, algorithm_name, "an algorithm of convolutions"));
      }
      const auto same = [&](const PlanChoices& other) {
        return other.kernels == choices.kernels && other.inputs == choices.inputs;
      };
      if (std::any_of(out.begin(), out.end(), same)) {
        refuse("one plan for the same kernels and inputs", "another one");
      }
      out.push_back(std::move(choices));
    }
    return out;
  }

  const std::string& path_;
  std::string place_ = text("entry '", kEntry, "'");  // what is being read, for refusals
  std::size_t n_tensors_;
  std::map<std::string, Array, std::less<>> tensors_;
  std::set<std::string> used_;
  std::vector<Extents> inputs_;  // sizes of the inputs, which sizes as texts refer to
};

}  // namespace

void save_graph(const Graph& graph, const std::string& path, const std::map<std::string, std::string>& metadata,
                std::span<const PlanChoices> pinned) {
  check<std::invalid_argument>(!metadata.contains(kEntry), "program: expected metadata without '", kEntry,
                               "', got it; the graph is written there");
  const std::string missing = missing_ops(ops_of(graph.nodes()));
  check<std::invalid_argument>(missing.empty(), "program: expected operators of the core, got ", missing,
                               "; compute these outside of the program");
  std::vector<std::pair<std::string, Array>> tensors;
  const std::string values = values_of(graph, tensors);
  const std::string plans = pinned.empty() ? "" : text(",\n\"plans\":", list_of(pinned, plan_of));
  std::map<std::string, std::string> entries = metadata;
  entries[kEntry] = text(
      "{\"version\":", kVersion, ",\"inputs\":", ids_of(graph.inputs()), ",\"scalars\":", ids_of(graph.scalars()),
      ",\"states\":", ids_of(graph.states()), ",\"results\":", ids_of(graph.results()), ",\n\"values\":", values,
      ",\n\"nodes\":", list_of(graph.nodes(), node_of), ",\n\"guards\":", list_of(graph.guards(), guard_of), plans, "}");
  write_safetensors(path, tensors, entries);
}

GraphFile load_graph(const std::string& path) {
  SafetensorsFile file = read_safetensors(path);
  const auto entry = file.metadata.find(kEntry);
  check<FormatError>(entry != file.metadata.end(), "program: expected metadata entry '", kEntry, "' in '", path,
                     "', got none; the file holds tensors only, write programs with Program.save");
  const std::string source = std::move(entry->second);
  file.metadata.erase(entry);
  GraphFile found{.graph = {}, .metadata = std::move(file.metadata), .pinned = {}};
  GraphReader(path, std::move(file.tensors)).read(source, found);
  return found;
}

}  // namespace striate
