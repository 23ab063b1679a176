// The caching allocator behind every Array.
#pragma once

#include <cstddef>

namespace striate {

inline constexpr std::ptrdiff_t kAlignment = 64;

// Returns 64-byte aligned memory of at least `bytes` (never null); throws OutOfMemory. The content is undefined.
[[nodiscard]] void* allocate(std::ptrdiff_t bytes);
// Gives memory back to the cache; `bytes` as in allocate().
void release(void* data, std::ptrdiff_t bytes) noexcept;

// Pages straight from the system (page-aligned, zeros), for what is large and given back as a whole. Throws OutOfMemory.
[[nodiscard]] void* map_pages(std::ptrdiff_t bytes);
void unmap_pages(void* data, std::ptrdiff_t bytes) noexcept;
// Counts memory that others hand out, from such pages, as in use (fewer than 0: as given back).
void count_in_use(std::ptrdiff_t bytes) noexcept;
// Gives what the cache holds back to the system.
void empty_cache();

// What serves the requests of one thread, for a while, in place of the cache.
class Requests {
 public:
  virtual ~Requests() = default;
  virtual void* allocate(std::ptrdiff_t bytes) = 0;                     // null: the cache serves it
  virtual bool release(void* data, std::ptrdiff_t bytes) noexcept = 0;  // false: the cache takes it back
};
// Puts `requests` in charge of this thread (null: the cache) and returns what was before.
Requests* serve_requests(Requests* requests) noexcept;

// While it lives, this thread's requests go to the cache: for memory that is kept across calls (packed weights).
class KeptMemory {
 public:
  KeptMemory() : before_(serve_requests(nullptr)) {}
  ~KeptMemory() { serve_requests(before_); }
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

 private:
  Requests* before_;
};

// Scratch memory of an op: allocated before a parallel region, released at the end of the scope.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::ptrdiff_t n)
      : bytes_(n * static_cast<std::ptrdiff_t>(sizeof(T))), data_(n > 0 ? static_cast<T*>(allocate(bytes_)) : nullptr) {}
  ~Buffer() {
    if (data_ != nullptr) {
      release(data_, bytes_);
    }
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] T* data() const { return data_; }
  T& operator[](std::ptrdiff_t i) const { return data_[i]; }

 private:
  std::ptrdiff_t bytes_;
  T* data_;
};

}  // namespace striate
