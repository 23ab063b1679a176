#include "ops/planar.hpp"

#include <algorithm>

#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

constexpr double kLeastTaskFlops = 5e5;
constexpr std::ptrdiff_t kMostSegment = 1024;  // pixels of a line that are computed at once
constexpr std::ptrdiff_t kMostParts = 32;      // sums of a weight gradient
constexpr std::ptrdiff_t kLeastPlanes = 4;     // in memory

// How a convolution is cut into units: some lines of an image, and of a long line a segment. A function of geometry and
// cache sizes.
template <class T>
class PlanarUnits {
 public:
  // `side_planes` lie beside those of x, one line for each line of the result.
  PlanarUnits(const PlanarConv<T>& conv, std::ptrdiff_t side_planes)
      : conv_(conv), kernel_(kernels().planar<T>()), segments_(balanced(conv.w.out, kMostSegment)), lines_(1, 1) {
    const std::ptrdiff_t width = kernel_.width;
    n_vectors_ = ceil_div(segments_.part, width);
    row_ = round_up(n_vectors_ * width + (conv.w.reach() - 1) / conv.w.stride, width);
    const std::ptrdiff_t phase_planes = conv.w.stride * conv.c;
    const std::ptrdiff_t line_bytes =
        (phase_planes * conv.h.stride * row_ + side_planes * n_vectors_ * width) * static_cast<std::ptrdiff_t>(sizeof(T));
    const double line_flops = 2.0 * static_cast<double>(conv.h.kernel * conv.w.kernel * conv.c * conv.o * segments_.part);
    const std::ptrdiff_t near = std::max<std::ptrdiff_t>(1, cache_sizes().l1_bytes * 3 / 4 / line_bytes);
    const auto worth = static_cast<std::ptrdiff_t>(kLeastTaskFlops / line_flops) + 1;
    lines_ = balanced(conv.h.out, std::max(near, worth));
    plane_ = ((lines_.part - 1) * conv.h.stride + conv.h.reach()) * row_;
    unit_flops_ = line_flops * static_cast<double>(lines_.part);
    for (std::ptrdiff_t h = 0; h < conv.h.out; ++h) {
      rows_.push_back(conv.h.taps_inside(h));
    }
    for (std::ptrdiff_t p = 0; p < conv.h.kernel; ++p) {
      for (std::ptrdiff_t q = 0; q < conv.w.kernel; ++q) {
        const std::ptrdiff_t at = q * conv.w.dilation;
        for (std::ptrdiff_t channel = 0; channel < conv.c; ++channel) {
          terms_.push_back((at % conv.w.stride * conv.c + channel) * plane_ + p * conv.h.dilation * row_ +
                           at / conv.w.stride);
        }
      }
    }
  }

  struct Unit {
    std::ptrdiff_t image;
    std::ptrdiff_t h_begin, h_end;
    std::ptrdiff_t w_begin, w_end;
  };
  [[nodiscard]] std::ptrdiff_t n_units() const { return conv_.n * lines_.n_parts * segments_.n_parts; }
  [[nodiscard]] Unit unit(std::ptrdiff_t i) const {
    const std::ptrdiff_t segment = i % segments_.n_parts;
    const std::ptrdiff_t block = i / segments_.n_parts % lines_.n_parts;
    return {.image = i / segments_.n_parts / lines_.n_parts,
            .h_begin = lines_.begin(block),
            .h_end = lines_.end(block),
            .w_begin = segments_.begin(segment),
            .w_end = segments_.end(segment)};
  }
  // Units that are worth a task.
  [[nodiscard]] std::ptrdiff_t worth() const {
    return static_cast<std::ptrdiff_t>(kLeastTaskFlops / std::max(1.0, unit_flops_)) + 1;
  }

  [[nodiscard]] std::ptrdiff_t n_vectors() const { return n_vectors_; }             // of a line of the result
  [[nodiscard]] std::ptrdiff_t n_lines() const { return lines_.part; }              // of a unit, at most
  [[nodiscard]] std::ptrdiff_t line_step() const { return conv_.h.stride * row_; }  // of x, a line of the result
  // Offsets of what a pixel sums, [h][w][c], and the lines of them that meet the image.
  [[nodiscard]] const std::vector<std::ptrdiff_t>& terms() const { return terms_; }
  [[nodiscard]] WindowAxis::Range rows(std::ptrdiff_t h) const { return rows_[static_cast<std::size_t>(h)]; }
  [[nodiscard]] std::ptrdiff_t scratch_size() const {
    return ((conv_.w.stride - 1) * conv_.c + std::max(conv_.c, kLeastPlanes)) * plane_;
  }

  // Writes the planes of a unit's pixels: for each phase of the stride along a line its channels, zeros beyond the image.
  // Zeros of a whole image are where those of the one before it were.
  void read(const Unit& unit, T* planes, bool is_first) const {
    const WindowAxis& w = conv_.w;
    if (is_first || lines_.n_parts * segments_.n_parts > 1) {
      std::fill_n(planes, scratch_size(), T(0));
    }
    const std::ptrdiff_t n_lines = (unit.h_end - unit.h_begin - 1) * conv_.h.stride + conv_.h.reach();
    for (std::ptrdiff_t line = 0; line < n_lines; ++line) {
      const std::ptrdiff_t h = conv_.h.position(unit.h_begin, 0) + line;
      if (h < 0 || h >= conv_.h.in) {
        continue;
      }
      for (std::ptrdiff_t phase = 0; phase < w.stride; ++phase) {
        T* const to = planes + phase * conv_.c * plane_ + line * row_;
        // Pixel i of the phase is at i·stride + first of the image.
        const std::ptrdiff_t first = w.position(unit.w_begin, 0) + phase;
        const std::ptrdiff_t begin = std::min(row_, first < 0 ? ceil_div(-first, w.stride) : 0);
        const std::ptrdiff_t end = std::clamp(first < w.in ? (w.in - 1 - first) / w.stride + 1 : 0, begin, row_);
        if (end > begin) {
          const T* const from =
              conv_.x + unit.image * conv_.stride_n + h * conv_.stride_h + (begin * w.stride + first) * conv_.stride_w;
          if (conv_.c == 1 && w.stride * conv_.stride_w == 1) {
            std::copy_n(from, end - begin, to + begin);
          } else {
            kernel_.to_planes(from, w.stride * conv_.stride_w, conv_.c, end - begin, to + begin, plane_);
          }
        }
      }
    }
  }

 private:
  static Partition balanced(std::ptrdiff_t n, std::ptrdiff_t most) {
    return {n, ceil_div(n, ceil_div(n, std::max<std::ptrdiff_t>(1, std::min(n, most))))};
  }

  const PlanarConv<T>& conv_;
  const PlanarKernels<T>& kernel_;
  Partition segments_;
  Partition lines_;
  std::ptrdiff_t n_vectors_;
  std::ptrdiff_t row_;    // of a plane
  std::ptrdiff_t plane_;  // to the next
  double unit_flops_;
  std::vector<std::ptrdiff_t> terms_;
  std::vector<WindowAxis::Range> rows_;  // by lines of the result
};

// Planes in groups that a kernel takes at once, nearly equal.
Partition groups_of(std::ptrdiff_t planes, std::ptrdiff_t most) {
  return {planes, ceil_div(planes, ceil_div(planes, most))};
}

}  // namespace

template <class T>
std::shared_ptr<const Packed<T>> pack_planar(const T* w, std::ptrdiff_t o, std::ptrdiff_t n_terms) {
  const PlanarKernels<T>& kernel = kernels().planar<T>();
  const auto packed = std::make_shared<Packed<T>>(1, n_terms, o, groups_of(o, kernel.planes).part, 1);
  for (std::ptrdiff_t p = 0; p < packed->n_panels; ++p) {
    T* to = packed->panel_data(p);
    for (std::ptrdiff_t t = 0; t < n_terms; ++t) {
      for (std::ptrdiff_t i = 0; i < packed->panel_columns(p); ++i) {
        *to++ = w[(p * packed->panel + i) * n_terms + t];
      }
    }
  }
  packed->is_finite = kernels().gemm<T>().all_finite(w, o * n_terms);
  return packed;
}

template <class T>
void planar_forward(const PlanarConv<T>& conv, const Packed<T>& filters, const Scatter<T>& y, const GemmTail& tail) {
  const PlanarKernels<T>& kernel = kernels().planar<T>();
  const PlanarUnits<T> units(conv, 0);
  const std::ptrdiff_t plane = units.n_vectors() * kernel.width;
  const std::ptrdiff_t terms_a_row = conv.c * conv.w.kernel;
  const std::ptrdiff_t scratch_size = units.scratch_size() + std::max(conv.o, kLeastPlanes) * plane;
  const int n_workers = thread_count();
  const WorkerBuffer<T> scratch(n_workers, scratch_size);
  const Partition tasks(units.n_units(), units.worth());
  parallel_for(
      tasks.n_parts,
      [&](std::ptrdiff_t task, int worker) {
        T* const planes = scratch.of(worker);
        T* const results = planes + units.scratch_size();
        for (std::ptrdiff_t i = tasks.begin(task); i < tasks.end(task); ++i) {
          const auto unit = units.unit(i);
          units.read(unit, planes, i == tasks.begin(task));
          const std::ptrdiff_t n_pixels = unit.w_end - unit.w_begin;
          for (std::ptrdiff_t h = unit.h_begin; h < unit.h_end; ++h) {
            const WindowAxis::Range rows = units.rows(h);
            const std::ptrdiff_t first = rows.begin * terms_a_row;
            for (std::ptrdiff_t p = 0; p < filters.n_panels; ++p) {
              const std::ptrdiff_t o = p * filters.panel;
              const std::ptrdiff_t n_planes = filters.panel_columns(p);
              kernel.sum[n_planes - 1]({.x = planes + (h - unit.h_begin) * units.line_step(),
                                        .term = units.terms().data() + first,
                                        .w = filters.panel_data(p) + first * n_planes,
                                        .n_terms = (rows.end - rows.begin) * terms_a_row,
                                        .y = results + o * plane,
                                        .y_plane = plane,
                                        .n_vectors = ceil_div(n_pixels, static_cast<std::ptrdiff_t>(kernel.width)),
                                        .bias = tail.bias == nullptr ? nullptr : static_cast<const T*>(tail.bias) + o,
                                        .clamps = tail.clamps,
                                        .lo = static_cast<T>(tail.lo),
                                        .hi = static_cast<T>(tail.hi)});
            }
            T* const line = y.y + unit.image * y.stride_n + h * y.stride[1] + unit.w_begin * y.stride[2];
            kernel.to_pixels(results, plane, conv.o, n_pixels, line);
            if (tail.finish != nullptr) {
              tail.finish->run(line, n_pixels * conv.o);
            }
          }
        }
      },
      n_workers);
}

template <class T>
void planar_grad_weight(const PlanarConv<T>& conv, const Scatter<const T>& grad_y, T* grad_weight) {
  const PlanarKernels<T>& kernel = kernels().planar<T>();
  const PlanarUnits<T> units(conv, conv.o);
  const Partition groups = groups_of(conv.o, kernel.planes);
  const std::vector<std::ptrdiff_t>& terms = units.terms();
  const std::ptrdiff_t n_terms = static_cast<std::ptrdiff_t>(terms.size());
  const std::ptrdiff_t n_pairs = ceil_div(n_terms, 2);
  const std::ptrdiff_t sums_size = n_pairs * conv.o * 2 * kernel.width;  // [pair][plane][of pair][lane]
  const std::ptrdiff_t line = units.n_vectors() * kernel.width;
  const std::ptrdiff_t plane = units.n_lines() * line;
  const std::ptrdiff_t scratch_size = units.scratch_size() + std::max(conv.o, kLeastPlanes) * plane;
  const Partition parts(units.n_units(), std::max(units.worth(), ceil_div(units.n_units(), kMostParts)));
  const int n_workers = thread_count();
  const WorkerBuffer<T> scratch(n_workers, scratch_size);
  const Buffer<T> sums(parts.n_parts * sums_size);
  parallel_for(
      parts.n_parts,
      [&](std::ptrdiff_t part, int worker) {
        T* const planes = scratch.of(worker);
        T* const grads = planes + units.scratch_size();
        T* const own = sums.data() + part * sums_size;
        std::fill_n(own, sums_size, T(0));
        std::fill_n(grads, conv.o * plane, T(0));
        for (std::ptrdiff_t i = parts.begin(part); i < parts.end(part); ++i) {
          const auto unit = units.unit(i);
          units.read(unit, planes, i == parts.begin(part));
          const std::ptrdiff_t n_pixels = unit.w_end - unit.w_begin;
          if (n_pixels < conv.w.out) {
            std::fill_n(grads, conv.o * plane, T(0));
          }
          for (std::ptrdiff_t h = unit.h_begin; h < unit.h_end; ++h) {
            T* const to = grads + (h - unit.h_begin) * line;
            kernel.to_planes(
                grad_y.y + unit.image * grad_y.stride_n + h * grad_y.stride[1] + unit.w_begin * grad_y.stride[2],
                grad_y.stride[2], conv.o, n_pixels, to, plane);
          }
          for (std::ptrdiff_t pair = 0; pair < n_pairs; ++pair) {
            for (std::ptrdiff_t g = 0; g < groups.n_parts; ++g) {
              const std::ptrdiff_t o = groups.begin(g);
              const auto term = [&](std::ptrdiff_t t) { return terms[static_cast<std::size_t>(std::min(t, n_terms - 1))]; };
              kernel.dot[groups.end(g) - o - 1]({.x = planes,
                                                 .x_line = units.line_step(),
                                                 .term = {term(2 * pair), term(2 * pair + 1)},
                                                 .g = grads + o * plane,
                                                 .g_line = line,
                                                 .g_plane = plane,
                                                 .n_lines = unit.h_end - unit.h_begin,
                                                 .n_vectors = ceil_div(n_pixels, static_cast<std::ptrdiff_t>(kernel.width)),
                                                 .sums = own + (pair * conv.o + o) * 2 * kernel.width});
            }
          }
        }
      },
      n_workers);
  // Parts in order, then lanes in pairs.
  for (std::ptrdiff_t t = 0; t < n_terms; ++t) {
    for (std::ptrdiff_t o = 0; o < conv.o; ++o) {
      T* const lanes = sums.data() + ((t / 2 * conv.o + o) * 2 + t % 2) * kernel.width;
      for (std::ptrdiff_t part = 1; part < parts.n_parts; ++part) {
        for (std::ptrdiff_t i = 0; i < kernel.width; ++i) {
          lanes[i] += lanes[part * sums_size + i];
        }
      }
      for (std::ptrdiff_t half = kernel.width / 2; half > 0; half /= 2) {
        for (std::ptrdiff_t i = 0; i < half; ++i) {
          lanes[i] += lanes[half + i];
        }
      }
      grad_weight[o * n_terms + t] = lanes[0];
    }
  }
}

#define STRIATE_INSTANTIATE(T)                                                                              \
  template std::shared_ptr<const Packed<T>> pack_planar(const T*, std::ptrdiff_t, std::ptrdiff_t);          \
  template void planar_forward(const PlanarConv<T>&, const Packed<T>&, const Scatter<T>&, const GemmTail&); \
  template void planar_grad_weight(const PlanarConv<T>&, const Scatter<const T>&, T*);
STRIATE_INSTANTIATE(float)
STRIATE_INSTANTIATE(double)

}  // namespace striate
