// Programs.
#include "bindings/bindings.hpp"

#include <optional>

#include "striate/program.hpp"

namespace striate {

void bind_program(py::module_& m) {
  m.def("fuse", &fuse, py::arg("graph"), NoGil());
  m.def("recompute", &recompute, py::arg("graph"), NoGil());
  py::class_<HostCall>(m, "HostCall", "Where a record leaves the core.")
      .def(py::init([](std::size_t n_nodes, std::vector<ValueId> operands, std::vector<ValueId> results) {
             return HostCall{n_nodes, std::move(operands), std::move(results)};
           }),
           py::arg("n_nodes"), py::arg("operands"), py::arg("results"))
      .def_readonly("n_nodes", &HostCall::n_nodes)
      .def_readonly("operands", &HostCall::operands)
      .def_readonly("results", &HostCall::results);
  py::class_<GraphPiece>(m, "GraphPiece", "What runs between two host calls.")
      .def_readonly("graph", &GraphPiece::graph)
      .def_readonly("inputs", &GraphPiece::inputs)
      .def_readonly("results", &GraphPiece::results);
  m.def(
      "cut", [](const Graph& graph, const std::vector<HostCall>& calls) { return cut(graph, calls); }, py::arg("graph"),
      py::arg("calls"));
  py::class_<PlanChoices>(m, "PlanChoices", "What a plan decides that shows in the bits of a result.")
      .def_readonly("kernels", &PlanChoices::kernels)
      .def_readonly("samples_at_a_time", &PlanChoices::samples_at_a_time)
      .def_property_readonly("inputs",
                             [](const PlanChoices& self) {
                               py::list shapes;
                               for (const Extents& shape : self.inputs) {
                                 shapes.append(py::tuple(py::cast(Sizes(shape.begin(), shape.end()))));
                               }
                               return shapes;
                             })
      .def_property_readonly("algorithms", [](const PlanChoices& self) {
        std::vector<std::optional<std::string>> names;
        for (const ConvAlgorithm algorithm : self.algorithms) {
          names.push_back(algorithm == ConvAlgorithm::automatic ? std::nullopt
                                                                : std::optional<std::string>(algorithm_name(algorithm)));
        }
        return names;
      });
  m.def(
      "save_graph",
      [](const Graph& graph, const std::string& path, const std::map<std::string, std::string>& metadata,
         const std::vector<PlanChoices>& pinned) { save_graph(graph, path, metadata, pinned); },
      py::arg("graph"), py::arg("path"), py::arg("metadata"), py::arg("pinned") = std::vector<PlanChoices>(), NoGil());
  m.def(
      "load_graph",
      [](const std::string& path) {
        GraphFile file;
        {
          const py::gil_scoped_release released;
          file = load_graph(path);
        }
        return py::make_tuple(py::cast(std::move(file.graph)), py::cast(file.metadata), py::cast(std::move(file.pinned)));
      },
      py::arg("path"));
  m.def("has_call", &has_call, py::arg("op"));
  py::class_<Program>(m, "Program", "A graph that is ready to run.")
      .def(py::init<Graph, std::vector<Array>, std::vector<PlanChoices>>(), py::arg("graph"),
           py::arg("watched") = std::vector<Array>(), py::arg("pinned") = std::vector<PlanChoices>(), NoGil())
      .def(
          "run",
          [](const Program& self, const std::vector<Array>& inputs, const std::vector<Array>& scalars) {
            std::vector<Array> results;
            {
              const py::gil_scoped_release no_gil;
              results = self.run(inputs, scalars);
            }
            py::tuple out(results.size());
            for (std::size_t i = 0; i < results.size(); ++i) {
              out[i] = py::cast(std::move(results[i]));
            }
            return out;
          },
          py::arg("inputs"), py::arg("scalars"))
      .def(
          "profile",
          [](const Program& self, const std::vector<Array>& inputs, const std::vector<Array>& scalars) {
            return self.profile(inputs, scalars);
          },
          py::arg("inputs"), py::arg("scalars"), NoGil())
      .def(
          "choices",
          [](const Program& self, const std::vector<Sizes>& shapes) {
            std::vector<Extents> sizes;
            for (const auto& shape : shapes) {
              sizes.emplace_back(std::span<const std::ptrdiff_t>(shape));
            }
            return self.choices(sizes);
          },
          py::arg("shapes"))
      .def("choices_to_pin", &Program::choices_to_pin)
      .def_property_readonly("is_stale", &Program::is_stale)
      .def_property_readonly("graph", &Program::graph, py::return_value_policy::reference_internal)
      .def("memory",
           [](const Program& self) {
             const Program::Memory memory = self.memory();
             py::dict out;
             out["arena_bytes"] = memory.arena_bytes;
             out["least_bytes"] = memory.least_bytes;
             out["n_plans"] = memory.n_plans;
             out["n_arenas"] = memory.n_arenas;
             return out;
           })
      .def("set_cache_bytes", &Program::set_cache_bytes, py::arg("bytes"));
}

}  // namespace striate
