// Convolutions and matrix products.
#include "bindings/bindings.hpp"

#include <optional>

#include "striate/ops.hpp"

namespace striate {
namespace {

// What Python passes for a window: sizes per spatial axis, padding as begin and end or by name.
ConvParams conv_params(const Sizes& stride, const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation,
                       std::ptrdiff_t groups, Padding padding) {
  return {.window = {.kernel_size = {},
                     .stride = stride,
                     .dilation = dilation,
                     .pad_begin = pad_begin,
                     .pad_end = pad_end,
                     .padding = padding},
          .groups = groups};
}

Fused fused(const std::optional<Array>& bias) { return {.bias = bias ? &*bias : nullptr}; }

}  // namespace

void bind_conv(py::module_& m) {
  py::enum_<Padding>(m, "Padding")
      .value("explicit", Padding::explicit_)
      .value("same", Padding::same)
      .value("valid", Padding::valid)
      .def(py::init([](const std::string& name) {  // records and files hold the name
        check<std::invalid_argument>(name == "explicit" || name == "same" || name == "valid",
                                     "padding: expected 'explicit', 'same' or 'valid', got '", name, "'; use one of these");
        return name == "same" ? Padding::same : name == "valid" ? Padding::valid : Padding::explicit_;
      }));
  py::implicitly_convertible<py::str, Padding>();
  m.def(
      "conv",
      [](const std::string& op, const Array& x, const Array& weight, const std::optional<Array>& bias, const Sizes& stride,
         const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation, std::ptrdiff_t groups, Padding padding) {
        return conv(op.c_str(), x, weight, fused(bias), conv_params(stride, pad_begin, pad_end, dilation, groups, padding));
      },
      NoGil());
  m.def(
      "conv_grad_input",
      [](const std::string& op, const Array& grad_y, const Array& weight, const Sizes& x_shape, const Sizes& stride,
         const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation, std::ptrdiff_t groups, Padding padding) {
        return conv_grad_input(op.c_str(), grad_y, weight, extents(x_shape),
                               conv_params(stride, pad_begin, pad_end, dilation, groups, padding));
      },
      NoGil());
  m.def(
      "conv_grad_weight",
      [](const std::string& op, const Array& grad_y, const Array& x, const Sizes& weight_shape, const Sizes& stride,
         const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation, std::ptrdiff_t groups, Padding padding) {
        return conv_grad_weight(op.c_str(), grad_y, x, extents(weight_shape),
                                conv_params(stride, pad_begin, pad_end, dilation, groups, padding));
      },
      NoGil());
  m.def(
      "conv_transpose",
      [](const std::string& op, const Array& x, const Array& weight, const std::optional<Array>& bias, const Sizes& stride,
         const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation, std::ptrdiff_t groups,
         const Sizes& output_padding) {
        return conv_transpose(op.c_str(), x, weight, fused(bias),
                              conv_params(stride, pad_begin, pad_end, dilation, groups, Padding::explicit_), output_padding);
      },
      NoGil());
  m.def(
      "conv_transpose_grad_input",
      [](const std::string& op, const Array& grad_y, const Array& weight, const Sizes& x_shape, const Sizes& stride,
         const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation, std::ptrdiff_t groups,
         const Sizes& output_padding) {
        return conv_transpose_grad_input(op.c_str(), grad_y, weight, extents(x_shape),
                                         conv_params(stride, pad_begin, pad_end, dilation, groups, Padding::explicit_),
                                         output_padding);
      },
      NoGil());
  m.def(
      "conv_transpose_grad_weight",
      [](const std::string& op, const Array& grad_y, const Array& x, const Sizes& weight_shape, const Sizes& stride,
         const Sizes& pad_begin, const Sizes& pad_end, const Sizes& dilation, std::ptrdiff_t groups,
         const Sizes& output_padding) {
        return conv_transpose_grad_weight(op.c_str(), grad_y, x, extents(weight_shape),
                                          conv_params(stride, pad_begin, pad_end, dilation, groups, Padding::explicit_),
                                          output_padding);
      },
      NoGil());
  m.def(
      "explain_conv",
      [](const std::string& op, const std::string& pass, const Sizes& x_shape, const Sizes& weight_shape,
         const Sizes& stride, const Sizes& padding, const Sizes& dilation, std::ptrdiff_t groups, DType dtype) {
        const ConvPass which = pass == "forward"      ? ConvPass::forward
                               : pass == "grad_input" ? ConvPass::grad_input
                                                      : ConvPass::grad_weight;
        check<std::invalid_argument>(which != ConvPass::grad_weight || pass == "grad_weight", op,
                                     ": expected pass_ forward, grad_input or grad_weight, got '", pass,
                                     "'; use one of these");
        py::list found;
        for (const ConvVerdict& verdict :
             explain_conv(op.c_str(), which, extents(x_shape), extents(weight_shape),
                          conv_params(stride, padding, padding, dilation, groups, Padding::explicit_), dtype)) {
          found.append(py::make_tuple(verdict.algorithm, verdict.is_chosen, verdict.flops, verdict.error_bound,
                                      verdict.reason, verdict.work));
        }
        return found;
      },
      py::arg("op"), py::arg("pass_"), py::arg("x_shape"), py::arg("weight_shape"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"), py::arg("dtype"));
  m.def(
      "linear",
      [](const Array& x, const Array& weight, const std::optional<Array>& bias) { return linear(x, weight, fused(bias)); },
      NoGil());
  m.def("matmul", &matmul, NoGil());
}

}  // namespace striate
