// How an operator reads the attributes it is recorded with.
#include <stdexcept>

#include "program/call.hpp"

namespace striate {

const Attribute* Attributes::find(const char* name) const {
  for (const auto& [key, attribute] : entries_) {
    if (key == name) {
      return &attribute;
    }
  }
  return nullptr;
}

const Attribute& Attributes::one(const char* name, const char* what) const {
  const Attribute* found = find(name);
  if (found != nullptr) {
    const auto* list = found->as<Attribute::List>();
    if (list != nullptr && list->size() == 1) {
      found = &list->front();
    }
  }
  check<std::invalid_argument>(found != nullptr, op_, ": expected attribute '", name, "' (", what,
                               "), got none of that name");
  return *found;
}

bool Attributes::has(const char* name) const {
  const Attribute* found = find(name);
  const auto* list = found == nullptr ? nullptr : found->as<Attribute::List>();
  return found != nullptr && !found->is_none() && (list == nullptr || !list->empty());
}

bool Attributes::flag(const char* name) const { return has(name) && integer(name) != 0; }

std::int64_t Attributes::integer(const char* name) const {
  const Attribute& found = one(name, "a whole number");
  if (const auto* truth = found.as<bool>()) {
    return *truth ? 1 : 0;
  }
  if (const auto* dim = found.as<Dim>()) {
    return dim->value();
  }
  const auto* number = found.as<std::int64_t>();
  check<std::invalid_argument>(number != nullptr, op_, ": expected a whole number for attribute '", name, "', got ",
                               found.str());
  return *number;
}

double Attributes::real(const char* name) const {
  const auto* number = one(name, "a number").as<double>();
  return number != nullptr ? *number : static_cast<double>(integer(name));
}

std::string Attributes::word(const char* name) const {
  const Attribute& found = one(name, "a word");
  const auto* text_of = found.as<std::string>();
  check<std::invalid_argument>(text_of != nullptr, op_, ": expected a word for attribute '", name, "', got ", found.str());
  return *text_of;
}

DType Attributes::dtype(const char* name) const {
  const Attribute& found = one(name, "a dtype");
  if (const auto* dtype = found.as<DType>()) {
    return *dtype;
  }
  const auto* word = found.as<std::string>();
  for (int i = 0; word != nullptr && i < kDTypes; ++i) {
    if (*word == dtype_name(static_cast<DType>(i))) {
      return static_cast<DType>(i);
    }
  }
  throw std::invalid_argument(text(op_, ": expected a dtype for attribute '", name, "', got ", found.str()));
}

namespace {

template <class T>
void flatten(const Attribute& attribute, std::vector<T>& out) {
  if (const auto* list = attribute.as<Attribute::List>()) {
    for (const Attribute& item : *list) {
      flatten(item, out);
    }
  } else if (const auto* number = attribute.as<std::int64_t>()) {
    out.push_back(static_cast<T>(*number));
  } else if (const auto* dim = attribute.as<Dim>()) {
    out.push_back(static_cast<T>(dim->value()));
  } else if (const auto* real = attribute.as<double>()) {
    out.push_back(static_cast<T>(*real));
  } else if (const auto* truth = attribute.as<bool>()) {
    out.push_back(static_cast<T>(*truth ? 1 : 0));
  }
}

}  // namespace

std::vector<std::ptrdiff_t> Attributes::sizes(const char* name) const {
  std::vector<std::ptrdiff_t> out;
  if (const Attribute* found = find(name)) {
    flatten(*found, out);
  }
  return out;
}

std::vector<double> Attributes::reals(const char* name) const {
  std::vector<double> out;
  if (const Attribute* found = find(name)) {
    flatten(*found, out);
  }
  return out;
}

std::vector<std::string> Attributes::words(const char* name) const {
  std::vector<std::string> out;
  const Attribute* found = find(name);
  const auto* list = found == nullptr ? nullptr : found->as<Attribute::List>();
  for (const Attribute& item : list == nullptr ? Attribute::List{} : *list) {
    if (const auto* word = item.as<std::string>()) {
      out.push_back(*word);
    }
  }
  return out;
}

std::vector<int> Attributes::axes(const char* name) const {
  const auto values = sizes(name);
  return {values.begin(), values.end()};
}

Attribute with_numbers(const Attribute& attribute, std::span<const Extents> inputs) {
  if (const auto* dim = attribute.as<Dim>()) {
    return static_cast<std::int64_t>(dim->evaluate(inputs));
  }
  if (const auto* list = attribute.as<Attribute::List>()) {
    Attribute::List out;
    for (const Attribute& item : *list) {
      out.push_back(with_numbers(item, inputs));
    }
    return out;
  }
  return attribute;
}

}  // namespace striate
