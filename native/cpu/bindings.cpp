// Python bindings of native/cpu: check arguments, release the GIL, call.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace tokamak {

void bind_cpu(nb::module_& m);

void bind_cpu([[maybe_unused]] nb::module_& m) {}

}  // namespace tokamak
