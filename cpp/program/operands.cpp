// How many operands each operator has, for graphs that nobody recorded.
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

#include "program/call.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

// One letter an operand: 'x' must be given, '?' may be missing, '*' stands for any number that must be given.
using Operators = std::map<std::string, std::string_view, std::less<>>;

const Operators& table() {
  static const Operators rows = [] {
    Operators made{
        {"linear", "xx?"},
        {"matmul", "xx"},
        {"separable_conv2d", "xx???x?"},
        {"batch_norm_training", "x???"},
        {"batch_norm_eval", "xxx???"},
        {"batch_norm_grad", "xx?xx?"},
        {"batch_norm_update", "xxxx"},
        {"group_norm", "x??"},
        {"group_norm_grad", "xx?xx"},
        {"instance_norm", "x??"},
        {"instance_norm_grad", "xx?xx"},
        {"layer_norm", "x??"},
        {"layer_norm_grad", "xx?xx"},
        {"softmax_grad", "xx"},
        {"log_softmax_grad", "xx"},
        {"cross_entropy", "xx?"},
        {"cross_entropy_grad", "xxx?xx"},
        {"nll_loss", "xx?"},
        {"nll_loss_grad", "xxx?xx"},
        {"buffer", ""},
        {"place", "xx"},
        {"joined", "x*"},
        {"concat", "x*"},
        {"gather", "xx"},
        {"scatter_add", "xx"},
        {"index", "xx*"},
        {"index_add", "xx*"},
        {"full", ""},
        {"rand", "?"},
        {"randn", "?"},
        {"randint", "?"},
        {"randperm", "?"},
        {"dropout", "x?"},
        {"dropout2d", "x?"},
        {"assign", "xx"},
        {"sgd_step", "xx*"},
        {"adam_step", "xx*"},
        {"rmsprop_step", "xx*"},
    };
    for (const std::string axes : {"1d", "2d", "3d"}) {
      for (const std::string name : {"conv", "conv_transpose"}) {
        made[name + axes] = name == "conv" ? "xx???????" : "xx???";
        made[name + axes + "_grad_input"] = name == "conv" ? "xx??" : "xx";
        made[name + axes + "_grad_weight"] = "xx";
      }
      for (const std::string name : {"max_pool", "adaptive_max_pool"}) {
        made[name + axes + "_grad"] = "xx";
        made[name + axes + "_pick"] = "xx";
      }
    }
    for (int op = 0; op < n_map_ops(); ++op) {
      const MapInfo info = map_info(op);
      made[info.name] = std::string_view("xxxxxxxx").substr(0, static_cast<std::size_t>(info.n_inputs));
    }
    return made;
  }();
  return rows;
}

constexpr std::string_view kOther = "x";  // every operator that has no row

// Parameters, states of `held` kinds for each, gradients, and the numbers that `scalars` names.
void check_step(const Attributes& a, const Node& node) {
  const auto n_states = a.integer("n_states");
  const auto n_params = a.has("n_params") ? a.integer("n_params") : 1;
  const auto held = a.axes("held");
  std::int64_t n_kinds = 1;
  for (const int is_held : held) {
    n_kinds += is_held != 0 ? 1 : 0;
  }
  const auto n_inputs = static_cast<std::int64_t>(node.inputs.size());
  const auto n_scalars = static_cast<std::int64_t>(a.words("scalars").size());
  check<std::invalid_argument>(n_params >= 1 && n_params <= n_inputs && held.size() <= 3 && n_states == n_params * n_kinds &&
                                   n_inputs == n_states + n_params + n_scalars,
                               node.op, ": expected parameters, their states, gradients and numbers as operands, got ",
                               n_inputs, " for ", n_params, " parameters");
}

}  // namespace

void check_operands(const Node& node) {
  const auto found = table().find(node.op);
  const std::string_view letters = found == table().end() ? kOther : found->second;
  const bool is_open = letters.ends_with('*');
  const std::string_view fixed = is_open ? letters.substr(0, letters.size() - 1) : letters;
  bool fits = is_open || node.inputs.size() <= fixed.size();
  for (std::size_t i = 0; i < std::max(fixed.size(), node.inputs.size()); ++i) {
    const bool is_given = i < node.inputs.size() && node.inputs[i] != kNoValue;
    fits = fits && (is_given || (i < fixed.size() && fixed[i] == '?'));
  }
  check<std::invalid_argument>(fits, node.op, ": expected operands '", letters,
                               "' (x given, ? maybe, * any number given), got ", node.inputs.size(),
                               " of which some may be missing");
  const Attributes attributes(node.op, node.attributes);
  if (node.op.ends_with("_step")) {
    check_step(attributes, node);
  }
  if (node.op == "batch_norm_grad") {
    check<std::invalid_argument>(!attributes.flag("relu") || (node.inputs.size() > 5 && node.inputs[5] != kNoValue),
                                 "batch_norm_grad: expected the output as operand 5 where 'relu' is true, got none");
  }
  if (attributes.flag("moments")) {
    check<std::invalid_argument>(node.inputs.size() < 4 && !attributes.has("lo") && !attributes.has("map"), node.op,
                                 ": expected nothing around the convolution where 'moments' is true");
  }
  if (node.op == "batch_norm_update") {
    check<std::invalid_argument>(attributes.integer("n_states") == 2, "batch_norm_update: expected 2 states, got ",
                                 attributes.integer("n_states"));
  }
  const ShapeFn function = shape_function(node.op);
  check<std::invalid_argument>(function != nullptr || node.outputs.size() == 1, node.op, ": expected 1 result, got ",
                               node.outputs.size());
}

}  // namespace striate
