#include "machine/arena.hpp"

#include <algorithm>
#include <numeric>

namespace striate {
namespace {

std::ptrdiff_t aligned(std::ptrdiff_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void* ArenaTrace::allocate(std::ptrdiff_t bytes) {
  serve_requests(before_);
  void* data = nullptr;
  try {
    data = striate::allocate(bytes);
  } catch (...) {
    serve_requests(this);
    throw;
  }
  serve_requests(this);
  requests_.push_back({data, bytes, n_events_++, 0});
  return data;
}

bool ArenaTrace::release(void* data, std::ptrdiff_t) noexcept {
  for (auto request = requests_.rbegin(); request != requests_.rend(); ++request) {
    if (request->data == data && request->end == 0) {
      request->end = n_events_++;
      break;
    }
  }
  return false;
}

ArenaPlan ArenaTrace::plan() const {
  const auto life = [](const Request& r) { return static_cast<double>(r.end - r.begin); };
  // Two orders, of which either may win: by size, and by size times lifetime.
  ArenaPlan by_size = pack([](const Request& r) { return static_cast<double>(r.bytes); });
  ArenaPlan by_area = pack([&](const Request& r) { return static_cast<double>(r.bytes) * life(r); });
  ArenaPlan plan = by_area.bytes < by_size.bytes ? std::move(by_area) : std::move(by_size);
  std::vector<std::ptrdiff_t> change(static_cast<std::size_t>(n_events_) + 1, 0);  // bytes that an event adds or frees
  for (const Request& request : requests_) {
    if (request.end > 0) {
      change[static_cast<std::size_t>(request.begin)] += aligned(request.bytes);
      change[static_cast<std::size_t>(request.end)] -= aligned(request.bytes);
    }
  }
  std::ptrdiff_t alive = 0;
  for (const std::ptrdiff_t bytes : change) {
    alive += bytes;
    plan.least_bytes = std::max(plan.least_bytes, alive);
  }
  return plan;
}

// Heaviest first, each at the tightest gap that is free over its lifetime (greedy, after Pisarchyk & Lee 2020,
// arXiv:2001.03288, algorithm 3).
template <class Weight>
ArenaPlan ArenaTrace::pack(Weight&& weight) const {
  ArenaPlan plan;
  for (const Request& request : requests_) {
    plan.places.push_back({request.bytes, ArenaPlan::kOutside});
  }
  std::vector<std::size_t> order(requests_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return weight(requests_[a]) > weight(requests_[b]); });
  std::vector<std::size_t> placed;  // by offset
  for (const std::size_t i : order) {
    const Request& request = requests_[i];
    if (request.end == 0) {
      continue;
    }
    std::ptrdiff_t offset = 0;
    std::ptrdiff_t best = -1;
    std::ptrdiff_t least_gap = 0;
    for (const std::size_t other : placed) {
      if (requests_[other].end < request.begin || request.end < requests_[other].begin) {
        continue;
      }
      const std::ptrdiff_t gap = plan.places[other].offset - offset;
      if (gap >= aligned(request.bytes) && (best < 0 || gap < least_gap)) {
        best = offset;
        least_gap = gap;
      }
      offset = std::max(offset, plan.places[other].offset + aligned(requests_[other].bytes));
    }
    plan.places[i].offset = best < 0 ? offset : best;
    plan.bytes = std::max(plan.bytes, plan.places[i].offset + aligned(request.bytes));
    const auto at = std::lower_bound(placed.begin(), placed.end(), i, [&](std::size_t a, std::size_t b) {
      return plan.places[a].offset < plan.places[b].offset;
    });
    placed.insert(at, i);
  }
  return plan;
}

void* Arena::allocate(std::ptrdiff_t bytes) {
  if (has_diverged_ || n_requests_ == plan_.places.size() || plan_.places[n_requests_].bytes != bytes) {
    has_diverged_ = true;
    return nullptr;
  }
  const std::ptrdiff_t offset = plan_.places[n_requests_++].offset;
  return offset == ArenaPlan::kOutside ? nullptr : block_ + offset;
}

bool Arena::release(void* data, std::ptrdiff_t) noexcept { return holds(data); }

}  // namespace striate
