// The kernel tables compiled into this library, whether or not this processor can run them.
#pragma once

#include "cpu/kernels.h"
#include "cpu/vectors.h"

#if defined(__x86_64__)
#define TOKAMAK_X86 1
#endif

namespace tokamak::cpu {

extern const KernelTable kScalarTable;
extern const MatrixKernels kScalarCodes256;
extern const MatrixKernels kScalarCodes32;
extern const VectorTable kScalarVectors;
#ifdef TOKAMAK_X86
extern const KernelTable kAvx2Table;
extern const MatrixKernels kAvx2Codes256;
extern const MatrixKernels kAvx2Codes32;
extern const VectorTable kAvx2Vectors;
extern const KernelTable kAvx512VnniTable;
extern const MatrixKernels kAvx512VnniCodes256;
extern const MatrixKernels kAvx512VnniCodes32;
extern const VectorTable kAvx512VnniVectors;
#endif

}  // namespace tokamak::cpu
