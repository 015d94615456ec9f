// Kernels of the formats of codes32.inl, as each instruction set builds them.
//
// clang-format off: the order of inclusion is the order of definition.
#include "cpu/generic/packed.inl"
#include "cpu/generic/kinds.inl"
#include "cpu/generic/codes.inl"
#include "cpu/generic/codes32.inl"
#include "cpu/generic/matmul.inl"
#include "cpu/generic/pack.inl"
#include "cpu/generic/pack_codes.inl"
#include "cpu/generic/pack32.inl"
// clang-format on

constexpr MatrixKernels kMatrix = {panel_nbytes, pack_panel, matmul, unpack_row};
