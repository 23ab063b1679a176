// What the data is: element type, extents, strided view, storage.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "striate/error.hpp"

namespace striate {

// float16, bfloat16 and int8 are for storage: convert them before computing.
enum class DType : std::uint8_t { float32, float64, float16, bfloat16, int8, uint8, int32, int64, boolean };
inline constexpr int kDTypes = 9;

[[nodiscard]] std::ptrdiff_t item_bytes(DType dtype);
[[nodiscard]] const char* dtype_name(DType dtype);
[[nodiscard]] inline bool is_floating(DType dtype) { return dtype <= DType::bfloat16; }

template <class T>
inline constexpr DType dtype_of = DType::float32;
template <>
inline constexpr DType dtype_of<double> = DType::float64;
template <>
inline constexpr DType dtype_of<std::int8_t> = DType::int8;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::uint8;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::int32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::int64;
template <>
inline constexpr DType dtype_of<bool> = DType::boolean;

inline constexpr int kMaxRank = 8;

// A short list of sizes or strides, in elements, kept in place.
class Extents {
 public:
  Extents() = default;
  Extents(std::initializer_list<std::ptrdiff_t> values) : Extents(std::span(values.begin(), values.size())) {}
  explicit Extents(std::span<const std::ptrdiff_t> values);
  Extents(int rank, std::ptrdiff_t value);

  [[nodiscard]] int rank() const { return rank_; }
  std::ptrdiff_t& operator[](int axis) { return values_[axis]; }
  std::ptrdiff_t operator[](int axis) const { return values_[axis]; }
  [[nodiscard]] const std::ptrdiff_t* begin() const { return values_; }
  [[nodiscard]] const std::ptrdiff_t* end() const { return values_ + rank_; }
  [[nodiscard]] std::ptrdiff_t product() const;  // 1 for rank 0
  void push_back(std::ptrdiff_t value);
  friend bool operator==(const Extents& a, const Extents& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

 private:
  std::ptrdiff_t values_[kMaxRank] = {};
  int rank_ = 0;
};

[[nodiscard]] std::string to_string(const Extents& extents);  // "(2, 3)"
std::ostream& operator<<(std::ostream& out, const Extents& extents);

// Reference-counted memory. Either from the caching allocator or borrowed from an owner kept alive.
class Storage {
 public:
  static Storage* create(std::ptrdiff_t bytes);
  // `release_owner` runs when the last Array goes. Borrowed storage is exposed: outside code can write it.
  static Storage* borrow(void* data, std::ptrdiff_t bytes, bool is_read_only, std::function<void()> release_owner);
  // Likewise, read-only pages of a file that is mapped.
  static Storage* borrow_mapped(void* data, std::ptrdiff_t bytes, std::function<void()> release_owner);

  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void retain() { n_references_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (n_references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete this;
    }
  }

  [[nodiscard]] int n_references() const { return n_references_.load(std::memory_order_relaxed); }
  [[nodiscard]] void* data() const { return data_; }
  [[nodiscard]] std::ptrdiff_t bytes() const { return bytes_; }
  [[nodiscard]] bool is_read_only() const { return is_read_only_; }
  // Raised by every in-place op; what is derived from the content (packed weights, saved tensors) is keyed by it.
  [[nodiscard]] std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  void raise_version() { version_.fetch_add(1, std::memory_order_relaxed); }
  // Exposed storage may change without its version: nothing derived from it is cached across calls.
  [[nodiscard]] bool is_exposed() const { return is_exposed_.load(std::memory_order_relaxed); }
  void expose() { is_exposed_.store(true, std::memory_order_relaxed); }
  // The owner promises that nobody writes this memory as long as it is used here.
  void seal() { is_exposed_.store(false, std::memory_order_relaxed); }

  // What was derived from this storage at `version()` under `key`, or null. Thread-safe.
  struct Derived;
  [[nodiscard]] std::shared_ptr<const void> derived(std::uint64_t key) const;
  void set_derived(std::uint64_t key, std::uint64_t version, std::shared_ptr<const void> value);
  void forget_derived();
  // Whether this was asked before, for the same key and version.
  [[nodiscard]] bool meets_again(std::uint64_t key, std::uint64_t version);

  // Pages of a mapped file leave the resident set, until they are read again. Nothing happens to other memory.
  void let_pages_go() const noexcept;

 private:
  Storage() = default;
  ~Storage();
  Derived& derived_entries();

  void* data_ = nullptr;
  std::ptrdiff_t bytes_ = 0;
  std::atomic<int> n_references_{1};
  std::atomic<std::uint64_t> version_{0};
  std::atomic<bool> is_exposed_{false};
  bool is_read_only_ = false;
  bool is_borrowed_ = false;
  bool is_mapped_ = false;
  std::function<void()> release_owner_;
  mutable std::unique_ptr<Derived> derived_;
};

class StorageRef {
 public:
  StorageRef() = default;
  explicit StorageRef(Storage* adopted) : storage_(adopted) {}
  StorageRef(const StorageRef& other) : storage_(other.storage_) {
    if (storage_ != nullptr) {
      storage_->retain();
    }
  }
  StorageRef(StorageRef&& other) noexcept : storage_(std::exchange(other.storage_, nullptr)) {}
  StorageRef& operator=(StorageRef other) noexcept {
    std::swap(storage_, other.storage_);
    return *this;
  }
  ~StorageRef() {
    if (storage_ != nullptr) {
      storage_->release();
    }
  }
  Storage* operator->() const { return storage_; }
  [[nodiscard]] Storage* get() const { return storage_; }

 private:
  Storage* storage_ = nullptr;
};

// Order of axes in memory. `channels_last` is N, spatial axes, C for rank 3 to 5, and row-major for any other rank.
enum class Layout : std::uint8_t { row_major, channels_last };

[[nodiscard]] Extents dense_strides(const Extents& shape, Layout layout);

// A strided view of a Storage. Copying it copies the view, not the data.
class Array {
 public:
  Array() = default;
  // Undefined content; throws OutOfMemory, or ShapeError when a size is negative or the bytes overflow.
  static Array empty(DType dtype, const Extents& shape, Layout layout = Layout::row_major);
  // Dense, with axes ordered in memory as in `model` (same rank): what element-wise ops return.
  static Array empty_like(DType dtype, const Array& model);
  static Array view(StorageRef storage, DType dtype, const Extents& shape, const Extents& strides, std::ptrdiff_t offset);

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] const Extents& shape() const { return shape_; }
  [[nodiscard]] std::ptrdiff_t shape(int axis) const { return shape_[axis]; }
  [[nodiscard]] const Extents& strides() const { return strides_; }  // in elements; 0 for a broadcast axis
  [[nodiscard]] std::ptrdiff_t stride(int axis) const { return strides_[axis]; }
  [[nodiscard]] std::ptrdiff_t offset() const { return offset_; }
  [[nodiscard]] int rank() const { return shape_.rank(); }
  [[nodiscard]] std::ptrdiff_t size() const { return shape_.product(); }
  [[nodiscard]] Storage& storage() const { return *storage_.get(); }
  [[nodiscard]] const StorageRef& storage_ref() const { return storage_; }

  template <class T>
  [[nodiscard]] T* data() const {
    return static_cast<T*>(storage_->data()) + offset_;
  }
  [[nodiscard]] std::byte* bytes() const { return static_cast<std::byte*>(storage_->data()) + offset_ * item_bytes(dtype_); }

  [[nodiscard]] bool is_dense(Layout layout) const;  // no gaps, axes of size 1 don't matter
  [[nodiscard]] bool has_unit_channels() const;      // channel stride 1 (or one channel): what kernels need
  [[nodiscard]] Array permute(std::span<const int> axes) const;
  [[nodiscard]] Array broadcast_to(const Extents& shape) const;  // throws ShapeError
  // The same elements in logical order under another shape when strides allow it without a copy.
  [[nodiscard]] bool try_reshape(const Extents& shape, Array& result) const;

 private:
  StorageRef storage_;
  DType dtype_ = DType::float32;
  Extents shape_;
  Extents strides_;
  std::ptrdiff_t offset_ = 0;
};

// Calls f(T{}) with T the C++ type of a float dtype; throws DTypeError naming `op` for any other.
template <class F>
decltype(auto) dispatch_float(const char* op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32:
      return f(float{});
    case DType::float64:
      return f(double{});
    default:
      throw DTypeError(text(op, ": expected float32 or float64, got ", dtype_name(dtype), "; convert with .to(float32)"));
  }
}

}  // namespace striate
