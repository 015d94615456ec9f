// Python bindings of native/text: check arguments, release the GIL, call.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace tokamak {

void bind_text(nb::module_& m);

void bind_text([[maybe_unused]] nb::module_& m) {}

}  // namespace tokamak
