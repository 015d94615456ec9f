// Python bindings of native/cpu: check arguments, release the GIL, call.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace tokamak {

void bind_kernels(nb::module_& m);
void bind_program(nb::module_& m);
void bind_cpu(nb::module_& m);

void bind_cpu(nb::module_& m) {
  bind_kernels(m);
  bind_program(m);
}

}  // namespace tokamak
