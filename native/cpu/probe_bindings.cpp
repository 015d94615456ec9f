// Python bindings of cpu/probe.h.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "base/error.h"
#include "cpu/probe.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tokamak {
namespace {

void check_repeats(int repeats) {
  if (repeats < 1 || repeats > 1000) {
    throw Error(ErrorKind::invalid_params,
                "repeats is " + std::to_string(repeats) + ", not in 1..1000");
  }
}

std::vector<double> read_seconds(int threads, size_t nbytes, int repeats) {
  check_repeats(repeats);
  if (nbytes < 4096 || nbytes > size_t{1} << 40) {
    throw Error(ErrorKind::invalid_params,
                "nbytes is " + std::to_string(nbytes) + ", not in 4096..2^40");
  }
  nb::gil_scoped_release release;
  return cpu::read_seconds(threads, nbytes, repeats);
}

std::vector<double> int8_rates(const std::string& isa, int threads, int repeats) {
  check_repeats(repeats);
  nb::gil_scoped_release release;
  return cpu::int8_rates(isa, threads, repeats);
}

}  // namespace

void bind_probe(nb::module_& m);

void bind_probe(nb::module_& m) {
  m.def("probe_read_seconds", &read_seconds, "threads"_a, "nbytes"_a, "repeats"_a,
        "Seconds per pass of reading `nbytes` of memory once with `threads` threads.");
  m.def("probe_int8_rates", &int8_rates, "isa"_a, "threads"_a, "repeats"_a,
        "Int8 multiply-adds per second of `threads` threads, from registers.");
  m.def("probe_isas", &cpu::probe_isas,
        "Instruction sets with a probe that runs here, weakest first.");
}

}  // namespace tokamak
