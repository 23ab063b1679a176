// The algorithms of a graph's convolutions, and the samples of a batch that it runs at a time: found, checked, compared.
#include "program/choices.hpp"

#include <algorithm>
#include <stdexcept>

#include "program/call.hpp"
#include "program/samples.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw std::invalid_argument(text("plan: ", parts..., "; pin what choices_to_pin() of this graph gave"));
}

// The kernels that run, by name: on other processors `baseline` is another instruction set.
std::string kernel_set() {
#if defined(__aarch64__)
  if (active_isa() == Isa::baseline) {
    return "neon";
  }
#endif
  return isa_name(active_isa());
}

Extents size_of(const Value& value, std::span<const Extents> inputs) {
  Extents size;
  for (const Dim& dim : value.shape) {
    size.push_back(dim.evaluate(inputs));
  }
  return size;
}

// The algorithms that a convolution can take, the one first that it would take now; none for other operators.
std::vector<ConvAlgorithm> algorithms_of(const Graph& graph, const Node& node, std::span<const Extents> inputs) {
  const bool is_transposed = node.op.starts_with("conv_transpose");
  const std::string kind = node.op.substr(0, node.op.find("_grad"));
  if (!is_transposed && kind != "conv1d" && kind != "conv2d" && kind != "conv3d") {
    return {};
  }
  Attributes::Entries entries;
  for (const auto& [name, attribute] : node.attributes) {
    entries.emplace_back(name, with_numbers(attribute, inputs));
  }
  const Attributes a(node.op, entries);
  const bool is_grad_input = node.op.ends_with("_grad_input");
  const bool is_grad_weight = node.op.ends_with("_grad_weight");
  const auto operand = [&](std::size_t i) { return size_of(graph.value(node.inputs[i]), inputs); };
  const Extents x = is_grad_input ? a.extents("x_shape") : operand(is_grad_weight ? 1 : 0);
  const Extents weight = is_grad_weight ? a.extents("weight_shape") : operand(1);
  const ConvPass pass = is_grad_input ? ConvPass::grad_input : is_grad_weight ? ConvPass::grad_weight : ConvPass::forward;
  const DType dtype = graph.value(node.inputs[0]).dtype;
  return is_transposed
             ? conv_transpose_algorithms(node.op.c_str(), pass, x, weight, conv_params(a), a.sizes("output_padding"), dtype)
             : conv_algorithms(node.op.c_str(), pass, x, weight, conv_params(a), dtype);
}

// Sizes that memory could have, so that no product of some of them overflows.
void check_sizes(const Extents& size) {
  std::ptrdiff_t n = 1;
  for (const std::ptrdiff_t extent : size) {
    if (extent < 0 || __builtin_mul_overflow(n, std::max<std::ptrdiff_t>(extent, 1), &n) || n > std::ptrdiff_t{1} << 48) {
      fail("expected sizes that fit into memory, got ", size);
    }
  }
}

}  // namespace

PlanChoices choose_plan(const Graph& graph, std::span<const Extents> inputs) {
  PlanChoices choices{.kernels = kernel_set(),
                      .inputs = {inputs.begin(), inputs.end()},
                      .samples_at_a_time = samples_at_a_time(graph, inputs),
                      .algorithms = {}};
  for (const Node& node : graph.nodes()) {
    const std::vector<ConvAlgorithm> possible = algorithms_of(graph, node, inputs);
    choices.algorithms.push_back(possible.empty() ? ConvAlgorithm::automatic : possible[0]);
  }
  return choices;
}

void check_choices(const Graph& graph, const PlanChoices& choices) {
  if (choices.inputs.size() != graph.inputs().size()) {
    fail("expected sizes of ", graph.inputs().size(), " inputs, got ", choices.inputs.size());
  }
  for (std::size_t i = 0; i < choices.inputs.size(); ++i) {
    const Value& value = graph.value(graph.inputs()[i]);
    if (choices.inputs[i].rank() != static_cast<int>(value.shape.size())) {
      fail("expected ", value.shape.size(), " sizes of '", value.name, "', got ", choices.inputs[i]);
    }
  }
  for (const Guard& guard : graph.guards()) {
    if (!guard.holds(choices.inputs)) {
      std::string got;
      for (const Extents& size : choices.inputs) {
        got += text(got.empty() ? "" : ", ", size);
      }
      fail("expected sizes for which ", guard.str(), ", got ", got);
    }
  }
  for (const Value& value : graph.values()) {
    check_sizes(size_of(value, choices.inputs));
  }
  if (choices.samples_at_a_time != 0 && !may_run_by_samples(graph, choices.inputs, choices.samples_at_a_time)) {
    fail("expected 0 samples at a time, or as many as this batch may be cut into, got ", choices.samples_at_a_time);
  }
  if (choices.algorithms.size() != graph.nodes().size()) {
    fail("expected algorithms of ", graph.nodes().size(), " nodes, got ", choices.algorithms.size());
  }
  for (std::size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& node = graph.nodes()[i];
    const ConvAlgorithm chosen = choices.algorithms[i];
    const std::vector<ConvAlgorithm> possible = algorithms_of(graph, node, choices.inputs);
    const bool fits = possible.empty() ? chosen == ConvAlgorithm::automatic
                                       : std::find(possible.begin(), possible.end(), chosen) != possible.end();
    if (!fits) {
      fail("expected an algorithm that node ", i, " (", node.op, ") can take, ",
           possible.empty() ? "which is none" : "and one of each convolution", ", got ", algorithm_name(chosen));
    }
  }
}

bool are_for(const PlanChoices& choices, std::span<const Extents> inputs) {
  return choices.kernels == kernel_set() &&
         std::equal(choices.inputs.begin(), choices.inputs.end(), inputs.begin(), inputs.end());
}

}  // namespace striate
