// What follows the sums of a convolution or product besides bias and clamp: element-wise steps on parts of the result that
// were just stored and are near.
#pragma once

#include "kernels/table.hpp"
#include "striate/ops.hpp"

namespace striate {

// The bias of `fused`, one value after another; nothing where there is none.
[[nodiscard]] Array dense_bias(const Fused& fused);

class Finish {
 public:
  Finish() = default;
  // What of `fused` kernels of bias and clamp leave to do on y; `kernels_add`: they also add before they clamp. `addend`
  // lies in memory as y does.
  Finish(const Fused& fused, const Array& y, const Array& addend, bool kernels_add);
  // What of a gradient's tail they leave to do. Both operands, which may be null, lie in memory as y does.
  Finish(const Array& y, const Array* addend, const Array* relu);

  [[nodiscard]] bool is_empty() const { return n_steps_ == 0; }
  void run(void* y, std::ptrdiff_t n) const;  // on n neighbours
  void run(const Array& y) const;             // on a whole result, in parallel

 private:
  struct Step {
    MapFn fn;
    double a, b;
    bool is_binary;
    std::ptrdiff_t other;  // bytes from a place of y to the second operand there
  };
  explicit Finish(const Array& y);
  void append(int op, double a, double b);
  void append(const char* op, const std::byte* y, const std::byte* other);

  Step steps_[2] = {};
  int n_steps_ = 0;
  std::ptrdiff_t item_bytes_ = 0;
  MapType type_ = MapType::f32;
};

}  // namespace striate
