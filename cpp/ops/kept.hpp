// What is packed from a weight is kept with the weight's storage until that changes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/indirect.hpp"
#include "striate/machine.hpp"
#include "striate/tensor.hpp"

namespace striate {

// A key for what is packed from a weight: which pass and parameters, for which kernels.
template <class... Parts>
std::uint64_t derived_key(const Parts&... parts) {
  std::uint64_t hash = 1469598103934665603ULL;
  ((hash = (hash ^ static_cast<std::uint64_t>(parts)) * 1099511628211ULL), ...);
  return hash;
}

template <class T>
using PackedList = std::vector<std::shared_ptr<const Packed<T>>>;

// Returns what `make` builds; storage that outside code may write keeps nothing.
template <class T, class Make>
std::shared_ptr<const PackedList<T>> kept(const Array& weight, std::uint64_t key, Make&& make) {
  key = derived_key(key, weight.offset(), static_cast<int>(active_isa()), sizeof(T));
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
