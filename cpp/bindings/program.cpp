// Programs.
#include "bindings/bindings.hpp"

#include "striate/program.hpp"

namespace striate {

void bind_program(py::module_& m) {
  m.def("fuse", &fuse, py::arg("graph"), NoGil());
  m.def("recompute", &recompute, py::arg("graph"), NoGil());
  m.def("save_graph", &save_graph, py::arg("graph"), py::arg("path"), py::arg("metadata"), NoGil());
  m.def(
      "load_graph",
      [](const std::string& path) {
        GraphFile file;
        {
          const py::gil_scoped_release released;
          file = load_graph(path);
        }
        return py::make_tuple(py::cast(std::move(file.graph)), py::cast(file.metadata));
      },
      py::arg("path"));
  m.def("has_call", &has_call, py::arg("op"));
  py::class_<Program>(m, "Program", "A graph that is ready to run.")
      .def(py::init<Graph, std::vector<Array>>(), py::arg("graph"), py::arg("watched") = std::vector<Array>(), NoGil())
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
          "samples_at_a_time",
          [](const Program& self, const std::vector<std::vector<std::ptrdiff_t>>& shapes) {
            std::vector<Extents> sizes;
            for (const auto& shape : shapes) {
              sizes.emplace_back(std::span<const std::ptrdiff_t>(shape));
            }
            return self.samples_at_a_time(sizes);
          },
          py::arg("shapes"))
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
