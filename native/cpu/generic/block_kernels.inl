// What each instruction set builds from its vectors: kernels of plain and block formats, and the
// row functions.
//
// clang-format off: the order of inclusion is the order of definition.
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

constexpr KernelTable kernel_table(const char* isa, const MatrixKernels* codes256,
                                   const MatrixKernels* codes32) {
  return {
      .isa = isa,
      .panel_rows = kRows,
      .tile_panels = kTilePanels,
      .matrix = {&kBlocks, codes256, codes32},
      .activation_nbytes = activation_nbytes,
      .quantize_row = quantize_row,
  };
}

constexpr VectorTable vector_table(const char* isa) {
  return {
      .isa = isa,
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
}
