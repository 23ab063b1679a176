// The caching allocator behind every Array.
#pragma once

#include <bit>
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

// Scratch memory of an op for each of its workers. A worker's lies where it lay in the op before, so that its core holds the
// lines: those that another core wrote last come from there, slowly where the cores share no L3. Out of an arena's memory,
// where it would lie elsewhere in every op.
template <class T>
class WorkerBuffer {
 public:
  // n values a worker.
  WorkerBuffer(int n_workers, std::ptrdiff_t n)
      : slot_(n > 0 ? slot_for(n * static_cast<std::ptrdiff_t>(sizeof(T))) : 0), bytes_(n_workers * slot_) {
    if (bytes_ > 0) {
      const KeptMemory kept;
      data_ = static_cast<char*>(allocate(bytes_));
    }
  }
  ~WorkerBuffer() {
    if (data_ != nullptr) {
      const KeptMemory kept;
      release(data_, bytes_);
    }
  }
  WorkerBuffer(const WorkerBuffer&) = delete;
  WorkerBuffer& operator=(const WorkerBuffer&) = delete;

  [[nodiscard]] T* of(int worker) const { return reinterpret_cast<T*>(data_ + worker * slot_); }

 private:
  static std::ptrdiff_t slot_for(std::ptrdiff_t bytes) {
    constexpr std::ptrdiff_t kSlot = std::ptrdiff_t{2} << 20;
    return bytes <= kSlot ? kSlot : static_cast<std::ptrdiff_t>(std::bit_ceil(static_cast<std::size_t>(bytes)));
  }
  std::ptrdiff_t slot_;
  std::ptrdiff_t bytes_;
  char* data_ = nullptr;
};

}  // namespace striate
