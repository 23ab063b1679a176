// Statistics per channel over segments of pixels, and what normalisation does with them. A batch norm has one segment of
// N·D·H·W pixels, an instance norm N segments of D·H·W. Partitions and trees follow geometry alone.
#pragma once

#include <limits>
#include <memory>

#include "machine/memory.hpp"
#include "ops/image.hpp"
#include "ops/row_sums.hpp"

namespace striate {

// x as n_segments × n_rows pixels of contiguous channels. Rows are `stride` apart, segments follow one another.
struct PixelRows {
  Array array;
  std::ptrdiff_t n_segments = 1;
  std::ptrdiff_t n_rows = 0;
  std::ptrdiff_t channels = 0;
  std::ptrdiff_t stride = 0;

  [[nodiscard]] std::ptrdiff_t segment_stride() const { return n_rows * stride; }
};

// Rows of x (rank >= 2), of a channels-last copy when x has gaps or other strides. One segment per image, or one for all.
[[nodiscard]] PixelRows pixel_rows(const Array& x, bool is_per_image);

// mean and M2 = Σ (x − mean)², both [n_segments][channels]; the mean of no rows is 0.
template <class T>
void channel_moments(const PixelRows& x, T* mean, T* m2);

// min(max(·, 0), most) behind (x − mean)·scale + bias: gradients pass where that is within. Both [channels], of one segment.
template <class T>
struct ReluMask {
  const T* scale = nullptr;  // null: there is none
  const T* bias = nullptr;
  T most = std::numeric_limits<T>::quiet_NaN();  // NaN: no upper end
};

// sum_g = Σ g and sum_gx = Σ g·(x − mean), all [n_segments][channels].
template <class T>
void channel_sums(const PixelRows& g, const PixelRows& x, const T* mean, T* sum_g, T* sum_gx, const ReluMask<T>& mask = {});

// As channel_moments of the result of a kernel, from its rows as they are made.
template <class T>
class RowMoments : public RowSums {
 public:
  bool start(const Array& y, std::ptrdiff_t rows_each) override;
  void add(std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t c, std::ptrdiff_t c_end) override;
  void finish(const Array& y, T* mean, T* m2) const;  // [channels]

 private:
  const T* y_ = nullptr;
  std::ptrdiff_t n_rows_ = 0;
  std::ptrdiff_t rows_each_ = 1;
  std::ptrdiff_t channels_ = 0;
  std::unique_ptr<Buffer<T>> parts_;  // [part][mean, m2][channels]; null: nobody told
};

// y = f((x − mean)·scale + bias + z), statistics [n_segments][channels]; z, as y lies, may be null; f is nothing or a
// ReLU, at most `most` where that is a number.
template <class T>
void apply_channels(const PixelRows& x, const T* mean, const T* scale, const T* bias, const PixelRows& y,
                    const PixelRows* z = nullptr, bool has_relu = false, T most = std::numeric_limits<T>::quiet_NaN());

// grad_x = a·g + b·(x − mean) + k, coefficients [n_segments][channels].
template <class T>
void grad_channels(const PixelRows& g, const PixelRows& x, const T* mean, const T* a, const T* b, const T* k,
                   const PixelRows& grad_x, const ReluMask<T>& mask = {});

}  // namespace striate
