// Vectors of kLanes numbers in the compiler's own vector types, and what the fits need of them.
// Included inside a namespace, and inside a target region where one is wanted.

typedef float F __attribute__((vector_size(4 * kLanes)));
typedef int32_t I __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U __attribute__((vector_size(4 * kLanes)));

inline F splat(float x) noexcept { return F{} + x; }
inline I whole(int32_t x) noexcept { return I{} + x; }
inline F select(I mask, F a, F b) noexcept { return mask ? a : b; }
inline I lane_numbers() noexcept {  // 0, 1, 2, ...
  I numbers{};
  for (int lane = 0; lane < kLanes; ++lane) numbers[lane] = lane;
  return numbers;
}
inline I select(I mask, I a, I b) noexcept { return mask ? a : b; }
inline F least(F a, F b) noexcept { return a < b ? a : b; }
inline F most(F a, F b) noexcept { return a > b ? a : b; }
inline I bits(F x) noexcept { return I(x); }  // the same bits, as all casts of vectors
inline F from_bits(I x) noexcept { return F(x); }
inline F magnitude(F x) noexcept { return from_bits(bits(x) & 0x7fffffff); }
inline F to_float(I x) noexcept { return __builtin_convertvector(x, F); }
// Towards zero; |x| < 2^31.
inline I to_int(F x) noexcept { return __builtin_convertvector(x, I); }
inline F clip(F x, float low, float high) noexcept {
  return least(most(x, splat(low)), splat(high));
}
// Nearest whole number, ties to even; |x| < 2^22.
inline F nearest(F x) noexcept { return (x + 12582912.0f) - 12582912.0f; }
inline F truncate(F x) noexcept { return to_float(to_int(x)); }
inline F with_sign_of(F size, F sign) noexcept {
  return from_bits((bits(size) & 0x7fffffff) | (bits(sign) & static_cast<int32_t>(0x80000000u)));
}
// x, and 0 for infinities and NaN.
inline F finite(F x) noexcept {
  return from_bits(bits(x) & ((bits(x) & 0x7f800000) != 0x7f800000));
}

// f16 bit patterns: round to nearest, ties to even; too large becomes infinity. Not for NaN.
inline I f16_bits(F x) noexcept {
  const I sign = I((U(bits(x)) >> 16) & 0x8000u);
  const F size = magnitude(x);
  const I b = bits(size);
  const I odd = (b >> 13) & 1;
  const I normal = (b - 0x38000000 + 0x0fff + odd) >> 13;
  const I subnormal = bits(size + 0.5f) - 0x3f000000;
  const I small = b < 0x38800000;
  const I large = b >= 0x477ff000;  // 65520 and above round to infinity
  return sign | select(large, whole(0x7c00), select(small, subnormal, normal));
}

// The value of f16 bit patterns of finite numbers.
inline F f16_value(I h) noexcept {
  const I sign = I(U(h & 0x8000) << 16);
  const I size = h & 0x7fff;
  const F subnormal = to_float(size) * 0x1p-24f;
  const F normal = from_bits((size << 13) + 0x38000000);
  return from_bits(bits(select(size < 0x0400, subnormal, normal)) | sign);
}

// Byte i of every lane from whole numbers 0..255, to out + lane * stride, for lanes below count.
template <int kBytes>
inline void store_bytes(uint8_t* out, size_t stride, int count, const I* bytes) noexcept {
  constexpr int kWords = (kBytes + 3) / 4;
  alignas(64) uint32_t words[kWords][kLanes];
  for (int t = 0; t < kWords; ++t) {
    I word = bytes[4 * t];
    for (int b = 1; b < 4; ++b) {
      if (4 * t + b < kBytes) word |= bytes[4 * t + b] << (8 * b);
    }
    std::memcpy(words[t], &word, sizeof(word));
  }
  for (int lane = 0; lane < count; ++lane) {
    uint8_t* to = out + static_cast<size_t>(lane) * stride;
    for (int t = 0; t < kBytes / 4; ++t) std::memcpy(to + 4 * t, &words[t][lane], 4);
    if constexpr (kBytes % 4 != 0) {
      std::memcpy(to + kBytes / 4 * 4, &words[kBytes / 4][lane], kBytes % 4);
    }
  }
}

// A 16-bit number of every lane.
inline void store_short(uint8_t* out, size_t stride, int count, I value) noexcept {
  const I bytes[2] = {value & 255, (value >> 8) & 255};
  store_bytes<2>(out, stride, count, bytes);
}

// kSize elements of each of count <= kLanes runs that follow one another, element by element; the
// other lanes get `rest`.
template <int kSize>
inline void transpose(const float* x, int count, float rest, F* tile) noexcept {
  float* to = reinterpret_cast<float*>(tile);
  if (count < kLanes) {
    for (int i = 0; i < kSize; ++i) tile[i] = splat(rest);
  }
  for (int lane = 0; lane < count; ++lane) {
    for (int i = 0; i < kSize; ++i) to[i * kLanes + lane] = x[lane * kSize + i];
  }
}
