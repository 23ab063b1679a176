#include "striate/dim.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>
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
  int depth = 0;  // of quotients, minima and maxima within one another

  [[nodiscard]] std::ptrdiff_t evaluate(std::span<const Extents> inputs) const;
  [[nodiscard]] bool is_at_least_zero() const;
};

namespace {

// What bounds the work and the stack that an expression may take. A record of a network stays far below.
constexpr std::size_t kMostTerms = 1024;
constexpr std::size_t kMostFactors = 64;
constexpr int kMostNested = 200;
constexpr std::size_t kMostText = std::size_t{1} << 16;

void check_size(bool fits) {
  check(fits, "dim: expected an expression of at most ", kMostTerms, " terms of ", kMostFactors, " factors, nested at most ",
        kMostNested, " deep, got a larger one; check the sizes");
}

std::ptrdiff_t product_of(std::ptrdiff_t a, std::ptrdiff_t b) {
  std::ptrdiff_t out = 0;
  check(!__builtin_mul_overflow(a, b, &out), "dim: expected sizes below 2^63, got ", a, " times ", b, "; check the sizes");
  return out;
}

std::ptrdiff_t sum_of(std::ptrdiff_t a, std::ptrdiff_t b) {
  std::ptrdiff_t out = 0;
  check(!__builtin_add_overflow(a, b, &out), "dim: expected sizes below 2^63, got ", a, " plus ", b, "; check the sizes");
  return out;
}

std::ptrdiff_t floor_quotient(std::ptrdiff_t a, std::ptrdiff_t b) {
  if (b == -1) {
    return product_of(a, b);
  }
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
  check_size(sum.size() <= kMostTerms);
  Dim dim;
  for (const auto& [key, term] : sum) {
    std::ptrdiff_t part = term.factor;
    for (const auto& atom : term.atoms) {
      part = product_of(part, atom->value);
    }
    dim.value_ = sum_of(dim.value_, part);
  }
  if (!sum.empty() && (sum.size() > 1 || !sum.begin()->first.empty())) {
    dim.sum_ = std::make_shared<const Sum>(std::move(sum));
  }
  return dim;
}

Dim Dim::from_atom(Atom atom) {
  for (const Dim* part : {&atom.a, &atom.b}) {
    for (const auto& [key, term] : part->terms()) {
      for (const auto& inner : term.atoms) {
        atom.depth = std::max(atom.depth, inner->depth + 1);
      }
    }
  }
  check_size(atom.depth <= kMostNested && atom.text.size() <= kMostText);
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
      part = product_of(part, atom->evaluate(inputs));
    }
    total = sum_of(total, part);
  }
  return total;
}

int Dim::last_input() const {
  int last = -1;
  for (const auto& [key, term] : terms()) {
    for (const auto& atom : term.atoms) {
      const int own = atom->kind == Atom::Kind::axis ? atom->input : std::max(atom->a.last_input(), atom->b.last_input());
      last = std::max(last, own);
    }
  }
  return last;
}

std::string Dim::str() const {
  if (sum_ == nullptr) {
    return std::to_string(value_);
  }
  std::string out;
  const auto append = [&](const std::string& key, std::ptrdiff_t factor) {
    const std::size_t size = factor < 0 ? 0 - static_cast<std::size_t>(factor) : static_cast<std::size_t>(factor);
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
    return {sum_of(a.value_, b.value_)};
  }
  Dim::Sum sum = a.terms();
  for (const auto& [key, term] : b.terms()) {
    Dim::Term& into = sum[key];
    into.factor = sum_of(into.factor, term.factor);
    into.atoms = term.atoms;
  }
  return Dim::make(std::move(sum));
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  if (a.is_constant() && b.is_constant()) {
    return {product_of(a.value_, b.value_)};
  }
  const Dim::Sum left = a.terms();
  const Dim::Sum right = b.terms();
  check_size(left.size() * right.size() <= kMostTerms);
  Dim::Sum sum;
  for (const auto& [key_a, term_a] : left) {
    for (const auto& [key_b, term_b] : right) {
      check_size(term_a.atoms.size() + term_b.atoms.size() <= kMostFactors);
      Dim::Term term{product_of(term_a.factor, term_b.factor), term_a.atoms};
      term.atoms.insert(term.atoms.end(), term_b.atoms.begin(), term_b.atoms.end());
      std::sort(term.atoms.begin(), term.atoms.end(), [](const auto& p, const auto& q) { return p->text < q->text; });
      Dim::Term& into = sum[Dim::key_of(term.atoms)];
      into.factor = sum_of(into.factor, term.factor);
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
    if (!key.empty() && product_of(left.factor, by.factor) != term.factor) {
      left.factor = 0;  // only the constant term is split
    }
    if (left.factor != 0) {
      whole[Dim::key_of(left.atoms)] = left;
    }
    rest[key] = {sum_of(term.factor, product_of(-1, product_of(left.factor, by.factor))), term.atoms};
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

// sum = ["-"] product { ("+" | "-") product }, product = atom { "*" atom }, and operand = "(" sum ")" | ["-"]
// number-or-axis; atom = number | "i" number "." number | "(" operand " // " operand ")" | ("min" | "max") "(" sum ", " sum
// ")".
struct Dim::Parser {
  std::string_view rest;
  std::span<const Extents> inputs;
  int depth = 0;

  [[noreturn]] void refuse(const char* expected) const {
    throw std::invalid_argument(text("dim: expected ", expected, " ", rest.size(), " characters before the end of a size"));
  }

  bool take(std::string_view word) {
    if (!rest.starts_with(word)) {
      return false;
    }
    rest.remove_prefix(word.size());
    return true;
  }

  void need(const char* word) {
    if (!take(word)) {
      refuse(word);
    }
  }

  std::ptrdiff_t number() {
    std::ptrdiff_t value = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (error != std::errc() || rest.front() == '-') {
      refuse("a whole number");
    }
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    return value;
  }

  Dim axis() {
    const std::ptrdiff_t input = number();
    need(".");
    const std::ptrdiff_t axis = number();
    check<std::invalid_argument>(
        static_cast<std::size_t>(input) < inputs.size() && axis < inputs[static_cast<std::size_t>(input)].rank(),
        "dim: expected an axis of one of ", inputs.size(), " inputs, got i", input, ".", axis, "; the text is no size");
    return input_axis(static_cast<int>(input), static_cast<int>(axis),
                      inputs[static_cast<std::size_t>(input)][static_cast<int>(axis)]);
  }

  Dim operand() {
    if (take("(")) {
      const Dim inner = sum();
      need(")");
      return inner;
    }
    const Dim sign = take("-") ? -1 : 1;
    return sign * (take("i") ? axis() : Dim(number()));
  }

  Dim atom() {
    if (take("i")) {
      return axis();
    }
    if (take("(")) {
      const Dim a = operand();
      need(" // ");
      const Dim b = operand();
      need(")");
      return floor_div(a, b);
    }
    const bool is_minimum = rest.starts_with("min(");
    if (is_minimum || rest.starts_with("max(")) {
      rest.remove_prefix(4);
      const Dim a = sum();
      need(", ");
      const Dim b = sum();
      need(")");
      return extremum(a, b, is_minimum);
    }
    return number();
  }

  Dim product_of_atoms() {
    Dim out = atom();
    while (take("*")) {
      out = out * atom();
    }
    return out;
  }

  Dim sum() {
    check_size(++depth <= kMostNested);
    Dim out = take("-") ? Dim(-1) * product_of_atoms() : product_of_atoms();
    for (;;) {
      if (take(" + ")) {
        out = out + product_of_atoms();
      } else if (take(" - ")) {
        out = out - product_of_atoms();
      } else {
        --depth;
        return out;
      }
    }
  }
};

Dim Dim::parse(const std::string& source, std::span<const Extents> inputs) {
  check_size(source.size() <= kMostText);
  Parser parser{source, inputs};
  Dim dim = parser.sum();
  if (!parser.rest.empty()) {
    parser.refuse("the end");
  }
  return dim;
}

std::string to_string(const Shape& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    out += i > 0 ? ", " : "";
    out += shape[i].str();
  }
  return out + (shape.size() == 1 ? ",)" : ")");
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << to_string(shape); }

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
