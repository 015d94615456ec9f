// The vector vocabulary on AVX-512 F, BW, DQ, VL and VNNI: 16 rows, one per 32-bit lane.
//
// Included inside a target region and the namespace of its instruction set, after <immintrin.h>.
// Same names as in scalar.h, where each is specified.

inline constexpr int kRows = 16;
#ifdef TOKAMAK_EMULATE_AVX512
inline constexpr int kUnroll =
    1;  // emulated instructions are functions: unrolled they take minutes
#else
inline constexpr int kUnroll = 16;
#endif
inline constexpr bool kPairSums = false;
inline constexpr bool kSignedCodes = false;  // q8_0 codes are stored + 128, for vpdpbusd
inline constexpr int kTilePanels = 1;
inline constexpr int kTileTokens = 8;
inline constexpr int kFloatTilePanels = 2;
inline constexpr int kFloatTileTokens = 12;
inline constexpr int kFloatDirectPanels = 8;
inline constexpr int kMaxDirectTokens = 4;

using vf = __m512;
using vi = __m512i;
using VQuad = __m512i;
using VSum = __m512i;
using VScale = __m512i;
using VPair = __m512i;

inline vf load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, vf a) { _mm512_storeu_ps(p, a); }
inline vf set1(float x) { return _mm512_set1_ps(x); }
inline vf zero() { return _mm512_setzero_ps(); }
inline vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
inline vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
inline vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
inline vf div(vf a, vf b) { return _mm512_div_ps(a, b); }
inline vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
inline vf fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
inline vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
inline vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
inline vf abs(vf a) { return _mm512_abs_ps(a); }
inline vf sqrt(vf a) { return _mm512_sqrt_ps(a); }
inline vf select_gt(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
inline vf round_nearest(vf a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline vi to_int(vf a) { return _mm512_cvtps_epi32(a); }
inline vf to_float(vi a) { return _mm512_cvtepi32_ps(a); }
inline vf pow2(vi e) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(e, _mm512_set1_epi32(127)), 23));
}
inline void store_i8(int8_t* p, vi a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}
inline vf load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store_f16(uint16_t* p, vf a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
inline vf load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline vf load_i8(const int8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline vf load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store_n(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
inline __m256 upper_half(vf a) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
}
inline float sum_lanes(vf a) {
  const __m256 o = _mm256_add_ps(_mm512_castps512_ps256(a), upper_half(a));
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
  const __m128 h = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
inline float max_lanes(vf a) {
  const __m256 o = _mm256_max_ps(_mm512_castps512_ps256(a), upper_half(a));
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
  const __m128 h = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

inline VQuad load_quad(const void* p) { return _mm512_loadu_si512(p); }
inline void store_quad(void* p, VQuad a) { _mm512_storeu_si512(p, a); }
inline void load_quads(const std::byte* p, size_t stride, VQuad (&out)[8]) {
  // Row r and r + 8 share a vector, then each half is put across as 8 x 8 words.
  __m512i pairs[8];
  for (size_t i = 0; i < 8; i += 2) {
    __m512i row[2];
    for (size_t j = 0; j < 2; ++j) {
      const std::byte* at = p + (i + j) * stride;
      const __m256i lower = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
      const __m256i upper = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 8 * stride));
      row[j] = _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
    }
    pairs[i / 2] = _mm512_unpacklo_epi32(row[0], row[1]);
    pairs[4 + i / 2] = _mm512_unpackhi_epi32(row[0], row[1]);
  }
  // Of 128-bit lanes: words 0..3 of rows 0..7 are lane 0 of both, words 4..7 lane 1; rows 8..15
  // lanes 2 and 3.
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  const __m512i second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  for (size_t half = 0; half < 2; ++half) {
    const __m512i* w = pairs + 4 * half;
    const __m512i low[2] = {_mm512_unpacklo_epi64(w[0], w[1]), _mm512_unpacklo_epi64(w[2], w[3])};
    const __m512i high[2] = {_mm512_unpackhi_epi64(w[0], w[1]), _mm512_unpackhi_epi64(w[2], w[3])};
    out[2 * half] = _mm512_permutex2var_epi64(low[0], first, low[1]);
    out[2 * half + 1] = _mm512_permutex2var_epi64(high[0], first, high[1]);
    out[2 * half + 4] = _mm512_permutex2var_epi64(low[0], second, low[1]);
    out[2 * half + 5] = _mm512_permutex2var_epi64(high[0], second, high[1]);
  }
}
inline VQuad flip_signs(VQuad a) {
  return _mm512_xor_si512(a, _mm512_set1_epi8(static_cast<char>(0x80)));
}
inline VQuad splat_quad(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}
inline VQuad mask(VQuad a, uint8_t m) {
  return _mm512_and_si512(a, _mm512_set1_epi8(static_cast<char>(m)));
}
inline VQuad mask_or(VQuad a, VQuad b, uint8_t m) {
  return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8(static_cast<char>(m)),
                                   0xf8);  // a | (b & m)
}
inline VQuad shift_right(VQuad a, int n) { return _mm512_srli_epi16(a, static_cast<unsigned>(n)); }
inline VQuad shift_left(VQuad a, int n) { return _mm512_slli_epi16(a, static_cast<unsigned>(n)); }

inline VSum sum_zero() { return _mm512_setzero_si512(); }
inline VSum sum_from(int32_t offset) { return _mm512_set1_epi32(offset); }
inline VSum sum_add(VSum a, VSum b) { return _mm512_add_epi32(a, b); }
inline VSum dot(VSum s, VQuad codes, VQuad acts) { return _mm512_dpbusd_epi32(s, codes, acts); }
inline vi widen(VSum s) { return s; }
inline vi int_zero() { return _mm512_setzero_si512(); }
inline vi scale_add(vi acc, VSum s, VScale scale) {
  return _mm512_add_epi32(acc, _mm512_mullo_epi32(s, scale));
}
inline VScale load_scale(const void* p) { return _mm512_loadu_si512(p); }
inline void store_scale(void* p, VScale a) { _mm512_storeu_si512(p, a); }
inline VScale scale_from_u8(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline VScale scale_from_s8(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline VPair load_pair(const void* p) { return _mm512_loadu_si512(p); }
inline void store_pair(void* p, VPair a) { _mm512_storeu_si512(p, a); }
inline VPair pair_from_u8(const uint8_t* p) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline vi dot_pair(vi acc, VPair a, const int16_t* b) {
  int32_t two;
  __builtin_memcpy(&two, b, 4);
  return _mm512_dpwssd_epi32(acc, a, _mm512_set1_epi32(two));
}
inline vi signed_zero(int32_t offset128) { return _mm512_set1_epi32(offset128); }
inline vi dot_signed(vi acc, VQuad codes, VQuad acts) {
  return _mm512_dpbusd_epi32(acc, codes, acts);
}
inline void quad_sums(const int8_t* q, int n, int32_t* out) {
  for (int i = 0; i < n; i += 32) {
    const __m256i columns = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + i));
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, columns), _mm256_set1_epi16(1));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
    out[i / 16] = _mm256_extract_epi32(s, 0);
    out[i / 16 + 1] = _mm256_extract_epi32(s, 4);
  }
}
inline VQuad load_table(const uint8_t (&table)[16]) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
}
inline VQuad lookup(VQuad table, VQuad index) { return _mm512_shuffle_epi8(table, index); }
inline VSum sum_shift_right(VSum s, int n) {
  return _mm512_srai_epi32(s, static_cast<unsigned>(n));
}
inline vi shift_left_int(vi a, int n) { return _mm512_slli_epi32(a, static_cast<unsigned>(n)); }
inline vi add_int(vi a, vi b) { return _mm512_add_epi32(a, b); }
inline VSum level_start(int32_t offset128) { return _mm512_set1_epi32(offset128); }
inline VSum dot_levels(VSum s, VQuad codes, VQuad acts) { return dot(s, codes, acts); }
inline VPair pair_mask(VPair a, uint8_t m) { return _mm512_and_si512(a, _mm512_set1_epi16(m)); }
inline VPair pair_shift_right(VPair a, int n) {
  return _mm512_srli_epi16(a, static_cast<unsigned>(n));
}
inline VScale pair_even(VPair a) { return _mm512_srai_epi32(_mm512_slli_epi32(a, 16), 16); }
inline VScale pair_odd(VPair a) { return _mm512_srai_epi32(a, 16); }
inline VPair pair_from_s8(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline VPair pair_abs(VPair a) { return _mm512_abs_epi16(a); }
inline VPair pair_minus_eight(VPair a, VPair b) {
  return _mm512_sub_epi16(a, _mm512_slli_epi16(b, 3));
}
inline vf load_e4m3(const uint8_t* p) {
  const __m256i halves = _mm256_slli_epi16(
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 7);
  return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(128.0f));
}
