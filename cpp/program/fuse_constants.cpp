// What can be computed once is: constants, batch-norm behind a convolution, the order of a flattened image.
#include <algorithm>
#include <cmath>

#include "program/rewrite.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kMostFoldedBytes = std::ptrdiff_t{16} << 20;  // of a constant that was none

bool has_dim(const Attribute& attribute) {
  if (const auto* list = attribute.as<Attribute::List>()) {
    return std::any_of(list->begin(), list->end(), has_dim);
  }
  const auto* dim = attribute.as<Dim>();
  return dim != nullptr && !dim->is_constant();
}

}  // namespace

void Rewrite::fold_constants() {
  for (Node& node : nodes_) {
    const bool is_known = std::all_of(node.inputs.begin(), node.inputs.end(),
                                      [&](ValueId id) { return id == kNoValue || constant_of(id) != nullptr; }) &&
                          std::none_of(node.attributes.begin(), node.attributes.end(),
                                       [](const auto& attribute) { return has_dim(attribute.second); });
    std::ptrdiff_t bytes = 0;
    for (const ValueId id : node.outputs) {
      bytes += values(value(id).shape).product() * item_bytes(value(id).dtype);
    }
    if (!is_known || node.op == "assign" || !has_call(node.op) || (node.inputs.empty() && bytes > kMostFoldedBytes)) {
      continue;
    }
    std::vector<const Array*> operands;
    for (const ValueId id : node.inputs) {
      operands.push_back(constant_of(id));
    }
    std::vector<Array> results(node.outputs.size());
    make_call(Attributes(node.op, node.attributes))(operands, results);
    for (std::size_t i = 0; i < results.size(); ++i) {
      redirect(node.outputs[i], constant(results[i]));
    }
    node = {};
  }
  count();
}

void Rewrite::fold_batch_norm() {
  for (Node& norm : nodes_) {
    Node* const conv = norm.op == "batch_norm_eval" ? private_maker(norm, 0) : nullptr;
    if (conv == nullptr || (!is_convolution(*conv) && conv->op != "linear") || has_activation(*conv) ||
        conv->inputs.size() > 3) {
      continue;
    }
    const Array* const weight = constant_of(conv->inputs[1]);
    const Array* const mean = constant_of(norm.inputs[1]);
    const Array* const var = constant_of(norm.inputs[2]);
    const auto optional = [&](const Node& node, std::size_t i, const Array*& array) {
      const bool is_given = i < node.inputs.size() && node.inputs[i] != kNoValue;
      array = is_given ? constant_of(node.inputs[i]) : nullptr;
      return !is_given || array != nullptr;
    };
    const Array* scale = nullptr;
    const Array* shift = nullptr;
    const Array* bias = nullptr;
    if (weight == nullptr || mean == nullptr || var == nullptr || !optional(norm, 3, scale) || !optional(norm, 4, shift) ||
        !optional(*conv, 2, bias) || value(norm.inputs[0]).shape.size() != static_cast<std::size_t>(weight->rank())) {
      continue;
    }
    const auto doubles = [](const Array* x, std::ptrdiff_t n, double otherwise) {
      std::vector<double> out(static_cast<std::size_t>(n), otherwise);
      if (x != nullptr) {
        const Array wide = relayout(convert(*x, DType::float64), Layout::row_major);
        std::copy_n(wide.data<double>(), n, out.begin());
      }
      return out;
    };
    const std::ptrdiff_t n = weight->shape(0);
    const auto m = doubles(mean, n, 0);
    const auto v = doubles(var, n, 0);
    auto s = doubles(scale, n, 1);
    auto b = doubles(bias, n, 0);
    const auto t = doubles(shift, n, 0);
    const double eps = number_of(norm, "eps", 0);
    for (std::size_t o = 0; o < s.size(); ++o) {
      s[o] /= std::sqrt(v[o] + eps);
      b[o] = (b[o] - m[o]) * s[o] + t[o];
    }
    Extents column(weight->rank(), 1);
    column[0] = n;
    const auto as_array = [&](const std::vector<double>& x, const Extents& shape) {
      const Array out = Array::empty(DType::float64, shape);
      std::copy(x.begin(), x.end(), out.data<double>());
      return out;
    };
    const DType dtype = weight->dtype();
    const Array wide = convert(*weight, DType::float64);
    const Array factors = as_array(s, column);
    const Array* const operands[] = {&wide, &factors};
    // From here on the graph grows, and pointers into it are void.
    replace_operand(*conv, 1, constant(convert(map(find_map_op("mul"), operands), dtype)));
    replace_operand(*conv, 2, constant(convert(as_array(b, {n}), dtype)));
    absorb(*conv, norm);
  }
  count();
}

void Rewrite::fold_flatten() {
  for (Node& node : nodes_) {
    Node* const flatten = node.op == "linear" ? private_maker(node, 0) : nullptr;
    const Array* const weight = flatten == nullptr ? nullptr : constant_of(node.inputs[1]);
    if (weight == nullptr || flatten->op != "reshape" || value(flatten->outputs[0]).shape.size() != 2) {
      continue;
    }
    // Column c·P + p becomes column p·C + c, whatever the P positions are: the guard on their number is the record's.
    const Value& x = value(flatten->inputs[0]);
    const Shape& flat = value(flatten->outputs[0]).shape;
    if (x.layout != ValueLayout::channels_last || x.shape.size() < 3 || !(flat[0] == x.shape[0]) ||
        !x.shape[1].is_constant() || x.shape[1].value() == 0) {
      continue;
    }
    const std::ptrdiff_t c = x.shape[1].value();
    const Array columns = reshape(*weight, {weight->shape(0), c, weight->shape(1) / c});
    const Array moved = relayout(columns.permute(std::vector<int>{0, 2, 1}), Layout::row_major);
    replace_operand(node, 1, constant(reshape(moved, weight->shape())));
    Node& view = *flatten;
    view.op = "flatten_memory";
    view.attributes.clear();
  }
  count();
}

}  // namespace striate
