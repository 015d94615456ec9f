// Kernels for AVX2 with FMA and F16C.
//
// Standard headers come before the target region: what they define inline must not be compiled for
// a processor that this file's callers may not have.
#include "cpu/tables.h"

#ifdef TOKAMAK_X86

#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "base/f16.h"
#include "cpu/activations.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace tokamak::cpu {
namespace {

// clang-format off: the order of inclusion is the order of definition.
#include "cpu/simd/avx2.h"
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

extern const KernelTable kAvx2Table = {
    .isa = "avx2",
    .panel_rows = kRows,
    .tile_panels = kTilePanels,
    .matrix = {&kBlocks, &kAvx2Codes256, &kAvx2Codes32},
    .activation_nbytes = activation_nbytes,
    .quantize_row = quantize_row,
};

extern const VectorTable kAvx2Vectors = {
    .isa = "avx2",
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

#pragma GCC pop_options

#endif  // TOKAMAK_X86
