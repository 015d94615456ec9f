#include "cpu/features.h"

#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace tokamak::cpu {
namespace {

#if defined(__x86_64__) || defined(__i386__)

// XCR0: which register files the system saves on a context switch.
uint64_t saved_registers() noexcept {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Source: Intel SDM volume 2A, CPUID leaves 1 and 7; volume 1, 14.3 (XGETBV before AVX).
Features detect() noexcept {
  Features found{};
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return found;
  const auto bit = [](uint32_t word, int n) { return ((word >> n) & 1u) != 0; };
  const bool fma = bit(c, 12);
  const bool f16c = bit(c, 29);
  if (!bit(c, 27) || !bit(c, 28)) return found;  // OSXSAVE, AVX
  const uint64_t saved = saved_registers();
  if ((saved & 0x6) != 0x6) return found;  // XMM, YMM
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return found;
  found.avx2 = bit(b, 5) && fma && f16c;
  const bool opmask_and_zmm = (saved & 0xe0) == 0xe0;
  const bool f = bit(b, 16);
  const bool dq = bit(b, 17);
  const bool bw = bit(b, 30);
  const bool vl = bit(b, 31);
  const bool vnni = bit(c, 11);
  found.avx512vnni = found.avx2 && opmask_and_zmm && f && dq && bw && vl && vnni;
  return found;
}

#else

Features detect() noexcept { return {}; }

#endif

}  // namespace

const Features& features() noexcept {
  static const Features found = detect();
  return found;
}

}  // namespace tokamak::cpu
