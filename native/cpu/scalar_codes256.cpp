// Kernels of the formats of codes256.inl for the portable twin of the others.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "base/f16.h"
#include "cpu/activations.h"
#include "cpu/tables.h"
#include "quant/grids.h"

namespace tokamak::cpu {
namespace {

// clang-format off: the order of inclusion is the order of definition.
#include "cpu/simd/scalar.h"
#include "cpu/generic/packed.inl"
#include "cpu/generic/kinds.inl"
#include "cpu/generic/codes.inl"
#include "cpu/generic/codes256.inl"
#include "cpu/generic/matmul.inl"
#include "cpu/generic/pack.inl"
#include "cpu/generic/pack_codes.inl"
#include "cpu/generic/pack256.inl"
// clang-format on

}  // namespace

extern const MatrixKernels kScalarCodes256 = {panel_nbytes, pack_panel, matmul, unpack_row};

}  // namespace tokamak::cpu
