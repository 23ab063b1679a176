#include <array>

#include "bindings/bindings.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

using Pads = std::vector<std::array<std::ptrdiff_t, 2>>;

PoolParams window_params(Sizes kernel_size, Sizes stride, const Pads& padding, Sizes dilation, bool ceil_mode) {
  PoolParams params;
  params.window.kernel_size = std::move(kernel_size);
  params.window.stride = std::move(stride);
  params.window.dilation = std::move(dilation);
  for (const auto& [begin, end] : padding) {
    params.window.pad_begin.push_back(begin);
    params.window.pad_end.push_back(end);
  }
  params.window.ceil_mode = ceil_mode;
  return params;
}

PoolParams adaptive_params(Sizes output_size) {
  PoolParams params;
  params.output_size = std::move(output_size);
  return params;
}

py::tuple to_tuple(const MaxPooled& pooled) { return py::make_tuple(pooled.y, pooled.taps); }

// Every max pooling function, once for windows and once for adaptive cells; `f` makes PoolParams of the last arguments.
template <class F, class... Args, class... Names>
void bind_max(py::module_& m, const std::string& prefix, F make, py::detail::type_list<Args...>, const Names&... names) {
  m.def((prefix + "max_pool").c_str(),
        [make](const std::string& op, const Array& x, Args... args) { return max_pool(op.c_str(), x, make(args...)); },
        py::arg("op"), py::arg("x"), names..., NoGil());
  m.def((prefix + "max_pool_taps").c_str(),
        [make](const std::string& op, const Array& x, Args... args) {
          MaxPooled pooled;
          {
            const py::gil_scoped_release no_gil;
            pooled = max_pool_taps(op.c_str(), x, make(args...));
          }
          return to_tuple(pooled);
        },
        py::arg("op"), py::arg("x"), names...);
  m.def((prefix + "max_pool_grad").c_str(),
        [make](const std::string& op, const Array& grad_y, const Array& taps, const Sizes& x_shape, Args... args) {
          return max_pool_grad(op.c_str(), grad_y, taps, extents(x_shape), make(args...));
        },
        py::arg("op"), py::arg("grad_y"), py::arg("taps"), py::arg("x_shape"), names..., NoGil());
  m.def((prefix + "max_pool_pick").c_str(),
        [make](const std::string& op, const Array& x, const Array& taps, const Sizes&, Args... args) {
          return max_pool_pick(op.c_str(), x, taps, make(args...));
        },
        py::arg("op"), py::arg("x"), py::arg("taps"), py::arg("x_shape"), names..., NoGil());
  m.def((prefix + "max_pool_indices").c_str(),
        [make](const std::string& op, const Array& taps, const Sizes& x_shape, Args... args) {
          return max_pool_indices(op.c_str(), taps, extents(x_shape), make(args...));
        },
        py::arg("op"), py::arg("taps"), py::arg("x_shape"), names..., NoGil());
}

template <class F, class... Args, class... Names>
void bind_mean(py::module_& m, const std::string& prefix, F make, py::detail::type_list<Args...>, const Names&... names) {
  m.def((prefix + "avg_pool").c_str(),
        [make](const std::string& op, const Array& x, Args... args) { return avg_pool(op.c_str(), x, make(args...)); },
        py::arg("op"), py::arg("x"), names..., NoGil());
  m.def((prefix + "avg_pool_grad").c_str(),
        [make](const std::string& op, const Array& grad_y, const Sizes& x_shape, Args... args) {
          return avg_pool_grad(op.c_str(), grad_y, extents(x_shape), make(args...));
        },
        py::arg("op"), py::arg("grad_y"), py::arg("x_shape"), names..., NoGil());
}

}  // namespace

void bind_pool(py::module_& m) {
  bind_max(m, "", &window_params, py::detail::type_list<Sizes, Sizes, Pads, Sizes, bool>{}, py::arg("kernel_size"),
           py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("ceil_mode"));
  const auto mean_params = [](Sizes kernel_size, Sizes stride, const Pads& padding, bool ceil_mode, bool count_include_pad,
                              std::ptrdiff_t divisor_override) {
    Sizes dilation(kernel_size.size(), 1);
    PoolParams params = window_params(std::move(kernel_size), std::move(stride), padding, std::move(dilation), ceil_mode);
    params.count_include_pad = count_include_pad;
    params.divisor_override = divisor_override;
    return params;
  };
  bind_mean(m, "", mean_params, py::detail::type_list<Sizes, Sizes, Pads, bool, bool, std::ptrdiff_t>{},
            py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("ceil_mode"),
            py::arg("count_include_pad"), py::arg("divisor_override"));
  bind_mean(m, "adaptive_", &adaptive_params, py::detail::type_list<Sizes>{}, py::arg("output_size"));
  bind_max(m, "adaptive_", &adaptive_params, py::detail::type_list<Sizes>{}, py::arg("output_size"));
}

}  // namespace striate
