#include "ops/finish.hpp"

#include <algorithm>
#include <cstring>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "ops/map.hpp"

namespace striate {

Array dense_bias(const Fused& fused) {
  if (fused.bias == nullptr) {
    return {};
  }
  return fused.bias->is_dense(Layout::row_major) ? *fused.bias : relayout(*fused.bias, Layout::row_major);
}

Finish::Finish(const Array& y)
    : item_bytes_(item_bytes(y.dtype())), type_(y.dtype() == DType::float64 ? MapType::f64 : MapType::f32) {}

Finish::Finish(const Fused& fused, const Array& y, const Array& addend, bool kernels_add) : Finish(y) {
  const bool adds = fused.add != nullptr && (!kernels_add || fused.adds_last);
  if (adds && !fused.adds_last) {
    append("add", y.bytes(), addend.bytes());
  }
  if (fused.map >= 0) {
    append(fused.map, fused.a, fused.b);
  } else if (fused.clamps && adds && !fused.adds_last) {
    append(find_map_op("clip"), fused.lo, fused.hi);
  }
  if (adds && fused.adds_last) {
    append("add", y.bytes(), addend.bytes());
  }
}

Finish::Finish(const Array& y, const Array* addend, const Array* relu) : Finish(y) {
  if (addend != nullptr) {
    append("add", y.bytes(), addend->bytes());
  }
  if (relu != nullptr) {
    append("relu_grad", y.bytes(), relu->bytes());
  }
}

void Finish::append(int op, double a, double b) {
  auto* const fn = kernels().maps.map[op][static_cast<int>(type_)];
  check<DTypeError>(fn != nullptr, map_info(op).name, ": expected an operator of floating-point tensors, got none of them");
  steps_[n_steps_++] = {.fn = fn, .a = a, .b = b, .is_binary = false, .other = 0};
}

void Finish::append(const char* op, const std::byte* y, const std::byte* other) {
  append(find_map_op(op), 0, 0);
  steps_[n_steps_ - 1].is_binary = true;
  steps_[n_steps_ - 1].other = other - y;
}

void Finish::run(void* y, std::ptrdiff_t n) const {
  if (is_empty()) {
    return;
  }
  constexpr std::ptrdiff_t kBytes = 2048;
  alignas(kAlignment) std::byte strip[kBytes];  // kernels do not read what they write
  for (std::ptrdiff_t first = 0; first < n; first += kBytes / item_bytes_) {
    const std::ptrdiff_t length = std::min(n - first, kBytes / item_bytes_);
    std::byte* const at = static_cast<std::byte*>(y) + first * item_bytes_;
    for (int i = 0; i < n_steps_; ++i) {
      const Step& step = steps_[i];
      std::memcpy(strip, at, static_cast<std::size_t>(length * item_bytes_));
      MapRun run{};
      run.rows = 1;
      run.n = length;
      run.y = at;
      run.x[0] = strip;
      run.x_step[0] = 1;
      if (step.is_binary) {
        run.x[1] = at + step.other;
        run.x_step[1] = 1;
      }
      run.a = step.a;
      run.b = step.b;
      step.fn(run);
    }
  }
}

void Finish::run(const Array& y) const {
  if (is_empty()) {
    return;
  }
  const Partition parts(y.size(), kGrain / 4);
  parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
    run(y.bytes() + parts.begin(part) * item_bytes_, parts.end(part) - parts.begin(part));
  });
}

}  // namespace striate
