// What is packed from a weight, kept with its storage until that changes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
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

// While it lives, this thread's operators run in the pass of a program that knows its weights: what is packed from the
// storages given (sorted) is kept from the first time on; what is packed from any other serves once.
class PassWeights {
 public:
  explicit PassWeights(const std::vector<Storage*>& lasting) : before_(std::exchange(current_, &lasting)) {}
  ~PassWeights() { current_ = before_; }
  PassWeights(const PassWeights&) = delete;
  PassWeights& operator=(const PassWeights&) = delete;

  enum class Keep : std::uint8_t { never, at_second_use, at_once };
  // Without such a pass nobody knows yet whether a weight changes with every step: packed forms of one that does would cost
  // several times its memory, and never serve again.
  [[nodiscard]] static Keep keep(Storage& storage) {
    if (storage.is_exposed()) {
      return Keep::never;
    }
    if (current_ == nullptr) {
      return Keep::at_second_use;
    }
    return std::binary_search(current_->begin(), current_->end(), &storage) ? Keep::at_once : Keep::never;
  }

 private:
  inline static thread_local const std::vector<Storage*>* current_ = nullptr;
  const std::vector<Storage*>* before_;
};

// Returns what `make` builds of this view of a weight. Where it will serve again it is kept with the weight's storage until
// that changes, outside of any arena. A view of another layout is made dense in `make`, and not before each call. Where it
// would serve once, `once` may do without, and say so: then the result is null.
template <class T, class Make, class Once>
std::shared_ptr<const PackedList<T>> cached_or(const Array& weight, std::uint64_t key, Make&& make, Once&& once) {
  Storage& storage = weight.storage();
  key = derived_key(key, weight.offset(), static_cast<int>(active_isa()), sizeof(T));
  for (int axis = 0; axis < weight.rank(); ++axis) {
    key = derived_key(key, weight.shape(axis), weight.stride(axis));
  }
  const PassWeights::Keep keep = PassWeights::keep(storage);
  const auto make_once = [&] { return once() ? nullptr : std::make_shared<const PackedList<T>>(make()); };
  if (keep == PassWeights::Keep::never) {
    return make_once();
  }
  if (auto found = storage.derived(key)) {
    return std::static_pointer_cast<const PackedList<T>>(found);
  }
  const std::uint64_t version = storage.version();
  if (keep == PassWeights::Keep::at_second_use && !storage.meets_again(key, version)) {
    return make_once();
  }
  const KeptMemory memory;
  auto made = std::make_shared<const PackedList<T>>(make());
  storage.set_derived(key, version, made);
  storage.let_pages_go();
  return made;
}

template <class T, class Make>
std::shared_ptr<const PackedList<T>> cached(const Array& weight, std::uint64_t key, Make&& make) {
  return cached_or<T>(weight, key, std::forward<Make>(make), [] { return false; });
}

}  // namespace striate
