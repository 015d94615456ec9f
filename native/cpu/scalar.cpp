// Kernels for the portable twin of the others.
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
#include "cpu/generic/matmul.inl"
#include "cpu/generic/pack.inl"
#include "cpu/generic/quantize.inl"
// clang-format on

}  // namespace

extern const KernelTable kScalarTable = {
    .isa = "scalar",
    .panel_rows = kRows,
    .panel_nbytes = panel_nbytes,
    .pack_panel = pack_panel,
    .activation_nbytes = activation_nbytes,
    .quantize_row = quantize_row,
    .matmul = matmul,
    .unpack_row = unpack_row,
};

}  // namespace tokamak::cpu
