// The vector vocabulary on AVX2 + FMA + F16C: 8 rows, one per 32-bit lane.
//
// Included inside a target region and the namespace of its instruction set, after <immintrin.h>.
// Same names as in scalar.h, where each is specified. Integer dot products go through int16 pair
// sums (vpmaddubsw), which wrap: the callers bound every finished sum below 2^15.

inline constexpr int kRows = 8;
inline constexpr int kUnroll = 16;
inline constexpr bool kPairSums = true;     // VSum holds two int16 per row
inline constexpr bool kSignedCodes = true;  // q8_0 codes stay int8
inline constexpr int kTilePanels = 2;       // register tile of the many-row kernels
inline constexpr int kTileTokens = 3;
inline constexpr int kFloatTilePanels = 2;
inline constexpr int kFloatTileTokens = 6;
inline constexpr int kFloatDirectPanels = 8;  // chains that hide the latency of vfmadd
inline constexpr int kMaxDirectTokens = 4;

using vf = __m256;
using vi = __m256i;
using VQuad = __m256i;
using VSum = __m256i;
using VScale = __m256i;
using VPair = __m256i;

inline vf load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, vf a) { _mm256_storeu_ps(p, a); }
inline vf set1(float x) { return _mm256_set1_ps(x); }
inline vf zero() { return _mm256_setzero_ps(); }
inline vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
inline vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
inline vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
inline vf div(vf a, vf b) { return _mm256_div_ps(a, b); }
inline vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
inline vf fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
inline vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
inline vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
inline vf abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline vf sqrt(vf a) { return _mm256_sqrt_ps(a); }
inline vf select_gt(vf a, vf b, vf x, vf y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
inline vf round_nearest(vf a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline vi to_int(vf a) { return _mm256_cvtps_epi32(a); }
inline vf to_float(vi a) { return _mm256_cvtepi32_ps(a); }
inline vf pow2(vi e) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
}
inline void store_i8(int8_t* p, vi a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
inline vf load_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store_f16(uint16_t* p, vf a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
inline vf load_bf16(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline vf load_i8(const int8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline vf load_n(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store_n(float* p, vf a, int n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
inline float sum_lanes(vf a) {
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 h = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
inline float max_lanes(vf a) {
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 h = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

inline VQuad load_quad(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_quad(void* p, VQuad a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
inline void load_quads(const std::byte* p, size_t stride, VQuad (&out)[8]) {
  __m256i pairs[8];  // words 2 * h and 2 * h + 1 of rows i, i + 1 in 4 * (h in {0, 1}) + i / 2
  for (size_t i = 0; i < 8; i += 2) {
    const __m256i even = load_quad(p + i * stride);
    const __m256i odd = load_quad(p + (i + 1) * stride);
    pairs[i / 2] = _mm256_unpacklo_epi32(even, odd);
    pairs[4 + i / 2] = _mm256_unpackhi_epi32(even, odd);
  }
  for (size_t half = 0; half < 2; ++half) {
    const __m256i* w = pairs + 4 * half;  // rows 0 1, 2 3, 4 5, 6 7
    const __m256i low[2] = {_mm256_unpacklo_epi64(w[0], w[1]), _mm256_unpacklo_epi64(w[2], w[3])};
    const __m256i high[2] = {_mm256_unpackhi_epi64(w[0], w[1]), _mm256_unpackhi_epi64(w[2], w[3])};
    out[2 * half] = _mm256_permute2x128_si256(low[0], low[1], 0x20);
    out[2 * half + 1] = _mm256_permute2x128_si256(high[0], high[1], 0x20);
    out[2 * half + 4] = _mm256_permute2x128_si256(low[0], low[1], 0x31);
    out[2 * half + 5] = _mm256_permute2x128_si256(high[0], high[1], 0x31);
  }
}
inline VQuad flip_signs(VQuad a) {
  return _mm256_xor_si256(a, _mm256_set1_epi8(static_cast<char>(0x80)));
}
inline VQuad splat_quad(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return _mm256_set1_epi32(word);
}
inline VQuad mask(VQuad a, uint8_t m) {
  return _mm256_and_si256(a, _mm256_set1_epi8(static_cast<char>(m)));
}
inline VQuad mask_or(VQuad a, VQuad b, uint8_t m) { return _mm256_or_si256(a, mask(b, m)); }
inline VQuad shift_right(VQuad a, int n) { return _mm256_srli_epi16(a, n); }
inline VQuad shift_left(VQuad a, int n) { return _mm256_slli_epi16(a, n); }

inline VSum sum_zero() { return _mm256_setzero_si256(); }
inline VSum sum_from(int32_t offset) { return _mm256_set1_epi32(offset); }
inline VSum sum_add(VSum a, VSum b) { return _mm256_add_epi16(a, b); }
// Pins a sum to a register at this point: left to itself the compiler delays the additions until
// the products of a whole group are waiting for them in memory (23 instead of 40 multiply-adds a
// cycle).
inline __m256i pinned(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}
inline VSum dot(VSum s, VQuad codes, VQuad acts) {
  return pinned(_mm256_add_epi16(s, _mm256_maddubs_epi16(codes, acts)));
}
inline vi widen(VSum s) { return _mm256_madd_epi16(s, _mm256_set1_epi16(1)); }
inline vi int_zero() { return _mm256_setzero_si256(); }
inline vi scale_add(vi acc, VSum s, VScale scale) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(s, scale));
}
inline VScale load_scale(const void* p) { return load_quad(p); }
inline void store_scale(void* p, VScale a) { store_quad(p, a); }
inline VScale scale_from_u8(const uint8_t* p) {
  double eight;
  __builtin_memcpy(&eight, p, 8);
  const __m256i spread =
      _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,  //
                       4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
  return _mm256_shuffle_epi8(_mm256_castpd_si256(_mm256_set1_pd(eight)), spread);
}
inline VScale scale_from_s8(const int8_t* p) {
  double eight;
  __builtin_memcpy(&eight, p, 8);
  const __m256i spread =
      _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3,  //
                       -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7);
  return _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_castpd_si256(_mm256_set1_pd(eight)), spread),
                           8);
}
inline VPair load_pair(const void* p) { return load_quad(p); }
inline void store_pair(void* p, VPair a) { store_quad(p, a); }
inline VPair pair_from_u8(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline vi dot_pair(vi acc, VPair a, const int16_t* b) {
  int32_t two;
  __builtin_memcpy(&two, b, 4);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(a, _mm256_set1_epi32(two)));
}
inline vi signed_zero(int32_t /*offset128*/) { return _mm256_setzero_si256(); }
// |codes| * sign(acts): the pair sum is at most 2 * 128 * 127 = 32512, also for a code of -128.
inline vi dot_signed(vi acc, VQuad codes, VQuad acts) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(acts, codes));
  return pinned(_mm256_add_epi32(acc, widen(pairs)));
}
inline void quad_sums(const int8_t* q, int n, int32_t* out) {
  for (int i = 0; i < n; i += 32) {
    __m256i s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_quad(q + i));
    s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0xb1));
    out[i / 16] = _mm256_extract_epi32(s, 0);
    out[i / 16 + 1] = _mm256_extract_epi32(s, 4);
  }
}
inline VQuad load_table(const uint8_t (&table)[16]) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
}
inline VQuad lookup(VQuad table, VQuad index) { return _mm256_shuffle_epi8(table, index); }
inline VSum sum_shift_right(VSum s, int n) { return _mm256_srai_epi16(s, n); }
inline vi shift_left_int(vi a, int n) { return _mm256_slli_epi32(a, n); }
inline vi add_int(vi a, vi b) { return _mm256_add_epi32(a, b); }
inline VSum level_start(int32_t /*offset128*/) { return _mm256_setzero_si256(); }
// Replaces the sum: one pair of products is at most 2 * 127 * 127.
inline VSum dot_levels(VSum /*zero*/, VQuad codes, VQuad acts) {
  return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(acts, codes));
}
inline VPair pair_mask(VPair a, uint8_t m) { return _mm256_and_si256(a, _mm256_set1_epi16(m)); }
inline VPair pair_shift_right(VPair a, int n) { return _mm256_srli_epi16(a, n); }
inline VScale pair_even(VPair a) {
  const __m256i spread = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13,  //
                                          0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
  return _mm256_shuffle_epi8(a, spread);
}
inline VScale pair_odd(VPair a) {
  const __m256i spread =
      _mm256_setr_epi8(2, 3, 2, 3, 6, 7, 6, 7, 10, 11, 10, 11, 14, 15, 14, 15,  //
                       2, 3, 2, 3, 6, 7, 6, 7, 10, 11, 10, 11, 14, 15, 14, 15);
  return _mm256_shuffle_epi8(a, spread);
}
inline VPair pair_from_s8(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline VPair pair_abs(VPair a) { return _mm256_abs_epi16(a); }
inline VPair pair_minus_eight(VPair a, VPair b) {
  return _mm256_sub_epi16(a, _mm256_slli_epi16(b, 3));
}
inline vf load_e4m3(const uint8_t* p) {
  const __m128i halves =
      _mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))), 7);
  return _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(128.0f));
}
