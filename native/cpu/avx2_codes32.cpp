// Kernels of the formats of codes32.inl for AVX2 with FMA and F16C.
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
#include "cpu/generic/codes.inl"
#include "cpu/generic/codes32.inl"
#include "cpu/generic/matmul.inl"
#include "cpu/generic/pack.inl"
#include "cpu/generic/pack_codes.inl"
#include "cpu/generic/pack32.inl"
// clang-format on

}  // namespace

extern const MatrixKernels kAvx2Codes32 = {panel_nbytes, pack_panel, matmul, unpack_row};

}  // namespace tokamak::cpu

#pragma GCC pop_options

#endif  // TOKAMAK_X86
