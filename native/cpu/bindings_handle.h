// The program inside what Python holds, for native calls beside a step that use its threads.
#pragma once

#include <nanobind/nanobind.h>

#include "cpu/program.h"

namespace tokamak {

// Throws a TypeError for anything but a CpuProgram; valid as long as that object.
cpu::Program& program_of(nanobind::handle program);

}  // namespace tokamak
