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
  float s;            // d * sum(q): minima of q4_1 and q5_1
  int32_t offset8;    // -8 * sum(q): q4_0
  int32_t offset16;   // -16 * sum(q): q5_0
  int32_t offset128;  // -128 * sum(q): q8_0, iq4_nl, where codes are stored unsigned
  int32_t half16[2];  // -16 * sum(q) per 16 columns: nvfp4
  int32_t unused;
};
static_assert(sizeof(Q8Group) == 64);

// 256 columns: x = d * q.  Values as ggml's Q8_K.
struct Q8SuperGroup {
  int8_t q[256];         // [-127, 127]
  int32_t offset32[16];  // -32 * sum(q) per 16 columns: q6_k, q3_k, iq3, iq1_m
  int16_t sums[8];       // sum(q) per 32 columns: minima of q4_k, q5_k and iq1_s
  int16_t sums16[16];    // sum(q) per 16 columns: minima of q2_k
  int32_t offset1;       // -sum(q): tq2_0, tq1_0
  float d;
  int32_t unused[2];
};
static_assert(sizeof(Q8SuperGroup) == 384);

// The same with finer sums.
struct Q8FineSuperGroup : Q8SuperGroup {
  int32_t offset64[32];  // -64 * sum(q) per 8 columns: iq2
};
static_assert(sizeof(Q8FineSuperGroup) == 512);

// Behind the int8 columns of a row (padded with zeros to a multiple of 64): x = d * q.
struct Q8RowEnd {
  float d;
  float sum;  // of q, exact: rows have at most kMaxRowColumns columns
  float unused[14];
};
static_assert(sizeof(Q8RowEnd) == 64);

// Up to here sums of codes 0..2 times q are integers below 2^24, which floats hold.
inline constexpr int64_t kMaxRowColumns = 65536;

}  // namespace tokamak::cpu
