// Begins the target region of a file for AVX2 with FMA and F16C; avx2_end.h ends it.
//
// Standard headers come before the region: what they define inline must not be compiled for a
// processor that this file's callers may not have.
#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "base/f16.h"
#include "cpu/activations.h"
#include "quant/grids.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
