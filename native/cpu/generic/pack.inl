// Packing: file blocks of kRows rows -> one panel, and one row of a panel -> floats.
//
// A block is taken apart into one code per byte, then the codes are set 4 columns (a word) at a
// time. Words hold column i in byte i, so this file assumes a little-endian machine, as the formats
// do.

inline uint32_t word_at(const uint8_t* codes, int quad) {
  uint32_t word;
  __builtin_memcpy(&word, codes + 4 * quad, 4);
  return word;
}

inline void set_word(uint8_t* quad_bytes, int row, uint32_t word) {
  __builtin_memcpy(quad_bytes + 4 * row, &word, 4);
}

// Low nibbles of quads 2 * v and 2 * v + 1 into q[v].
inline void set_nibbles(uint8_t (*q)[4 * kRows], int count, int row, const uint8_t* codes) {
  for (int v = 0; v < count; ++v) {
    const uint32_t even = word_at(codes, 2 * v) & 0x0f0f0f0fu;
    const uint32_t odd = word_at(codes, 2 * v + 1) & 0x0f0f0f0fu;
    set_word(q[v], row, even | odd << 4);
  }
}

// Bits from bit 4 of `bits` bits each: quad i at bit bits * i.
inline void set_high(uint8_t* high, int bits, int row, const uint8_t* codes) {
  const uint32_t keep = bits == 1 ? 0x01010101u : 0x03030303u;
  uint32_t word = 0;
  for (int quad = 0; quad < 8 / bits; ++quad) {
    word |= (word_at(codes, quad) >> 4 & keep) << (bits * quad);
  }
  set_word(high, row, word);
}

// The 6-bit scales and minima of q4_k and q5_k.  Source: ggml, get_scale_min_k4.
inline void split_scales(const uint8_t (&packed)[12], uint8_t (&scale)[8], uint8_t (&min)[8]) {
  for (int g = 0; g < 4; ++g) {
    scale[g] = packed[g] & 63;
    min[g] = packed[g + 4] & 63;
    scale[g + 4] = static_cast<uint8_t>((packed[g + 8] & 15) | (packed[g] >> 6 << 4));
    min[g + 4] = static_cast<uint8_t>(packed[g + 8] >> 4 | (packed[g + 4] >> 6 << 4));
  }
}

template <class Packed, class Block>
inline void set_scales_and_minima(Packed& dst, int row, const Block& src) {
  uint8_t scale[8];
  uint8_t min[8];
  split_scales(src.scales, scale, min);
  dst.d[row] = src.d;
  dst.dmin[row] = src.dmin;
  for (int g = 0; g < 8; ++g) {
    dst.scale[g][row] = scale[g];
    dst.min[g / 2][row][g % 2] = min[g];
  }
}

// 64 columns per 32 bytes: low nibbles first.
inline void split_k_nibbles(const uint8_t (&qs)[128], uint8_t (&codes)[256]) {
  for (int chunk = 0; chunk < 4; ++chunk) {
    for (int i = 0; i < 32; ++i) {
      codes[64 * chunk + i] = qs[32 * chunk + i] & 15;
      codes[64 * chunk + 32 + i] = qs[32 * chunk + i] >> 4;
    }
  }
}

inline void pack_block(const quant::BlockQ4_K& src, PackedQ4_K& dst, int row) {
  uint8_t codes[256];
  split_k_nibbles(src.qs, codes);
  set_scales_and_minima(dst, row, src);
  for (int g = 0; g < 8; ++g) set_nibbles(dst.q[g], 4, row, codes + 32 * g);
}

inline void pack_block(const quant::BlockQ5_K& src, PackedQ5_K& dst, int row) {
  uint8_t codes[256];
  split_k_nibbles(src.qs, codes);
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 32; ++i) {
      codes[32 * g + i] = static_cast<uint8_t>(codes[32 * g + i] | (src.qh[i] >> g & 1) << 4);
    }
  }
  set_scales_and_minima(dst, row, src);
  for (int g = 0; g < 8; ++g) {
    set_nibbles(dst.group[g].q, 4, row, codes + 32 * g);
    set_high(dst.group[g].high, 1, row, codes + 32 * g);
  }
}

inline void pack_block(const quant::BlockQ6_K& src, PackedQ6_K& dst, int row) {
  uint8_t codes[256];
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = src.ql + 64 * half;
    const uint8_t* qh = src.qh + 32 * half;
    uint8_t* out = codes + 128 * half;
    for (int i = 0; i < 32; ++i) {
      out[i] = static_cast<uint8_t>((ql[i] & 15) | (qh[i] & 3) << 4);
      out[i + 32] = static_cast<uint8_t>((ql[i + 32] & 15) | (qh[i] >> 2 & 3) << 4);
      out[i + 64] = static_cast<uint8_t>(ql[i] >> 4 | (qh[i] >> 4 & 3) << 4);
      out[i + 96] = static_cast<uint8_t>(ql[i + 32] >> 4 | (qh[i] >> 6) << 4);
    }
  }
  dst.d[row] = src.d;
  dst.unused[row] = 0;
  for (int g = 0; g < 16; ++g) {
    dst.scale[g][row] = src.scales[g];
    set_nibbles(dst.group[g].q, 2, row, codes + 16 * g);
    set_high(dst.group[g].high, 2, row, codes + 16 * g);
  }
}

inline void pack_block(const quant::BlockTQ2_0& src, PackedTQ2_0& dst, int row) {
  uint8_t codes[256];
  for (int half = 0; half < 2; ++half) {
    for (int bits = 0; bits < 4; ++bits) {
      for (int i = 0; i < 32; ++i) {
        codes[128 * half + 32 * bits + i] = src.qs[32 * half + i] >> (2 * bits) & 3;
      }
    }
  }
  dst.d[row] = src.d;
  for (int v = 0; v < 16; ++v) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word |= word_at(codes, 4 * v + i) << (2 * i);
    set_word(dst.q[v], row, word);
  }
}

inline void pack_block(const quant::BlockQ4_0& src, PackedQ4_0& dst, int row) {
  uint8_t codes[32];
  for (int i = 0; i < 16; ++i) {
    codes[i] = src.qs[i] & 15;
    codes[i + 16] = src.qs[i] >> 4;
  }
  dst.d[row] = src.d;
  set_nibbles(dst.q, 4, row, codes);
}

inline void pack_block(const quant::BlockQ5_0& src, PackedQ5_0& dst, int row) {
  uint8_t codes[32];
  for (int i = 0; i < 16; ++i) {
    codes[i] = static_cast<uint8_t>((src.qs[i] & 15) | (src.qh[i / 8] >> (i % 8) & 1) << 4);
    codes[i + 16] = static_cast<uint8_t>(src.qs[i] >> 4 | (src.qh[i / 8 + 2] >> (i % 8) & 1) << 4);
  }
  dst.d[row] = src.d;
  set_nibbles(dst.q, 4, row, codes);
  set_high(dst.high, 1, row, codes);
}

inline void pack_block(const quant::BlockQ8_0& src, PackedQ8_0& dst, int row) {
  const uint32_t flip = kSignedCodes ? 0 : 0x80808080u;
  dst.d[row] = src.d;
  for (int quad = 0; quad < 8; ++quad) {
    set_word(dst.q[quad], row, word_at(reinterpret_cast<const uint8_t*>(src.qs), quad) ^ flip);
  }
}

inline void pack_block(float src, PackedF32& dst, int row) { dst.x[row] = src; }
inline void pack_block(uint16_t src, PackedF16& dst, int row) { dst.x[row] = src; }
inline void pack_block(uint16_t src, PackedBF16& dst, int row) { dst.x[row] = src; }

template <class K>
constexpr size_t panel_nbytes_of(int64_t cols) {
  const size_t nbytes = static_cast<size_t>(cols / K::kCols) * sizeof(typename K::Packed);
  return (nbytes + 63) / 64 * 64;
}

inline size_t panel_nbytes(quant::Format format, int64_t cols) noexcept {
  return with_kind(format, [cols](auto kind) { return panel_nbytes_of<decltype(kind)>(cols); });
}

template <class K>
inline void pack_panel_of(const std::byte* src, size_t row_nbytes, int rows, int64_t cols,
                          std::byte* panel) {
  using Packed = typename K::Packed;
  using Block = typename K::Block;
  const int64_t blocks = cols / K::kCols;
  auto* out = reinterpret_cast<Packed*>(panel);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int row = 0; row < kRows; ++row) {
      Block block{};  // padding rows are zeros, whose scale is zero
      if (row < rows) {
        __builtin_memcpy(
            &block,
            src + static_cast<size_t>(row) * row_nbytes + static_cast<size_t>(b) * sizeof(Block),
            sizeof(Block));
      }
      pack_block(block, out[b], row);
    }
  }
  const size_t used = static_cast<size_t>(blocks) * sizeof(Packed);
  __builtin_memset(panel + used, 0, panel_nbytes_of<K>(cols) - used);
}

inline void pack_panel(quant::Format format, const std::byte* src, size_t row_nbytes, int rows,
                       int64_t cols, std::byte* panel) noexcept {
  with_kind(format,
            [&](auto kind) { pack_panel_of<decltype(kind)>(src, row_nbytes, rows, cols, panel); });
}

inline uint8_t byte_of(VQuad codes, int row, int i) {
  uint8_t bytes[4 * kRows];
  store_quad(bytes, codes);
  return bytes[4 * row + i];
}

// One row of one packed super-group, in the arithmetic of the codecs (multiply, then subtract).
template <class Packed>
inline void unpack_groups256(const Packed& src, int row, float* out) {
  const float d = f16_to_f32(src.d[row]);
  for (int g = 0; g < Packed::kGroups; ++g) {
    const float scale = d * static_cast<float>(src.scale[g][row]);
    float min = 0.0f;
    if constexpr (Packed::kHasMin) {
      min = f16_to_f32(src.dmin[row]) * static_cast<float>(src.min[g / 2][row][g % 2]);
    }
    for (int v = 0; v < Packed::kVectors; ++v) {
      VQuad quads[Packed::kPerVector];
      src.codes(g, v, quads);
      for (int i = 0; i < 4 * Packed::kPerVector; ++i) {
        const int code = byte_of(quads[i / 4], row, i % 4) - (Packed::kHasMin ? 0 : 32);
        float value = scale * static_cast<float>(code);
        if constexpr (Packed::kHasMin) value -= min;
        *out++ = value;
      }
    }
  }
}

inline int zero_point(const PackedQ4_0&) { return 8; }
inline int zero_point(const PackedQ5_0&) { return 16; }
inline int zero_point(const PackedTQ2_0&) { return 1; }
inline int zero_point(const PackedQ8_0&) { return 128; }

template <class Packed>
inline void unpack_plain(const Packed& src, int row, float* out) {
  const float d = f16_to_f32(src.d[row]);
  const bool is_signed = std::is_same_v<Packed, PackedQ8_0> && kSignedCodes;
  for (int v = 0; v < Packed::kVectors; ++v) {
    VQuad quads[Packed::kPerVector];
    src.codes(v, quads);
    for (int i = 0; i < 4 * Packed::kPerVector; ++i) {
      const uint8_t byte = byte_of(quads[i / 4], row, i % 4);
      const int code = is_signed ? static_cast<int8_t>(byte) : byte - zero_point(src);
      *out++ = static_cast<float>(code) * d;
    }
  }
}

inline void unpack_row(const PackedMatrix& w, int64_t row, float* out) noexcept {
  with_kind(w.format, [&](auto kind) {
    using K = decltype(kind);
    const auto* packed = reinterpret_cast<const typename K::Packed*>(
        w.bytes + static_cast<size_t>(row / kRows) * w.panel_nbytes);
    const int lane = static_cast<int>(row % kRows);
    for (int64_t b = 0; b < w.cols / K::kCols; ++b) {
      float* dst = out + b * K::kCols;
      if constexpr (K::kFamily == Family::groups256) {
        unpack_groups256(packed[b], lane, dst);
      } else if constexpr (K::kFamily != Family::floats) {
        unpack_plain(packed[b], lane, dst);
      } else {
        float lanes[kRows];
        store(lanes, packed[b].value());
        *dst = lanes[lane];
      }
    }
  });
}
