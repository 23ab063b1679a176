#include "striate/dim.hpp"

#include <algorithm>
#include <utility>

namespace striate {

struct Dim::Atom {
  enum class Kind : std::uint8_t { axis, quotient, minimum, maximum };
  Kind kind;
  std::ptrdiff_t value;  // when the record was made
  std::string text;
  int input = 0;
  int axis = 0;
  Dim a;
  Dim b;

  [[nodiscard]] std::ptrdiff_t evaluate(std::span<const Extents> inputs) const;
  [[nodiscard]] bool is_at_least_zero() const;
};

namespace {

std::ptrdiff_t floor_quotient(std::ptrdiff_t a, std::ptrdiff_t b) {
  const std::ptrdiff_t q = a / b;
  return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

}  // namespace

std::ptrdiff_t Dim::Atom::evaluate(std::span<const Extents> inputs) const {
  switch (kind) {
    case Kind::axis: {
      const auto i = static_cast<std::size_t>(input);
      check(i < inputs.size() && axis < inputs[i].rank(), "dim: expected a shape for input ", input, " with axis ", axis,
            ", got none; pass the shape of every input");
      return inputs[i][axis];
    }
    case Kind::quotient: {
      const std::ptrdiff_t divisor = b.evaluate(inputs);
      check(divisor != 0, "dim: expected a divisor other than 0 in ", text, ", got 0; pass inputs that are not empty");
      return floor_quotient(a.evaluate(inputs), divisor);
    }
    case Kind::minimum:
      return std::min(a.evaluate(inputs), b.evaluate(inputs));
    default:
      return std::max(a.evaluate(inputs), b.evaluate(inputs));
  }
}

bool Dim::Atom::is_at_least_zero() const {
  const auto exceeds = [](const Dim& dim, std::ptrdiff_t limit) {
    const Bounds bounds = dim.bounds();
    return bounds.has_lower && bounds.lower >= limit;
  };
  switch (kind) {
    case Kind::axis:
      return true;
    case Kind::quotient:
      return exceeds(a, 0) && exceeds(b, 1);
    case Kind::minimum:
      return exceeds(a, 0) && exceeds(b, 0);
    default:
      return exceeds(a, 0) || exceeds(b, 0);
  }
}

std::string Dim::key_of(const std::vector<std::shared_ptr<const Atom>>& atoms) {
  std::string key;
  for (const auto& atom : atoms) {
    key += key.empty() ? "" : "*";
    key += atom->text;
  }
  return key;
}

Dim Dim::make(Sum sum) {
  std::erase_if(sum, [](const auto& entry) { return entry.second.factor == 0; });
  Dim dim;
  for (const auto& [key, term] : sum) {
    std::ptrdiff_t part = term.factor;
    for (const auto& atom : term.atoms) {
      part *= atom->value;
    }
    dim.value_ += part;
  }
  if (!sum.empty() && (sum.size() > 1 || !sum.begin()->first.empty())) {
    dim.sum_ = std::make_shared<const Sum>(std::move(sum));
  }
  return dim;
}

Dim Dim::from_atom(Atom atom) {
  const auto shared = std::make_shared<const Atom>(std::move(atom));
  return make({{shared->text, Term{1, {shared}}}});
}

Dim::Sum Dim::terms() const {
  if (sum_ != nullptr) {
    return *sum_;
  }
  return value_ != 0 ? Sum{{"", Term{value_, {}}}} : Sum{};
}

Dim Dim::input_axis(int input, int axis, std::ptrdiff_t value) {
  return from_atom({Atom::Kind::axis, value, text("i", input, ".", axis), input, axis, {}, {}});
}

std::ptrdiff_t Dim::evaluate(std::span<const Extents> inputs) const {
  if (sum_ == nullptr) {
    return value_;
  }
  std::ptrdiff_t total = 0;
  for (const auto& [key, term] : *sum_) {
    std::ptrdiff_t part = term.factor;
    for (const auto& atom : term.atoms) {
      part *= atom->evaluate(inputs);
    }
    total += part;
  }
  return total;
}

std::string Dim::str() const {
  if (sum_ == nullptr) {
    return std::to_string(value_);
  }
  std::string out;
  const auto append = [&](const std::string& key, std::ptrdiff_t factor) {
    const std::ptrdiff_t size = factor < 0 ? -factor : factor;
    out += factor < 0 ? (out.empty() ? "-" : " - ") : (out.empty() ? "" : " + ");
    out += key.empty() ? std::to_string(size) : size == 1 ? key : std::to_string(size) + "*" + key;
  };
  for (const auto& [key, term] : *sum_) {
    if (!key.empty()) {
      append(key, term.factor);
    }
  }
  if (const auto constant = sum_->find(""); constant != sum_->end()) {
    append("", constant->second.factor);
  }
  return out;
}

Dim operator+(const Dim& a, const Dim& b) {
  if (a.is_constant() && b.is_constant()) {
    return {a.value_ + b.value_};
  }
  Dim::Sum sum = a.terms();
  for (const auto& [key, term] : b.terms()) {
    Dim::Term& into = sum[key];
    into.factor += term.factor;
    into.atoms = term.atoms;
  }
  return Dim::make(std::move(sum));
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  if (a.is_constant() && b.is_constant()) {
    return {a.value_ * b.value_};
  }
  Dim::Sum sum;
  for (const auto& [key_a, term_a] : a.terms()) {
    for (const auto& [key_b, term_b] : b.terms()) {
      Dim::Term term{term_a.factor * term_b.factor, term_a.atoms};
      term.atoms.insert(term.atoms.end(), term_b.atoms.begin(), term_b.atoms.end());
      std::sort(term.atoms.begin(), term.atoms.end(), [](const auto& p, const auto& q) { return p->text < q->text; });
      Dim::Term& into = sum[Dim::key_of(term.atoms)];
      into.factor += term.factor;
      into.atoms = std::move(term.atoms);
    }
  }
  return Dim::make(std::move(sum));
}

Dim floor_div(const Dim& a, const Dim& b) {
  check(b.value_ != 0, "dim: expected a divisor other than 0, got 0; check the shapes");
  if (a.is_constant() && b.is_constant()) {
    return {floor_quotient(a.value_, b.value_)};
  }
  const auto operand = [](const Dim& dim) {
    const std::string s = dim.str();
    return s.find_first_of(" *") == std::string::npos ? s : text("(", s, ")");
  };
  const auto quotient = [&](const Dim& p, const Dim& q) {
    return Dim::from_atom({Dim::Atom::Kind::quotient, floor_quotient(p.value_, q.value_),
                           text("(", operand(p), " // ", operand(q), ")"), 0, 0, p, q});
  };
  const Dim::Sum divisor = b.terms();
  if (divisor.size() != 1) {
    return a == b ? Dim(1) : quotient(a, b);
  }
  // ⌊(b·q + r) / b⌋ = q + ⌊r / b⌋: what b divides leaves the quotient.
  const Dim::Term& by = divisor.begin()->second;
  Dim::Sum whole;
  Dim::Sum rest;
  for (const auto& [key, term] : a.terms()) {
    Dim::Term left = term;
    bool divides = true;
    for (const auto& atom : by.atoms) {
      const auto found =
          std::find_if(left.atoms.begin(), left.atoms.end(), [&](const auto& p) { return p->text == atom->text; });
      if (found == left.atoms.end()) {
        divides = false;
        break;
      }
      left.atoms.erase(found);
    }
    left.factor = divides ? floor_quotient(term.factor, by.factor) : 0;
    if (!key.empty() && left.factor * by.factor != term.factor) {
      left.factor = 0;  // only the constant term is split
    }
    if (left.factor != 0) {
      whole[Dim::key_of(left.atoms)] = left;
    }
    rest[key] = {term.factor - left.factor * by.factor, term.atoms};
  }
  const Dim remainder = Dim::make(std::move(rest));
  const Dim::Bounds bounds = remainder.bounds();
  const bool is_below = b.is_constant() && b.value_ > 0 && bounds.has_lower && bounds.lower >= 0 && bounds.has_upper &&
                        bounds.upper < b.value_;
  const bool is_zero = remainder.is_constant() && remainder.value_ == 0;
  return Dim::make(std::move(whole)) + (is_zero || is_below ? Dim(0) : quotient(remainder, b));
}

Dim Dim::extremum(const Dim& a, const Dim& b, bool is_minimum) {
  const Bounds difference = (a - b).bounds();
  if (difference.has_lower && difference.lower >= 0) {
    return is_minimum ? b : a;
  }
  if (difference.has_upper && difference.upper <= 0) {
    return is_minimum ? a : b;
  }
  if (b.str() < a.str()) {
    return extremum(b, a, is_minimum);
  }
  const bool takes_a = (a.value_ < b.value_) == is_minimum;
  return from_atom({is_minimum ? Atom::Kind::minimum : Atom::Kind::maximum, takes_a ? a.value_ : b.value_,
                    std::string(is_minimum ? "min(" : "max(") + a.str() + ", " + b.str() + ")", 0, 0, a, b});
}

Dim minimum(const Dim& a, const Dim& b) { return Dim::extremum(a, b, true); }
Dim maximum(const Dim& a, const Dim& b) { return Dim::extremum(a, b, false); }

Dim::Bounds Dim::bounds() const {
  if (sum_ == nullptr) {
    return {true, true, value_, value_};
  }
  Bounds bounds{true, true, 0, 0};
  for (const auto& [key, term] : *sum_) {
    if (key.empty()) {
      bounds.lower = bounds.upper = term.factor;
      continue;
    }
    const bool is_positive =
        std::all_of(term.atoms.begin(), term.atoms.end(), [](const auto& atom) { return atom->is_at_least_zero(); });
    bounds.has_lower = bounds.has_lower && is_positive && term.factor > 0;
    bounds.has_upper = bounds.has_upper && is_positive && term.factor < 0;
  }
  return bounds;
}

std::string to_string(const Shape& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    out += i > 0 ? ", " : "";
    out += shape[i].str();
  }
  return out + (shape.size() == 1 ? ",)" : ")");
}

Dim product(std::span<const Dim> dims) {
  Dim n = 1;
  for (const Dim& dim : dims) {
    n = n * dim;
  }
  return n;
}

Extents values(const Shape& shape) {
  Extents extents;
  for (const Dim& dim : shape) {
    extents.push_back(dim.value());
  }
  return extents;
}

}  // namespace striate
