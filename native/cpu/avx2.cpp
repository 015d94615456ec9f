// Kernels of plain and block formats, and the row functions, for AVX2 with FMA and F16C.
#include "cpu/tables.h"

#ifdef TOKAMAK_X86

#include "cpu/simd/avx2_begin.h"

namespace tokamak::cpu {
namespace {

// clang-format off: vectors before what is built from them.
#include "cpu/simd/avx2.h"
#include "cpu/generic/block_kernels.inl"
// clang-format on

}  // namespace

extern const KernelTable kAvx2Table = kernel_table("avx2", &kAvx2Codes256, &kAvx2Codes32);
extern const VectorTable kAvx2Vectors = vector_table("avx2");

}  // namespace tokamak::cpu

#include "cpu/simd/avx2_end.h"

#endif  // TOKAMAK_X86
