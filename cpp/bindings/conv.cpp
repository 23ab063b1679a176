#include "bindings/bindings.hpp"
namespace striate {
void bind_conv(py::module_&) {}
}  // namespace striate
