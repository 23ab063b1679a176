// The memory of a pass that is repeated: what it asked for is traced once, packed by lifetimes into one block, and handed
// out from that block from then on.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "machine/memory.hpp"

namespace striate {

// Where each request of a pass lies in the block, in the order of the requests.
struct ArenaPlan {
  static constexpr std::ptrdiff_t kOutside = -1;  // outlives the pass: the cache serves it
  struct Place {
    std::ptrdiff_t bytes;
    std::ptrdiff_t offset;
  };
  std::vector<Place> places;
  std::ptrdiff_t bytes = 0;        // of the block
  std::ptrdiff_t least_bytes = 0;  // most that is alive at one moment: no plan needs less
};

// Requests of any size from pages of its own: each at the tightest gap, gaps that touch become one, so that what a pass
// touches stays near the most that it holds at one moment (a cache by size classes touches the sum over classes).
class Heap {
 public:
  Heap() = default;
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap();

  [[nodiscard]] std::byte* allocate(std::ptrdiff_t bytes);
  void release(std::byte* data, std::ptrdiff_t bytes) noexcept;
  [[nodiscard]] bool holds(const void* data) const noexcept;

 private:
  struct Segment {
    std::byte* data;
    std::ptrdiff_t bytes;
  };
  Segment add_segment(std::ptrdiff_t least_bytes);

  std::vector<Segment> segments_;
  std::map<std::byte*, std::ptrdiff_t> gaps_;  // bytes of each
};

// Serves this thread's requests from pages of its own while it lives, and remembers them. What is to outlive it must be
// copied out of it first: see holds().
class ArenaTrace final : public Requests {
 public:
  ArenaTrace() : before_(serve_requests(this)) {}
  ~ArenaTrace() override { serve_requests(before_); }
  ArenaTrace(const ArenaTrace&) = delete;
  ArenaTrace& operator=(const ArenaTrace&) = delete;

  void* allocate(std::ptrdiff_t bytes) override;
  bool release(void* data, std::ptrdiff_t bytes) noexcept override;

  // What was not released yet lies outside the block.
  [[nodiscard]] ArenaPlan plan() const;
  [[nodiscard]] bool holds(const void* data) const noexcept { return heap_.holds(data); }

 private:
  struct Request {
    void* data;
    std::ptrdiff_t bytes;
    std::ptrdiff_t begin;  // events are numbered
    std::ptrdiff_t end;    // 0: not released
  };
  struct Packing {
    std::vector<std::size_t> order;       // of requests
    std::vector<std::ptrdiff_t> offsets;  // of each of these
    std::ptrdiff_t bytes = 0;
    std::size_t top = 0;  // which of these ends there
  };
  [[nodiscard]] Packing search(const std::vector<std::size_t>& scratch, std::ptrdiff_t least_bytes) const;
  void pack(Packing& packing) const;

  Requests* before_;
  Heap heap_;
  std::vector<Request> requests_;
  std::ptrdiff_t n_events_ = 0;
};

// Serves this thread's requests from a block while it lives, as planned; from the cache once a request is not the planned
// one.
class Arena final : public Requests {
 public:
  Arena(const ArenaPlan& plan, void* block)
      : plan_(plan), block_(static_cast<std::byte*>(block)), before_(serve_requests(this)) {}
  ~Arena() override { serve_requests(before_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* allocate(std::ptrdiff_t bytes) override;
  bool release(void* data, std::ptrdiff_t bytes) noexcept override;

  // Whether this memory is part of the block.
  [[nodiscard]] bool holds(const void* data) const noexcept {
    const auto* const at = static_cast<const std::byte*>(data);
    return at >= block_ && at < block_ + plan_.bytes;
  }
  // Whether the pass asked for something else than planned.
  [[nodiscard]] bool has_diverged() const { return has_diverged_; }

 private:
  const ArenaPlan& plan_;
  std::byte* block_;
  Requests* before_;
  std::size_t n_requests_ = 0;
  bool has_diverged_ = false;
};

}  // namespace striate
