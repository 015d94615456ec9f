// Encoders: a tile of kLanes groups, element by element, to bytes. Layouts: formats.h and
// tokamak/quant/*.py; searches: fit.inl.

inline constexpr float kLegacySteps[] = {-0.9f, -0.8f, -0.7f, -0.6f, -0.5f, -0.4f, -0.3f,
                                         -0.2f, -0.1f, 0.0f,  0.1f,  0.2f,  0.3f,  0.4f,
                                         0.5f,  0.6f,  0.7f,  0.8f,  0.9f};
inline constexpr float kAffineSteps[] = {0.0f, -1.0f, -0.7f, -0.4f, -0.2f, 0.2f, 0.4f, 0.7f};
inline constexpr float kSymmetricSteps[] = {0.0f, -0.8f, -0.6f, -0.4f, -0.2f,
                                            0.2f, 0.4f,  0.6f,  0.8f};
inline constexpr float kLevelSteps[] = {0.0f,   -3.0f, 3.0f,   -7.0f, 7.0f,   -11.0f, 11.0f,
                                        -15.0f, 15.0f, -20.0f, 20.0f, -26.0f, 26.0f};
inline constexpr float kCrumbSteps[] = {1.0f, 0.8f, 0.6f, 0.4f, 0.2f, 0.0f, -0.2f, -0.4f};

inline constexpr int kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int kFloat4[15] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};
using Levels = Codebook<kLevels>;
using Float4 = Codebook<kFloat4>;

// x * (1 / d), 0 where d is 0 and where that is not finite: what ggml gets on x86.
inline F unit(F d) noexcept { return from_bits(bits(1.0f / d) & (d != 0.0f)); }

template <int kSize, class W>
inline F plain_sum(const F* x, W w) noexcept {
  F sum = splat(0.0f);
  for (int i = 0; i < kSize; ++i) sum += w[i] * magnitude(x[i]);
  return sum;
}

// Nibbles of 32 codes as ggml's legacy formats store them, and the fifth bits.
template <int kHead, bool kFifth>
inline void store_legacy(uint8_t* out, int count, const F* q, F d, const F* m) noexcept {
  constexpr size_t kStride = kHead + (kFifth ? 4 : 0) + 16;
  I bytes[16], fifth[4];
  store_short(out, kStride, count, f16_bits(d));
  if (m != nullptr) store_short(out + 2, kStride, count, f16_bits(*m));
  for (int b = 0; b < 4; ++b) fifth[b] = whole(0);
  for (int j = 0; j < 16; ++j) {
    const I low = to_int(q[j]), high = to_int(q[j + 16]);
    bytes[j] = (low & 15) | ((high & 15) << 4);
    fifth[j / 8] |= (low >> 4) << (j % 8);
    fifth[2 + j / 8] |= (high >> 4) << (j % 8);
  }
  if (kFifth) store_bytes<4>(out + kHead, kStride, count, fifth);
  store_bytes<16>(out + kHead + (kFifth ? 4 : 0), kStride, count, bytes);
}

// q4_0, q5_0: the element of largest magnitude becomes -kHalf.
template <int kHalf, class W>
inline void encode_symmetric(const F* x, W w, uint8_t* out, int count) noexcept {
  F q[32], d;
  if constexpr (std::is_same_v<W, Ones>) {
    d = peak<32>(x) / static_cast<float>(-kHalf);
    const F scale = unit(d);
    for (int i = 0; i < 32; ++i) {
      q[i] = truncate(clip(finite(x[i] * scale + (kHalf + 0.5f)), 0.0f, 2 * kHalf - 1));
    }
  } else {
    d = to_f16(scale_only<32, Linear<-kHalf, kHalf - 1>>(x, w, kLegacySteps));
    const F scale = inverse(d);
    for (int i = 0; i < 32; ++i) {
      q[i] = Linear<-kHalf, kHalf - 1>::values(x[i] * scale) + static_cast<float>(kHalf);
    }
  }
  store_legacy<2, (kHalf > 8)>(out, count, q, d, nullptr);
}

// q4_1, q5_1: codes in [0, kHigh] from minimum to maximum.
template <int kHigh, class W>
inline void encode_affine(const F* x, W w, uint8_t* out, int count) noexcept {
  F q[32], d, m;
  if constexpr (std::is_same_v<W, Ones>) {
    F low = x[0], high = x[0];
    for (int i = 1; i < 32; ++i) {
      low = least(x[i], low);
      high = most(x[i], high);
    }
    d = (high - low) / static_cast<float>(kHigh);
    m = low;
    const F scale = unit(d);
    for (int i = 0; i < 32; ++i) {
      q[i] = truncate(clip(finite((x[i] - low) * scale + 0.5f), 0.0f, kHigh));
    }
  } else {
    const Line line = scale_and_minimum<32, true, 2>(x, w, kHigh, kLegacySteps);
    d = to_f16(line.s);
    m = to_f16(-line.m);
    const F scale = inverse(d);
    for (int i = 0; i < 32; ++i) q[i] = nearest(clip((x[i] - m) * scale, 0.0f, kHigh));
  }
  store_legacy<4, (kHigh > 15)>(out, count, q, d, &m);
}

template <class W>
inline void encode_q8_0(const F* x, W /*w*/, uint8_t* out, int count) noexcept {
  F top = magnitude(x[0]);
  for (int i = 1; i < 32; ++i) top = most(magnitude(x[i]), top);
  const F d = top / 127.0f, scale = unit(d);
  I bytes[32];
  for (int i = 0; i < 32; ++i) {
    const F scaled = clip(finite(x[i] * scale), -127.0f, 127.0f);
    const F part = truncate(scaled);
    bytes[i] = to_int(part + truncate(2.0f * (scaled - part))) & 255;  // half away from zero
  }
  store_short(out, 34, count, f16_bits(d));
  store_bytes<32>(out + 2, 34, count, bytes);
}

// Codes of a super-group for its scales and minima.
template <int kGroups>
inline void affine_codes(const F* x, const Affine<kGroups>& fit, float high, I* codes) noexcept {
  constexpr int kSize = 256 / kGroups;
  for (int g = 0; g < kGroups; ++g) {
    const F shift = fit.dmin * fit.m[g], scale = inverse(fit.d * fit.sc[g]);
    for (int i = g * kSize; i < (g + 1) * kSize; ++i) {
      codes[i] = to_int(nearest(clip((x[i] + shift) * scale, 0.0f, high)));
    }
  }
}

template <class Grid>
inline void symmetric_codes(const F* x, F d, const F* sc, int offset, I* codes) noexcept {
  for (int g = 0; g < 16; ++g) {
    const F scale = inverse(d * sc[g]);
    for (int i = g * 16; i < (g + 1) * 16; ++i) {
      codes[i] = to_int(Grid::values(x[i] * scale)) + offset;
    }
  }
}

// `kBits`-wide fields of kSpan bytes each, the first in the lowest bits, of whole runs of codes.
template <int kBits, int kSpan, int kTotal>
inline void planes(const I* codes, int shift, I* bytes) noexcept {
  constexpr int kCount = 8 / kBits;
  for (int b = 0; b < kTotal; ++b) {
    const I* first = codes + b / kSpan * kSpan * kCount + b % kSpan;
    I byte = (first[0] >> shift) & ((1 << kBits) - 1);
    for (int p = 1; p < kCount; ++p) {
      byte |= ((first[p * kSpan] >> shift) & ((1 << kBits) - 1)) << (p * kBits);
    }
    bytes[b] = byte;
  }
}

// q4_k, q5_k
template <int kHigh, class W>
inline void encode_k_affine(const F* x, W w, uint8_t* out, int count) noexcept {
  constexpr size_t kStride = kHigh > 15 ? 176 : 144;
  const Affine<8> fit = asymmetric<8, 32>(x, w, kHigh, 63.0f, kAffineSteps);
  I codes[256], bytes[128];
  affine_codes<8>(x, fit, kHigh, codes);
  store_short(out, kStride, count, f16_bits(fit.d));
  store_short(out + 2, kStride, count, f16_bits(fit.dmin));
  for (int g = 0; g < 4; ++g) {
    const I sc = to_int(fit.sc[g]), m = to_int(fit.m[g]);
    const I sc_high = to_int(fit.sc[g + 4]), m_high = to_int(fit.m[g + 4]);
    bytes[g] = sc | ((sc_high >> 4) << 6);
    bytes[g + 4] = m | ((m_high >> 4) << 6);
    bytes[g + 8] = (sc_high & 15) | ((m_high & 15) << 4);
  }
  store_bytes<12>(out + 4, kStride, count, bytes);
  if (kHigh > 15) {
    planes<1, 32, 32>(codes, 4, bytes);
    store_bytes<32>(out + 16, kStride, count, bytes);
  }
  planes<4, 32, 128>(codes, 0, bytes);
  store_bytes<128>(out + kStride - 128, kStride, count, bytes);
}

template <class W>
inline void encode_q2_k(const F* x, W w, uint8_t* out, int count) noexcept {
  const Affine<16> fit = asymmetric<16, 16>(x, w, 3.0f, 15.0f, kAffineSteps);
  I codes[256], bytes[64];
  affine_codes<16>(x, fit, 3.0f, codes);
  for (int g = 0; g < 16; ++g) bytes[g] = to_int(fit.sc[g]) | (to_int(fit.m[g]) << 4);
  store_bytes<16>(out, 84, count, bytes);
  planes<2, 32, 64>(codes, 0, bytes);
  store_bytes<64>(out + 16, 84, count, bytes);
  store_short(out + 80, 84, count, f16_bits(fit.d));
  store_short(out + 82, 84, count, f16_bits(fit.dmin));
}

template <class W>
inline void encode_q3_k(const F* x, W w, uint8_t* out, int count) noexcept {
  F sc[16];
  I codes[256], bytes[64], scales[16];
  const F d = symmetric<16, 16, Linear<-4, 3>, -32, 31>(x, w, kSymmetricSteps, sc);
  symmetric_codes<Linear<-4, 3>>(x, d, sc, 4, codes);
  for (int g = 0; g < 16; ++g) scales[g] = to_int(sc[g]) + 32;
  planes<1, 32, 32>(codes, 2, bytes);
  store_bytes<32>(out, 110, count, bytes);
  planes<2, 32, 64>(codes, 0, bytes);
  store_bytes<64>(out + 32, 110, count, bytes);
  planes<4, 8, 8>(scales, 0, bytes);
  planes<2, 4, 4>(scales, 4, bytes + 8);
  store_bytes<12>(out + 96, 110, count, bytes);
  store_short(out + 108, 110, count, f16_bits(d));
}

template <class W>
inline void encode_q6_k(const F* x, W w, uint8_t* out, int count) noexcept {
  F sc[16];
  I codes[256], bytes[128];
  const F d = symmetric<16, 16, Linear<-32, 31>, -128, 127>(x, w, kSymmetricSteps, sc);
  symmetric_codes<Linear<-32, 31>>(x, d, sc, 32, codes);
  planes<4, 64, 128>(codes, 0, bytes);
  store_bytes<128>(out, 210, count, bytes);
  planes<2, 32, 64>(codes, 4, bytes);
  store_bytes<64>(out + 128, 210, count, bytes);
  for (int g = 0; g < 16; ++g) bytes[g] = to_int(sc[g]) & 255;
  store_bytes<16>(out + 192, 210, count, bytes);
  store_short(out + 208, 210, count, f16_bits(d));
}

// Codes of 2 * kHalf elements in kHalf bytes: the first half in the low nibbles.
template <int kHalf>
inline void half_nibbles(const I* codes, I* bytes) noexcept {
  for (int j = 0; j < kHalf; ++j) bytes[j] = codes[j] | (codes[j + kHalf] << 4);
}

template <class W>
inline void encode_iq4_nl(const F* x, W w, uint8_t* out, int count) noexcept {
  F d = to_f16(scale_only<32, Levels>(x, w, kLevelSteps));
  F scale = inverse(d), xq = splat(0.0f), qq = splat(0.0f);
  for (int i = 0; i < 32; ++i) {
    const F q = Levels::values(x[i] * scale);
    const F wq = w[i] * q;
    xq += wq * x[i];
    qq += wq * q;
  }
  d = to_f16(xq * inverse(qq));
  scale = inverse(d);
  I codes[32], bytes[16];
  for (int i = 0; i < 32; ++i) codes[i] = Levels::places(x[i] * scale);
  half_nibbles<16>(codes, bytes);
  store_short(out, 18, count, f16_bits(d));
  store_bytes<16>(out + 2, 18, count, bytes);
}

template <class W>
inline void encode_iq4_xs(const F* x, W w, uint8_t* out, int count) noexcept {
  F sc[8];
  I codes[32], bytes[128], low[4], high = whole(0);
  const F d = symmetric<8, 32, Levels, -32, 31>(x, w, kLevelSteps, sc);
  for (int g = 0; g < 8; ++g) {
    const F scale = inverse(d * sc[g]);
    for (int i = 0; i < 32; ++i) codes[i] = Levels::places(x[g * 32 + i] * scale);
    half_nibbles<16>(codes, bytes + g * 16);
    const I s = to_int(sc[g]) + 32;
    high |= (s >> 4) << (2 * g);
    low[g / 2] = g % 2 == 0 ? s & 15 : low[g / 2] | ((s & 15) << 4);
  }
  store_short(out, 136, count, f16_bits(d));
  store_short(out + 2, 136, count, high);
  store_bytes<4>(out + 4, 136, count, low);
  store_bytes<128>(out + 8, 136, count, bytes);
}

// The code of the place of a value among the rising ones: negative ones follow in falling order.
inline I float4_code(I place) noexcept { return select(place < 7, 15 - place, place - 7); }

// Of candidate scales the one of least error, the first where several are equal.
template <int kSize, size_t kCandidates, class W>
inline I best_of(const F* x, W w, const F (&scales)[kCandidates], F* best_scale) noexcept {
  I choice = whole(0);
  F best = splat(std::numeric_limits<float>::infinity());
  *best_scale = scales[0];
  for (size_t c = 0; c < kCandidates; ++c) {
    const F scale = inverse(scales[c]);
    F error = splat(0.0f);
    for (int i = 0; i < kSize; ++i) {
      const F miss = Float4::values(x[i] * scale) * scales[c] - x[i];
      error += miss * w[i] * miss;
    }
    const I better = error < best;
    choice = select(better, whole(static_cast<int>(c)), choice);
    *best_scale = select(better, scales[c], *best_scale);
    best = least(error, best);
  }
  return choice;
}

// 2**(e - 128), e in 0..254
inline F power_scale(I e) noexcept {
  return from_bits(select(e < 2, 0x00200000 << e, (e - 1) << 23));
}

template <class W>
inline void encode_mxfp4(const F* x, W w, uint8_t* out, int count) noexcept {
  F top = magnitude(x[0]);
  for (int i = 1; i < 32; ++i) top = most(magnitude(x[i]), top);
  // Exponent of the largest magnitude; subnormal ones clip to 0 either way. Zero counts as 2**-1.
  const I exponent = select(top == 0.0f, whole(-1), (bits(top) >> 23) - 127);
  const auto candidate = [&](int step) {
    const I e = exponent + (125 + step);
    return select(e < 0, whole(0), select(e > 254, whole(254), e));
  };
  const I e[3] = {candidate(0), candidate(1), candidate(-1)};
  const F scales[3] = {power_scale(e[0]), power_scale(e[1]), power_scale(e[2])};
  F scale;
  const I choice = best_of<32>(x, w, scales, &scale);
  const I byte = select(choice == 0, e[0], select(choice == 1, e[1], e[2]));
  scale = inverse(scale);
  I codes[32], bytes[16];
  for (int i = 0; i < 32; ++i) codes[i] = float4_code(Float4::places(x[i] * scale));
  half_nibbles<16>(codes, bytes);
  store_bytes<1>(out, 17, count, &byte);
  store_bytes<16>(out + 1, 17, count, bytes);
}

// Half the value of an unsigned e4m3 code 0..126.
inline F e4m3_value(I code) noexcept {
  const I normal = (((code >> 3) + 119) << 23) | ((code & 7) << 20);
  return select(code < 8, to_float(code) * 0x1p-10f, from_bits(normal));
}

template <class W>
inline void encode_nvfp4(const F* x, W w, uint8_t* out, int count) noexcept {
  I scales[4], bytes[32];
  for (int g = 0; g < 4; ++g) {
    const F* group = x + g * 16;
    F top = magnitude(group[0]);
    for (int i = 1; i < 16; ++i) top = most(magnitude(group[i]), top);
    const F wanted = top / 12.0f;
    I first = whole(0);  // the first code whose value is not below
    for (int step = 64; step > 0; step /= 2) {
      const I next = first + step;
      first = select((next <= 127) & (e4m3_value(next - 1) < wanted), next, first);
    }
    I candidates[7];
    F values[7], scale;
    for (int c = 0; c < 7; ++c) {
      const I code = first + (c - 3);
      candidates[c] = select(code < 0, whole(0), select(code > 126, whole(126), code));
      values[c] = e4m3_value(candidates[c]);
    }
    const I choice = best_of<16>(group, w + g * 16, values, &scale);
    scales[g] = candidates[0];
    for (int c = 1; c < 7; ++c) scales[g] = select(choice == c, candidates[c], scales[g]);
    I codes[16];
    for (int i = 0; i < 16; ++i) codes[i] = float4_code(Float4::places(group[i] * inverse(scale)));
    half_nibbles<8>(codes, bytes + g * 8);
  }
  store_bytes<4>(out, 36, count, scales);
  store_bytes<32>(out + 4, 36, count, bytes);
}

// Codes 0, 1, 2 of x / d for the largest magnitude d, rounded half away from zero.
inline F ternarize(const F* x, I* codes) noexcept {
  F d = magnitude(x[0]);
  for (int i = 1; i < 256; ++i) d = most(magnitude(x[i]), d);
  const F scale = unit(d);
  for (int i = 0; i < 256; ++i) {
    codes[i] =
        to_int(clip(truncate(clip(2.0f * finite(x[i] * scale), -2.0f, 2.0f)), -1.0f, 1.0f)) + 1;
  }
  return d;
}

template <class W>
inline void encode_tq2_0(const F* x, W /*w*/, uint8_t* out, int count) noexcept {
  I codes[256], bytes[64];
  const F d = ternarize(x, codes);
  planes<2, 32, 64>(codes, 0, bytes);
  store_bytes<64>(out, 66, count, bytes);
  store_short(out + 64, 66, count, f16_bits(d));
}

// Bytes of kDigits base-3 digits, kBytes apart, most significant first: ceil(number * 256 / 243).
template <int kDigits, int kBytes>
inline void base3(const I* codes, I* bytes) noexcept {
  for (int b = 0; b < kBytes; ++b) {
    I number = codes[b];
    for (int n = 1; n < kDigits; ++n) number = number * 3 + codes[b + n * kBytes];
    if (kDigits == 4) number = number * 3;
    // (256 n + 242) / 243 for n < 243: n, and one more unless n is 0
    bytes[b] = number + (((number * 13 + 242) * 17261) >> 22);  // the shift divides by 243
  }
}

template <class W>
inline void encode_tq1_0(const F* x, W /*w*/, uint8_t* out, int count) noexcept {
  I codes[256], bytes[52];
  const F d = ternarize(x, codes);
  base3<5, 32>(codes, bytes);
  base3<5, 16>(codes + 160, bytes + 32);
  base3<4, 4>(codes + 240, bytes + 48);
  store_bytes<52>(out, 54, count, bytes);
  store_short(out + 52, 54, count, f16_bits(d));
}

template <class W>
inline void encode_q1_0(const F* x, W w, uint8_t* out, int count) noexcept {
  const F sum = plain_sum<128>(x, w);
  const F d = to_f16(sum / weighted_sums<128>(x, w).sw);
  I bytes[16];
  for (int b = 0; b < 16; ++b) {
    bytes[b] = whole(0);
    for (int i = 0; i < 8; ++i) bytes[b] |= (x[b * 8 + i] >= 0.0f) & (1 << i);
  }
  store_short(out, 18, count, f16_bits(d));
  store_bytes<16>(out + 2, 18, count, bytes);
}

template <class W>
inline void encode_q2_0(const F* x, W w, uint8_t* out, int count) noexcept {
  using Crumbs = Linear<-2, 1>;
  const F d = to_f16(scale_only<64, Crumbs>(x, w, kCrumbSteps));
  const F scale = inverse(d);
  I bytes[16];
  for (int b = 0; b < 16; ++b) {
    bytes[b] = whole(0);
    for (int i = 0; i < 4; ++i) {
      bytes[b] |= to_int(1.0f - Crumbs::values(x[b * 4 + i] * scale)) << (2 * i);
    }
  }
  store_short(out, 18, count, f16_bits(-d));  // the search puts the larger side at -2
  store_bytes<16>(out + 2, 18, count, bytes);
}
