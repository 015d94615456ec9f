// Kernels of the formats of codes256.inl for AVX-512 with VNNI.
#include "cpu/tables.h"

#ifdef TOKAMAK_X86

#include "cpu/simd/avx512_begin.h"

namespace tokamak::cpu {
namespace {

// clang-format off: vectors before what is built from them.
#include "cpu/simd/avx512.h"
#include "cpu/generic/kernels256.inl"
// clang-format on

}  // namespace

extern const MatrixKernels kAvx512VnniCodes256 = kMatrix;

}  // namespace tokamak::cpu

#include "cpu/simd/avx512_end.h"

#endif  // TOKAMAK_X86
