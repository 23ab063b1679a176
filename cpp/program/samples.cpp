// Large batches, a few samples at a time: where each sample's result follows from that sample alone, and a layer's images
// would not stay in the caches for the next layer.
#include "program/samples.hpp"

#include <algorithm>
#include <string_view>

#include "program/call.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

// Images of one layer, in and out, that may be expected to stay in the last cache; others use it, too.
constexpr std::ptrdiff_t kMostBytes = std::ptrdiff_t{24} << 20;
// Of the images' bytes over those of the weights, which are read once for each part. Batch 16: 0.85 to 0.94 of the time from
// eight on (MobileNetV2, EfficientNet-B0), 0.95 to 1.1 with two threads from five (DenseNet-121, SqueezeNet).
constexpr std::ptrdiff_t kLeastGain = 8;
constexpr std::ptrdiff_t kWinogradGrowth = 4;  // of the weights of a 3×3 convolution

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The sizes of all values for a batch, and which of them are batches: axis 0 counts samples, in order, that do not mix.
class Samples {
 public:
  Samples(const Graph& graph, std::span<const Extents> inputs) : graph_(graph), inputs_(inputs.begin(), inputs.end()) {}

  // Samples that are run at a time; 0 for all at once.
  std::ptrdiff_t choose() {
    const std::ptrdiff_t each = are_apart() ? worth() : 0;
    if (each == 0) {
      return 0;
    }
    const std::ptrdiff_t n_parts = (n_ + each - 1) / each;
    const std::ptrdiff_t part = (n_ + n_parts - 1) / n_parts;
    return follow(part) ? part : 0;
  }

  bool may_take(std::ptrdiff_t part) { return are_apart() && part > 0 && part < n_ && follow(part); }

 private:
  // Works out all sizes, and whether every result has a row for each sample that follows from that sample alone.
  bool are_apart() {
    if (inputs_.empty() || !graph_.states().empty() || !graph_.scalars().empty() || !graph_.fixed_ops().empty()) {
      return false;
    }
    n_ = inputs_[0].rank() > 0 ? inputs_[0][0] : 0;
    const bool is_batch =
        std::all_of(inputs_.begin(), inputs_.end(), [&](const Extents& x) { return x.rank() > 0 && x[0] == n_; });
    if (!is_batch || n_ < 2) {
      return false;
    }
    for (const Value& value : graph_.values()) {
      sizes_.push_back(evaluated(value, inputs_));
    }
    is_batch_.assign(graph_.values().size(), false);
    for (const ValueId id : graph_.inputs()) {
      is_batch_[index(id)] = true;
    }
    for (const Node& node : graph_.nodes()) {
      if (!keeps_samples_apart(node)) {
        return false;
      }
    }
    return std::all_of(graph_.results().begin(), graph_.results().end(), [&](ValueId id) { return is_batch_[index(id)]; });
  }

  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  static Extents evaluated(const Value& value, std::span<const Extents> inputs) {
    Extents shape;
    for (const Dim& size : value.shape) {
      shape.push_back(size.evaluate(inputs));
    }
    return shape;
  }

  [[nodiscard]] bool is_batch(const Node& node, std::size_t i) const {
    return i < node.inputs.size() && node.inputs[i] != kNoValue && is_batch_[index(node.inputs[i])];
  }
  [[nodiscard]] const Extents& size_of(ValueId id) const { return sizes_[index(id)]; }
  [[nodiscard]] bool reads_batches_only(const Node& node, std::initializer_list<std::size_t> batches) const {
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const bool may_be = std::find(batches.begin(), batches.end(), i) != batches.end();
      if (node.inputs[i] != kNoValue && is_batch(node, i) != may_be) {
        return false;
      }
    }
    return true;
  }

  // Notes which results are batches. Returns false where samples may mix, and for any operator that is not known not to.
  bool keeps_samples_apart(const Node& node) {
    const std::string& op = node.op;
    bool fits = false;
    const bool is_gradient = op.find("_grad") != std::string::npos;
    if (is_one_of(op,
                  {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"})) {
      fits = reads_batches_only(node, {0, 3, 4, 8}) && node.attribute("moments") == nullptr;
    } else if (op == "separable_conv2d") {
      fits = reads_batches_only(node, {0, 3, 4});
    } else if (op == "batch_norm_eval") {
      fits = reads_batches_only(node, {0, 5});
    } else if (is_one_of(op, {"flatten_memory", "reshape", "relayout", "interpolate", "pixel_shuffle", "pixel_unshuffle"}) ||
               (op.find("pool") != std::string::npos && !is_gradient)) {
      fits = reads_batches_only(node, {0});
    } else if (op == "mean") {
      fits = reads_batches_only(node, {0}) && leaves_samples(node);
    } else if (op == "concat") {
      const Attribute* const dim = node.attribute("dim");
      const auto* const axis = dim == nullptr ? nullptr : dim->as<std::int64_t>();
      fits = axis != nullptr && *axis > 0 && all_batches(node);
    } else if (is_one_of(op, {"place", "joined"})) {
      fits = all_batches(node);
    } else if (op == "buffer") {
      fits = true;
    } else if (has_map(op) && !is_gradient) {
      fits = broadcasts_beside(node);
    }
    for (const ValueId id : node.outputs) {
      is_batch_[index(id)] = true;
      fits = fits && size_of(id).rank() > 0 && size_of(id)[0] == n_;
    }
    return fits;
  }

  // Whether a reduction names its axes, and the first is none of them.
  [[nodiscard]] bool leaves_samples(const Node& node) const {
    const Attribute* const dim = node.attribute("dim");
    const auto* const axes = dim == nullptr ? nullptr : dim->as<Attribute::List>();
    const int rank = size_of(node.inputs[0]).rank();
    return axes != nullptr && !axes->empty() && std::all_of(axes->begin(), axes->end(), [&](const Attribute& axis) {
             const auto* const number = axis.as<std::int64_t>();
             return number != nullptr && *number != 0 && *number != -rank;
           });
  }

  static bool has_map(const std::string& op) {
    for (int i = 0; i < n_map_ops(); ++i) {
      if (op == map_info(i).name) {
        return true;
      }
    }
    return false;
  }

  [[nodiscard]] bool all_batches(const Node& node) const {
    bool all = true;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      all = all && is_batch(node, i);
    }
    return all;
  }

  // Element-wise: batches have all axes, others do not have the first, or have it once.
  [[nodiscard]] bool broadcasts_beside(const Node& node) const {
    bool any = false;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == kNoValue) {
        continue;
      }
      const int rank = size_of(node.inputs[i]).rank();
      const int full = size_of(node.outputs[0]).rank();
      const bool has_once = rank < full || size_of(node.inputs[i])[0] == 1;
      if (is_batch(node, i) ? rank != full || size_of(node.inputs[i])[0] != n_ : !has_once) {
        return false;
      }
      any = any || is_batch(node, i);
    }
    return any;
  }

  [[nodiscard]] std::ptrdiff_t bytes_of(ValueId id) const {
    return size_of(id).product() * item_bytes(graph_.value(id).dtype);
  }

  // Samples at a time that the last cache has room for, 0 where going by parts is not worth it.
  [[nodiscard]] std::ptrdiff_t worth() const {
    const std::ptrdiff_t l3 = cache_sizes().l3_bytes;
    const std::ptrdiff_t room = std::min(kMostBytes, l3 > 0 ? l3 / 4 * 3 : cache_sizes().l2_bytes);
    std::ptrdiff_t most = 0;     // of a node
    std::ptrdiff_t beyond = 0;   // of all that do not fit
    std::ptrdiff_t weights = 0;  // that are read
    for (const Node& node : graph_.nodes()) {
      if (is_one_of(node.op, {"buffer", "joined", "reshape", "flatten_memory"})) {
        continue;  // nothing moves
      }
      std::ptrdiff_t bytes = 0;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const ValueId id = node.inputs[i];
        if (id == kNoValue || id == Graph::written_buffer(node)) {
          continue;
        }
        if (is_batch_[index(id)]) {
          bytes += bytes_of(id);
        } else {
          const Extents& shape = size_of(id);
          const bool grows = node.op == "conv2d" && i == 1 && shape[2] == 3 && shape[3] == 3;
          weights += bytes_of(id) * (grows ? kWinogradGrowth : 1);
        }
      }
      bytes += bytes_of(node.outputs[0]);
      most = std::max(most, bytes);
      beyond += bytes > room ? bytes : 0;
    }
    if (most <= room) {
      return 0;
    }
    const std::ptrdiff_t each = std::max<std::ptrdiff_t>(1, room / ((most + n_ - 1) / n_));
    const std::ptrdiff_t n_parts = (n_ + each - 1) / each;
    return each < n_ && beyond >= kLeastGain * weights * n_parts ? each : 0;
  }

  // Whether the graph holds for parts of so many samples, and for what they leave.
  [[nodiscard]] bool follow(std::ptrdiff_t part) const { return follows(part) && follows(n_ - (n_ - 1) / part * part); }

  // Whether the graph holds for this many samples, with the same sizes of each.
  [[nodiscard]] bool follows(std::ptrdiff_t n) const {
    std::vector<Extents> part = inputs_;
    for (Extents& shape : part) {
      shape[0] = n;
    }
    for (const Guard& guard : graph_.guards()) {
      if (!guard.holds(part)) {
        return false;
      }
    }
    for (std::size_t id = 0; id < sizes_.size(); ++id) {
      Extents expected = sizes_[id];
      if (is_batch_[id]) {
        expected[0] = n;
      }
      if (!(evaluated(graph_.values()[id], part) == expected)) {
        return false;
      }
    }
    return true;
  }

  const Graph& graph_;
  std::vector<Extents> inputs_;
  std::ptrdiff_t n_ = 0;
  std::vector<Extents> sizes_;  // of all values
  std::vector<bool> is_batch_;
};

}  // namespace

std::ptrdiff_t samples_at_a_time(const Graph& graph, std::span<const Extents> inputs) {
  return Samples(graph, inputs).choose();
}

bool may_run_by_samples(const Graph& graph, std::span<const Extents> inputs, std::ptrdiff_t n_samples) {
  return Samples(graph, inputs).may_take(n_samples);
}

}  // namespace striate
