// Graph and Dim for Python's recorder and readers.
#include "bindings/bindings.hpp"

#include <algorithm>
#include <optional>

#include "striate/program.hpp"

namespace striate {
namespace {

// Python's Dim is an int whose attribute `expression` is one of these.
Attribute to_attribute(const std::string& op, const std::string& name, const py::handle& value) {
  PyObject* object = value.ptr();
  if (value.is_none()) {
    return {};
  }
  if (PyBool_Check(object) != 0) {
    return value.cast<bool>();
  }
  if (PyLong_CheckExact(object) != 0) {
    return value.cast<std::int64_t>();
  }
  if (PyLong_Check(object) != 0 && py::hasattr(value, "expression")) {
    return value.attr("expression").cast<Dim>();
  }
  if (PyFloat_Check(object) != 0) {
    return PyFloat_AS_DOUBLE(object);
  }
  if (PyUnicode_Check(object) != 0) {
    return value.cast<std::string>();
  }
  if (py::isinstance<DType>(value)) {
    return value.cast<DType>();
  }
  if (PyTuple_Check(object) != 0 || PyList_Check(object) != 0) {
    Attribute::List list;
    for (const py::handle item : value) {
      list.push_back(to_attribute(op, name, item));
    }
    return list;
  }
  if (py::hasattr(value, "__members__") && py::hasattr(value, "name")) {  // an enum of the core: its name
    return value.attr("name").cast<std::string>();
  }
  if (PyLong_Check(object) != 0 || py::hasattr(value, "__index__")) {
    return value.attr("__index__")().cast<std::int64_t>();
  }
  throw py::type_error(text(
      op, ": expected numbers, texts, dtypes or lists of these as attributes of a recorded operator, got ",
      py::cast<std::string>(py::str(py::type::of(value).attr("__name__"))), " for '", name, "'; pass tensors as inputs"));
}

py::object from_attribute(const Attribute& attribute) {
  struct Reader {
    py::object operator()(std::monostate) const { return py::none(); }
    py::object operator()(const Attribute::List& list) const {
      py::tuple out(list.size());
      for (std::size_t i = 0; i < list.size(); ++i) {
        out[i] = from_attribute(list[i]);
      }
      return out;
    }
    py::object operator()(const Dim& dim) const { return py::cast(dim); }
    py::object operator()(DType dtype) const { return py::cast(dtype); }
    py::object operator()(bool x) const { return py::bool_(x); }
    py::object operator()(std::int64_t x) const { return py::int_(x); }
    py::object operator()(double x) const { return py::float_(x); }
    py::object operator()(const std::string& x) const { return py::str(x); }
  };
  return std::visit(Reader{}, attribute.value);
}

py::dict attributes_of(const Node& node) {
  py::dict out;
  for (const auto& [name, attribute] : node.attributes) {
    out[py::str(name)] = from_attribute(attribute);
  }
  return out;
}

py::tuple shape_of(const Shape& shape) {
  py::tuple out(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    out[i] = shape[i].is_constant() ? py::object(py::int_(shape[i].value())) : py::cast(shape[i]);
  }
  return out;
}

std::vector<Extents> shapes_of(const std::vector<Sizes>& inputs) {
  std::vector<Extents> out;
  for (const Sizes& sizes : inputs) {
    out.push_back(extents(sizes));
  }
  return out;
}

void bind_dim(py::module_& m) {
  py::class_<Dim>(m, "Dim", "A size and the expression it came from.")
      .def(py::init<std::ptrdiff_t>())
      .def_property_readonly("value", &Dim::value)
      .def_property_readonly("is_constant", &Dim::is_constant)
      .def(
          "evaluate", [](const Dim& self, const std::vector<Sizes>& inputs) { return self.evaluate(shapes_of(inputs)); },
          py::arg("inputs"))
      .def("add", [](const Dim& self, const Dim& other) { return self + other; })
      .def("subtract", [](const Dim& self, const Dim& other) { return self - other; })
      .def("multiply", [](const Dim& self, const Dim& other) { return self * other; })
      .def("floor_divide", [](const Dim& self, const Dim& other) { return floor_div(self, other); })
      .def(
          "__eq__", [](const Dim& self, const Dim& other) { return self == other; }, py::is_operator())
      .def("__hash__", [](const Dim& self) { return py::hash(py::str(self.str())); })
      .def("__int__", &Dim::value)
      .def("__str__", &Dim::str)
      .def("__repr__", [](const Dim& self) { return text("Dim(", self.value(), ", ", self.str(), ")"); });
  py::implicitly_convertible<py::int_, Dim>();
  m.def("minimum_dim", [](const Dim& a, const Dim& b) { return minimum(a, b); });
  m.def("maximum_dim", [](const Dim& a, const Dim& b) { return maximum(a, b); });
}

Guard::Relation relation_from(const std::string& sign) {
  return sign == "=="   ? Guard::Relation::equal
         : sign == "!=" ? Guard::Relation::not_equal
         : sign == "<"  ? Guard::Relation::less
                        : Guard::Relation::less_equal;
}

}  // namespace

void bind_graph(py::module_& m) {
  bind_dim(m);
  m.def("has_shape_function", [](const std::string& op) { return shape_function(op) != nullptr; }, py::arg("op"));
  py::class_<Value>(m, "GraphValue", "What flows through a Graph.")
      .def_property_readonly("kind", [](const Value& self) { return std::string(kind_name(self.kind)); })
      .def_readonly("dtype", &Value::dtype)
      .def_property_readonly("layout", [](const Value& self) { return std::string(layout_name(self.layout)); })
      .def_property_readonly("shape", [](const Value& self) { return shape_of(self.shape); })
      .def_readonly("name", &Value::name)
      .def_property_readonly("array",
                             [](const Value& self) -> std::optional<Array> {
                               return self.kind == ValueKind::state || self.kind == ValueKind::constant
                                          ? std::optional(self.array)
                                          : std::nullopt;
                             })
      .def_readonly("node", &Value::node);
  py::class_<Node>(m, "GraphNode", "One recorded operator call.")
      .def_readonly("op", &Node::op)
      .def_property_readonly("attributes", &attributes_of)
      .def_readonly("inputs", &Node::inputs)
      .def_readonly("outputs", &Node::outputs)
      .def_readonly("has_fixed_shape", &Node::has_fixed_shape);
  py::class_<Graph::Mark>(m, "GraphMark", "How much a Graph held at one moment.")
      .def_readonly("n_values", &Graph::Mark::n_values)
      .def_readonly("n_nodes", &Graph::Mark::n_nodes);
  py::class_<Graph>(m, "Graph", "The record of a pass: values, operator calls, ordered assigns, guards.")
      .def(py::init<>())
      .def("add_input", &Graph::add_input, py::arg("name"), py::arg("example"))
      .def("add_scalar", &Graph::add_scalar, py::arg("name"), py::arg("example"))
      .def("add_state", &Graph::add_state, py::arg("name"), py::arg("array"))
      .def("add_constant", &Graph::add_constant, py::arg("array"))
      .def(
          "add_node",
          [](Graph& self, const std::string& op, const py::dict& attributes, std::vector<ValueId> inputs,
             const std::vector<Array>& results) {
            std::vector<std::pair<std::string, Attribute>> list;
            for (const auto& [name, value] : attributes) {
              const auto key = name.cast<std::string>();
              list.emplace_back(key, to_attribute(op, key, value));
            }
            return self.add_node(op, std::move(list), std::move(inputs), results);
          },
          py::arg("op"), py::arg("attributes"), py::arg("inputs"), py::arg("results"))
      .def("assign", &Graph::assign, py::arg("state"), py::arg("value"))
      .def("add_guard", [](Graph& self, const Dim& a, const std::string& sign,
                           const Dim& b) { self.add_guard(a, relation_from(sign), b); })
      .def("mark", &Graph::mark)
      .def("rewind", &Graph::rewind, py::arg("mark"))
      .def("set_results", &Graph::set_results, py::arg("results"))
      .def("value", &Graph::value, py::arg("id"), py::return_value_policy::copy)
      .def_property_readonly("n_values", [](const Graph& self) { return self.values().size(); })
      .def_property_readonly("nodes", [](const Graph& self) { return self.nodes(); })
      .def_property_readonly("inputs", [](const Graph& self) { return self.inputs(); })
      .def_property_readonly("scalars", [](const Graph& self) { return self.scalars(); })
      .def_property_readonly("states", [](const Graph& self) { return self.states(); })
      .def_property_readonly("results", [](const Graph& self) { return self.results(); })
      .def_property_readonly("guards",
                             [](const Graph& self) {
                               std::vector<std::string> out;
                               for (const Guard& guard : self.guards()) {
                                 out.push_back(guard.str());
                               }
                               return out;
                             })
      .def("guards_hold",
           [](const Graph& self, const std::vector<Sizes>& inputs) {
             const auto shapes = shapes_of(inputs);
             return std::all_of(self.guards().begin(), self.guards().end(),
                                [&](const Guard& guard) { return guard.holds(shapes); });
           })
      .def("state_of", &Graph::state_of, py::arg("id"))
      .def("latest", &Graph::latest, py::arg("state"))
      .def_property_readonly("fixed_ops", &Graph::fixed_ops)
      .def("validate", &Graph::validate)
      .def("hash", &Graph::hash)
      .def("__str__", &Graph::str);
}

}  // namespace striate
