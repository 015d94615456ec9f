// The vector vocabulary in plain C++: 8 rows, one per lane. The specification of the other headers.
//
// Float lanes: IEEE single precision; `fma` may round the product first (it does here).
// A quad is 4 consecutive columns of every row: byte 4 * r + i is column i of row r.

inline constexpr int kRows = 8;             // lanes, and rows of a panel
inline constexpr int kUnroll = 1;           // loops over a tile and its quads
inline constexpr bool kPairSums = false;    // VSum holds two int16 per row instead of one int32
inline constexpr bool kSignedCodes = true;  // q8_0 codes are stored as they are, else + 128
// Panels and tokens of the register tile of many-row kernels, for codes and for floats.
inline constexpr int kTilePanels = 1;
inline constexpr int kTileTokens = 1;
inline constexpr int kFloatTilePanels = 1;
inline constexpr int kFloatTileTokens = 2;
// Panels that a one-row float kernel reads side by side.
inline constexpr int kFloatDirectPanels = 1;
// Above, tokens share unpacked weights.
inline constexpr int kMaxDirectTokens = 1;

struct vf {
  float v[kRows];
};
struct vi {
  int32_t v[kRows];
};
struct VQuad {
  uint8_t v[4 * kRows];
};
using VSum = vi;    // unfinished integer sum per row
using VScale = vi;  // integer group scale per row
struct VPair {      // two neighbouring group minima per row
  int16_t v[2 * kRows];
};

template <class F>
inline vf each(F f) {
  vf out;
  for (int i = 0; i < kRows; ++i) out.v[i] = f(i);
  return out;
}
template <class F>
inline vi each_int(F f) {
  vi out;
  for (int i = 0; i < kRows; ++i) out.v[i] = f(i);
  return out;
}

// p[kRows], any alignment
inline vf load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline void store(float* p, vf a) { __builtin_memcpy(p, a.v, sizeof a.v); }
inline vf set1(float x) {
  return each([&](int) { return x; });
}
inline vf zero() { return set1(0.0f); }
inline vf add(vf a, vf b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline vf sub(vf a, vf b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline vf mul(vf a, vf b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline vf div(vf a, vf b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c
inline vf fma(vf a, vf b, vf c) {
  return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
// c - a * b
inline vf fnma(vf a, vf b, vf c) {
  return each([&](int i) { return c.v[i] - a.v[i] * b.v[i]; });
}
// b where either is NaN, as maxps
inline vf max(vf a, vf b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline vf min(vf a, vf b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline vf abs(vf a) {
  return each([&](int i) { return __builtin_fabsf(a.v[i]); });
}
inline vf sqrt(vf a) {
  return each([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
// a > b ? x : y
inline vf select_gt(vf a, vf b, vf x, vf y) {
  return each([&](int i) { return a.v[i] > b.v[i] ? x.v[i] : y.v[i]; });
}
// ties to even
inline vf round_nearest(vf a) {
  return each([&](int i) { return __builtin_rintf(a.v[i]); });
}
// Rounds to nearest even; INT32_MIN where that does not fit, NaN included.
inline vi to_int(vf a) {
  return each_int([&](int i) {
    const bool fits = a.v[i] >= -0x1p31f && a.v[i] < 0x1p31f;
    return fits ? static_cast<int32_t>(__builtin_rintf(a.v[i])) : INT32_MIN;
  });
}
inline vf to_float(vi a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
// 2^e for e in [-126, 127]
inline vf pow2(vi e) {
  return each(
      [&](int i) { return std::bit_cast<float>((static_cast<uint32_t>(e.v[i]) + 127u) << 23); });
}
// Lanes in [-128, 127] as bytes.
inline void store_i8(int8_t* p, vi a) {
  for (int i = 0; i < kRows; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
inline vf load_f16(const uint16_t* p) {
  return each([&](int i) { return f16_to_f32(p[i]); });
}
inline void store_f16(uint16_t* p, vf a) {
  for (int i = 0; i < kRows; ++i) p[i] = f32_to_f16(a.v[i]);
}
inline vf load_bf16(const uint16_t* p) {
  return each([&](int i) { return bf16_to_f32(p[i]); });
}
inline vf load_i8(const int8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
// The first n lanes, n in [0, kRows]; the rest are zero, or not written.
inline vf load_n(const float* p, int n) {
  return each([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline void store_n(float* p, vf a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
// Over the lanes, always by halves: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
inline float sum_lanes(vf a) {
  for (int half = kRows / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  }
  return a.v[0];
}
inline float max_lanes(vf a) {
  for (int i = 1; i < kRows; ++i) a.v[0] = a.v[0] > a.v[i] ? a.v[0] : a.v[i];
  return a.v[0];
}

inline VQuad load_quad(const void* p) {
  VQuad out;
  __builtin_memcpy(out.v, p, sizeof out.v);
  return out;
}
inline void store_quad(void* p, VQuad a) { __builtin_memcpy(p, a.v, sizeof a.v); }
// Quad i: word i of 32 bytes of each of kRows rows, `stride` bytes apart
inline void load_quads(const std::byte* p, size_t stride, VQuad (&out)[8]) {
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t i = 0; i < 8; ++i)
      __builtin_memcpy(out[i].v + 4 * row, p + row * stride + 4 * i, 4);
  }
}
// int8 to int8 + 128 and back
inline VQuad flip_signs(VQuad a) {
  for (uint8_t& byte : a.v) byte ^= 0x80;
  return a;
}
// 4 activations, repeated for every row
inline VQuad splat_quad(const int8_t* p) {
  VQuad out;
  for (int i = 0; i < 4 * kRows; ++i) out.v[i] = static_cast<uint8_t>(p[i % 4]);
  return out;
}
// a & m in every byte
inline VQuad mask(VQuad a, uint8_t m) {
  for (uint8_t& byte : a.v) byte = static_cast<uint8_t>(byte & m);
  return a;
}
// a | (b & m) in every byte
inline VQuad mask_or(VQuad a, VQuad b, uint8_t m) {
  for (int i = 0; i < 4 * kRows; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] | (b.v[i] & m));
  return a;
}
// By n < 8 bits; what crosses a byte is unspecified, so a mask follows.
inline VQuad shift_right(VQuad a, int n) {
  for (uint8_t& byte : a.v) byte = static_cast<uint8_t>(byte >> n);
  return a;
}
inline VQuad shift_left(VQuad a, int n) {
  for (uint8_t& byte : a.v) byte = static_cast<uint8_t>(byte << n);
  return a;
}

inline VSum sum_zero() {
  return each_int([](int) { return 0; });
}
// Starts a sum from an offset of activations.h.
inline VSum sum_from(int32_t offset) {
  return each_int([&](int) { return offset; });
}
inline VSum sum_add(VSum a, VSum b) {
  return each_int([&](int i) { return a.v[i] + b.v[i]; });
}
// s + sum of 4 unsigned codes times 4 signed activations per row
inline VSum dot(VSum s, VQuad codes, VQuad acts) {
  return each_int([&](int r) {
    int32_t total = s.v[r];
    for (int i = 4 * r; i < 4 * r + 4; ++i) total += codes.v[i] * static_cast<int8_t>(acts.v[i]);
    return total;
  });
}
inline vi widen(VSum s) { return s; }
inline vi int_zero() { return sum_zero(); }
// acc + s * scale
inline vi scale_add(vi acc, VSum s, VScale scale) {
  return each_int([&](int i) { return acc.v[i] + s.v[i] * scale.v[i]; });
}
inline VScale load_scale(const void* p) {
  VScale out;
  __builtin_memcpy(out.v, p, sizeof out.v);
  return out;
}
inline void store_scale(void* p, VScale a) { __builtin_memcpy(p, a.v, sizeof a.v); }
inline VScale scale_from_u8(const uint8_t* p) {
  return each_int([&](int i) { return int32_t{p[i]}; });
}
inline VScale scale_from_s8(const int8_t* p) {
  return each_int([&](int i) { return int32_t{p[i]}; });
}
inline VPair load_pair(const void* p) {
  VPair out;
  __builtin_memcpy(out.v, p, sizeof out.v);
  return out;
}
inline void store_pair(void* p, VPair a) { __builtin_memcpy(p, a.v, sizeof a.v); }
// p[2 * r], p[2 * r + 1] are the pair of row r
inline VPair pair_from_u8(const uint8_t* p) {
  VPair out;
  for (int i = 0; i < 2 * kRows; ++i) out.v[i] = p[i];
  return out;
}
// acc + a[0] * b[0] + a[1] * b[1] per row
inline vi dot_pair(vi acc, VPair a, const int16_t* b) {
  return each_int([&](int i) { return acc.v[i] + a.v[2 * i] * b[0] + a.v[2 * i + 1] * b[1]; });
}
// Sums of q8_0 codes: start (offset128 corrects codes stored + 128), then 4 columns at a time.
inline vi signed_zero(int32_t /*offset128*/) { return int_zero(); }
inline vi dot_signed(vi acc, VQuad codes, VQuad acts) {
  return each_int([&](int r) {
    int32_t total = acc.v[r];
    for (int i = 4 * r; i < 4 * r + 4; ++i) {
      total += static_cast<int8_t>(codes.v[i]) * static_cast<int8_t>(acts.v[i]);
    }
    return total;
  });
}
// Sums of q[n] per 16 columns, n a multiple of 32, in the form that sum_from takes.
inline void quad_sums(const int8_t* q, int n, int32_t* out) {
  for (int i = 0; i < n; i += 16) {
    int32_t total = 0;
    for (int j = 0; j < 16; ++j) total += q[i + j];
    out[i / 16] = total;
  }
}
// A table of 16 bytes, and its bytes at the low 4 bits of every index; bit 7 of an index is zero.
inline VQuad load_table(const uint8_t (&table)[16]) {
  VQuad out;
  for (int i = 0; i < 4 * kRows; ++i) out.v[i] = table[i % 16];
  return out;
}
inline VQuad lookup(VQuad table, VQuad index) {
  for (uint8_t& byte : index.v) byte = table.v[byte & 15];
  return index;
}
// Every sum divided by 2^n, which divides it.
inline VSum sum_shift_right(VSum s, int n) {
  for (int32_t& lane : s.v) lane >>= n;
  return s;
}
inline vi shift_left_int(vi a, int n) {
  for (int32_t& lane : a.v) lane *= 1 << n;
  return a;
}
inline vi add_int(vi a, vi b) { return sum_add(a, b); }
// The codes of a level table: signed where kSignedCodes, else + 128. One quad is a whole sum where
// kPairSums.
inline VSum level_start(int32_t /*offset128*/) { return sum_zero(); }
inline VSum dot_levels(VSum s, VQuad codes, VQuad acts) { return dot_signed(s, codes, acts); }
// Pairs: a & m, a >> n, and either half of every pair as a group scale.
inline VPair pair_mask(VPair a, uint8_t m) {
  for (int16_t& half : a.v) half = static_cast<int16_t>(half & m);
  return a;
}
inline VPair pair_shift_right(VPair a, int n) {
  for (int16_t& half : a.v) half = static_cast<int16_t>(half >> n);
  return a;
}
inline VScale pair_even(VPair a) {
  return each_int([&](int i) { return int32_t{a.v[2 * i]}; });
}
inline VScale pair_odd(VPair a) {
  return each_int([&](int i) { return int32_t{a.v[2 * i + 1]}; });
}
inline VPair pair_from_s8(const int8_t* p) {
  VPair out;
  for (int i = 0; i < 2 * kRows; ++i) out.v[i] = p[i];
  return out;
}
inline VPair pair_abs(VPair a) {
  for (int16_t& half : a.v) half = static_cast<int16_t>(half < 0 ? -half : half);
  return a;
}
// a - 8 * b
inline VPair pair_minus_eight(VPair a, VPair b) {
  for (int i = 0; i < 2 * kRows; ++i) a.v[i] = static_cast<int16_t>(a.v[i] - 8 * b.v[i]);
  return a;
}
// Half of unsigned e4m3 numbers below 127.
inline vf load_e4m3(const uint8_t* p) {
  return each([&](int i) { return f16_to_f32(static_cast<uint16_t>(p[i] << 7)) * 128.0f; });
}
