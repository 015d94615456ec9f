// Python bindings of native/gguf: check arguments, release the GIL, call.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace tokamak {

void bind_gguf(nb::module_& m);

void bind_gguf([[maybe_unused]] nb::module_& m) {}

}  // namespace tokamak
