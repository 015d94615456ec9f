// Kernels of the formats of codes32.inl for AVX-512 with VNNI.
//
// Standard headers come before the target region: what they define inline must not be compiled for
// a processor that this file's callers may not have.
#include "cpu/tables.h"

#ifdef TOKAMAK_X86

// TOKAMAK_EMULATE_AVX512 (a build option for developers) runs the same source on any x86 through
// SIMDe.
#ifdef TOKAMAK_EMULATE_AVX512
#include "avx512_by_simde.h"
#else
#include <immintrin.h>
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "base/f16.h"
#include "cpu/activations.h"

// GCC 12 warns about its own headers here: _mm512_undefined_ps is an uninitialised variable by
// design.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC push_options
#ifndef TOKAMAK_EMULATE_AVX512
#pragma GCC target( \
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#endif

namespace tokamak::cpu {
namespace {

// clang-format off: the order of inclusion is the order of definition.
#include "cpu/simd/avx512.h"
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

extern const MatrixKernels kAvx512VnniCodes32 = {panel_nbytes, pack_panel, matmul, unpack_row};

}  // namespace tokamak::cpu

#pragma GCC pop_options
#pragma GCC diagnostic pop

#endif  // TOKAMAK_X86
