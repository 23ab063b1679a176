// Which algorithm a convolution takes: a function of geometry, instruction set, cache sizes and precision, never of the
// number of threads.
#pragma once

#include "striate/ops.hpp"
#include "striate/window.hpp"

namespace striate {

// What a choice depends on besides the machine; the window is the forward pass's.
struct ConvShape {
  Window window;
  std::ptrdiff_t n, groups, c, o;  // channels of a group
  DType dtype;
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;  // that the call names
};

// The form of Winograd's algorithm that runs this pass, an index into kWinogradForm, or −1 for the direct algorithm.
[[nodiscard]] int choose_winograd(ConvPass pass, const ConvShape& shape);

// Whether the direct algorithm has pixels in its lanes, of which a vector has so many: where channels of y do not fill it,
// and few are read. Never in a data gradient.
[[nodiscard]] bool goes_by_planes(ConvPass pass, const ConvShape& shape, std::ptrdiff_t lanes);

// All algorithms that apply, the one first that runs.
[[nodiscard]] std::vector<ConvAlgorithm> algorithms_for(ConvPass pass, const ConvShape& shape);

// The same decision in words.
[[nodiscard]] std::vector<ConvVerdict> explain_choice(ConvPass pass, const ConvShape& shape);

}  // namespace striate
