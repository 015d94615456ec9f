// Activations to int8, in the arithmetic of ggml, so that integers and scales are the same as
// llama.cpp's.

// Stored so that `sum_from` starts a dot product with factor * sum(q). q[columns], columns a
// multiple of 4.
inline int32_t offset_of(const int8_t* q, int columns, int factor) {
  int low = 0;   // columns 0, 1 of each quad
  int high = 0;  // columns 2, 3
  for (int i = 0; i < columns; i += 4) {
    low += q[i] + q[i + 1];
    high += q[i + 2] + q[i + 3];
  }
  if constexpr (kPairSums) {
    const auto low16 = static_cast<uint16_t>(low * factor);
    const auto high16 = static_cast<uint16_t>(high * factor);
    return std::bit_cast<int32_t>(static_cast<uint32_t>(low16) | static_cast<uint32_t>(high16)
                                                                     << 16);
  } else {
    return (low + high) * factor;
  }
}

// max |x| over n columns (a multiple of kRows); NaN if any is NaN.
inline float max_abs(const float* x, int n) {
  vf most = zero();
  vf poison = zero();  // x - x is 0, or NaN for infinities and NaN
  for (int i = 0; i < n; i += kRows) {
    const vf v = load(x + i);
    most = max(abs(v), most);
    poison = add(poison, sub(v, v));
  }
  const float check = sum_lanes(poison);
  return check == 0.0f ? max_lanes(most) : check;
}

// q = round to nearest even of x * inverse, kept inside [-127, 127]; NaN becomes -127.
inline void round_columns(const float* x, int n, float inverse, int8_t* q) {
  const vf factor = set1(inverse);
  const vf limit = set1(127.0f);
  const vf low = set1(-127.0f);
  int32_t rounded[256];
  for (int i = 0; i < n; i += kRows) {
    const vf scaled = mul(load(x + i), factor);
    store_int(rounded + i, to_int(min(max(scaled, low), limit)));
  }
  for (int i = 0; i < n; ++i) q[i] = static_cast<int8_t>(rounded[i]);
}

// d = max|x| / 127 rounded to a half, q = round(x * (127 / max|x|)).  Source: ggml
// quantize_row_q8_0, x86. A group with an infinity or NaN gets q = 0 and d = NaN, which shows in
// the result.
inline void quantize_group(const float* x, Q8Group& out) {
  const float most = max_abs(x, 32);
  if (most > 0.0f) {
    round_columns(x, 32, 127.0f / most, out.q);
  } else {
    __builtin_memset(out.q, 0, sizeof out.q);
  }
  out.d = f16_to_f32(f32_to_f16(most / 127.0f));
  out.offset8 = offset_of(out.q, 32, -8);
  out.offset16 = offset_of(out.q, 32, -16);
  out.offset128 = kSignedCodes ? 0 : offset_of(out.q, 32, -128);
}

// The first column of largest magnitude is mapped to -127: d = 1 / (-127 / x).  Source: ggml
// quantize_row_q8_K. A super-group with an infinity or NaN gets q = 0 and d = NaN, which shows in
// the result.
inline void quantize_super_group(const float* x, Q8SuperGroup& out) {
  const float most = max_abs(x, 256);
  out.d = most;  // zero, or NaN
  __builtin_memset(out.q, 0, sizeof out.q);
  if (most > 0.0f) {
    int first = 0;
    while (__builtin_fabsf(x[first]) != most) ++first;
    const float inverse = -127.0f / x[first];
    round_columns(x, 256, inverse, out.q);
    out.d = 1.0f / inverse;
  }
  for (int g = 0; g < 16; ++g) out.offset32[g] = offset_of(out.q + 16 * g, 16, -32);
  for (int g = 0; g < 8; ++g) {
    int total = 0;
    for (int i = 0; i < 32; ++i) total += out.q[32 * g + i];
    out.sums[g] = static_cast<int16_t>(total);
  }
  out.offset1 = offset_of(out.q, 256, -1);
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
