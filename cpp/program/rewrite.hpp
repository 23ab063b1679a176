// The graph while it is rewritten, and the rewrites by name; fuse.cpp says in which order they come.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "program/call.hpp"
#include "striate/program.hpp"

namespace striate {

inline bool is_convolution(const Node& node) { return node.op == "conv1d" || node.op == "conv2d" || node.op == "conv3d"; }
inline bool is_data_gradient(const Node& node) {
  return node.op == "conv1d_grad_input" || node.op == "conv2d_grad_input" || node.op == "conv3d_grad_input";
}
inline bool has_activation(const Node& node) { return node.attribute("lo") != nullptr || node.attribute("map") != nullptr; }

// Gives a node an attribute, or another value for it.
void set_attribute(Node& node, const char* name, Attribute value);
// Whether a size, or all of a list, is `wanted`; true where there is none.
[[nodiscard]] bool all_are(const Node& node, const char* name, std::int64_t wanted);
[[nodiscard]] double number_of(const Node& node, const char* name, double otherwise);

// Nodes that are gone have no op.
class Rewrite {
 public:
  explicit Rewrite(const Graph& graph) : graph_(graph), nodes_(graph.nodes()) { count(); }
  Graph run();

 private:
  // ---- fuse_constants.cpp ----
  void fold_constants();
  // y = scale[c] · x + shift[c], c along an axis of x: batch-norm in evaluation, or arithmetic with constants.
  struct Affine {
    std::size_t operand;
    int axis;
    std::vector<double> scale;
    std::vector<double> shift;
  };
  [[nodiscard]] std::optional<Affine> affine_of(const Node& node) const;
  // (w·x + b) · scale + shift: the same convolution with w·scale and b·scale + shift.
  void fold_affine();
  // Two of these in a row, with no convolution before them, are one batch-norm.
  void join_affine();
  // linear(flatten(x)) with x in channels-last memory: x is read as it lies, and the weight's columns are in that order.
  void fold_flatten();

  // ---- fuse_tails.cpp ----
  // Element-wise operators behind a convolution or product that nobody else reads: activations, and one addition.
  void fuse_followers();
  // add(conv(…), x): the convolution takes the place of the addition, where x is known. Of two convolutions the later one.
  // Likewise a data gradient.
  void fuse_add(Node& add);
  // The gradient of a ReLU behind a data gradient joins it. Behind the gradient of a maximum it goes before: a maximum and
  // the value that it came from are one number.
  void fuse_relu_grad();

  // ---- fuse_norms.cpp ----
  // Behind a batch-norm: an addition, then a ReLU. Its gradient takes the ReLU's, which can be told from x again.
  void fuse_norm();
  // A ReLU or ReLU6 becomes the end of the batch-norm before it.
  void take_relu(Node& norm, Node& relu);
  // batch_norm_grad(relu_grad(g, y), x, …) where y = relu(batch-norm of the same x), without an addend. The gradient of a
  // ReLU6 reads what the ReLU6 read: that joins the batch-norm here, where the value between is needed no more.
  void fuse_norm_grad(Node& grad);
  // The statistics of a batch-norm are taken by the convolution before it, where the pixels are made.
  void join_moments();
  [[nodiscard]] Node* norm_before(const Node& node, std::size_t i) const;

  // ---- fuse_inputs.cpp ----
  // What comes before a pointwise convolution and is read by nobody else.
  void fuse_inputs();
  void take_norm(Node& conv, Node& norm);
  void take_gate(Node& conv, Node& gate);
  void take_depthwise(Node& conv, Node& depthwise);
  [[nodiscard]] bool is_pointwise(const Node& node) const;

  // ---- fuse_in_place.cpp ----
  // Concatenations of channels: parts are written where they end up, by the convolutions that make them or by a copy. Those
  // whose parts begin like a longer one's are its first channels.
  void concat_in_place();
  [[nodiscard]] bool joins_channels(const Node& node) const;
  // A pure change of states whose results are only assigned back happens in the states' memory.
  void change_in_place();
  // Steps of one optimizer with the same attributes and run-time numbers, all in place: one pass over all parameters, where
  // the last of them stood.
  void join_steps();
  // Whether no node from `begin` to `end` reads what this step changes, so that it may as well happen at `end`.
  [[nodiscard]] bool is_unread_between(const Node& step, std::size_t n_states, std::size_t begin, std::size_t end) const;
  // Whether a node has this value, or a view of it, as an operand.
  [[nodiscard]] bool reads(const Node& node, ValueId id) const;

  // ---- fuse.cpp ----
  void remove_dead();
  [[nodiscard]] const Value& value(ValueId id) const { return graph_.value(id); }
  // Readers of every value, and who makes it, from the nodes as they are now.
  void count();
  ValueId constant(const Array& array);
  [[nodiscard]] const Array* constant_of(ValueId id) const;
  [[nodiscard]] int n_readers(ValueId id) const { return n_readers_[index(id)]; }
  [[nodiscard]] Node* maker(ValueId id) const { return id == kNoValue ? nullptr : maker_[index(id)]; }
  // The node whose only result is read by `node` as operand i and by nobody else.
  [[nodiscard]] Node* private_maker(const Node& node, std::size_t i) const;
  // `first` takes over the result of `second`, its only reader, which is gone.
  void absorb(Node& first, Node& second);
  void replace_operand(Node& node, std::size_t i, ValueId by);
  // Every reader of a value reads another one.
  void redirect(ValueId from, ValueId to);
  void forget(Node& node);
  // A new value of the type of another.
  ValueId result_like(ValueId id);
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  Graph graph_;
  std::vector<Node> nodes_;
  std::vector<int> n_readers_;
  std::vector<Node*> maker_;
};

}  // namespace striate
