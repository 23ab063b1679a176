// The memory of a pass that is repeated: what it asked for is traced once, packed by lifetimes into one block, and handed
// out from that block from then on.
#pragma once

#include <cstddef>
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

// Serves this thread's requests from the cache while it lives, and remembers them.
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

 private:
  struct Request {
    void* data;
    std::ptrdiff_t bytes;
    std::ptrdiff_t begin;  // events are numbered
    std::ptrdiff_t end;    // 0: not released
  };
  template <class Weight>
  [[nodiscard]] ArenaPlan pack(Weight&& weight) const;

  Requests* before_;
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
