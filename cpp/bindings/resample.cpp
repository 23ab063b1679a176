#include "bindings/bindings.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

ResampleParams resample_params(Sizes size, std::vector<double> scale_factor, const std::string& mode, bool align_corners,
                               bool antialias) {
  return {std::move(size), std::move(scale_factor), mode == "bilinear", align_corners, antialias};
}

}  // namespace

void bind_resample(py::module_& m) {
  m.def(
      "resample",
      [](const Array& x, const Sizes& size, const std::vector<double>& scale_factor, const std::string& mode,
         bool align_corners, bool antialias) {
        return resample("interpolate", x, resample_params(size, scale_factor, mode, align_corners, antialias));
      },
      py::arg("x"), py::arg("size"), py::arg("scale_factor"), py::arg("mode"), py::arg("align_corners"),
      py::arg("antialias"), NoGil());
  m.def(
      "resample_grad",
      [](const Array& grad_y, const Sizes& x_shape, const Sizes& size, const std::vector<double>& scale_factor,
         const std::string& mode, bool align_corners, bool antialias) {
        return resample_grad("interpolate", grad_y, extents(x_shape),
                             resample_params(size, scale_factor, mode, align_corners, antialias));
      },
      py::arg("grad_y"), py::arg("x_shape"), py::arg("size"), py::arg("scale_factor"), py::arg("mode"),
      py::arg("align_corners"), py::arg("antialias"), NoGil());
  m.def(
      "pad",
      [](const Array& x, const Sizes& begin, const Sizes& end, double value) {
        return pad(x, extents(begin), extents(end), value);
      },
      py::arg("x"), py::arg("begin"), py::arg("end"), py::arg("value"), NoGil());
}

}  // namespace striate
