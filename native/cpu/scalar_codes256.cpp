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

// clang-format off: vectors before what is built from them.
#include "cpu/simd/scalar.h"
#include "cpu/generic/kernels256.inl"
// clang-format on

}  // namespace

extern const MatrixKernels kScalarCodes256 = kMatrix;

}  // namespace tokamak::cpu
