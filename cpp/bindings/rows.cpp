// Softmax, losses over classes, argmax, random numbers.
#include "bindings/bindings.hpp"

#include "striate/ops.hpp"

namespace striate {
namespace {

Reduction reduction_of(const std::string& name) {
  if (name == "mean") {
    return Reduction::mean;
  }
  if (name == "sum") {
    return Reduction::sum;
  }
  if (name == "none") {
    return Reduction::none;
  }
  throw std::invalid_argument("loss: expected reduction 'mean', 'sum' or 'none', got '" + name + "'; choose one of them");
}

void bind_random(py::module_& m) {
  using Word = std::uint64_t;
  m.def(
      "rand",
      [](const Sizes& shape, DType dtype, Word seed, Word call) {
        return random_uniform(extents(shape), dtype, {seed, call});
      },
      py::kw_only(), py::arg("shape"), py::arg("dtype"), py::arg("seed"), py::arg("call"), NoGil());
  m.def(
      "randn",
      [](const Sizes& shape, DType dtype, Word seed, Word call) {
        return random_normal(extents(shape), dtype, {seed, call});
      },
      py::kw_only(), py::arg("shape"), py::arg("dtype"), py::arg("seed"), py::arg("call"), NoGil());
  m.def(
      "randint",
      [](const Sizes& shape, std::int64_t low, std::int64_t high, Word seed, Word call) {
        return random_integers(extents(shape), low, high, {seed, call});
      },
      py::kw_only(), py::arg("shape"), py::arg("low"), py::arg("high"), py::arg("seed"), py::arg("call"), NoGil());
  m.def(
      "randperm", [](std::ptrdiff_t n, Word seed, Word call) { return random_permutation(n, {seed, call}); }, py::arg("n"),
      py::kw_only(), py::arg("seed"), py::arg("call"), NoGil());
  m.def(
      "random_mask", [](const Array& like, double p, Word seed, Word call) { return random_mask(like, p, {seed, call}); },
      py::arg("like"), py::kw_only(), py::arg("p"), py::arg("seed"), py::arg("call"), NoGil());
}

}  // namespace

void bind_rows(py::module_& m) {
  m.def(
      "softmax", [](const Array& x, int dim) { return rows_op(0, x, nullptr, dim); }, py::arg(), py::kw_only(),
      py::arg("dim"), NoGil());
  m.def(
      "log_softmax", [](const Array& x, int dim) { return rows_op(1, x, nullptr, dim); }, py::arg(), py::kw_only(),
      py::arg("dim"), NoGil());
  m.def(
      "softmax_grad", [](const Array& g, const Array& y, int dim) { return rows_op(2, g, &y, dim); }, py::arg(), py::arg(),
      py::kw_only(), py::arg("dim"), NoGil());
  m.def(
      "log_softmax_grad", [](const Array& g, const Array& y, int dim) { return rows_op(3, g, &y, dim); }, py::arg(),
      py::arg(), py::kw_only(), py::arg("dim"), NoGil());
  for (const bool is_max : {true, false}) {
    const char* name = is_max ? "argmax" : "argmin";
    m.def(
        name,
        [=](const Array& x, std::optional<int> dim, bool keepdim) {
          return argument(name, is_max, x, dim.value_or(0), !dim.has_value(), keepdim);
        },
        py::arg(), py::kw_only(), py::arg("dim"), py::arg("keepdim"), NoGil());
  }
  for (const bool is_logits : {true, false}) {
    const char* name = is_logits ? "cross_entropy" : "nll_loss";
    m.def(
        name,
        [=](const Array& x, const Array& target, const std::optional<Array>& weight, double label_smoothing,
            std::int64_t ignore_index, const std::string& reduction) {
          ClassLoss out;
          {
            const py::gil_scoped_release no_gil;
            out = class_loss(name, x, target, weight ? &*weight : nullptr,
                             {is_logits, label_smoothing, ignore_index, reduction_of(reduction)});
          }
          return py::make_tuple(out.loss, out.log_sum, out.total);
        },
        py::arg(), py::arg(), py::arg(), py::kw_only(), py::arg("label_smoothing"), py::arg("ignore_index"),
        py::arg("reduction"));
    m.def((std::string(name) + "_grad").c_str(),
          [=](const Array& g, const Array& x, const Array& target, const std::optional<Array>& weight, const Array& log_sum,
              const Array& total, double label_smoothing, std::int64_t ignore_index, const std::string& reduction) {
            return class_loss_grad(name, g, x, target, weight ? &*weight : nullptr, log_sum, total,
                                   {is_logits, label_smoothing, ignore_index, reduction_of(reduction)});
          },
          py::arg(), py::arg(), py::arg(), py::arg(), py::arg(), py::arg(), py::kw_only(), py::arg("label_smoothing"),
          py::arg("ignore_index"), py::arg("reduction"), NoGil());
  }
  bind_random(m);
}

}  // namespace striate
