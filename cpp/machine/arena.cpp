#include "machine/arena.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>

namespace striate {
namespace {

// Of a heap. The first is one that the cache serves, so that small passes, of which there may be thousands, take no fresh
// pages; of others only what is touched becomes resident.
constexpr std::ptrdiff_t kFirstSegmentBytes = std::ptrdiff_t{1} << 20;
constexpr std::ptrdiff_t kSegmentBytes = std::ptrdiff_t{64} << 20;

constexpr std::size_t kSearchSteps = 8'000'000;  // pairs of requests that a search compares: some 10 ms
constexpr std::size_t kMostTries = 64;           // from one order on

std::ptrdiff_t aligned(std::ptrdiff_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Heap::~Heap() {
  const KeptMemory memory;
  for (const Segment& segment : segments_) {
    if (segment.bytes == kFirstSegmentBytes) {
      striate::release(segment.data, segment.bytes);
    } else {
      unmap_pages(segment.data, segment.bytes);
    }
  }
}

Heap::Segment Heap::add_segment(std::ptrdiff_t least_bytes) {
  segments_.reserve(segments_.size() + 1);
  Segment segment{nullptr, kFirstSegmentBytes};
  if (segments_.empty() && least_bytes <= kFirstSegmentBytes) {
    const KeptMemory memory;
    segment.data = static_cast<std::byte*>(striate::allocate(segment.bytes));
  } else {
    segment.bytes = std::max(kSegmentBytes, least_bytes);
    segment.data = static_cast<std::byte*>(map_pages(segment.bytes));
  }
  segments_.push_back(segment);
  return segment;
}

std::byte* Heap::allocate(std::ptrdiff_t bytes) {
  auto best = gaps_.end();
  for (auto gap = gaps_.begin(); gap != gaps_.end(); ++gap) {
    if (gap->second >= bytes && (best == gaps_.end() || gap->second < best->second)) {
      best = gap;
    }
  }
  if (best == gaps_.end()) {
    const Segment segment = add_segment(bytes);
    best = gaps_.emplace(segment.data, segment.bytes).first;
  }
  const auto [data, gap_bytes] = *best;
  gaps_.erase(best);
  if (gap_bytes > bytes) {
    gaps_.emplace(data + bytes, gap_bytes - bytes);
  }
  return data;
}

void Heap::release(std::byte* data, std::ptrdiff_t bytes) noexcept {
  auto after = gaps_.lower_bound(data);
  if (after != gaps_.end() && after->first == data + bytes) {
    bytes += after->second;
    after = gaps_.erase(after);
  }
  if (after != gaps_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == data) {
      before->second += bytes;
      return;
    }
  }
  gaps_.emplace(data, bytes);
}

bool Heap::holds(const void* data) const noexcept {
  const auto* const at = static_cast<const std::byte*>(data);
  return std::any_of(segments_.begin(), segments_.end(),
                     [&](const Segment& segment) { return at >= segment.data && at < segment.data + segment.bytes; });
}

void* ArenaTrace::allocate(std::ptrdiff_t bytes) {
  std::byte* const data = heap_.allocate(std::max(aligned(bytes), kAlignment));
  count_in_use(aligned(bytes));
  requests_.push_back({data, bytes, n_events_++, 0});
  return data;
}

bool ArenaTrace::release(void* data, std::ptrdiff_t bytes) noexcept {
  if (!holds(data)) {
    return false;
  }
  const auto request =
      std::find_if(requests_.rbegin(), requests_.rend(), [&](const Request& r) { return r.data == data && r.end == 0; });
  request->end = n_events_++;
  heap_.release(static_cast<std::byte*>(data), std::max(aligned(bytes), kAlignment));
  count_in_use(-aligned(bytes));
  return true;
}

ArenaPlan ArenaTrace::plan() const {
  ArenaPlan plan;
  std::vector<std::size_t> scratch;                                                // requests that the block serves
  std::vector<std::ptrdiff_t> change(static_cast<std::size_t>(n_events_) + 1, 0);  // bytes that an event adds or frees
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    const Request& request = requests_[i];
    plan.places.push_back({request.bytes, ArenaPlan::kOutside});
    if (request.end > 0) {
      scratch.push_back(i);
      change[static_cast<std::size_t>(request.begin)] += aligned(request.bytes);
      change[static_cast<std::size_t>(request.end)] -= aligned(request.bytes);
    }
  }
  std::ptrdiff_t alive = 0;
  for (const std::ptrdiff_t bytes : change) {
    alive += bytes;
    plan.least_bytes = std::max(plan.least_bytes, alive);
  }
  const Packing best = search(scratch, plan.least_bytes);
  plan.bytes = best.bytes;
  for (std::size_t k = 0; k < best.order.size(); ++k) {
    plan.places[best.order[k]].offset = best.offsets[k];
  }
  return plan;
}

// Tries orders, of which any may win: by size, by size times lifetime, as they come; and from each on, what ends highest
// goes first, which is how two that the greedy rule stacks come to lie side by side.
ArenaTrace::Packing ArenaTrace::search(const std::vector<std::size_t>& scratch, std::ptrdiff_t least_bytes) const {
  const auto bytes = [&](std::size_t i) { return static_cast<double>(requests_[i].bytes); };
  const auto area = [&](std::size_t i) { return bytes(i) * static_cast<double>(requests_[i].end - requests_[i].begin); };
  const auto sorted = [&](auto&& weight) {
    std::vector<std::size_t> order = scratch;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return weight(a) > weight(b); });
    return order;
  };
  const std::array orders{sorted(bytes), sorted(area), scratch};
  const std::size_t n_tries =
      std::clamp<std::size_t>(kSearchSteps / orders.size() / (scratch.size() * scratch.size() + 1), 1, kMostTries);
  Packing best;
  for (const std::vector<std::size_t>& order : orders) {
    Packing packing{.order = order, .offsets = {}, .bytes = 0, .top = 0};
    for (std::size_t n = 0; n < n_tries && (best.order.empty() || best.bytes > least_bytes); ++n) {
      pack(packing);
      if (best.order.empty() || packing.bytes < best.bytes) {
        best = packing;
      }
      if (packing.top == 0) {
        break;
      }
      const auto top = packing.order.begin() + static_cast<std::ptrdiff_t>(packing.top);
      std::rotate(packing.order.begin(), top, top + 1);
    }
  }
  return best;
}

// In the given order, each at the tightest gap that is free over its lifetime (greedy, after Pisarchyk & Lee 2020,
// arXiv:2001.03288, algorithm 3).
void ArenaTrace::pack(Packing& packing) const {
  struct Placed {
    std::ptrdiff_t offset, end_offset;
    std::ptrdiff_t begin, end;  // of its life
  };
  std::vector<Placed> placed;  // by offset
  placed.reserve(packing.order.size());
  packing.offsets.clear();
  packing.bytes = 0;
  for (const std::size_t i : packing.order) {
    const Request& request = requests_[i];
    const std::ptrdiff_t bytes = aligned(request.bytes);
    std::ptrdiff_t offset = 0;
    std::ptrdiff_t best = -1;
    std::ptrdiff_t least_gap = 0;
    for (const Placed& other : placed) {
      if (other.end < request.begin || request.end < other.begin) {
        continue;
      }
      const std::ptrdiff_t gap = other.offset - offset;
      if (gap >= bytes && (best < 0 || gap < least_gap)) {
        best = offset;
        least_gap = gap;
      }
      offset = std::max(offset, other.end_offset);
    }
    offset = best < 0 ? offset : best;
    if (offset + bytes > packing.bytes) {
      packing.bytes = offset + bytes;
      packing.top = packing.offsets.size();
    }
    packing.offsets.push_back(offset);
    const auto at = std::lower_bound(placed.begin(), placed.end(), offset,
                                     [](const Placed& other, std::ptrdiff_t value) { return other.offset < value; });
    placed.insert(at, {offset, offset + bytes, request.begin, request.end});
  }
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
