// Dim: a size that remembers where it came from, so that a record made at one size can be planned for another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "striate/tensor.hpp"

namespace striate {

// A number, and the expression it came from: a polynomial with integer coefficients in the axes of inputs and in quotients,
// minima and maxima of Dims. Equal polynomials are equal expressions. A constant has no expression. Arithmetic throws
// ShapeError for values beyond 64 bits and for expressions that no network makes.
class Dim {
 public:
  Dim() = default;
  Dim(std::ptrdiff_t value) : value_(value) {}  // NOLINT: a plain size is a Dim
  // Axis `axis` of input `input`, which has this size now. Sizes are at least 0.
  [[nodiscard]] static Dim input_axis(int input, int axis, std::ptrdiff_t value);

  [[nodiscard]] std::ptrdiff_t value() const { return value_; }
  [[nodiscard]] bool is_constant() const { return sum_ == nullptr; }
  // The value when the inputs have these shapes; throws ShapeError when an input or axis is missing.
  [[nodiscard]] std::ptrdiff_t evaluate(std::span<const Extents> inputs) const;
  [[nodiscard]] int last_input() const;   // the last of the inputs it came from; -1 of a constant
  [[nodiscard]] std::string str() const;  // "2*i0.2 + 1", i0.2 being axis 2 of input 0
  // Reads what str() wrote, for inputs of these shapes. Throws std::invalid_argument for any other text.
  [[nodiscard]] static Dim parse(const std::string& source, std::span<const Extents> inputs);

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  friend Dim floor_div(const Dim& a, const Dim& b);  // rounds towards −∞; throws ShapeError when b is 0
  friend Dim minimum(const Dim& a, const Dim& b);
  friend Dim maximum(const Dim& a, const Dim& b);
  // The same expression (not merely the same value).
  friend bool operator==(const Dim& a, const Dim& b) { return a.value_ == b.value_ && (a - b).is_constant(); }

  // What holds for every size of the inputs.
  struct Bounds {
    bool has_lower = false;
    bool has_upper = false;
    std::ptrdiff_t lower = 0;
    std::ptrdiff_t upper = 0;
  };
  [[nodiscard]] Bounds bounds() const;

 private:
  struct Atom;
  struct Parser;
  struct Term {
    std::ptrdiff_t factor = 0;
    std::vector<std::shared_ptr<const Atom>> atoms;  // in the order of their text
  };
  using Sum = std::map<std::string, Term>;  // by the text of the atoms; "" is the constant term

  static Dim make(Sum sum);
  static Dim from_atom(Atom atom);
  static Dim extremum(const Dim& a, const Dim& b, bool is_minimum);
  [[nodiscard]] Sum terms() const;
  static std::string key_of(const std::vector<std::shared_ptr<const Atom>>& atoms);

  std::ptrdiff_t value_ = 0;
  std::shared_ptr<const Sum> sum_;
};

using Shape = std::vector<Dim>;
[[nodiscard]] std::string to_string(const Shape& shape);  // "(i0.0, 3, 32)"
std::ostream& operator<<(std::ostream& out, const Shape& shape);
[[nodiscard]] Dim product(std::span<const Dim> dims);
[[nodiscard]] Extents values(const Shape& shape);

}  // namespace striate
