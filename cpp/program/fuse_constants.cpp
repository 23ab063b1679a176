// What can be computed once is: constants, batch-norm behind a convolution, the order of a flattened image.
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

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

namespace {

std::vector<double> doubles(const Array* x, std::ptrdiff_t n, double otherwise) {
  std::vector<double> out(static_cast<std::size_t>(n), otherwise);
  if (x != nullptr) {
    const Array wide = relayout(convert(*x, DType::float64), Layout::row_major);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = wide.data<double>()[x->size() == 1 ? 0 : i];
    }
  }
  return out;
}

Array array_of(const std::vector<double>& x, const Extents& shape, DType dtype) {
  const Array out = Array::empty(DType::float64, shape);
  std::copy(x.begin(), x.end(), out.data<double>());
  return convert(out, dtype);
}

// Whether an operand of an element-wise operator on values of this rank holds one number, or one a channel of an axis.
bool is_by_channel(const Array& operand, int rank, int axis, std::ptrdiff_t n_channels) {
  bool is = operand.rank() <= rank && is_floating(operand.dtype());
  for (int i = 0; is && i < operand.rank(); ++i) {
    const bool is_channel = rank - operand.rank() + i == axis;
    is = operand.shape(i) == 1 || (is_channel && operand.shape(i) == n_channels);
  }
  return is;
}

}  // namespace

std::optional<Rewrite::Affine> Rewrite::affine_of(const Node& node) const {
  const auto given = [&](std::size_t i) { return i < node.inputs.size() ? constant_of(node.inputs[i]) : nullptr; };
  const auto is_absent = [&](std::size_t i) { return i >= node.inputs.size() || node.inputs[i] == kNoValue; };
  if (node.op == "batch_norm_eval") {
    if (given(1) == nullptr || given(2) == nullptr || (!is_absent(3) && given(3) == nullptr) ||
        (!is_absent(4) && given(4) == nullptr) || !is_absent(5) || node.attribute("relu") != nullptr) {
      return std::nullopt;
    }
    const std::ptrdiff_t n = given(1)->shape(0);
    Affine affine{0, 1, doubles(given(3), n, 1), doubles(given(4), n, 0)};
    const auto mean = doubles(given(1), n, 0);
    const auto var = doubles(given(2), n, 0);
    for (std::size_t c = 0; c < mean.size(); ++c) {
      affine.scale[c] /= std::sqrt(var[c] + number_of(node, "eps", 0));
      affine.shift[c] -= mean[c] * affine.scale[c];
    }
    return affine;
  }
  const bool adds = node.op == "add" || node.op == "sub";
  if (!adds && node.op != "mul" && node.op != "div") {
    return std::nullopt;
  }
  for (const std::size_t at : {std::size_t{0}, std::size_t{1}}) {
    const Array* const operand = given(1 - at);
    const Value& x = value(node.inputs[at]);
    const Value& y = value(node.outputs[0]);
    const Node* const before = maker(node.inputs[at]);
    const int rank = static_cast<int>(x.shape.size());
    const int axis = before != nullptr && before->op == "linear" ? rank - 1 : 1;
    if (operand == nullptr || constant_of(node.inputs[at]) != nullptr || (node.op == "div" && at == 1) || rank < 2 ||
        !(x.shape == y.shape) || x.dtype != y.dtype || !x.shape[static_cast<std::size_t>(axis)].is_constant() ||
        !is_by_channel(*operand, rank, axis, x.shape[static_cast<std::size_t>(axis)].value())) {
      continue;
    }
    const std::ptrdiff_t n = x.shape[static_cast<std::size_t>(axis)].value();
    const auto numbers = doubles(operand, n, 0);
    Affine affine{at, axis, std::vector<double>(numbers.size(), 1.0), std::vector<double>(numbers.size(), 0.0)};
    for (std::size_t c = 0; c < numbers.size(); ++c) {
      const bool is_taken_from = node.op == "sub" && at == 1;
      affine.scale[c] = is_taken_from ? -1.0 : adds ? 1.0 : node.op == "div" ? 1.0 / numbers[c] : numbers[c];
      affine.shift[c] = !adds ? 0.0 : node.op == "sub" && at == 0 ? -numbers[c] : numbers[c];
    }
    return affine;
  }
  return std::nullopt;
}

void Rewrite::fold_affine() {
  for (Node& node : nodes_) {
    const std::optional<Affine> found = affine_of(node);
    if (!found) {
      continue;
    }
    const Affine& affine = *found;
    Node* const before = private_maker(node, affine.operand);
    if (before == nullptr || !(is_convolution(*before) || before->op == "linear") || has_activation(*before) ||
        before->inputs.size() > 3) {
      continue;
    }
    const Array* const weight = constant_of(before->inputs[1]);
    const bool has_bias = before->inputs.size() > 2 && before->inputs[2] != kNoValue;
    const Array* const bias = has_bias ? constant_of(before->inputs[2]) : nullptr;
    const int rank = static_cast<int>(value(node.outputs[0]).shape.size());
    if (weight == nullptr || (has_bias && bias == nullptr) ||
        (before->op == "linear" ? affine.axis != rank - 1 : rank != weight->rank())) {
      continue;
    }
    const std::ptrdiff_t n = weight->shape(0);
    auto shifted = doubles(bias, n, 0);
    for (std::size_t o = 0; o < shifted.size(); ++o) {
      shifted[o] = shifted[o] * affine.scale[o] + affine.shift[o];
    }
    Extents column(weight->rank(), 1);
    column[0] = n;
    const DType dtype = weight->dtype();
    const Array wide = convert(*weight, DType::float64);
    const Array factors = array_of(affine.scale, column, DType::float64);
    const Array* const operands[] = {&wide, &factors};
    // From here on the graph grows, and pointers into it are void.
    replace_operand(*before, 1, constant(convert(map(find_map_op("mul"), operands), dtype)));
    replace_operand(*before, 2, constant(array_of(shifted, {n}, dtype)));
    absorb(*before, node);
  }
  count();
}

void Rewrite::join_affine() {
  for (Node& node : nodes_) {
    const std::optional<Affine> last = affine_of(node);
    if (!last) {
      continue;
    }
    const Affine& second = *last;
    Node* const before = private_maker(node, second.operand);
    const std::optional<Affine> found = before != nullptr ? affine_of(*before) : std::nullopt;
    if (!found) {
      continue;
    }
    const Affine& first = *found;
    const std::size_t rank = value(node.outputs[0]).shape.size();
    if (first.axis != 1 || second.axis != 1 || rank < 3 || rank > 5 || !is_floating(value(node.outputs[0]).dtype)) {
      continue;
    }
    const DType dtype = value(node.outputs[0]).dtype;
    const auto n = static_cast<std::ptrdiff_t>(first.scale.size());
    Affine both{0, 1, first.scale, first.shift};
    for (std::size_t c = 0; c < both.scale.size(); ++c) {
      both.scale[c] *= second.scale[c];
      both.shift[c] = both.shift[c] * second.scale[c] + second.shift[c];
    }
    const ValueId x = before->inputs[first.operand];
    const std::vector<ValueId> outputs = node.outputs;
    const ValueId zeros = constant(array_of(std::vector<double>(both.scale.size(), 0.0), {n}, dtype));
    const ValueId ones = constant(array_of(std::vector<double>(both.scale.size(), 1.0), {n}, dtype));
    const ValueId scale = constant(array_of(both.scale, {n}, dtype));
    const ValueId shift = constant(array_of(both.shift, {n}, dtype));
    forget(*before);
    node = Node{"batch_norm_eval", {{"eps", 0.0}}, {x, zeros, ones, scale, shift}, outputs};
    count();
  }
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
