// How a shape function reads its node.
#include <stdexcept>

#include "striate/program.hpp"

namespace striate {

const Shape& ShapeQuery::input(std::size_t i) const {
  if (!has_input(i)) {
    throw std::logic_error(text(op(), ": expected operand ", i, " for its shape function, got ", n_inputs(), " operands"));
  }
  return operands_[i]->shape;
}

const Shape& ShapeQuery::input(std::size_t i, std::size_t least_rank) const {
  const Shape& shape = input(i);
  if (shape.size() < least_rank) {
    throw std::logic_error(
        text(op(), ": expected operand ", i, " of at least ", least_rank, " axes, got ", to_string(shape)));
  }
  return shape;
}

const Attribute& ShapeQuery::attribute(const char* name) const {
  const Attribute* found = node_.attribute(name);
  if (found == nullptr) {
    throw std::logic_error(text(op(), ": expected attribute '", name, "' for its shape function, got none of that name"));
  }
  return *found;
}

Dim ShapeQuery::same(const Dim& a, const Dim& b) const {
  if (a.value() == b.value() && !(a == b)) {
    equalities_.emplace_back(a, b);
  }
  return a.is_constant() ? a : b.is_constant() ? b : a;
}

bool ShapeQuery::has(const char* name) const {
  const Attribute* found = node_.attribute(name);
  return found != nullptr && !found->is_none();
}

namespace {

Dim as_dim(const std::string& op, const char* name, const Attribute& attribute) {
  if (const auto* number = attribute.as<std::int64_t>()) {
    return {static_cast<std::ptrdiff_t>(*number)};
  }
  if (const auto* dim = attribute.as<Dim>()) {
    return *dim;
  }
  throw std::logic_error(text(op, ": expected a whole number for attribute '", name, "', got ", attribute.str()));
}

}  // namespace

Dim ShapeQuery::dim(const char* name) const { return as_dim(op(), name, attribute(name)); }

Dim ShapeQuery::dim(const char* name, const Dim& otherwise) const { return has(name) ? dim(name) : otherwise; }

bool ShapeQuery::flag(const char* name, bool otherwise) const {
  const bool* found = has(name) ? attribute(name).as<bool>() : nullptr;
  return found != nullptr ? *found : otherwise;
}

std::string ShapeQuery::string(const char* name, const char* otherwise) const {
  const auto* found = has(name) ? attribute(name).as<std::string>() : nullptr;
  return found != nullptr ? *found : otherwise;
}

std::vector<Dim> ShapeQuery::dims(const char* name) const {
  const Attribute& found = attribute(name);
  const auto* list = found.as<Attribute::List>();
  if (list == nullptr) {
    return {as_dim(op(), name, found)};
  }
  std::vector<Dim> dims;
  for (const Attribute& item : *list) {
    dims.push_back(as_dim(op(), name, item));
  }
  return dims;
}

std::vector<int> ShapeQuery::axes(const char* name, int rank) const {
  std::vector<int> axes;
  if (!has(name)) {
    for (int axis = 0; axis < rank; ++axis) {
      axes.push_back(axis);
    }
    return axes;
  }
  for (const Dim& dim : dims(name)) {
    const std::ptrdiff_t axis = dim.value();
    if (rank == 0 && (axis == 0 || axis == -1)) {
      continue;  // reductions of a scalar may name its missing axis
    }
    if (axis < -rank || axis >= rank) {
      throw std::logic_error(text(op(), ": expected '", name, "' from ", -rank, " to ", rank - 1, ", got ", axis));
    }
    axes.push_back(static_cast<int>(axis < 0 ? axis + rank : axis));
  }
  return axes;
}

}  // namespace striate
