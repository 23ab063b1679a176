// The errors that reach a caller. Each text reads `<op>: expected <required>, got <what came>; <what to do>`.
#pragma once

#include <cstddef>
#include <sstream>
#include <stdexcept>
#include <string>

namespace striate {

struct ShapeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct DTypeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// A value that is not finite where the caller asked for finite ones.
struct NonFiniteError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Joins its arguments into one text; only reached on the way to a throw.
template <class... Parts>
[[nodiscard]] std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// The first line of every op: throws Error with the joined parts unless `condition` holds. Pass shapes as they are: a text
// made for a check that holds cost more than a small kernel.
template <class Error = ShapeError, class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]] {
    throw Error(text(parts...));
  }
}

}  // namespace striate
