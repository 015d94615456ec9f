// Begins the target region of a file for AVX-512 with VNNI; avx512_end.h ends it.
//
// Standard headers come before the region: what they define inline must not be compiled for a
// processor that this file's callers may not have. TOKAMAK_EMULATE_AVX512 (a build option for
// developers) runs the same source on any x86 through SIMDe.
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
#include "quant/grids.h"

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
