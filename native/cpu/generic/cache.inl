// Storing positions into cache blocks and reading blocks back as floats; layouts in cpu/cache.h.

// Scale and codes of 32 values: q8_0 rounds x * (127 / max|x|), q4_0 maps the value of largest
// magnitude to -8. The scale is a half. Source: ggml quantize_row_q8_0_ref, quantize_row_q4_0_ref.
inline uint16_t quantize_q8_0(const float* x, int8_t* codes) {
  float most = 0.0f;
  for (int i = 0; i < 32; ++i) most = __builtin_fabsf(x[i]) > most ? __builtin_fabsf(x[i]) : most;
  const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
  for (int i = 0; i < 32; ++i) {
    const float scaled = __builtin_roundf(x[i] * inverse);  // at most a little over 127
    const bool finite = scaled >= -128.0f && scaled <= 128.0f;
    codes[i] = static_cast<int8_t>(finite ? scaled > 127.0f ? 127.0f : scaled : 0.0f);
  }
  return f32_to_f16(most / 127.0f);
}

inline uint16_t quantize_q4_0(const float* x, uint8_t* codes) {
  float most = 0.0f;
  for (int i = 0; i < 32; ++i) most = __builtin_fabsf(x[i]) > __builtin_fabsf(most) ? x[i] : most;
  const float d = most / -8.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  for (int i = 0; i < 32; ++i) {
    const float shifted = x[i] * inverse + 8.5f;
    const bool fits = shifted >= 0.0f && shifted < 16.0f;
    codes[i] =
        fits ? static_cast<uint8_t>(shifted) : static_cast<uint8_t>(shifted >= 16.0f ? 15 : 0);
  }
  return f32_to_f16(d);
}

// Column d of `head_dim` goes to element d * step of out.
template <class Element, class Convert>
inline void store_plain(const float* x, int64_t head_dim, int64_t step, Element* out,
                        Convert convert) {
  for (int64_t d = 0; d < head_dim; ++d) out[d * step] = convert(x[d]);
}

// One position of a quantised half: code d at d * step, scale g at g * scale_step of `scales`.
inline void store_quantised(CacheType type, const float* x, int64_t head_dim, int64_t step,
                            std::byte* codes, int64_t scale_step, uint16_t* scales) {
  for (int64_t g = 0; g < head_dim / 32; ++g) {
    if (type == CacheType::q8_0) {
      int8_t q[32];
      scales[g * scale_step] = quantize_q8_0(x + 32 * g, q);
      for (int64_t i = 0; i < 32; ++i) codes[(32 * g + i) * step] = static_cast<std::byte>(q[i]);
    } else {
      uint8_t q[32];
      scales[g * scale_step] = quantize_q4_0(x + 32 * g, q);
      for (int64_t i = 0; i < 16; ++i) {
        codes[(16 * g + i) * step] = static_cast<std::byte>(q[i] | q[i + 16] << 4);
      }
    }
  }
}

inline void store_half(CacheType type, const float* x, int64_t head_dim, int64_t step,
                       int64_t first, int64_t scale_step, int64_t scale_first, std::byte* half) {
  switch (type) {
    case CacheType::f32:
      return store_plain(x, head_dim, step, reinterpret_cast<float*>(half) + first,
                         [](float v) { return v; });
    case CacheType::f16:
      return store_plain(x, head_dim, step, reinterpret_cast<uint16_t*>(half) + first, f32_to_f16);
    case CacheType::bf16:
      return store_plain(x, head_dim, step, reinterpret_cast<uint16_t*>(half) + first, f32_to_bf16);
    case CacheType::q8_0:
    case CacheType::q4_0: {
      const int64_t nbytes = kBlock * head_dim / (type == CacheType::q8_0 ? 1 : 2);
      auto* scales = reinterpret_cast<uint16_t*>(half + nbytes) + scale_first;
      return store_quantised(type, x, head_dim, step, half + first, scale_step, scales);
    }
  }
}

inline void store_key(CacheType type, const float* k, int64_t head_dim, int position,
                      std::byte* keys) noexcept {
  store_half(type, k, head_dim, kBlock, position, kBlock, position, keys);
}

inline void store_value(CacheType type, const float* v, int64_t head_dim, int position,
                        std::byte* values) noexcept {
  const int64_t row = type == CacheType::q4_0 ? head_dim / 2 : head_dim;
  store_half(type, v, head_dim, 1, position * row, 1, position * (head_dim / 32), values);
}

// The codes of a quantised half: where they lie for q8_0; for q4_0 taken apart, minus 8.
struct Codes {
  const int8_t* bytes;  // q8_0
  int8_t low[kMaxHeadDim * kBlock / 2];
  int8_t high[kMaxHeadDim * kBlock / 2];

  // Vector of codes from column c (a multiple of kRows) of group i of 32 neighbouring codes.
  const int8_t* group(CacheType type, int64_t i, int c) const {
    if (type == CacheType::q8_0) return bytes + 32 * i + c;
    return c < 16 ? low + 16 * i + c : high + 16 * i + c - 16;
  }
};

// Codes of a half and its scales as floats.
inline void load_codes(CacheType type, const std::byte* half, int64_t head_dim, Codes& codes,
                       float* scales) {
  const int64_t n = kBlock * head_dim / (type == CacheType::q8_0 ? 1 : 2);
  codes.bytes = reinterpret_cast<const int8_t*>(half);
  if (type == CacheType::q4_0) {
    const auto* pairs = reinterpret_cast<const uint8_t*>(half);
    for (int64_t i = 0; i < n; ++i) codes.low[i] = static_cast<int8_t>((pairs[i] & 15) - 8);
    for (int64_t i = 0; i < n; ++i) codes.high[i] = static_cast<int8_t>((pairs[i] >> 4) - 8);
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(half + n);
  for (int64_t i = 0; i < head_dim; i += kRows) store(scales + i, load_f16(halves + i));
}

inline void load_quantised_keys(CacheType type, const std::byte* keys, int64_t head_dim,
                                float* out) {
  alignas(64) Codes codes;
  alignas(64) float scales[kMaxHeadDim];
  load_codes(type, keys, head_dim, codes, scales);
  for (int64_t d = 0; d < head_dim; ++d) {
    const int64_t pair = d / 32 * 16 + d % 16;  // q4_0: dims d and d + 16 share bytes
    const int8_t* nibbles = (d % 32 < 16 ? codes.low : codes.high) + pair * kBlock;
    const int8_t* row = type == CacheType::q8_0 ? codes.bytes + d * kBlock : nibbles;
    for (int j = 0; j < kBlock; j += kRows) {
      store(out + d * kBlock + j, mul(load_i8(row + j), load(scales + d / 32 * kBlock + j)));
    }
  }
}

inline void load_keys(CacheType type, const std::byte* keys, int64_t head_dim,
                      float* out) noexcept {
  const int64_t n = head_dim * kBlock;
  const auto* halves = reinterpret_cast<const uint16_t*>(keys);
  switch (type) {
    case CacheType::f32:
      __builtin_memcpy(out, keys, static_cast<size_t>(n) * 4);
      return;
    case CacheType::f16:
      for (int64_t i = 0; i < n; i += kRows) store(out + i, load_f16(halves + i));
      return;
    case CacheType::bf16:
      for (int64_t i = 0; i < n; i += kRows) store(out + i, load_bf16(halves + i));
      return;
    case CacheType::q8_0:
    case CacheType::q4_0:
      return load_quantised_keys(type, keys, head_dim, out);
  }
}

// One row of values in a 16-bit type. Vectors are read beyond head_dim where the row continues; a
// rest goes element by element.
template <class Load, class Convert>
inline void load_value_row(const uint16_t* row, int64_t head_dim, float* out, Load load_vector,
                           Convert convert) {
  int64_t d = 0;
  for (; d + kRows <= head_dim; d += kRows) store(out + d, load_vector(row + d));
  for (; d < head_dim; ++d) out[d] = convert(row[d]);
}

inline void load_quantised_values(CacheType type, const std::byte* values, int64_t head_dim,
                                  int64_t width, float* out) {
  alignas(64) Codes codes;
  alignas(64) float scales[kMaxHeadDim];
  load_codes(type, values, head_dim, codes, scales);
  const int64_t groups = head_dim / 32;
  for (int64_t i = 0; i < kBlock * groups; ++i) {  // group i % groups of position i / groups
    float* home = out + i / groups * width + i % groups * 32;
    const vf scale = set1(scales[i]);
    for (int c = 0; c < 32; c += kRows) {
      store(home + c, mul(load_i8(codes.group(type, i, c)), scale));
    }
  }
}

inline void load_values(CacheType type, const std::byte* values, int64_t head_dim, int64_t width,
                        float* out) noexcept {
  const auto* floats = reinterpret_cast<const float*>(values);
  const auto* halves = reinterpret_cast<const uint16_t*>(values);
  if (type == CacheType::q8_0 || type == CacheType::q4_0) {
    return load_quantised_values(type, values, head_dim, width, out);  // head_dim is width: no rest
  }
  for (int64_t j = 0; j < kBlock; ++j) {
    float* row = out + j * width;
    switch (type) {
      case CacheType::f32:
        __builtin_memcpy(row, floats + j * head_dim, static_cast<size_t>(head_dim) * 4);
        break;
      case CacheType::f16:
        load_value_row(halves + j * head_dim, head_dim, row, load_f16, f16_to_f32);
        break;
      case CacheType::bf16:
        load_value_row(halves + j * head_dim, head_dim, row, load_bf16, bf16_to_f32);
        break;
      case CacheType::q8_0:
      case CacheType::q4_0:
        break;
    }
    for (int64_t d = head_dim; d < width; ++d) row[d] = 0.0f;
  }
}
