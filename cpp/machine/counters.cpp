#include <atomic>

#include "striate/machine.hpp"

namespace striate {
namespace {

std::atomic<std::uint64_t> n_relayouts{0};
std::atomic<std::uint64_t> relayout_bytes{0};

}  // namespace

Counters counters() { return {n_relayouts.load(std::memory_order_relaxed), relayout_bytes.load(std::memory_order_relaxed)}; }

void reset_counters() {
  n_relayouts.store(0, std::memory_order_relaxed);
  relayout_bytes.store(0, std::memory_order_relaxed);
}

void count_relayout(std::ptrdiff_t bytes) {
  n_relayouts.fetch_add(1, std::memory_order_relaxed);
  relayout_bytes.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_relaxed);
}

}  // namespace striate
