// Rewriting a recorded graph for running it: what can be computed once is, and neighbours become one node.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "program/call.hpp"
#include "striate/ops.hpp"
#include "striate/program.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kMostFoldedBytes = std::ptrdiff_t{16} << 20;  // of a constant that was none

bool is_convolution(const Node& node) { return node.op == "conv1d" || node.op == "conv2d" || node.op == "conv3d"; }
bool is_data_gradient(const Node& node) {
  return node.op == "conv1d_grad_input" || node.op == "conv2d_grad_input" || node.op == "conv3d_grad_input";
}

void set(Node& node, const char* name, Attribute value) {
  for (auto& [key, attribute] : node.attributes) {
    if (key == name) {
      attribute = std::move(value);
      return;
    }
  }
  node.attributes.emplace_back(name, std::move(value));
  std::sort(node.attributes.begin(), node.attributes.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
}

bool has_dim(const Attribute& attribute) {
  if (const auto* list = attribute.as<Attribute::List>()) {
    return std::any_of(list->begin(), list->end(), has_dim);
  }
  const auto* dim = attribute.as<Dim>();
  return dim != nullptr && !dim->is_constant();
}

bool is_strided(const Node& node) {
  const Attribute* const stride = node.attribute("stride");
  const auto* const sizes = stride == nullptr ? nullptr : stride->as<Attribute::List>();
  return sizes != nullptr && std::any_of(sizes->begin(), sizes->end(), [](const Attribute& size) {
           const auto* const n = size.as<std::int64_t>();
           return n == nullptr || *n > 1;
         });
}

double number_of(const Node& node, const char* name, double otherwise) {
  const Attribute* found = node.attribute(name);
  if (found == nullptr || found->is_none()) {
    return otherwise;
  }
  const auto* real = found->as<double>();
  const auto* whole = found->as<std::int64_t>();
  return real != nullptr ? *real : whole != nullptr ? static_cast<double>(*whole) : otherwise;
}

// The graph while it is rewritten: nodes that are gone have no op.
class Rewrite {
 public:
  explicit Rewrite(const Graph& graph) : graph_(graph), nodes_(graph.nodes()) { count(); }

  Graph run() {
    fold_constants();
    fold_batch_norm();
    fuse_followers();
    fuse_norm();
    fuse_relu_grad();
    join_moments();
    fold_flatten();
    concat_in_place();
    change_in_place();
    join_steps();
    remove_dead();
    std::erase_if(nodes_, [](const Node& node) { return node.op.empty(); });
    return graph_.with_nodes(nodes_);
  }

 private:
  [[nodiscard]] const Value& value(ValueId id) const { return graph_.value(id); }

  // Readers of every value, and who makes it, from the nodes as they are now.
  void count() {
    n_readers_.assign(graph_.values().size(), 0);
    maker_.assign(graph_.values().size(), nullptr);
    for (Node& node : nodes_) {
      for (const ValueId id : node.inputs) {
        if (id != kNoValue) {
          ++n_readers_[static_cast<std::size_t>(id)];
        }
      }
      for (const ValueId id : node.outputs) {
        maker_[static_cast<std::size_t>(id)] = &node;
      }
    }
    for (const ValueId id : graph_.results()) {
      ++n_readers_[static_cast<std::size_t>(id)];
    }
  }

  ValueId constant(const Array& array) {
    const ValueId id = graph_.add_constant(array);
    n_readers_.push_back(0);
    maker_.push_back(nullptr);
    return id;
  }

  [[nodiscard]] const Array* constant_of(ValueId id) const {
    return id != kNoValue && value(id).kind == ValueKind::constant ? &value(id).array : nullptr;
  }

  [[nodiscard]] int n_readers(ValueId id) const { return n_readers_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] Node* maker(ValueId id) const { return id == kNoValue ? nullptr : maker_[static_cast<std::size_t>(id)]; }

  // The node whose only result is read by `node` as operand i and by nobody else.
  [[nodiscard]] Node* private_maker(const Node& node, std::size_t i) const {
    Node* const made_by = i < node.inputs.size() ? maker(node.inputs[i]) : nullptr;
    return made_by != nullptr && made_by->outputs.size() == 1 && n_readers(node.inputs[i]) == 1 ? made_by : nullptr;
  }

  // `first` takes over the result of `second`, its only reader, which is gone.
  void absorb(Node& first, Node& second) {
    first.outputs = second.outputs;
    for (const ValueId id : first.outputs) {
      maker_[static_cast<std::size_t>(id)] = &first;
    }
    second = {};
  }

  void replace_operand(Node& node, std::size_t i, ValueId by) {
    if (node.inputs.size() <= i) {
      node.inputs.resize(i + 1, kNoValue);
    }
    if (node.inputs[i] != kNoValue) {
      --n_readers_[static_cast<std::size_t>(node.inputs[i])];
    }
    node.inputs[i] = by;
    ++n_readers_[static_cast<std::size_t>(by)];
  }

  void fold_constants() {
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

  // Every reader of a value reads another one.
  void redirect(ValueId from, ValueId to) {
    for (Node& node : nodes_) {
      std::replace(node.inputs.begin(), node.inputs.end(), from, to);
    }
    std::vector<ValueId> results = graph_.results();
    std::replace(results.begin(), results.end(), from, to);
    graph_.set_results(std::move(results));
  }

  // y = (w·x + b − mean) · s + bias with s = weight / √(var + eps): the same convolution with w·s and (b − mean)·s + bias.
  void fold_batch_norm() {
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

  // Element-wise operators behind a convolution or product that nobody else reads: activations, and one addition.
  void fuse_followers() {
    for (Node& node : nodes_) {
      if (node.outputs.size() != 1 || !is_floating(value(node.outputs[0]).dtype)) {
        continue;
      }
      if (node.op == "add") {
        fuse_add(node);
      } else if (is_activation(node)) {
        Node* const before = private_maker(node, 0);
        if (before != nullptr && takes_tail(*before) && !has_activation(*before) &&
            before->attribute("adds_last") == nullptr) {
          add_activation(*before, node);
          absorb(*before, node);
        }
      }
    }
  }

  // Behind a batch-norm: an addition, then a ReLU. Its gradient takes the ReLU's, which can be told from x again.
  void fuse_norm() {
    for (Node& node : nodes_) {
      if (node.op == "add" && node.inputs[0] != node.inputs[1]) {
        Node* norm = nullptr;
        std::size_t at = 0;
        for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
          Node* const before = norm_before(node, i);
          const bool fits = before != nullptr && before->attribute("relu") == nullptr &&
                            before->inputs.size() <= addend_of(*before) &&
                            values(value(node.inputs[1 - i]).shape) == values(value(node.outputs[0]).shape) &&
                            values(value(node.inputs[i]).shape) == values(value(node.outputs[0]).shape) &&
                            value(node.inputs[1 - i]).dtype == value(node.outputs[0]).dtype;
          if (fits && (norm == nullptr || before > norm)) {
            norm = before;
            at = i;
          }
        }
        // The batch-norm stays where it is: its statistics may be read before the addition.
        const Node* const other = norm == nullptr ? nullptr : maker(node.inputs[1 - at]);
        if (norm != nullptr && (other == nullptr || other < norm)) {
          replace_operand(*norm, addend_of(*norm), node.inputs[1 - at]);
          norm->outputs[0] = node.outputs[0];
          maker_[static_cast<std::size_t>(node.outputs[0])] = norm;
          forget(node);
        }
      } else if (node.op == "relu" || node.op == "relu6") {
        Node* const norm = norm_before(node, 0);
        if (norm != nullptr && norm->attribute("relu") == nullptr) {
          take_relu(*norm, node);
        }
      } else if (node.op == "batch_norm_grad") {
        fuse_norm_grad(node);
      }
    }
    count();
  }

  // The statistics of a batch-norm are taken by the convolution before it, where the pixels are made.
  void join_moments() {
    const auto is_given = [](const Node& node, std::size_t i) {
      return i < node.inputs.size() && node.inputs[i] != kNoValue;
    };
    for (Node& norm : nodes_) {
      Node* const conv = norm.op == "batch_norm_training" ? maker(norm.inputs[0]) : nullptr;
      if (conv == nullptr || !is_convolution(*conv) || conv->outputs.size() != 1 || has_activation(*conv) ||
          is_given(*conv, 3) || is_given(*conv, 4)) {
        continue;
      }
      conv->inputs.resize(std::min<std::size_t>(conv->inputs.size(), 3));
      conv->outputs.insert(conv->outputs.end(), norm.outputs.begin() + 1, norm.outputs.end());
      set(*conv, "moments", true);
      norm.inputs.resize(4, kNoValue);
      norm.inputs = {norm.inputs[0], norm.outputs[1], norm.outputs[2], norm.inputs[1], norm.inputs[2], norm.inputs[3]};
      while (norm.inputs.back() == kNoValue) {
        norm.inputs.pop_back();
      }
      norm.outputs.resize(1);
      norm.op = "batch_norm_eval";
    }
    count();
  }

  [[nodiscard]] Node* norm_before(const Node& node, std::size_t i) const {
    Node* const before = maker(node.inputs[i]);
    const bool is_norm = before != nullptr && (before->op == "batch_norm_training" || before->op == "batch_norm_eval");
    return is_norm && before->outputs[0] == node.inputs[i] && n_readers(node.inputs[i]) == 1 ? before : nullptr;
  }
  static std::size_t addend_of(const Node& norm) { return norm.op == "batch_norm_training" ? 3 : 5; }

  void forget(Node& node) {
    for (const ValueId id : node.inputs) {
      if (id != kNoValue) {
        --n_readers_[static_cast<std::size_t>(id)];
      }
    }
    node = {};
  }

  // A ReLU or ReLU6 becomes the end of the batch-norm before it.
  void take_relu(Node& norm, Node& relu) {
    set(norm, "relu", true);
    if (relu.op == "relu6") {
      set(norm, "hi", 6.0);
    }
    norm.outputs[0] = relu.outputs[0];
    maker_[static_cast<std::size_t>(relu.outputs[0])] = &norm;
    forget(relu);
  }

  // batch_norm_grad(relu_grad(g, y), x, …) where y = relu(batch-norm of the same x), without an addend. The gradient of a
  // ReLU6 reads what the ReLU6 read: that joins the batch-norm here, where the value between is needed no more.
  void fuse_norm_grad(Node& grad) {
    Node* const relu = private_maker(grad, 0);
    if (relu == nullptr || (relu->op != "relu_grad" && relu->op != "relu6_grad")) {
      return;
    }
    const ValueId between = relu->inputs[1];
    Node* const norm = maker(between);
    if (norm == nullptr || norm->op != "batch_norm_training" || norm->outputs[0] != between || norm->inputs.size() > 3 ||
        norm->inputs[0] != grad.inputs[1]) {
      return;
    }
    if (relu->op == "relu6_grad") {
      const auto six = std::find_if(nodes_.begin(), nodes_.end(),
                                    [&](const Node& node) { return node.op == "relu6" && node.inputs[0] == between; });
      if (six == nodes_.end() || n_readers(between) != 2 || norm->attribute("relu") != nullptr) {
        return;
      }
      take_relu(*norm, *six);
      set(grad, "hi", 6.0);
    } else if (norm->attribute("relu") == nullptr || norm->attribute("hi") != nullptr) {
      return;
    }
    replace_operand(grad, 0, relu->inputs[0]);
    if (norm->inputs.size() > 2 && norm->inputs[2] != kNoValue) {
      replace_operand(grad, 5, norm->inputs[2]);
    }
    set(grad, "relu", true);
    forget(*relu);
  }

  static bool takes_tail(const Node& node) {
    return is_convolution(node) || node.op == "linear" || node.op == "conv_transpose1d" || node.op == "conv_transpose2d" ||
           node.op == "conv_transpose3d";
  }
  static bool has_activation(const Node& node) {
    return node.attribute("lo") != nullptr || node.attribute("map") != nullptr;
  }
  static bool is_activation(const Node& node) {
    constexpr std::string_view kNames[] = {"relu",        "relu6",   "clip",      "silu",       "hardswish",
                                           "hardsigmoid", "sigmoid", "tanh",      "leaky_relu", "elu",
                                           "selu",        "gelu",    "gelu_tanh", "mish",       "softplus"};
    return std::find(std::begin(kNames), std::end(kNames), node.op) != std::end(kNames);
  }

  static void add_activation(Node& conv, const Node& activation) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (activation.op == "relu" || activation.op == "relu6") {
      set(conv, "lo", 0.0);
      set(conv, "hi", activation.op == "relu" ? kInfinity : 6.0);
    } else if (activation.op == "clip") {
      set(conv, "lo", number_of(activation, "lo", -kInfinity));
      set(conv, "hi", number_of(activation, "hi", kInfinity));
    } else {
      const MapInfo info = map_info(find_map_op(activation.op.c_str()));
      const auto parameter = [&](int i) {
        return info.parameters[i] == nullptr ? 0.0 : number_of(activation, info.parameters[i], 0);
      };
      set(conv, "map", activation.op);
      set(conv, "map_a", parameter(0));
      set(conv, "map_b", parameter(1));
    }
  }

  // The gradient of a ReLU behind a data gradient joins it. Behind the gradient of a maximum it goes before: a maximum and
  // the value that it came from are one number.
  void fuse_relu_grad() {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].op == "relu_grad") {
        found.push_back(i);
      }
    }
    for (std::size_t i : found) {
      Node* before = private_maker(nodes_[i], 0);
      const Node* const pool = before == nullptr || before->inputs.size() < 2 ? nullptr : maker(before->inputs[1]);
      if (pool != nullptr && pool->op.ends_with("_taps") &&
          before->op == pool->op.substr(0, pool->op.size() - 5) + "_grad" && pool->outputs[1] == before->inputs[1] &&
          pool->inputs[0] == nodes_[i].inputs[1]) {
        Node pool_grad = *before;
        const ValueId passed = result_like(pool_grad.inputs[0]);
        Node relu_grad{"relu_grad", nodes_[i].attributes, {pool_grad.inputs[0], pool->outputs[0]}, {passed}};
        pool_grad.inputs[0] = passed;
        pool_grad.outputs = nodes_[i].outputs;
        nodes_[i] = std::move(pool_grad);
        *before = std::move(relu_grad);
        count();
        i = static_cast<std::size_t>(before - nodes_.data());
        before = private_maker(nodes_[i], 0);
      }
      Node& relu = nodes_[i];
      if (before == nullptr || !is_data_gradient(*before) || before->inputs.size() > 3) {
        continue;
      }
      Node fused = *before;
      fused.inputs.resize(4, kNoValue);
      fused.inputs[3] = relu.inputs[1];
      fused.outputs = relu.outputs;
      *before = {};
      relu = std::move(fused);
      count();
    }
  }

  // Of two nodes that an addition may join; a data gradient with strides comes before one without, which adds where it
  // stores.
  static bool is_later(const Node& a, const Node& b) {
    const bool differ = is_data_gradient(a) && is_data_gradient(b) && is_strided(a) != is_strided(b);
    return differ ? is_strided(b) : &a > &b;
  }

  // add(conv(…), x): the convolution takes the place of the addition, where x is known. Of two convolutions the later one.
  // Likewise a data gradient.
  void fuse_add(Node& add) {
    Node* best = nullptr;
    ValueId addend = kNoValue;
    for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
      Node* const before = private_maker(add, i);
      const ValueId other = add.inputs[1 - i];
      // Sizes that are equal in the record are equal in every pass: the addition made them guards.
      const Extents shape = values(value(add.outputs[0]).shape);
      const bool fits =
          before != nullptr &&
          (is_convolution(*before) ? before->inputs.size() < 4 : is_data_gradient(*before) && before->inputs.size() == 2) &&
          values(value(other).shape) == shape && values(value(add.inputs[i]).shape) == shape &&
          value(other).dtype == value(add.outputs[0]).dtype && add.inputs[0] != add.inputs[1];
      if (fits && (best == nullptr || is_later(*before, *best))) {
        best = before;
        addend = other;
      }
    }
    if (best == nullptr) {
      return;
    }
    Node fused = *best;
    const std::size_t at = is_convolution(fused) ? 3 : 2;
    fused.inputs.resize(at + 1, kNoValue);
    fused.inputs[at] = addend;
    if (has_activation(fused)) {
      set(fused, "adds_last", true);
    }
    fused.outputs = add.outputs;
    maker_[static_cast<std::size_t>(fused.outputs[0])] = &add;
    *best = {};
    add = std::move(fused);
  }

  // linear(flatten(x)) with x in channels-last memory: x is read as it lies, and the weight's columns are in that order.
  void fold_flatten() {
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

  // Concatenations of channels: parts are written where they end up, by the convolutions that make them or by a copy. Those
  // whose parts begin like a longer one's are its first channels.
  void concat_in_place() {
    std::vector<std::vector<Node>> before(nodes_.size());
    std::vector<bool> is_placed(graph_.values().size(), false);
    std::vector<std::size_t> concats;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (joins_channels(nodes_[i])) {
        concats.push_back(i);
      }
    }
    std::stable_sort(concats.begin(), concats.end(),
                     [&](std::size_t a, std::size_t b) { return nodes_[a].inputs.size() > nodes_[b].inputs.size(); });
    std::vector<bool> is_done(nodes_.size(), false);
    for (const std::size_t i : concats) {
      const std::vector<ValueId> parts = nodes_[i].inputs;
      if (is_done[i] || std::any_of(parts.begin(), parts.end(), [&](ValueId id) { return is_placed[index(id)]; })) {
        continue;
      }
      std::vector<std::size_t> group;  // this one, and those that are its first channels
      for (const std::size_t j : concats) {
        const std::vector<ValueId>& own = nodes_[j].inputs;
        if (!is_done[j] && own.size() <= parts.size() && std::equal(own.begin(), own.end(), parts.begin())) {
          group.push_back(j);
          is_done[j] = true;
        }
      }
      const std::size_t earliest = *std::min_element(group.begin(), group.end());
      // The buffer is there before the first part is made.
      const ValueId buffer = result_like(nodes_[i].outputs[0]);
      is_placed.resize(graph_.values().size(), false);
      std::size_t first = i;
      std::vector<ValueId> placed;
      Dim at = 0;
      for (const ValueId part : parts) {
        Node* const writer = maker(part);
        const Dim channels = value(part).shape[1];
        if (writer != nullptr && writes_into(*writer)) {
          writer->inputs.resize(5, kNoValue);
          writer->inputs[4] = buffer;
          set(*writer, "into_at", size_attribute(at));
          first = std::min(first, static_cast<std::size_t>(writer - nodes_.data()));
          placed.push_back(part);
        } else {
          const std::size_t where = writer == nullptr ? earliest : static_cast<std::size_t>(writer - nodes_.data()) + 1;
          const ValueId copy = result_like(part);
          Node place{"place", {}, {buffer, part}, {copy}};
          set(place, "into_at", size_attribute(at));
          before[where].push_back(std::move(place));
          first = std::min(first, where);
          placed.push_back(copy);
        }
        is_placed.resize(graph_.values().size(), false);
        is_placed[index(part)] = true;
        at = at + channels;
      }
      Node make{"buffer", {}, {}, {buffer}};
      Attribute::List shape;
      for (const Dim& size : value(nodes_[i].outputs[0]).shape) {
        shape.emplace_back(size);
      }
      set(make, "shape", std::move(shape));
      set(make, "dtype", value(nodes_[i].outputs[0]).dtype);
      before[first].insert(before[first].begin(), std::move(make));
      for (const std::size_t j : group) {
        Node joined{"joined", {}, {buffer}, nodes_[j].outputs};
        const auto n_parts = static_cast<std::ptrdiff_t>(nodes_[j].inputs.size());
        joined.inputs.insert(joined.inputs.end(), placed.begin(), placed.begin() + n_parts);
        set(joined, "n_channels", size_attribute(value(joined.outputs[0]).shape[1]));
        nodes_[j] = std::move(joined);
      }
    }
    std::vector<Node> ordered;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      std::move(before[i].begin(), before[i].end(), std::back_inserter(ordered));
      ordered.push_back(std::move(nodes_[i]));
    }
    nodes_ = std::move(ordered);
    count();
  }

  static Attribute size_attribute(const Dim& dim) {
    return dim.is_constant() ? Attribute(static_cast<std::int64_t>(dim.value())) : Attribute(dim);
  }

  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  // A new value of the type of another.
  ValueId result_like(ValueId id) {
    const ValueId made = graph_.add_result_like(id);
    n_readers_.push_back(0);
    maker_.push_back(nullptr);
    return made;
  }

  [[nodiscard]] bool joins_channels(const Node& node) const {
    if (node.op != "concat" || number_of(node, "dim", 0) != 1 || node.inputs.size() < 2) {
      return false;
    }
    const Value& y = value(node.outputs[0]);
    bool fits = y.layout == ValueLayout::channels_last && y.shape.size() >= 3;
    for (const ValueId part : node.inputs) {
      fits = fits && value(part).dtype == y.dtype && std::count(node.inputs.begin(), node.inputs.end(), part) == 1;
    }
    return fits;
  }

  static bool writes_into(const Node& node) {
    return (is_convolution(node) || node.op == "conv_transpose1d" || node.op == "conv_transpose2d" ||
            node.op == "conv_transpose3d") &&
           node.inputs.size() < 4;
  }

  // A pure change of states whose results are only assigned back happens in the states' memory.
  void change_in_place() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      Node& change = nodes_[i];
      const Attribute* const n_states = change.op == "assign" ? nullptr : change.attribute("n_states");
      if (n_states == nullptr || n_states->as<std::int64_t>() == nullptr) {
        continue;
      }
      const auto n = static_cast<std::size_t>(*n_states->as<std::int64_t>());
      std::vector<std::size_t> assigns(n, 0);
      bool fits = n == change.outputs.size();
      for (std::size_t k = 0; fits && k < n; ++k) {
        for (std::size_t j = i + 1; j < nodes_.size(); ++j) {
          const Node& node = nodes_[j];
          if (node.op == "assign" && node.inputs[0] == change.inputs[k] && node.inputs[1] == change.outputs[k]) {
            assigns[k] = j;
            break;
          }
          fits = fits && !reads(node, change.inputs[k]);  // as it was before the change
        }
        fits = fits && assigns[k] > 0 && n_readers(change.outputs[k]) == 1;
      }
      if (!fits) {
        continue;
      }
      set(change, "in_place", true);
      for (std::size_t k = 0; k < n; ++k) {
        Node& assign = nodes_[assigns[k]];
        change.outputs[k] = assign.outputs[0];
        assign = {};
      }
    }
    count();
  }

  // Steps of one optimizer with the same attributes and run-time numbers, all in place: one pass over all parameters, where
  // the last of them stood.
  void join_steps() {
    for (std::size_t i = nodes_.size(); i-- > 0;) {
      const Node& last = nodes_[i];
      if (!std::string_view(last.op).ends_with("_step") || last.attribute("in_place") == nullptr ||
          last.attribute("n_params") != nullptr) {
        continue;
      }
      const auto n_states = static_cast<std::size_t>(number_of(last, "n_states", 1));
      const std::vector<ValueId> numbers(last.inputs.begin() + static_cast<std::ptrdiff_t>(n_states) + 1, last.inputs.end());
      std::vector<std::size_t> steps;
      for (std::size_t j = 0; j <= i; ++j) {
        const Node& node = nodes_[j];
        if (node.op == last.op && to_text(node) == to_text(last) &&
            std::vector<ValueId>(node.inputs.begin() + static_cast<std::ptrdiff_t>(n_states) + 1, node.inputs.end()) ==
                numbers &&
            is_unread_between(node, n_states, j, i)) {
          steps.push_back(j);
        }
      }
      Node joined{last.op, last.attributes, {}, {}};
      for (std::size_t kind = 0; kind <= n_states; ++kind) {  // parameters, states, gradients
        for (const std::size_t j : steps) {
          joined.inputs.push_back(nodes_[j].inputs[kind]);
          if (kind < n_states) {
            joined.outputs.push_back(nodes_[j].outputs[kind]);
          }
        }
      }
      joined.inputs.insert(joined.inputs.end(), numbers.begin(), numbers.end());
      set(joined, "n_params", static_cast<std::int64_t>(steps.size()));
      set(joined, "n_states", static_cast<std::int64_t>(steps.size() * n_states));
      for (const std::size_t j : steps) {
        nodes_[j] = {};
      }
      nodes_[i] = std::move(joined);
    }
    count();
  }

  // Whether no node from `begin` to `end` reads what this step changes, so that it may as well happen at `end`.
  [[nodiscard]] bool is_unread_between(const Node& step, std::size_t n_states, std::size_t begin, std::size_t end) const {
    for (std::size_t j = begin + 1; j <= end; ++j) {
      for (std::size_t k = 0; k < n_states; ++k) {
        if (reads(nodes_[j], step.outputs[k]) || reads(nodes_[j], step.inputs[k])) {
          return false;
        }
      }
    }
    return true;
  }

  // Whether a node has this value, or a view of it, as an operand.
  [[nodiscard]] bool reads(const Node& node, ValueId id) const {
    constexpr std::string_view kViews[] = {"reshape", "permute", "expand",         "spread",
                                           "slice",   "split",   "flatten_memory", "relayout"};
    return std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId operand) {
      for (;;) {
        if (operand == id) {
          return true;
        }
        const Node* const made_by = maker(operand);
        if (made_by == nullptr || std::find(std::begin(kViews), std::end(kViews), made_by->op) == std::end(kViews)) {
          return false;
        }
        operand = made_by->inputs[0];
      }
    });
  }

  static std::string to_text(const Node& node) {
    std::string out;
    for (const auto& [name, attribute] : node.attributes) {
      out += text(name, "=", attribute.str(), ";");
    }
    return out;
  }

  void remove_dead() {
    for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
      const bool has_effect = node->op == "assign" || node->attribute("in_place") != nullptr;
      const bool is_read =
          std::any_of(node->outputs.begin(), node->outputs.end(), [&](ValueId id) { return n_readers(id) > 0; });
      if (!node->op.empty() && !has_effect && !is_read) {
        forget(*node);
      }
    }
  }

  Graph graph_;
  std::vector<Node> nodes_;
  std::vector<int> n_readers_;
  std::vector<Node*> maker_;
};

}  // namespace

Graph fuse(const Graph& graph) { return Rewrite(graph).run(); }

}  // namespace striate
