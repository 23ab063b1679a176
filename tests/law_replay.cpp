// Runs the cases that tests/write_cases.py wrote, on every instruction set of this machine and on 1, 2 and 3 threads.
//
//   law_replay FILE
//
// Each result must have its shape and dtype, lie within its bound of the oracle's, and have the same bits for any number of
// threads. Prints every failure and one line at the end; exits with 1 after a failure.
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "striate/machine.hpp"
#include "striate/ops.hpp"
#include "striate/safetensors.hpp"

namespace striate {
namespace {

using Sizes = std::vector<std::ptrdiff_t>;

// One row of the record: an operator, its inputs (null where one is not given) and its attributes as words.
struct Row {
  std::string name;
  std::vector<const Array*> inputs;
  std::map<std::string, std::vector<std::string>> attributes;

  [[nodiscard]] const Array& in(std::size_t i) const { return *inputs.at(i); }
  [[nodiscard]] const Array* maybe(std::size_t i) const { return i < inputs.size() ? inputs[i] : nullptr; }
  [[nodiscard]] bool has(const char* key) const { return attributes.contains(key) && !attributes.at(key).empty(); }
  [[nodiscard]] std::string word(const char* key) const { return attributes.at(key).at(0); }
  [[nodiscard]] double real(const char* key) const { return std::stod(word(key)); }
  [[nodiscard]] std::int64_t integer(const char* key) const { return std::stoll(word(key)); }
  [[nodiscard]] bool flag(const char* key) const { return has(key) && integer(key) != 0; }
  [[nodiscard]] Sizes sizes(const char* key) const {
    Sizes values;
    if (attributes.contains(key)) {
      for (const std::string& value : attributes.at(key)) {
        values.push_back(std::stoll(value));
      }
    }
    return values;
  }
  [[nodiscard]] Extents extents(const char* key) const { return Extents(sizes(key)); }
  [[nodiscard]] int axis(const char* key) const { return static_cast<int>(integer(key)); }
  [[nodiscard]] std::vector<int> axes(const char* key) const {
    const Sizes values = sizes(key);
    return {values.begin(), values.end()};
  }
  // The arrays from number `first` on.
  [[nodiscard]] std::vector<Array> rest(std::size_t first) const {
    std::vector<Array> arrays;
    for (std::size_t i = first; i < inputs.size(); ++i) {
      arrays.push_back(in(i));
    }
    return arrays;
  }
};

using Results = std::vector<Array>;

Results list(const GroupNormed& r) { return {r.y, r.mean, r.invstd}; }
Results list(const NormGradients& r) { return {r.grad_x, r.grad_weight, r.grad_bias}; }

Results run_conv(const Row& row) {
  const std::string_view name = row.name;
  const char* op = row.name.c_str();
  ConvParams params;
  params.window.stride = row.sizes("stride");
  params.window.dilation = row.sizes("dilation");
  params.window.pad_begin = row.sizes("pad_begin");
  params.window.pad_end = row.sizes("pad_end");
  params.window.padding = row.has("padding") ? static_cast<Padding>(row.integer("padding")) : Padding::explicit_;
  params.groups = row.integer("groups");
  const Sizes extra = row.sizes("output_padding");
  const bool is_transposed = name.starts_with("conv_transpose");
  if (name.ends_with("_grad_input")) {
    const Extents shape = row.extents("x_shape");
    return {is_transposed ? conv_transpose_grad_input(op, row.in(0), row.in(1), shape, params, extra)
                          : conv_grad_input(op, row.in(0), row.in(1), shape, params)};
  }
  if (name.ends_with("_grad_weight")) {
    const Extents shape = row.extents("weight_shape");
    return {is_transposed ? conv_transpose_grad_weight(op, row.in(0), row.in(1), shape, params, extra)
                          : conv_grad_weight(op, row.in(0), row.in(1), shape, params)};
  }
  const Fused fused{.bias = row.maybe(2)};
  return {is_transposed ? conv_transpose(op, row.in(0), row.in(1), fused, params, extra)
                        : conv(op, row.in(0), row.in(1), fused, params)};
}

Results run_pool(const Row& row) {
  const std::string_view name = row.name;
  const char* op = row.name.c_str();
  PoolParams params;
  params.output_size = row.sizes("output_size");
  params.window.kernel_size = row.sizes("kernel_size");
  params.window.stride = row.sizes("stride");
  params.window.dilation = row.sizes("dilation");
  if (params.window.dilation.empty()) {
    params.window.dilation.assign(params.window.kernel_size.size(), 1);
  }
  const Sizes padding = row.sizes("padding");
  for (std::size_t i = 0; i + 1 < padding.size(); i += 2) {
    params.window.pad_begin.push_back(padding[i]);
    params.window.pad_end.push_back(padding[i + 1]);
  }
  params.window.ceil_mode = row.flag("ceil_mode");
  params.count_include_pad = row.flag("count_include_pad");
  params.divisor_override = row.has("divisor_override") ? row.integer("divisor_override") : 0;
  if (name.find("avg_pool") != std::string_view::npos) {
    return {name.ends_with("_grad") ? avg_pool_grad(op, row.in(0), row.extents("x_shape"), params)
                                    : avg_pool(op, row.in(0), params)};
  }
  if (name.ends_with("_taps")) {
    const MaxPooled pooled = max_pool_taps(op, row.in(0), params);
    return {pooled.y, pooled.taps};
  }
  if (name.ends_with("_grad")) {
    return {max_pool_grad(op, row.in(0), row.in(1), row.extents("x_shape"), params)};
  }
  if (name.ends_with("_pick")) {
    return {max_pool_pick(op, row.in(0), row.in(1), params)};
  }
  if (name.ends_with("_indices")) {
    return {max_pool_indices(op, row.in(0), row.extents("x_shape"), params)};
  }
  return {max_pool(op, row.in(0), params)};
}

Results run_loss(const Row& row) {
  const std::string word = row.word("reduction");
  const ClassLossParams params{.is_logits = row.name.starts_with("cross_entropy"),
                               .smoothing = row.real("label_smoothing"),
                               .ignore_index = row.integer("ignore_index"),
                               .reduction = word == "mean"  ? Reduction::mean
                                            : word == "sum" ? Reduction::sum
                                                            : Reduction::none};
  const char* op = row.name.c_str();
  if (row.name.ends_with("_grad")) {
    return {class_loss_grad(op, row.in(0), row.in(1), row.in(2), row.maybe(3), row.in(4), row.in(5), params)};
  }
  const ClassLoss loss = class_loss(op, row.in(0), row.in(1), row.maybe(2), params);
  return {loss.loss, loss.log_sum, loss.total};
}

Results run_resample(const Row& row) {
  ResampleParams params;
  params.size = row.sizes("size");
  params.is_bilinear = row.word("mode") == "bilinear";
  params.align_corners = row.flag("align_corners");
  params.antialias = row.flag("antialias");
  for (const std::string& factor : row.attributes.at("scale_factor")) {
    params.scale_factor.push_back(std::stod(factor));
  }
  return {row.name == "interpolate" ? resample("interpolate", row.in(0), params)
                                    : resample_grad("interpolate", row.in(0), row.extents("x_shape"), params)};
}

Results run_argument(const Row& row) {
  const bool is_flat = !row.has("dim");
  return {argument(row.name.c_str(), row.name == "argmax", row.in(0), is_flat ? 0 : row.axis("dim"), is_flat,
                   row.flag("keepdim"))};
}

Results run_map(const Row& row) {
  const int op = find_map_op(row.name.c_str());
  const MapInfo info = map_info(op);
  const auto parameter = [&](int i) { return info.parameters[i] == nullptr ? 0.0 : row.real(info.parameters[i]); };
  return {map(op, row.inputs, parameter(0), parameter(1))};
}

using Run = Results (*)(const Row&);

template <int kOp>
Results run_reduce(const Row& row) {
  return {reduce(kOp, row.in(0), row.axes("dim"), row.flag("keepdim"))};
}

template <int kOp>
Results run_rows(const Row& row) {
  return {rows_op(kOp, row.in(0), kOp < 2 ? nullptr : &row.in(1), row.axis("dim"))};
}

Results run_group_norm(const Row& row) {
  return list(
      group_norm(row.name.c_str(), row.in(0), row.integer("num_groups"), row.maybe(1), row.maybe(2), row.real("eps")));
}

Results run_group_norm_grad(const Row& row) {
  return list(group_norm_grad(row.name.c_str(), row.in(0), row.in(1), row.maybe(2), row.in(3), row.in(4),
                              row.integer("num_groups")));
}

const std::map<std::string, Run, std::less<>>& table() {
  static const std::map<std::string, Run, std::less<>> rows{
      {"linear", [](const Row& r) -> Results { return {linear(r.in(0), r.in(1), {.bias = r.maybe(2)})}; }},
      {"matmul", [](const Row& r) -> Results { return {matmul(r.in(0), r.in(1))}; }},
      {"sum", run_reduce<0>},
      {"prod", run_reduce<1>},
      {"max", run_reduce<2>},
      {"min", run_reduce<3>},
      {"softmax", run_rows<0>},
      {"log_softmax", run_rows<1>},
      {"softmax_grad", run_rows<2>},
      {"log_softmax_grad", run_rows<3>},
      {"argmax", run_argument},
      {"argmin", run_argument},
      {"cross_entropy", run_loss},
      {"cross_entropy_grad", run_loss},
      {"nll_loss", run_loss},
      {"nll_loss_grad", run_loss},
      {"interpolate", run_resample},
      {"interpolate_grad", run_resample},
      {"pad", [](const Row& r) -> Results { return {pad(r.in(0), r.extents("begin"), r.extents("end"), r.real("value"))}; }},
      {"batch_norm_training",
       [](const Row& r) -> Results {
         const BatchNormed b = batch_norm_training("batch_norm", r.in(0), r.maybe(1), r.maybe(2), r.real("eps"));
         return {b.y, b.mean, b.var};
       }},
      {"batch_norm_eval",
       [](const Row& r) -> Results {
         return {batch_norm_eval("batch_norm", r.in(0), r.in(1), r.in(2), r.maybe(3), r.maybe(4), r.real("eps"))};
       }},
      {"batch_norm_grad",
       [](const Row& r) {
         return list(batch_norm_grad("batch_norm_grad", r.in(0), r.in(1), r.maybe(2), r.in(3), r.in(4), r.real("eps"),
                                     r.flag("training")));
       }},
      {"group_norm", run_group_norm},
      {"instance_norm", run_group_norm},
      {"group_norm_grad", run_group_norm_grad},
      {"instance_norm_grad", run_group_norm_grad},
      {"layer_norm",
       [](const Row& r) {
         return list(layer_norm("layer_norm", r.in(0), r.axis("n_axes"), r.maybe(1), r.maybe(2), r.real("eps")));
       }},
      {"layer_norm_grad",
       [](const Row& r) {
         return list(layer_norm_grad("layer_norm_grad", r.in(0), r.in(1), r.axis("n_axes"), r.maybe(2), r.in(3), r.in(4)));
       }},
      {"clone", [](const Row& r) -> Results { return {clone(r.in(0))}; }},
      {"relayout",
       [](const Row& r) -> Results {
         return {relayout(r.in(0), r.flag("channels_last") ? Layout::channels_last : Layout::row_major)};
       }},
      {"reshape",
       [](const Row& r) -> Results { return {reshape(r.in(0), r.extents("shape"), r.flag("to_channels_last"))}; }},
      {"permute", [](const Row& r) -> Results { return {r.in(0).permute(r.axes("dims"))}; }},
      {"expand", [](const Row& r) -> Results { return {r.in(0).broadcast_to(r.extents("shape"))}; }},
      {"spread",
       [](const Row& r) -> Results { return {reshape(r.in(0), r.extents("kept")).broadcast_to(r.extents("shape"))}; }},
      {"slice",
       [](const Row& r) -> Results { return {slice(r.in(0), r.extents("begin"), r.extents("size"), r.extents("step"))}; }},
      {"slice_grad",
       [](const Row& r) -> Results {
         return {slice_grad(r.in(0), r.extents("shape"), r.extents("begin"), r.extents("step"))};
       }},
      {"split", [](const Row& r) { return split(r.in(0), r.sizes("sizes"), r.axis("dim")); }},
      {"concat", [](const Row& r) -> Results { return {concat(r.rest(0), r.axis("dim"))}; }},
      {"flip", [](const Row& r) -> Results { return {flip(r.in(0), r.axes("dims"))}; }},
      {"pixel_shuffle", [](const Row& r) -> Results { return {pixel_shuffle(r.in(0), r.integer("factor"))}; }},
      {"pixel_unshuffle", [](const Row& r) -> Results { return {pixel_unshuffle(r.in(0), r.integer("factor"))}; }},
      {"triangle", [](const Row& r) -> Results { return {triangle(r.in(0), r.integer("diagonal"), r.flag("is_upper"))}; }},
      {"one_hot", [](const Row& r) -> Results { return {one_hot(r.in(0), r.integer("num_classes"))}; }},
      {"to", [](const Row& r) -> Results { return {convert(r.in(0), static_cast<DType>(r.integer("dtype")))}; }},
      {"gather", [](const Row& r) -> Results { return {gather(r.in(0), r.in(1), r.axis("dim"))}; }},
      {"scatter_add",
       [](const Row& r) -> Results { return {scatter_add(r.in(0), r.in(1), r.extents("shape"), r.axis("dim"))}; }},
      {"index", [](const Row& r) -> Results { return {index_rows(r.in(0), r.rest(1))}; }},
      {"index_add", [](const Row& r) -> Results { return {index_add(r.in(0), r.rest(1), r.extents("shape"))}; }},
  };
  return rows;
}

Results run_row(const Row& row) {
  if (const auto found = table().find(row.name); found != table().end()) {
    return found->second(row);
  }
  if (row.name.starts_with("conv")) {
    return run_conv(row);
  }
  return row.name.find("_pool") != std::string::npos ? run_pool(row) : run_map(row);
}

// Results to check, by the numbers of result, expected values and bound.
struct Check {
  int tensor;
  int expected;
  int bound;
};

struct Outcome {
  std::map<int, Array> values;
  std::vector<Check> checks;
};

Outcome run(const std::string& program, const std::map<int, Array>& given) {
  Outcome out{.values = given, .checks = {}};
  set_conv_algorithm(ConvAlgorithm::direct);
  std::istringstream words(program);
  std::string kind;
  while (words >> kind) {
    if (kind == "algorithm") {
      int m = 0;
      words >> m;
      set_conv_algorithm(m == 2 ? ConvAlgorithm::winograd2 : m == 4 ? ConvAlgorithm::winograd4 : ConvAlgorithm::winograd6);
    } else if (kind == "check") {
      Check check{};
      words >> check.tensor >> check.expected >> check.bound;
      out.checks.push_back(check);
    } else {
      const auto numbers = [&] {
        std::size_t n = 0;
        words >> n;
        std::vector<int> read(n);
        for (int& number : read) {
          words >> number;
        }
        return read;
      };
      Row row;
      words >> row.name;
      for (const int i : numbers()) {
        row.inputs.push_back(i < 0 ? nullptr : &out.values.at(i));
      }
      const std::vector<int> outputs = numbers();
      std::size_t n_attributes = 0;
      words >> n_attributes;
      for (std::size_t i = 0; i < n_attributes; ++i) {
        std::string key;
        std::size_t n = 0;
        words >> key >> n;
        std::vector<std::string>& values = row.attributes[key];
        values.resize(n);
        for (std::string& value : values) {
          words >> value;
        }
      }
      const Results results = run_row(row);
      check(results.size() == outputs.size(), row.name, ": expected ", outputs.size(), " results, got ", results.size());
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        out.values.insert_or_assign(outputs[i], results[i]);
      }
    }
  }
  return out;
}

// What is wrong with a result, or nothing.
std::string complaint(const Array& y, const Array& expected, const Array& bound) {
  const DType dtype = is_floating(expected.dtype()) ? DType::float32 : expected.dtype();
  if (y.dtype() != dtype || !(y.shape() == expected.shape())) {
    return text("expected ", dtype_name(dtype), " ", to_string(expected.shape()), ", got ", dtype_name(y.dtype()), " ",
                to_string(y.shape()));
  }
  const Array got = relayout(convert(y, DType::float64), Layout::row_major);
  const Array wanted = convert(expected, DType::float64);
  const auto* a = got.data<double>();
  const auto* e = wanted.data<double>();
  const auto* limit = bound.data<double>();
  std::ptrdiff_t n_off = 0;
  std::ptrdiff_t worst = 0;
  double worst_ratio = -1;
  for (std::ptrdiff_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(a[i] - e[i]);
    const bool is_odd = !std::isfinite(a[i]) || !std::isfinite(e[i]);
    if (is_odd ? a[i] == e[i] || (std::isnan(a[i]) && std::isnan(e[i])) : error <= limit[i]) {
      continue;
    }
    n_off += 1;
    const double ratio = is_odd ? HUGE_VAL : error / limit[i];
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  return n_off == 0 ? ""
                    : text(n_off, " of ", got.size(), " elements are off; worst number ", worst, " = ", a[worst],
                           ", expected ", e[worst], ", ", worst_ratio, " of its bound");
}

std::string bits(const Outcome& outcome) {
  std::string all;
  for (const Check& check : outcome.checks) {
    const Array y = relayout(outcome.values.at(check.tensor), Layout::row_major);
    all.append(reinterpret_cast<const char*>(y.bytes()), static_cast<std::size_t>(y.size() * item_bytes(y.dtype())));
  }
  return all;
}

int replay(const std::string& path) {
  const SafetensorsFile file = read_safetensors(path);
  std::map<std::string, std::map<int, Array>> given;
  for (const auto& [key, tensor] : file.tensors) {
    const std::size_t slash = key.rfind('/');
    given[key.substr(0, slash)].emplace(std::stoi(key.substr(slash + 1)), tensor);
  }
  check<std::invalid_argument>(!file.metadata.empty(), "law_replay: expected cases in ", path, ", got none");
  int n_failures = 0;
  std::size_t n_checks = 0;
  const auto fail = [&](const std::string& name, const std::string& what) {
    n_failures += 1;
    std::cout << isa_name(active_isa()) << " " << name << ": " << what << "\n";
  };
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    for (const auto& [name, program] : file.metadata) {
      try {
        std::string first;
        for (const int n_threads : {1, 2, 3}) {
          set_thread_count(n_threads);
          const Outcome outcome = run(program, given[name]);
          if (n_threads > 1) {
            if (bits(outcome) != first) {
              fail(name, text(n_threads, " threads give other bits than one"));
            }
            continue;
          }
          first = bits(outcome);
          check<std::invalid_argument>(!outcome.checks.empty(), "expected a check, got none");
          for (const Check& c : outcome.checks) {
            n_checks += 1;
            const std::string what =
                complaint(outcome.values.at(c.tensor), outcome.values.at(c.expected), outcome.values.at(c.bound));
            if (!what.empty()) {
              fail(name, text("tensor ", c.tensor, ": ", what));
            }
          }
        }
      } catch (const std::exception& error) {
        fail(name, error.what());
      }
    }
  }
  std::cout << file.metadata.size() << " cases, " << available_isas().size() << " instruction sets (" << build_description()
            << "), " << n_checks << " results checked: " << n_failures << " failures\n";
  return n_failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace striate

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: law_replay FILE\n";
    return 2;
  }
  try {
    return striate::replay(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
