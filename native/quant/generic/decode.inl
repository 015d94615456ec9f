// Decoders: groups to f32, bit-equal to ggml. Plain loops over columns, which compilers vectorise;
// products and sums are formed in ggml's order. Layouts: formats.h and tokamak/quant/*.py.

inline uint16_t short_at(const uint8_t* p) noexcept {
  return static_cast<uint16_t>(p[0] | (p[1] << 8));
}
inline float half_at(const uint8_t* p) noexcept { return f16_to_f32(short_at(p)); }

template <int kSize>
inline void scaled(const int8_t* q, float scale, float* y) noexcept {
  for (int i = 0; i < kSize; ++i) y[i] = static_cast<float>(q[i]) * scale;
}

// kFifth, kMinimum: the parts a legacy format has.
template <bool kFifth, bool kMinimum>
inline void decode_legacy(const uint8_t* group, float* y) noexcept {
  const float d = half_at(group), m = kMinimum ? half_at(group + 2) : 0.0f;
  const uint8_t* head = group + (kMinimum ? 4 : 2);
  const uint8_t* qs = head + (kFifth ? 4 : 0);
  uint32_t fifth = 0;
  if (kFifth) std::memcpy(&fifth, head, 4);
  int8_t q[32];
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>(qs[j] & 15);
    q[j + 16] = static_cast<int8_t>(qs[j] >> 4);
  }
  constexpr int kOffset = kMinimum ? 0 : kFifth ? 16 : 8;
  for (uint32_t j = 0; j < 32; ++j) {
    const int high = kFifth ? static_cast<int>((fifth >> j) & 1) << 4 : 0;
    q[j] = static_cast<int8_t>((q[j] | high) - kOffset);
  }
  for (int j = 0; j < 32; ++j) {
    const float product = static_cast<float>(q[j]) * d;
    y[j] = kMinimum ? product + m : product;
  }
}

inline void decode_q8_0(const uint8_t* group, float* y) noexcept {
  scaled<32>(reinterpret_cast<const int8_t*>(group + 2), half_at(group), y);
}

template <int kSize>
inline void affine(const uint8_t* q, float scale, float shift, float* y) noexcept {
  for (int i = 0; i < kSize; ++i) y[i] = static_cast<float>(q[i]) * scale - shift;
}

// The inverse of `planes`: fields of kBits from kTotal bytes, in runs of kSpan.
template <int kBits, int kSpan, int kTotal>
inline void fields(const uint8_t* bytes, uint8_t* codes) noexcept {
  constexpr int kCount = 8 / kBits;
  for (int first = 0; first < kTotal; first += kSpan) {
    for (int p = 0; p < kCount; ++p) {
      for (int b = 0; b < kSpan; ++b) {
        codes[first * kCount + p * kSpan + b] =
            static_cast<uint8_t>((bytes[first + b] >> (p * kBits)) & ((1 << kBits) - 1));
      }
    }
  }
}

template <bool kFifth>
inline void decode_k_affine(const uint8_t* group, float* y) noexcept {
  const float d = half_at(group), dmin = half_at(group + 2);
  const uint8_t* s = group + 4;
  uint8_t q[256];
  fields<4, 32, 128>(group + (kFifth ? 48 : 16), q);
  if (kFifth) {
    for (int g = 0; g < 8; ++g) {
      for (int i = 0; i < 32; ++i) {
        q[g * 32 + i] = static_cast<uint8_t>(q[g * 32 + i] | (((group[16 + i] >> g) & 1) << 4));
      }
    }
  }
  for (int g = 0; g < 8; ++g) {
    const int sc = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | ((s[g - 4] >> 6) << 4);
    const int m = g < 4 ? s[g + 4] & 63 : (s[g + 4] >> 4) | ((s[g] >> 6) << 4);
    affine<32>(q + g * 32, d * static_cast<float>(sc), dmin * static_cast<float>(m), y + g * 32);
  }
}

inline void decode_q2_k(const uint8_t* group, float* y) noexcept {
  const float d = half_at(group + 80), dmin = half_at(group + 82);
  uint8_t q[256];
  fields<2, 32, 64>(group + 16, q);
  for (int g = 0; g < 16; ++g) {
    affine<16>(q + g * 16, d * static_cast<float>(group[g] & 15),
               dmin * static_cast<float>(group[g] >> 4), y + g * 16);
  }
}

inline void decode_q3_k(const uint8_t* group, float* y) noexcept {
  const float d = half_at(group + 108);
  const uint8_t* s = group + 96;
  uint8_t q[256];
  int8_t codes[256];
  fields<2, 32, 64>(group + 32, q);
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 32; ++i) {
      const int high = ((group[i] >> g) & 1) << 2;
      codes[g * 32 + i] = static_cast<int8_t>((q[g * 32 + i] | high) - 4);
    }
  }
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
    const int high = (s[8 + g % 4] >> (2 * (g / 4))) & 3;
    scaled<16>(codes + g * 16, d * static_cast<float>((low | (high << 4)) - 32), y + g * 16);
  }
}

inline void decode_q6_k(const uint8_t* group, float* y) noexcept {
  const float d = half_at(group + 208);
  uint8_t low[256], high[256];
  int8_t codes[256];
  fields<4, 64, 128>(group, low);
  fields<2, 32, 64>(group + 128, high);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<int8_t>((low[i] | (high[i] << 4)) - 32);
  for (int g = 0; g < 16; ++g) {
    const auto sc = static_cast<int8_t>(group[192 + g]);
    scaled<16>(codes + g * 16, d * static_cast<float>(sc), y + g * 16);
  }
}

inline constexpr int8_t kFloat4Codes[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

template <int kHalf, class T>
inline void levels(const uint8_t* qs, const T (&table)[16], float scale, float* y) noexcept {
  for (int j = 0; j < kHalf; ++j) {
    y[j] = static_cast<float>(table[qs[j] & 15]) * scale;
    y[j + kHalf] = static_cast<float>(table[qs[j] >> 4]) * scale;
  }
}

inline void decode_iq4_nl(const uint8_t* group, float* y) noexcept {
  levels<16>(group + 2, kLevels, half_at(group), y);
}

inline void decode_iq4_xs(const uint8_t* group, float* y) noexcept {
  const float d = half_at(group);
  const int high = short_at(group + 2);
  for (int g = 0; g < 8; ++g) {
    const int low = (group[4 + g / 2] >> (4 * (g % 2))) & 15;
    const int sc = (low | (((high >> (2 * g)) & 3) << 4)) - 32;
    levels<16>(group + 8 + g * 16, kLevels, d * static_cast<float>(sc), y + g * 32);
  }
}

inline void decode_mxfp4(const uint8_t* group, float* y) noexcept {
  const uint32_t e = group[0];
  const auto scale = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  levels<16>(group + 1, kFloat4Codes, scale, y);
}

inline void decode_nvfp4(const uint8_t* group, float* y) noexcept {
  for (int g = 0; g < 4; ++g) {
    const uint32_t code = group[g] & 127u;
    const float normal = std::bit_cast<float>((((code >> 3) + 119u) << 23) | ((code & 7u) << 20));
    const float scale = code == 127 ? 0.0f
                        : code < 8  ? static_cast<float>(code) * 0x1p-10f
                                    : normal;
    levels<8>(group + 4 + g * 8, kFloat4Codes, scale, y + g * 16);
  }
}

inline void decode_tq2_0(const uint8_t* group, float* y) noexcept {
  uint8_t q[256];
  int8_t codes[256];
  fields<2, 32, 64>(group, q);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<int8_t>(q[i] - 1);
  scaled<256>(codes, half_at(group + 64), y);
}

// Multiplying a byte by 3 moves its next base-3 digit above bit 8.
template <int kDigits, int kBytes>
inline void digits(const uint8_t* bytes, int8_t* codes) noexcept {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  for (int n = 0; n < kDigits; ++n) {
    for (int b = 0; b < kBytes; ++b) {
      const auto shifted = static_cast<uint8_t>(bytes[b] * kPowers[n]);
      codes[n * kBytes + b] = static_cast<int8_t>(((shifted * 3) >> 8) - 1);
    }
  }
}

inline void decode_tq1_0(const uint8_t* group, float* y) noexcept {
  int8_t codes[256];
  digits<5, 32>(group, codes);
  digits<5, 16>(group + 32, codes + 160);
  digits<4, 4>(group + 48, codes + 240);
  scaled<256>(codes, half_at(group + 52), y);
}

inline void decode_q1_0(const uint8_t* group, float* y) noexcept {
  int8_t codes[128];
  for (int i = 0; i < 128; ++i) {
    codes[i] = static_cast<int8_t>(((group[2 + i / 8] >> (i % 8)) & 1) * 2 - 1);
  }
  scaled<128>(codes, half_at(group), y);
}

inline void decode_q2_0(const uint8_t* group, float* y) noexcept {
  int8_t codes[64];
  for (int i = 0; i < 64; ++i) {
    codes[i] = static_cast<int8_t>(((group[2 + i / 4] >> (2 * (i % 4))) & 3) - 1);
  }
  scaled<64>(codes, half_at(group), y);
}
