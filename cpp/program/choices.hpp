// What a plan decides that shows in the bits of a result.
#pragma once

#include <span>
#include <vector>

#include "striate/program.hpp"

namespace striate {

// As the settings, the cost model and the caches of now decide for inputs of these shapes.
[[nodiscard]] PlanChoices choose_plan(const Graph& graph, std::span<const Extents> inputs);
// Throws std::invalid_argument unless a run of this graph can take these choices.
void check_choices(const Graph& graph, const PlanChoices& choices);
// Whether choices were made for these shapes and for kernels as those that run now.
[[nodiscard]] bool are_for(const PlanChoices& choices, std::span<const Extents> inputs);

}  // namespace striate
