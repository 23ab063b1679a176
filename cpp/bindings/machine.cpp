#include "bindings/bindings.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

Isa isa_named(const std::string& name) {
  std::string names;
  for (const Isa isa : available_isas()) {
    if (name == isa_name(isa)) {
      return isa;
    }
    names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw std::invalid_argument("isa: expected one of " + names + ", got '" + name +
                              "'; see striate.machine.available_isas()");
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (const Isa isa : available_isas()) {
      names.emplace_back(isa_name(isa));
    }
    return names;
  });
  m.def("active_isa", [] { return std::string(isa_name(active_isa())); });
  m.def("best_isa", [] { return std::string(isa_name(best_isa())); });
  m.def("set_isa", [](const std::string& name) { set_isa(isa_named(name)); }, py::arg("name"));
  m.def(
      "conv_costs",
      [](const std::string& isa) {
        const ConvCosts costs = conv_costs(isa_named(isa));
        py::dict out;
        for (int i = 0; i < kConvCosts; ++i) {
          out[conv_cost_name(i)] = costs[static_cast<std::size_t>(i)];
        }
        return out;
      },
      py::arg("isa"));
  m.def(
      "set_conv_costs",
      [](const std::string& isa, const std::optional<std::vector<double>>& costs) {
        ConvCosts values{};
        if (costs.has_value()) {
          check<std::invalid_argument>(costs->size() == values.size(), "tuning: expected ", values.size(),
                                       " coefficients, got ", costs->size(), "; write the file with striate tune");
          std::copy(costs->begin(), costs->end(), values.begin());
        }
        set_conv_costs(isa_named(isa), values);
      },
      py::arg("isa"), py::arg("costs"));
  m.def("cpu_name", &cpu_name);
  m.def("build_description", &build_description);
  m.def("cache_sizes", [] {
    const CacheSizes& sizes = cache_sizes();
    return py::make_tuple(sizes.l1_bytes, sizes.l2_bytes, sizes.l3_bytes);
  });
  m.def("conv_algorithm", [] { return std::string(algorithm_name(conv_algorithm())); });
  m.def(
      "set_conv_algorithm",
      [](const std::string& name) {
        for (const ConvAlgorithm algorithm :
             {ConvAlgorithm::automatic, ConvAlgorithm::direct, ConvAlgorithm::winograd2, ConvAlgorithm::winograd4,
              ConvAlgorithm::winograd5, ConvAlgorithm::winograd6}) {
          if (name == algorithm_name(algorithm)) {
            set_conv_algorithm(algorithm);
            return;
          }
        }
        throw std::invalid_argument("algorithm: expected auto, direct, winograd2, winograd4, winograd5 or winograd6, got '" +
                                    name + "'; pass one of these");
      },
      py::arg("name"));
  m.def("error_budget", &get_error_budget);
  m.def(
      "set_error_budget",
      [](double budget) {
        if (!(budget >= 0)) {
          throw std::invalid_argument("precision: expected budget of at least 0, got " + std::to_string(budget) +
                                      "; pass 0 for direct algorithms only");
        }
        set_error_budget(budget);
      },
      py::arg("budget"));
  m.def("is_batch_invariant", &is_batch_invariant);
  m.def("set_batch_invariant", &set_batch_invariant, py::arg("is_invariant"));
  m.def("thread_count", &thread_count);
  m.def("default_thread_count", &default_thread_count);
  m.def("set_thread_count", &set_thread_count, py::arg("n_threads"));
  m.def("executor_name", [] { return std::string(executor_name()); });
  m.def("memory_stats", [] {
    const MemoryStats stats = memory_stats();
    py::dict out;
    out["in_use_bytes"] = stats.in_use_bytes;
    out["cached_bytes"] = stats.cached_bytes;
    out["peak_bytes"] = stats.peak_bytes;
    out["n_system_allocations"] = stats.n_system_allocations;
    out["cap_bytes"] = stats.cap_bytes;
    return out;
  });
  m.def("measure_fma", &measure_fma, py::arg("dtype"), py::arg("seconds"), NoGil());
  m.def(
      "measure_stream",
      [](const std::string& name, std::ptrdiff_t n_bytes, int repeats) {
        const Stream stream = name == "copy"      ? Stream::copy
                              : name == "copy_nt" ? Stream::copy_nt
                              : name == "triad"   ? Stream::triad
                                                  : Stream::read;
        check<std::invalid_argument>(stream != Stream::read || name == "read",
                                     "measure_stream: expected copy, copy_nt, triad or read, got '", name,
                                     "'; use one of these");
        return measure_stream(stream, n_bytes, repeats);
      },
      py::arg("name"), py::arg("n_bytes"), py::arg("repeats"), NoGil());
  m.def("trim_memory", &trim_memory, NoGil());
  m.def("begin_single_pass", &begin_single_pass);
  m.def("end_single_pass", &end_single_pass);
  m.def("set_memory_cap", &set_memory_cap, py::arg("n_bytes"), NoGil());
  m.def("counters", [] {
    const Counters now = counters();
    py::dict out;
    out["relayouts"] = now.n_relayouts;
    out["relayout_bytes"] = now.relayout_bytes;
    return out;
  });
  m.def("reset_counters", &reset_counters);
}

}  // namespace striate
