// Kernels of the formats of codes256.inl for AVX2 with FMA and F16C.
#include "cpu/tables.h"

#ifdef TOKAMAK_X86

#include "cpu/simd/avx2_begin.h"

namespace tokamak::cpu {
namespace {

// clang-format off: vectors before what is built from them.
#include "cpu/simd/avx2.h"
#include "cpu/generic/kernels256.inl"
// clang-format on

}  // namespace

extern const MatrixKernels kAvx2Codes256 = kMatrix;

}  // namespace tokamak::cpu

#include "cpu/simd/avx2_end.h"

#endif  // TOKAMAK_X86
