#include "tensor/copy_elements.hpp"

#include <algorithm>
#include <cstring>

namespace striate {
namespace {

struct Axis {
  std::ptrdiff_t extent;
  std::ptrdiff_t from;  // strides, in elements
  std::ptrdiff_t to;
};

// The axes to walk, the fastest of `to` last, neighbours merged where both sides are one run.
struct Walk {
  Axis axes[kMaxRank];
  int rank = 0;
};

Walk plan(const Array& from, const Array& to) {
  Walk walk;
  for (int axis = 0; axis < to.rank(); ++axis) {
    if (to.shape(axis) != 1) {
      walk.axes[walk.rank++] = {.extent = to.shape(axis), .from = from.stride(axis), .to = to.stride(axis)};
    }
  }
  std::stable_sort(walk.axes, walk.axes + walk.rank, [](const Axis& a, const Axis& b) { return a.to > b.to; });
  int kept = 0;
  for (int i = 1; i < walk.rank; ++i) {
    Axis& outer = walk.axes[kept];
    const Axis& inner = walk.axes[i];
    if (outer.to == inner.to * inner.extent && outer.from == inner.from * inner.extent) {
      outer = {.extent = outer.extent * inner.extent, .from = inner.from, .to = inner.to};
    } else {
      walk.axes[++kept] = inner;
    }
  }
  walk.rank = walk.rank > 0 ? kept + 1 : 0;
  return walk;
}

template <class T>
void copy_axis(const Walk& walk, int level, const T* from, T* to) {
  if (level == walk.rank) {
    *to = *from;
    return;
  }
  const Axis& axis = walk.axes[level];
  if (level + 1 < walk.rank) {
    for (std::ptrdiff_t i = 0; i < axis.extent; ++i) {
      copy_axis(walk, level + 1, from + i * axis.from, to + i * axis.to);
    }
  } else if (axis.from == 1 && axis.to == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(axis.extent) * sizeof(T));
  } else {
    for (std::ptrdiff_t i = 0; i < axis.extent; ++i) {
      to[i * axis.to] = from[i * axis.from];
    }
  }
}

template <class T>
void copy_as(const Walk& walk, const Array& from, const Array& to) {
  copy_axis(walk, 0, reinterpret_cast<const T*>(from.bytes()), reinterpret_cast<T*>(to.bytes()));
}

}  // namespace

void copy_elements(const Array& from, const Array& to) {
  if (to.size() == 0) {
    return;
  }
  const Walk walk = plan(from, to);
  switch (item_bytes(to.dtype())) {
    case 8:
      return copy_as<std::uint64_t>(walk, from, to);
    case 4:
      return copy_as<std::uint32_t>(walk, from, to);
    case 2:
      return copy_as<std::uint16_t>(walk, from, to);
    default:
      return copy_as<std::uint8_t>(walk, from, to);
  }
}

}  // namespace striate
