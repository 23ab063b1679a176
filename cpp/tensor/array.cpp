#include <algorithm>
#include <array>
#include <limits>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

#include "machine/memory.hpp"
#include "striate/tensor.hpp"

namespace striate {
namespace {

// Axes of `array` from the slowest to the fastest in memory: first those of size 1, whose strides say nothing; equal strides
// keep logical order. (A sort whose comparison calls size-1 axes equal to all others is not an ordering and misplaces them.)
std::array<int, kMaxRank> memory_order(const Array& array) {
  std::array<int, kMaxRank> order{};
  int n = 0;
  for (int axis = 0; axis < array.rank(); ++axis) {
    if (array.shape(axis) == 1) {
      order[static_cast<std::size_t>(n++)] = axis;
    }
  }
  const int n_single = n;
  for (int axis = 0; axis < array.rank(); ++axis) {
    if (array.shape(axis) != 1) {
      int at = n++;
      for (; at > n_single && array.stride(order[static_cast<std::size_t>(at - 1)]) < array.stride(axis); --at) {
        order[static_cast<std::size_t>(at)] = order[static_cast<std::size_t>(at - 1)];
      }
      order[static_cast<std::size_t>(at)] = axis;
    }
  }
  return order;
}

}  // namespace

std::ptrdiff_t item_bytes(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64:
      return 8;
    case DType::float32:
    case DType::int32:
      return 4;
    case DType::float16:
    case DType::bfloat16:
      return 2;
    default:
      return 1;
  }
}

const char* dtype_name(DType dtype) {
  constexpr const char* names[kDTypes] = {"float32", "float64", "float16", "bfloat16", "int8",
                                          "uint8",   "int32",   "int64",   "bool"};
  return names[static_cast<std::size_t>(dtype)];
}

Extents::Extents(std::span<const std::ptrdiff_t> values) {
  check(values.size() <= kMaxRank, "tensor: expected at most ", kMaxRank, " axes, got ", values.size(),
        "; merge axes with reshape");
  std::copy(values.begin(), values.end(), values_);
  rank_ = static_cast<int>(values.size());
}

Extents::Extents(int rank, std::ptrdiff_t value) : rank_(rank) { std::fill(values_, values_ + rank, value); }

std::ptrdiff_t Extents::product() const {
  std::ptrdiff_t n = 1;
  for (const std::ptrdiff_t value : *this) {
    n *= value;
  }
  return n;
}

void Extents::push_back(std::ptrdiff_t value) {
  check(rank_ < kMaxRank, "tensor: expected at most ", kMaxRank, " axes, got ", rank_ + 1, "; merge axes with reshape");
  values_[rank_++] = value;
}

std::string to_string(const Extents& extents) {
  std::string out = "(";
  for (int axis = 0; axis < extents.rank(); ++axis) {
    out += (axis > 0 ? ", " : "") + std::to_string(extents[axis]);
  }
  return out + (extents.rank() == 1 ? ",)" : ")");
}

std::ostream& operator<<(std::ostream& out, const Extents& extents) { return out << to_string(extents); }

// A handful of entries at the most (one per op that packs this weight), so a list does.
struct Storage::Derived {
  struct Entry {
    std::uint64_t key;
    std::uint64_t version;
    std::shared_ptr<const void> value;  // null: asked for once, not kept
  };
  std::mutex mutex;
  std::vector<Entry> entries;
};

Storage* Storage::create(std::ptrdiff_t bytes) {
  auto* storage = new Storage;
  try {
    storage->data_ = allocate(bytes);
  } catch (...) {
    storage->is_borrowed_ = true;
    delete storage;
    throw;
  }
  storage->bytes_ = bytes;
  return storage;
}

Storage* Storage::borrow(void* data, std::ptrdiff_t bytes, bool is_read_only, std::function<void()> release_owner) {
  auto* storage = new Storage;
  storage->data_ = data;
  storage->bytes_ = bytes;
  storage->is_read_only_ = is_read_only;
  storage->is_borrowed_ = true;
  storage->is_exposed_ = true;
  storage->release_owner_ = std::move(release_owner);
  return storage;
}

Storage* Storage::borrow_mapped(void* data, std::ptrdiff_t bytes, std::function<void()> release_owner) {
  Storage* const storage = borrow(data, bytes, true, std::move(release_owner));
  storage->is_mapped_ = true;
  return storage;
}

void Storage::let_pages_go() const noexcept {
  if (!is_mapped_) {
    return;
  }
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto data = reinterpret_cast<std::uintptr_t>(data_);
  const std::uintptr_t begin = (data + page - 1) / page * page;
  const std::uintptr_t end = (data + static_cast<std::uintptr_t>(bytes_)) / page * page;
  if (begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

Storage::~Storage() {
  if (!is_borrowed_) {
    striate::release(data_, bytes_);
  } else if (release_owner_) {
    release_owner_();
  }
}

namespace {
std::mutex derived_creation;  // only for the first entry of a storage
}

std::shared_ptr<const void> Storage::derived(std::uint64_t key) const {
  Derived* derived = nullptr;
  {
    const std::lock_guard lock(derived_creation);
    derived = derived_.get();
  }
  if (derived == nullptr || is_exposed()) {
    return nullptr;
  }
  const std::lock_guard lock(derived->mutex);
  for (const auto& entry : derived->entries) {
    if (entry.key == key && entry.version == version()) {
      return entry.value;
    }
  }
  return nullptr;
}

Storage::Derived& Storage::derived_entries() {
  const std::lock_guard lock(derived_creation);
  if (derived_ == nullptr) {
    derived_ = std::make_unique<Derived>();
  }
  return *derived_;
}

void Storage::set_derived(std::uint64_t key, std::uint64_t version, std::shared_ptr<const void> value) {
  if (is_exposed()) {
    return;
  }
  Derived& derived = derived_entries();
  const std::lock_guard lock(derived.mutex);
  std::erase_if(derived.entries, [&](const auto& entry) { return entry.key == key || entry.version != version; });
  derived.entries.push_back({key, version, std::move(value)});
}

void Storage::forget_derived() {
  {
    const std::lock_guard lock(derived_creation);
    if (derived_ == nullptr) {
      return;
    }
  }
  const std::lock_guard lock(derived_->mutex);
  derived_->entries.clear();
}

bool Storage::meets_again(std::uint64_t key, std::uint64_t version) {
  Derived& derived = derived_entries();
  const std::lock_guard lock(derived.mutex);
  std::erase_if(derived.entries, [&](const auto& entry) { return entry.version != version; });
  const bool has_met =
      std::any_of(derived.entries.begin(), derived.entries.end(), [&](const auto& entry) { return entry.key == key; });
  if (!has_met) {
    derived.entries.push_back({key, version, nullptr});
  }
  return has_met;
}

Extents dense_strides(const Extents& shape, Layout layout) {
  const int rank = shape.rank();
  Extents strides(rank, 1);
  std::ptrdiff_t step = 1;
  const bool channels_last = layout == Layout::channels_last && rank >= 3 && rank <= 5;
  if (channels_last) {
    step = shape[1];
  }
  for (int axis = rank - 1; axis >= 0; --axis) {
    if (channels_last && axis == 1) {
      continue;
    }
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

Array Array::empty(DType dtype, const Extents& shape, Layout layout) {
  std::ptrdiff_t bytes = item_bytes(dtype);
  bool is_empty = false;
  bool overflows = false;
  for (const std::ptrdiff_t extent : shape) {
    check(extent >= 0, "tensor: expected sizes of at least 0, got shape ", shape, "; check the arguments");
    is_empty = is_empty || extent == 0;
    overflows = overflows || __builtin_mul_overflow(bytes, extent > 0 ? extent : 1, &bytes);
  }
  check<OutOfMemory>(is_empty || (!overflows && bytes < std::numeric_limits<std::ptrdiff_t>::max() / 4),
                     "memory: expected a shape that fits into memory, got ", shape, " of ", dtype_name(dtype),
                     "; use smaller sizes");
  Array array;
  array.storage_ = StorageRef(Storage::create(is_empty ? 0 : bytes));
  array.dtype_ = dtype;
  array.shape_ = shape;
  array.strides_ = dense_strides(shape, layout);
  return array;
}

Array Array::empty_like(DType dtype, const Array& model) {
  Array array = empty(dtype, model.shape());
  const auto order = memory_order(model);
  std::ptrdiff_t step = 1;
  for (int i = model.rank() - 1; i >= 0; --i) {
    const int axis = order[static_cast<std::size_t>(i)];
    array.strides_[axis] = step;
    step *= model.shape(axis);
  }
  return array;
}

Array Array::view(StorageRef storage, DType dtype, const Extents& shape, const Extents& strides, std::ptrdiff_t offset) {
  Array array;
  array.storage_ = std::move(storage);
  array.dtype_ = dtype;
  array.shape_ = shape;
  array.strides_ = strides;
  array.offset_ = offset;
  return array;
}

bool Array::is_dense(Layout layout) const {
  const Extents expected = dense_strides(shape_, layout);
  for (int axis = 0; axis < rank(); ++axis) {
    if (shape_[axis] > 1 && strides_[axis] != expected[axis]) {
      return false;
    }
  }
  return true;
}

bool Array::has_unit_channels() const { return rank() < 2 || shape_[1] == 1 || strides_[1] == 1; }

Array Array::permute(std::span<const int> axes) const {
  Array array = *this;
  unsigned seen = 0;
  check(static_cast<int>(axes.size()) == rank(), "permute: expected ", rank(), " axes for shape ", shape_, ", got ",
        axes.size(), "; name every axis once");
  for (int i = 0; i < rank(); ++i) {
    const int axis = axes[static_cast<std::size_t>(i)];
    check(axis >= 0 && axis < rank() && (seen >> axis & 1U) == 0, "permute: expected each axis of shape ", shape_,
          " once, got axis ", axis, "; name every axis once");
    seen |= 1U << axis;
    array.shape_[i] = shape_[axis];
    array.strides_[i] = strides_[axis];
  }
  return array;
}

Array Array::broadcast_to(const Extents& shape) const {
  Array array = *this;
  array.shape_ = shape;
  array.strides_ = Extents(shape.rank(), 0);
  const int shift = shape.rank() - rank();
  bool fits = shift >= 0 && std::all_of(shape.begin(), shape.end(), [](std::ptrdiff_t n) { return n >= 0; });
  for (int axis = 0; fits && axis < rank(); ++axis) {
    if (shape_[axis] == shape[axis + shift]) {
      array.strides_[axis + shift] = shape_[axis] == 1 ? 0 : strides_[axis];
    } else {
      fits = shape_[axis] == 1;
    }
  }
  check(fits, "broadcast: expected a shape that broadcasts to ", shape, ", got ", shape_,
        "; sizes must be equal or 1, aligned at the last axis");
  return array;
}

bool Array::try_reshape(const Extents& shape, Array& result) const {
  // Walk both shapes from the last axis, matching groups of axes with equal products; inside a group the old axes must be
  // one strided run. (The rule of NumPy's no-copy reshape.)
  Extents strides(shape.rank(), 0);
  int old_axis = rank() - 1;
  int new_axis = shape.rank() - 1;
  if (size() == 0) {
    result = view(storage_, dtype_, shape, dense_strides(shape, Layout::row_major), offset_);
    return true;
  }
  while (old_axis >= 0 || new_axis >= 0) {
    while (old_axis >= 0 && shape_[old_axis] == 1) {
      --old_axis;
    }
    if (old_axis < 0) {
      for (; new_axis >= 0; --new_axis) {
        strides[new_axis] = 1;  // all that is left has size 1
      }
      break;
    }
    std::ptrdiff_t old_run = shape_[old_axis];
    const std::ptrdiff_t run_stride = strides_[old_axis];
    std::ptrdiff_t new_run = 1;
    while (new_axis >= 0 && new_run < old_run) {
      strides[new_axis] = run_stride * new_run;
      new_run *= shape[new_axis--];
      while (new_run > old_run && old_axis > 0) {
        --old_axis;
        if (shape_[old_axis] != 1) {
          if (strides_[old_axis] != run_stride * old_run) {
            return false;
          }
          old_run *= shape_[old_axis];
        }
      }
    }
    if (new_run != old_run) {
      return false;
    }
    --old_axis;
  }
  result = view(storage_, dtype_, shape, strides, offset_);
  return true;
}

}  // namespace striate
