#include "ops/image.hpp"

#include <cstring>

#include "machine/threads.hpp"

namespace striate {
namespace {

template <class T>
void copy_images(const Array& x, const Array& y) {
  const Image from(x);
  const Image to(y);
  const std::ptrdiff_t channel_stride = x.stride(1);
  const T* const source = x.data<T>();
  T* const target = y.data<T>();
  parallel_for(from.n * from.size[0] * from.size[1], [&](std::ptrdiff_t row) {
    const std::ptrdiff_t h = row % from.size[1];
    const std::ptrdiff_t d = row / from.size[1] % from.size[0];
    const std::ptrdiff_t n = row / from.size[1] / from.size[0];
    for (std::ptrdiff_t w = 0; w < from.size[2]; ++w) {
      const T* const in = source + from.at(n, d, h, w);
      T* const out = target + to.at(n, d, h, w);
      for (std::ptrdiff_t c = 0; c < from.channels; ++c) {
        out[c] = in[c * channel_stride];
      }
    }
  });
}

}  // namespace

void copy_channels(const Array& x, const Array& y) {
  if (item_bytes(x.dtype()) == 8) {
    copy_images<std::int64_t>(x, y);
  } else if (item_bytes(x.dtype()) == 4) {
    copy_images<std::int32_t>(x, y);
  } else {
    copy_images<std::int8_t>(x, y);
  }
}

Array unit_channels(const Array& x) {
  if (x.has_unit_channels()) {
    return x;
  }
  Array y = Array::empty(x.dtype(), x.shape(), Layout::channels_last);
  copy_channels(x, y);
  return y;
}

}  // namespace striate
