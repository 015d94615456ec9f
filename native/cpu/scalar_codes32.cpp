// Kernels of the formats of codes32.inl for the portable twin of the others.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "base/f16.h"
#include "cpu/activations.h"
#include "cpu/tables.h"

namespace tokamak::cpu {
namespace {

// clang-format off: the order of inclusion is the order of definition.
#include "cpu/simd/scalar.h"
#include "cpu/generic/packed.inl"
#include "cpu/generic/kinds.inl"
#include "cpu/generic/codes.inl"
#include "cpu/generic/codes32.inl"
#include "cpu/generic/matmul.inl"
#include "cpu/generic/pack.inl"
#include "cpu/generic/pack_codes.inl"
#include "cpu/generic/pack32.inl"
// clang-format on

}  // namespace

extern const MatrixKernels kScalarCodes32 = {panel_nbytes, pack_panel, matmul, unpack_row};

}  // namespace tokamak::cpu
