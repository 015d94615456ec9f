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
#include "cpu/generic/kinds.inl"
#include "cpu/generic/blocks.inl"
#include "cpu/generic/matmul.inl"
#include "cpu/generic/pack.inl"
#include "cpu/generic/quantize.inl"
#include "cpu/generic/elementwise.inl"
#include "cpu/generic/cache.inl"
#include "cpu/generic/attention.inl"
#include "cpu/generic/recurrent.inl"
// clang-format on

const MatrixKernels kBlocks = {panel_nbytes, pack_panel, matmul, unpack_row};

}  // namespace

extern const KernelTable kScalarTable = {
    .isa = "scalar",
    .panel_rows = kRows,
    .tile_panels = kTilePanels,
    .matrix = {&kBlocks, &kScalarCodes256, &kScalarCodes32},
    .activation_nbytes = activation_nbytes,
    .quantize_row = quantize_row,
};

extern const VectorTable kScalarVectors = {
    .isa = "scalar",
    .add = row_add,
    .mul = row_mul,
    .scale = row_scale,
    .softcap = row_softcap,
    .activate = row_activate,
    .gated = row_gated,
    .rms_norm = row_rms_norm,
    .layer_norm = row_layer_norm,
    .rotate = row_rotate,
    .store_key = store_key,
    .store_value = store_value,
    .attend = attend,
    .merge = merge,
    .scan = scan_row,
    .linear_attention = matrix_row,
};

}  // namespace tokamak::cpu
