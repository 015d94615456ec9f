// AVX-512 intrinsics on processors without them, for tests: SIMDe, and here what SIMDe lacks.
//
// Built in with -DTOKAMAK_EMULATE_AVX512=ON; needs the SIMDe headers (package libsimde-dev). The
// products that carry the kernels (vpdpbusd, vpdpwssd, vpternlog, shifts, multiplies) are SIMDe's,
// an independent reading of the instruction set; this file has conversions, masked moves
// and an arithmetic shift only.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wpsabi"
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#pragma GCC diagnostic pop

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/f16.h"

#ifndef _MM_FROUND_NO_EXC
#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
#endif

namespace tokamak::cpu {
namespace {

using __mmask16 = uint16_t;

// Lane i of To is f(lane i of From).
template <class ToLane, class FromLane, class To, class From, class F>
inline To map_lanes(From from, F f) {
  constexpr size_t kLanes = sizeof(To) / sizeof(ToLane);
  static_assert(sizeof(From) >= kLanes * sizeof(FromLane));
  FromLane in[sizeof(From) / sizeof(FromLane)];
  ToLane out[kLanes];
  std::memcpy(in, &from, sizeof in);
  for (size_t i = 0; i < kLanes; ++i) out[i] = f(in[i]);
  To to;
  std::memcpy(&to, out, sizeof to);
  return to;
}

inline __m512i _mm512_cvtepi8_epi32(__m128i a) {
  return map_lanes<int32_t, int8_t, __m512i>(a, [](int8_t x) { return int32_t{x}; });
}
inline __m512i _mm512_cvtepu8_epi32(__m128i a) {
  return map_lanes<int32_t, uint8_t, __m512i>(a, [](uint8_t x) { return int32_t{x}; });
}
inline __m512i _mm512_cvtepu16_epi32(__m256i a) {
  return map_lanes<int32_t, uint16_t, __m512i>(a, [](uint16_t x) { return int32_t{x}; });
}
inline __m512i _mm512_cvtepu8_epi16(__m256i a) {
  return map_lanes<int16_t, uint8_t, __m512i>(a, [](uint8_t x) { return int16_t{x}; });
}
inline __m128i _mm512_cvtepi32_epi8(__m512i a) {
  return map_lanes<int8_t, int32_t, __m128i>(a, [](int32_t x) { return static_cast<int8_t>(x); });
}
inline __m512 _mm512_cvtepi32_ps(__m512i a) {
  return map_lanes<float, int32_t, __m512>(a, [](int32_t x) { return static_cast<float>(x); });
}
inline __m512i _mm512_srai_epi32(__m512i a, unsigned n) {
  return map_lanes<int32_t, int32_t, __m512i>(a, [n](int32_t x) { return x >> n; });
}
inline __m512i _mm512_cvtps_epi32(__m512 a) {
  return map_lanes<int32_t, float, __m512i>(a, [](float x) {
    return x >= -0x1p31f && x < 0x1p31f ? static_cast<int32_t>(std::nearbyint(x)) : INT32_MIN;
  });
}
inline __m512 _mm512_cvtph_ps(__m256i a) {
  return map_lanes<float, uint16_t, __m512>(a, [](uint16_t x) { return f16_to_f32(x); });
}
inline __m256i _mm512_cvtps_ph(__m512 a, int /*rounding: to nearest*/) {
  return map_lanes<uint16_t, float, __m256i>(a, [](float x) { return f32_to_f16(x); });
}
inline __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
  float lanes[16] = {};
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) std::memcpy(lanes + i, static_cast<const float*>(p) + i, 4);
  }
  return _mm512_loadu_ps(lanes);
}
inline void _mm512_mask_storeu_ps(void* p, __mmask16 mask, __m512 a) {
  float lanes[16];
  std::memcpy(lanes, &a, sizeof lanes);
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) std::memcpy(static_cast<float*>(p) + i, lanes + i, 4);
  }
}

}  // namespace
}  // namespace tokamak::cpu
