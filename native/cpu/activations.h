// Quantised activations as the matrix kernels read them.
//
// `offset*` are sums of q times minus the zero point of a weight format, so that a kernel starts
// its integer sum from them and gets sum((code - zero) * q) with unsigned codes. How a sum is
// stored (one int32, or two int16 for the lower and upper column pair of every quad) is up to the
// instruction set.
#pragma once

#include <cstdint>

namespace tokamak::cpu {

// 32 columns: x = d * q.  Values as ggml's Q8_0 on x86: d is a half widened to float.
struct Q8Group {
  int8_t q[32];  // [-127, 127]
  float d;
  int32_t offset8;    // -8 * sum(q): q4_0
  int32_t offset16;   // -16 * sum(q): q5_0
  int32_t offset128;  // -128 * sum(q): q8_0, where codes are stored unsigned
};
static_assert(sizeof(Q8Group) == 48);

// 256 columns: x = d * q.  Values as ggml's Q8_K.
struct Q8SuperGroup {
  int8_t q[256];         // [-127, 127]
  int32_t offset32[16];  // -32 * sum(q) per 16 columns: q6_k
  int16_t sums[8];       // sum(q) per 32 columns: minima of q4_k and q5_k
  int32_t offset1;       // -sum(q): tq2_0
  float d;
  int32_t unused[2];
};
static_assert(sizeof(Q8SuperGroup) == 352);

}  // namespace tokamak::cpu
