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
  out.s = out.d * static_cast<float>(plain_sum(sum));
  out.half16[0] = offset_of(sums[0], -16);
  out.half16[1] = offset_of(sums[1], -16);
  out.unused = 0;
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
  for (int g = 0; g < 16; ++g) out.sums16[g] = static_cast<int16_t>(plain_sum(sums[g]));
  for (int g = 0; g < 8; ++g) {
    out.sums[g] = static_cast<int16_t>(out.sums16[2 * g] + out.sums16[2 * g + 1]);
  }
  for (int g = 1; g < 16; ++g) sums[0] = add_sums(sums[0], sums[g]);
  out.offset1 = offset_of(sums[0], -1);
  out.unused[0] = out.unused[1] = 0;
}

// Sums per 8 columns: every quad of `columns` counts for its own 8.
inline void add_fine_sums(Q8FineSuperGroup& out) {
  for (int g = 0; g < 32; ++g) {
    const int8_t* q = out.q + 8 * g;
    if constexpr (kPairSums) {
      const int low = q[0] + q[1] + q[4] + q[5];
      const int high = q[2] + q[3] + q[6] + q[7];
      const auto packed = static_cast<uint32_t>(static_cast<uint16_t>(-64 * low)) |
                          static_cast<uint32_t>(static_cast<uint16_t>(-64 * high)) << 16;
      out.offset64[g] = std::bit_cast<int32_t>(packed);
    } else {
      out.offset64[g] = -64 * (q[0] + q[1] + q[2] + q[3] + q[4] + q[5] + q[6] + q[7]);
    }
  }
}

// d = max|x| / 127 over the whole row.  Source: bitnet.cpp, quantize_row_i8_s. A row
// with an infinity or NaN gets q = 0 and d = NaN, which shows in the result.
inline void quantize_whole_row(const float* x, int64_t cols, std::byte* out) {
  auto* q = reinterpret_cast<int8_t*>(out);
  const int64_t padded = (cols + 63) / 64 * 64;
  auto& end = *reinterpret_cast<Q8RowEnd*>(out + padded);
  end = Q8RowEnd{};
  float most = 0.0f;
  for (int64_t i = 0; i < cols; i += 32) {
    const Range range = range_of(x + i, 32);
    const float here = range.high > -range.low ? range.high : -range.low;
    if (here != here || here > most) most = here;  // NaN stays: nothing is above it
    if (most != most) break;
  }
  end.d = most / 127.0f;
  if (!(most > 0.0f)) {
    __builtin_memset(q, 0, static_cast<size_t>(padded));
    return;
  }
  int32_t sum = 0;
  for (int64_t i = 0; i < cols; i += 32) {
    round_columns(x + i, 32, 127.0f / most, q + i);
    int32_t sums[2];
    quad_sums(q + i, 32, sums);
    sum += plain_sum(sums[0]) + plain_sum(sums[1]);
  }
  end.sum = static_cast<float>(sum);
  __builtin_memset(q + cols, 0, static_cast<size_t>(padded - cols));
}

inline size_t activation_nbytes(Activation kind, int64_t cols) noexcept {
  const auto k = static_cast<size_t>(cols);
  size_t nbytes = k * sizeof(float);
  if (kind == Activation::q8_32) nbytes = k / 32 * sizeof(Q8Group);
  if (kind == Activation::q8_256) nbytes = k / 256 * sizeof(Q8SuperGroup);
  if (kind == Activation::q8_256_sums8) nbytes = k / 256 * sizeof(Q8FineSuperGroup);
  if (kind == Activation::q8_row) nbytes = (k + 63) / 64 * 64 + sizeof(Q8RowEnd);
  return (nbytes + 63) / 64 * 64;
}

inline void quantize_row(Activation kind, const float* x, int64_t cols, std::byte* out) noexcept {
  if (kind == Activation::q8_32) {
    auto* groups = reinterpret_cast<Q8Group*>(out);
    for (int64_t g = 0; g < cols / 32; ++g) quantize_group(x + 32 * g, groups[g]);
  } else if (kind == Activation::q8_256) {
    auto* groups = reinterpret_cast<Q8SuperGroup*>(out);
    for (int64_t g = 0; g < cols / 256; ++g) quantize_super_group(x + 256 * g, groups[g]);
  } else if (kind == Activation::q8_256_sums8) {
    auto* groups = reinterpret_cast<Q8FineSuperGroup*>(out);
    for (int64_t g = 0; g < cols / 256; ++g) {
      quantize_super_group(x + 256 * g, groups[g]);
      add_fine_sums(groups[g]);
    }
  } else if (kind == Activation::q8_row) {
    quantize_whole_row(x, cols, out);
  } else {
    __builtin_memcpy(out, x, static_cast<size_t>(cols) * sizeof(float));
  }
}
