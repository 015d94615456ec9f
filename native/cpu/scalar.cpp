// Kernels of plain and block formats, and the row functions, for the portable twin of the others.
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
#include "cpu/generic/block_kernels.inl"
// clang-format on

}  // namespace

extern const KernelTable kScalarTable = kernel_table("scalar", &kScalarCodes256, &kScalarCodes32);
extern const VectorTable kScalarVectors = vector_table("scalar");

}  // namespace tokamak::cpu
