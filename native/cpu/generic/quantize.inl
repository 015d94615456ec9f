// Activations to int8, in the arithmetic of ggml, so that integers and scales are the same as
// llama.cpp's.

inline int low_pair(int32_t sum) { return static_cast<int16_t>(sum); }
inline int high_pair(int32_t sum) { return static_cast<int16_t>(sum >> 16); }

// A sum of q as activations.h stores it (two int16 where kPairSums), times a factor.
inline int32_t offset_of(int32_t sum, int factor) {
  if constexpr (kPairSums) {
    const auto low = static_cast<uint16_t>(low_pair(sum) * factor);
    const auto high = static_cast<uint16_t>(high_pair(sum) * factor);
    return std::bit_cast<int32_t>(static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16);
  } else {
    return sum * factor;
  }
}

// a + b for two sums as activations.h stores them.
inline int32_t add_sums(int32_t a, int32_t b) {
  if constexpr (kPairSums) {
    const auto low = static_cast<uint16_t>(low_pair(a) + low_pair(b));
    const auto high = static_cast<uint16_t>(high_pair(a) + high_pair(b));
    return std::bit_cast<int32_t>(static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16);
  } else {
    return a + b;
  }
}

inline int plain_sum(int32_t sum) { return kPairSums ? low_pair(sum) + high_pair(sum) : sum; }

// Largest and smallest of n columns (a multiple of 2 * kRows), zero included; both NaN if any is
// not finite.
struct Range {
  float high;
  float low;
};
inline Range range_of(const float* x, int n) {
  vf high[2] = {zero(), zero()};
  vf low[2] = {zero(), zero()};
  vf poison[2] = {zero(), zero()};  // x - x is 0, or NaN for infinities and NaN
  for (int i = 0; i < n; i += 2 * kRows) {
    for (int j = 0; j < 2; ++j) {
      const vf v = load(x + i + j * kRows);
      high[j] = max(v, high[j]);
      low[j] = min(v, low[j]);
      poison[j] = add(poison[j], sub(v, v));
    }
  }
  const float check = sum_lanes(add(poison[0], poison[1]));
  if (!(check == 0.0f)) return {check, check};
  return {max_lanes(max(high[0], high[1])), -max_lanes(sub(zero(), min(low[0], low[1])))};
}

// q = round to nearest even of x * inverse, kept inside [-127, 127]; NaN becomes -127.
inline void round_columns(const float* x, int n, float inverse, int8_t* q) {
  const vf factor = set1(inverse);
  const vf limit = set1(127.0f);
  const vf low = set1(-127.0f);
  for (int i = 0; i < n; i += kRows) {
    const vf scaled = mul(load(x + i), factor);
    store_i8(q + i, to_int(min(max(scaled, low), limit)));
  }
}

// d = max|x| / 127 rounded to a half, q = round(x * (127 / max|x|)).  Source: ggml
// quantize_row_q8_0, x86. A group with an infinity or NaN gets q = 0 and d = NaN, which shows in
// the result.
inline void quantize_group(const float* x, Q8Group& out) {
  const Range range = range_of(x, 32);
  const float most = range.high > -range.low ? range.high : -range.low;
  if (most > 0.0f) {
    round_columns(x, 32, 127.0f / most, out.q);
  } else {
    __builtin_memset(out.q, 0, sizeof out.q);
  }
  int32_t sums[2];
  quad_sums(out.q, 32, sums);
  const int32_t sum = add_sums(sums[0], sums[1]);
  out.d = f16_to_f32(f32_to_f16(most / 127.0f));
  out.offset8 = offset_of(sum, -8);
  out.offset16 = offset_of(sum, -16);
  out.offset128 = kSignedCodes ? 0 : offset_of(sum, -128);
}

// The first column of largest magnitude.
inline float signed_most(const float* x, Range range) {
  if (range.high != -range.low) return range.high > -range.low ? range.high : range.low;
  int first = 0;
  while (__builtin_fabsf(x[first]) != range.high) ++first;
  return x[first];
}

// The first column of largest magnitude is mapped to -127: d = 1 / (-127 / x).  Source: ggml
// quantize_row_q8_K. A super-group with an infinity or NaN gets q = 0 and d = NaN, which shows in
// the result.
inline void quantize_super_group(const float* x, Q8SuperGroup& out) {
  const Range range = range_of(x, 256);
  if (range.high > 0.0f || range.low < 0.0f) {
    const float inverse = -127.0f / signed_most(x, range);
    round_columns(x, 256, inverse, out.q);
    out.d = 1.0f / inverse;
  } else {
    __builtin_memset(out.q, 0, sizeof out.q);
    out.d = range.high;  // zero, or NaN
  }
  int32_t sums[16];
  quad_sums(out.q, 256, sums);
  for (int g = 0; g < 16; ++g) out.offset32[g] = offset_of(sums[g], -32);
  for (int g = 0; g < 8; ++g) {
    out.sums[g] = static_cast<int16_t>(plain_sum(sums[2 * g]) + plain_sum(sums[2 * g + 1]));
  }
  for (int g = 1; g < 16; ++g) sums[0] = add_sums(sums[0], sums[g]);
  out.offset1 = offset_of(sums[0], -1);
  out.unused[0] = out.unused[1] = 0;
}

inline size_t activation_nbytes(Activation kind, int64_t cols) noexcept {
  const auto k = static_cast<size_t>(cols);
  size_t nbytes = k * sizeof(float);
  if (kind == Activation::q8_32) nbytes = k / 32 * sizeof(Q8Group);
  if (kind == Activation::q8_256) nbytes = k / 256 * sizeof(Q8SuperGroup);
  return (nbytes + 63) / 64 * 64;
}

inline void quantize_row(Activation kind, const float* x, int64_t cols, std::byte* out) noexcept {
  if (kind == Activation::q8_32) {
    auto* groups = reinterpret_cast<Q8Group*>(out);
    for (int64_t g = 0; g < cols / 32; ++g) quantize_group(x + 32 * g, groups[g]);
  } else if (kind == Activation::q8_256) {
    auto* groups = reinterpret_cast<Q8SuperGroup*>(out);
    for (int64_t g = 0; g < cols / 256; ++g) quantize_super_group(x + 256 * g, groups[g]);
  } else {
    __builtin_memcpy(out, x, static_cast<size_t>(cols) * sizeof(float));
  }
}
