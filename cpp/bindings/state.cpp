// In-place assignment.
#include "bindings/bindings.hpp"

#include "striate/state.hpp"

namespace striate {

void bind_state(py::module_& m) { m.def("assign", &assign, py::arg("state"), py::arg("value"), NoGil()); }

}  // namespace striate
