// How many samples of a batch a program runs at a time.
#pragma once

#include <cstddef>
#include <span>

#include "striate/program.hpp"

namespace striate {

// For inputs of these shapes; 0: all at once. A function of the graph, the sizes and the caches, not of threads. Parts are
// taken where every result has a row for each sample that follows from that sample alone, where one layer's images do not
// stay in the caches, and where these are many more bytes than the weights, which each part reads again.
[[nodiscard]] std::ptrdiff_t samples_at_a_time(const Graph& graph, std::span<const Extents> inputs);
// Whether parts of so many samples, and a last one of the rest, together give what the whole batch does.
[[nodiscard]] bool may_run_by_samples(const Graph& graph, std::span<const Extents> inputs, std::ptrdiff_t n_samples);

}  // namespace striate
