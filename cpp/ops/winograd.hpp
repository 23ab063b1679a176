// Winograd convolution F(m×m, r×r), all three passes, for two spatial axes, strides 1 and 2, float32.
#pragma once

#include "kernels/table.hpp"
#include "ops/conv2d_choose.hpp"
#include "ops/indirect.hpp"

namespace striate {

// `form` is an index into kWinogradForm.

// Images as the kernels see them: unit channel stride.
struct WinogradImages {
  float* data;
  std::ptrdiff_t stride_n, stride_h, stride_w;
  std::ptrdiff_t h, w, c;

  [[nodiscard]] std::ptrdiff_t image_bytes() const { return h * w * c * static_cast<std::ptrdiff_t>(sizeof(float)); }
};

// Filters of every group.
using WinogradFilters = std::vector<std::shared_ptr<const Packed<float>>>;

// U = G g Gᵀ of every filter, packed for every group: [panel][point whose filter differs][k][columns].
// `weight` is (groups·O, r, r, C) dense. Forward: k = C, columns = O. With `transposes`, for the data gradient: filters
// flipped, k = O, columns = C.
[[nodiscard]] WinogradFilters pack_winograd(const float* weight, std::ptrdiff_t groups, std::ptrdiff_t o, std::ptrdiff_t c,
                                            int form, bool transposes);

// y = tail(x ⋆ filters), where y's pixel (i, j) reads x from (stride·i − pad_h, stride·j − pad_w) on; or, for grad_input,
// the data gradient y of what x is the gradient of: in stride 1 the same with flipped filters, in stride 2 of a convolution
// whose padding begins with 1, and pad_h and pad_w are 0.
void winograd_forward(ConvPass pass, const WinogradImages& x, const WinogradFilters& filters, const WinogradImages& y,
                      std::ptrdiff_t n, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form, const GemmTail& tail);

// As winograd_forward of one group whose filters serve once: they are transformed some panels at a time, just before
// products read them. Returns false, having done nothing, where that would not pay: few filters, or more tiles than filters.
[[nodiscard]] bool ran_winograd_once(ConvPass pass, const WinogradImages& x, const float* weight, const WinogradImages& y,
                                     std::ptrdiff_t n, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form,
                                     const GemmTail& tail);

// grad_weight (groups·O, r, r, C) dense = Σ over images and pixels of grad_y ⊗ x.
void winograd_grad_weight(const WinogradImages& x, const WinogradImages& grad_y, float* grad_weight, std::ptrdiff_t n,
                          std::ptrdiff_t groups, std::ptrdiff_t pad_h, std::ptrdiff_t pad_w, int form);

}  // namespace striate
