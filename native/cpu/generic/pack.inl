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

// Words (4 columns) of file bytes `bits` from bit `shift` on, two words at a time: each byte keeps
// its low bits. Words stay words from file to panel, which packs several times faster than codes
// one by one.
inline uint64_t two_words(const uint8_t* bytes, int shift, uint64_t keep) {
  uint64_t words;
  __builtin_memcpy(&words, bytes, 8);
  return words >> shift & keep;
}

constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f;
constexpr uint64_t kPairs = 0x0303030303030303;
constexpr uint64_t kBits = 0x0101010101010101;

// The even word's codes in the low nibbles, the odd word's in the high ones.
inline uint32_t nibbles_of(uint64_t words) {
  return static_cast<uint32_t>(words) | static_cast<uint32_t>(words >> 32) << 4;
}

// The nibbles of 8 * count columns into q; 64 columns lie in 32 bytes, the low nibbles first.
inline void move_nibbles(const uint8_t* bytes, int shift, int count, uint8_t (*q)[4 * kRows],
                         int row) {
  for (int v = 0; v < count; ++v) {
    set_word(q[v], row, nibbles_of(two_words(bytes + 8 * v, shift, kNibbles)));
  }
}

inline void pack_block(const quant::BlockQ4_K& src, PackedQ4_K& dst, int row) {
  set_scales_and_minima(dst, row, src);
  for (int g = 0; g < 8; ++g) move_nibbles(src.qs + 32 * (g / 2), 4 * (g % 2), 4, dst.q[g], row);
}

inline void pack_block(const quant::BlockQ5_K& src, PackedQ5_K& dst, int row) {
  set_scales_and_minima(dst, row, src);
  for (int g = 0; g < 8; ++g) {
    move_nibbles(src.qs + 32 * (g / 2), 4 * (g % 2), 4, dst.group[g].q, row);
    uint32_t high = 0;  // bit g of byte i is the fifth bit of column i of group g
    for (int v = 0; v < 4; ++v) {
      const uint64_t bits = two_words(src.qh + 8 * v, g, kBits);
      high |= static_cast<uint32_t>(bits) << (2 * v) | static_cast<uint32_t>(bits >> 32)
                                                           << (2 * v + 1);
    }
    set_word(dst.group[g].high, row, high);
  }
}

// 128 columns lie in 64 bytes of ql (two halves of nibbles) and 32 of qh (four pairs of bits).
inline void pack_block(const quant::BlockQ6_K& src, PackedQ6_K& dst, int row) {
  dst.d[row] = src.d;
  dst.unused[row] = 0;
  for (int g = 0; g < 16; ++g) {
    const int half = g / 8;
    const int quarter = g % 8 / 2;
    const int first = 16 * (g % 2);
    dst.scale[g][row] = src.scales[g];
    move_nibbles(src.ql + 64 * half + 32 * (quarter % 2) + first, 4 * (quarter / 2), 2,
                 dst.group[g].q, row);
    uint32_t high = 0;
    for (int v = 0; v < 2; ++v) {
      const uint64_t pairs = two_words(src.qh + 32 * half + first + 8 * v, 2 * quarter, kPairs);
      high |= static_cast<uint32_t>(pairs) << (4 * v) | static_cast<uint32_t>(pairs >> 32)
                                                            << (4 * v + 2);
    }
    set_word(dst.group[g].high, row, high);
  }
}

// 4 * count quads of 2-bit codes, 4 to a vector.
inline void set_pairs(uint8_t (*q)[4 * kRows], int count, int row, const uint8_t* codes) {
  for (int v = 0; v < count; ++v) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word |= word_at(codes, 4 * v + i) << (2 * i);
    set_word(q[v], row, word);
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
  set_pairs(dst.q, 16, row, codes);
}

// Digits of `count` bytes, the most significant of all first: multiplying by 3 moves the next digit
// above bit 8.
inline void split_digits(const uint8_t* bytes, int count, int digits, uint8_t* codes) {
  for (int i = 0; i < count; ++i) {
    unsigned rest = bytes[i];
    for (int digit = 0; digit < digits; ++digit) {
      codes[count * digit + i] = static_cast<uint8_t>(3 * rest >> 8);
      rest = 3 * rest & 0xff;
    }
  }
}

// Base 3 takes a multiplication per code to read, 2 bits a shift: it is rewritten as tq2_0.
inline void pack_block(const quant::BlockTQ1_0& src, PackedTQ2_0& dst, int row) {
  uint8_t codes[256];
  split_digits(src.qs, 32, 5, codes);
  split_digits(src.qs + 32, 16, 5, codes + 160);
  split_digits(src.qh, 4, 4, codes + 240);
  dst.d[row] = src.d;
  set_pairs(dst.q, 16, row, codes);
}

// 16 bytes whose low nibbles are quads 0..3 and high nibbles quads 4..7, into q[0..3].
inline void move_nibbles(const uint8_t (&qs)[16], uint8_t (*q)[4 * kRows], int row) {
  for (int v = 0; v < 2; ++v) {
    const uint32_t even = word_at(qs, 2 * v);
    const uint32_t odd = word_at(qs, 2 * v + 1);
    set_word(q[v], row, (even & 0x0f0f0f0fu) | (odd & 0x0f0f0f0fu) << 4);
    set_word(q[v + 2], row, (even >> 4 & 0x0f0f0f0fu) | (odd & 0xf0f0f0f0u));
  }
}

inline void pack_block(const quant::BlockQ4_0& src, PackedQ4_0& dst, int row) {
  dst.d[row] = src.d;
  move_nibbles(src.qs, dst.q, row);
}

// Bit j of qh is column j's: bit `quad` of byte i of the word is that of column 4 * quad + i.
inline uint32_t fifth_bits(const uint8_t (&qh)[4]) {
  uint32_t high = 0;
  for (int quad = 0; quad < 8; ++quad) {
    const uint32_t bits = qh[quad / 2] >> (4 * (quad % 2)) & 15u;
    high |= (bits * 0x00204081u & 0x01010101u) << quad;  // bit i of `bits` to byte i
  }
  return high;
}

inline void pack_block(const quant::BlockQ5_0& src, PackedQ5_0& dst, int row) {
  dst.d[row] = src.d;
  move_nibbles(src.qs, dst.q, row);
  set_word(dst.high, row, fifth_bits(src.qh));
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
  return with_kind_of(Kinds{}, format,
                      [cols](auto kind) { return panel_nbytes_of<decltype(kind)>(cols); });
}

template <class K>
inline void pack_panel_of(const std::byte* src, size_t row_nbytes, int rows, int64_t cols,
                          std::byte* panel) {
  using Packed = typename K::Packed;
  using Block = typename K::Block;
  const int64_t blocks = cols / (K::kCols * K::kPerBlock);
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
      if constexpr (K::kPerBlock > 1) {
        pack_block(block, out + b * K::kPerBlock, row);
      } else {
        pack_block(block, out[b], row);
      }
    }
  }
  const size_t used = static_cast<size_t>(blocks * K::kPerBlock) * sizeof(Packed);
  __builtin_memset(panel + used, 0, panel_nbytes_of<K>(cols) - used);
}

inline void pack_panel(quant::Format format, const std::byte* src, size_t row_nbytes, int rows,
                       int64_t cols, std::byte* panel) noexcept {
  with_kind_of(Kinds{}, format, [&](auto kind) {
    pack_panel_of<decltype(kind)>(src, row_nbytes, rows, cols, panel);
  });
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
  with_kind_of(Kinds{}, w.format, [&](auto kind) {
    using K = decltype(kind);
    const auto* packed = reinterpret_cast<const typename K::Packed*>(
        w.bytes + static_cast<size_t>(row / kRows) * w.panel_nbytes);
    const int lane = static_cast<int>(row % kRows);
    for (int64_t b = 0; b < w.cols / K::kCols; ++b) {
      float* dst = out + b * K::kCols;
      if constexpr (K::kFamily == Family::own) {
        packed[b].unpack(w, lane, dst);
      } else if constexpr (K::kFamily == Family::groups256) {
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
