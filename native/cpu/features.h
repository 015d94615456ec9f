// What this processor and its operating system can run.
#pragma once

namespace tokamak::cpu {

// A bit is set only if the instructions exist and the system saves their registers.
struct Features {
  bool avx2;        // AVX2, FMA and F16C together
  bool avx512vnni;  // AVX-512 F, BW, DQ, VL, VNNI together, and all of avx2
};

// Asked once from the hardware (cpuid, xgetbv); all false where there is no x86.
const Features& features() noexcept;

}  // namespace tokamak::cpu
