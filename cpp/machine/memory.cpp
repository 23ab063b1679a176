// Size classes: eight to an octave, so at most 12.5 % is wasted. Freed blocks are kept by class, last in first out (warm in
// cache), under a byte cap; over it the block that was freed longest ago goes back to the system. Blocks of 1 MiB and more
// are mapped one by one, so that giving one back really lowers the resident set; from 2 MiB on huge pages are advised.
#include "machine/memory.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <utility>

#include <pthread.h>
#include <sys/mman.h>

#include "striate/error.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr std::uint64_t kMapBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kHugePageBytes = std::uint64_t{2} << 20;
constexpr std::uint64_t kLeastCapBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kSinglePassCapBytes = std::uint64_t{64} << 20;
constexpr int kStepBits = 3;  // 2^3 classes an octave
constexpr int kClasses = 64 << kStepBits;

// The class of a request and the bytes it is rounded up to.
struct SizeClass {
  int index;
  std::uint64_t bytes;
};

SizeClass size_class(std::uint64_t bytes) {
  bytes = std::max<std::uint64_t>(bytes, kAlignment << kStepBits);
  const int octave = static_cast<int>(std::bit_width(bytes - 1)) - 1;  // 2^octave < bytes <= 2^(octave+1)
  const int shift = octave - kStepBits;
  const std::uint64_t step = ((bytes - 1) >> shift) + 1;  // in (8, 16]
  return {.index = (octave << kStepBits) + static_cast<int>(step - (std::uint64_t{1} << kStepBits)) - 1,
          .bytes = step << shift};
}

void* map_aligned(std::uint64_t bytes) {
  const std::uint64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : 4096;
  const std::uint64_t padded = bytes + alignment;
  void* raw = mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return nullptr;
  }
  const auto start = reinterpret_cast<std::uintptr_t>(raw);
  const std::uintptr_t begin = (start + alignment - 1) / alignment * alignment;
  if (begin > start) {
    munmap(raw, begin - start);
  }
  if (const std::uintptr_t end = begin + bytes; end < start + padded) {
    const std::uintptr_t page_end = (end + 4095) / 4096 * 4096;
    if (page_end < start + padded) {
      munmap(reinterpret_cast<void*>(page_end), start + padded - page_end);
    }
  }
#if defined(MADV_HUGEPAGE)
  if (bytes >= kHugePageBytes) {
    madvise(reinterpret_cast<void*>(begin), bytes, MADV_HUGEPAGE);
  }
#endif
  return reinterpret_cast<void*>(begin);
}

void* system_allocate(std::uint64_t bytes) {
  return bytes >= kMapBytes ? map_aligned(bytes) : std::aligned_alloc(kAlignment, bytes);
}

void unmap(void* data, std::uint64_t bytes) { munmap(data, (bytes + 4095) / 4096 * 4096); }

void system_release(void* data, std::uint64_t bytes) {
  if (bytes >= kMapBytes) {
    unmap(data, bytes);
  } else {
    std::free(data);
  }
}

class Cache {
 public:
  Cache() {
    // A fork while another thread holds the lock would leave the child locked for ever.
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); }, [] { instance().mutex_.unlock(); });
  }

  static Cache& instance() {
    static Cache& cache = *new Cache;  // outlives every static destructor that may still release arrays
    return cache;
  }

  void* allocate(std::uint64_t bytes) {
    const SizeClass size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    auto& blocks = free_[static_cast<std::size_t>(size.index)];
    void* data = nullptr;
    if (!blocks.empty()) {
      data = blocks.back().data;
      blocks.pop_back();
      cached_ -= size.bytes;
    } else {
      data = system_allocate(size.bytes);
      if (data == nullptr) {
        shrink(0);
        data = system_allocate(size.bytes);
      }
      if (data == nullptr) {
        throw out_of_memory(bytes);
      }
      ++n_system_allocations_;
    }
    in_use_ += size.bytes;
    peak_ = std::max(peak_, in_use_);
    return data;
  }

  void release(void* data, std::uint64_t bytes) {
    const SizeClass size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    in_use_ -= size.bytes;
    if (size.bytes > cap()) {
      system_release(data, size.bytes);
      return;
    }
    free_[static_cast<std::size_t>(size.index)].push_back({data, ++clock_, size.bytes});
    cached_ += size.bytes;
    shrink(cap());
  }

  void* map(std::uint64_t bytes) {
    void* data = map_aligned(bytes);
    if (data == nullptr) {
      empty();
      data = map_aligned(bytes);
    }
    const std::lock_guard lock(mutex_);
    if (data == nullptr) {
      throw out_of_memory(bytes);
    }
    ++n_system_allocations_;
    return data;
  }

  void count(std::ptrdiff_t bytes) {
    const std::lock_guard lock(mutex_);
    in_use_ += static_cast<std::uint64_t>(bytes);
    peak_ = std::max(peak_, in_use_);
  }

  void empty() {
    const std::lock_guard lock(mutex_);
    shrink(0);
  }

  void count_single_passes(int change) {
    const std::lock_guard lock(mutex_);
    n_single_passes_ += change;
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return {.in_use_bytes = in_use_,
            .cached_bytes = cached_,
            .peak_bytes = peak_,
            .n_system_allocations = n_system_allocations_,
            .cap_bytes = cap()};
  }

  void trim() {
    const std::lock_guard lock(mutex_);
    shrink(0);
    peak_ = in_use_;
  }

  void set_cap(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    forced_cap_ = bytes;
    shrink(cap());
  }

 private:
  struct Block {
    void* data;
    std::uint64_t freed_at;
    std::uint64_t bytes;
  };

  [[nodiscard]] OutOfMemory out_of_memory(std::uint64_t bytes) const {
    return OutOfMemory(text("memory: expected to get ", bytes, " bytes from the system, got none with ", in_use_,
                            " bytes in use; use a smaller batch or free tensors"));
  }

  // Twice the peak: the sum over classes of what a step frees can exceed what it uses at once. In a pass that runs once
  // nothing is gained by that sum, and it would be the process's largest resident set.
  [[nodiscard]] std::uint64_t cap() const {
    const std::uint64_t most = forced_cap_ > 0 ? forced_cap_ : std::max(kLeastCapBytes, 2 * peak_);
    return n_single_passes_ > 0 ? std::min(most, kSinglePassCapBytes) : most;
  }

  void shrink(std::uint64_t most) {
    while (cached_ > most) {
      std::deque<Block>* oldest = nullptr;
      for (auto& blocks : free_) {
        if (!blocks.empty() && (oldest == nullptr || blocks.front().freed_at < oldest->front().freed_at)) {
          oldest = &blocks;
        }
      }
      const Block block = oldest->front();
      oldest->pop_front();
      cached_ -= block.bytes;
      system_release(block.data, block.bytes);
    }
  }

  std::mutex mutex_;
  std::array<std::deque<Block>, kClasses> free_;
  std::uint64_t clock_ = 0;
  std::uint64_t in_use_ = 0;
  std::uint64_t cached_ = 0;
  std::uint64_t peak_ = 0;
  std::uint64_t n_system_allocations_ = 0;
  std::uint64_t forced_cap_ = 0;
  int n_single_passes_ = 0;
};

}  // namespace

namespace {
thread_local Requests* requests = nullptr;
}

Requests* serve_requests(Requests* in_charge) noexcept { return std::exchange(requests, in_charge); }

void* allocate(std::ptrdiff_t bytes) {
  if (requests != nullptr) {
    if (void* const data = requests->allocate(bytes); data != nullptr) {
      return data;
    }
  }
  return Cache::instance().allocate(static_cast<std::uint64_t>(bytes));
}

void release(void* data, std::ptrdiff_t bytes) noexcept {
  if (requests != nullptr && requests->release(data, bytes)) {
    return;
  }
  Cache::instance().release(data, static_cast<std::uint64_t>(bytes));
}

void* map_pages(std::ptrdiff_t bytes) { return Cache::instance().map(static_cast<std::uint64_t>(bytes)); }
void unmap_pages(void* data, std::ptrdiff_t bytes) noexcept { unmap(data, static_cast<std::uint64_t>(bytes)); }
void count_in_use(std::ptrdiff_t bytes) noexcept { Cache::instance().count(bytes); }
void empty_cache() { Cache::instance().empty(); }

MemoryStats memory_stats() { return Cache::instance().stats(); }
void trim_memory() { Cache::instance().trim(); }
void begin_single_pass() { Cache::instance().count_single_passes(1); }
void end_single_pass() { Cache::instance().count_single_passes(-1); }
void set_memory_cap(std::uint64_t bytes) { Cache::instance().set_cap(bytes); }

}  // namespace striate
