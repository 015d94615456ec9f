// Kernels of plain and block formats, and the row functions, for AVX-512 with VNNI.
#include "cpu/tables.h"

#ifdef TOKAMAK_X86

#include "cpu/simd/avx512_begin.h"

namespace tokamak::cpu {
namespace {

// clang-format off: vectors before what is built from them.
#include "cpu/simd/avx512.h"
#include "cpu/generic/block_kernels.inl"
// clang-format on

}  // namespace

extern const KernelTable kAvx512VnniTable =
    kernel_table("avx512vnni", &kAvx512VnniCodes256, &kAvx512VnniCodes32);
extern const VectorTable kAvx512VnniVectors = vector_table("avx512vnni");

}  // namespace tokamak::cpu

#include "cpu/simd/avx512_end.h"

#endif  // TOKAMAK_X86
