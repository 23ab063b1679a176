// What is packed from a weight, kept with its storage until that changes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "machine/memory.hpp"
#include "ops/indirect.hpp"
#include "ops/shape.hpp"
#include "striate/machine.hpp"
#include "striate/tensor.hpp"

namespace striate {

inline Array dense_weight(const Array& weight) {
  return weight.is_dense(Layout::channels_last) ? weight : relayout(weight, Layout::channels_last);
}

// A key for what is packed from a weight: which pass and parameters, for which kernels.
template <class... Parts>
std::uint64_t derived_key(const Parts&... parts) {
  std::uint64_t hash = 1469598103934665603ULL;
  ((hash = (hash ^ static_cast<std::uint64_t>(parts)) * 1099511628211ULL), ...);
  return hash;
}

template <class T>
using PackedList = std::vector<std::shared_ptr<const Packed<T>>>;  // [group]

// Returns what `make` builds of this view of a weight, kept with the weight's storage until that changes, and outside of any
// arena. A view of another layout is made dense in `make`, and not before each call.
template <class T, class Make>
std::shared_ptr<const PackedList<T>> cached(const Array& weight, std::uint64_t key, Make&& make) {
  key = derived_key(key, weight.offset(), static_cast<int>(active_isa()), sizeof(T));
  for (int axis = 0; axis < weight.rank(); ++axis) {
    key = derived_key(key, weight.shape(axis), weight.stride(axis));
  }
  if (auto found = weight.storage().derived(key)) {
    return std::static_pointer_cast<const PackedList<T>>(found);
  }
  const KeptMemory memory;
  const std::uint64_t version = weight.storage().version();
  auto made = std::make_shared<const PackedList<T>>(make());
  weight.storage().set_derived(key, version, made);
  return made;
}

}  // namespace striate
