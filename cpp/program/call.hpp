// What a node does: an operator as a function of arrays, its attributes read once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "striate/ops.hpp"
#include "striate/program.hpp"

namespace striate {

// The attributes of one operator call, every size a number. A list of one and its entry are the same; so are a list of lists
// and its entries in order.
class Attributes {
 public:
  using Entries = std::vector<std::pair<std::string, Attribute>>;
  // `algorithm` is what a convolution shall take.
  Attributes(std::string op, const Entries& entries, ConvAlgorithm algorithm = ConvAlgorithm::automatic)
      : op_(std::move(op)), entries_(entries), algorithm_(algorithm) {}

  [[nodiscard]] const std::string& op() const { return op_; }
  [[nodiscard]] ConvAlgorithm algorithm() const { return algorithm_; }
  [[nodiscard]] bool has(const char* name) const;   // present, and neither none nor an empty list
  [[nodiscard]] bool flag(const char* name) const;  // false when absent
  [[nodiscard]] std::int64_t integer(const char* name) const;
  [[nodiscard]] int axis(const char* name) const { return static_cast<int>(integer(name)); }
  [[nodiscard]] double real(const char* name) const;
  [[nodiscard]] std::string word(const char* name) const;
  [[nodiscard]] DType dtype(const char* name) const;
  [[nodiscard]] std::vector<std::ptrdiff_t> sizes(const char* name) const;  // empty when absent
  [[nodiscard]] std::vector<double> reals(const char* name) const;
  [[nodiscard]] std::vector<std::string> words(const char* name) const;  // of a list
  [[nodiscard]] std::vector<int> axes(const char* name) const;
  [[nodiscard]] Extents extents(const char* name) const { return Extents(std::span<const std::ptrdiff_t>(sizes(name))); }

 private:
  [[nodiscard]] const Attribute* find(const char* name) const;
  [[nodiscard]] const Attribute& one(const char* name, const char* what) const;

  std::string op_;
  const Entries& entries_;
  ConvAlgorithm algorithm_;
};

// An attribute whose sizes are numbers, for inputs of these shapes.
[[nodiscard]] Attribute with_numbers(const Attribute& attribute, std::span<const Extents> inputs);
// How a convolution reads its attributes.
[[nodiscard]] ConvParams conv_params(const Attributes& a);

// Operands in order, null where one is not given.
using Operands = std::span<const Array* const>;
// Computes all results. Stateless: may run on any thread, and on several at once.
using Call = std::function<void(Operands operands, std::span<Array> results)>;

// Throws std::invalid_argument when no kernel has this name, or an attribute is missing.
[[nodiscard]] Call make_call(const Attributes& attributes);

// Throws std::invalid_argument unless a node has the operands that its call reads, and as many results as it writes.
void check_operands(const Node& node);

}  // namespace striate
