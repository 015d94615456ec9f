// Chooses the kernel table of the best instruction set this processor runs.
#pragma once

#include <string_view>

#include "cpu/kernels.h"

namespace tokamak::cpu {

// The table in use: the best available, or the one TOKAMAK_ISA names. Chosen once.
// Throws Error: invalid_params for a name that is none, unavailable for one this processor cannot
// run.
const KernelTable& kernels();

// The available table of that name. Throws as `kernels`.
const KernelTable& kernels_named(std::string_view isa);

}  // namespace tokamak::cpu
