// Packing: file blocks of kRows rows -> one panel, and one row of a panel -> floats.
//
// Here a block is taken apart into one code per byte, then the codes are set 4 columns (a word) at
// a time; formats with a function in pack_rows.inl go there. Words hold column i in byte i, so this
// file assumes a little-endian machine, as the formats do.

#include "cpu/generic/pack_rows.inl"

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

// 4 * count quads of 2-bit codes, 4 to a vector.
inline void set_pairs(uint8_t (*q)[4 * kRows], int count, int row, const uint8_t* codes) {
  for (int v = 0; v < count; ++v) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word |= word_at(codes, 4 * v + i) << (2 * i);
    set_word(q[v], row, word);
  }
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
inline void pack_rows_of(const BlockRows<typename K::Block>& src, typename K::Packed* out) {
  if constexpr (requires { pack_rows(src, *out); }) {
    pack_rows(src, *out);
  } else {
    for (int row = 0; row < kRows; ++row) {
      const auto block = src.template at<typename K::Block>(row, 0);
      if constexpr (K::kPerBlock > 1) {
        pack_block(block, out, row);
      } else {
        pack_block(block, *out, row);
      }
    }
  }
}

template <class K>
inline void pack_panel_of(const std::byte* src, size_t row_nbytes, int rows, int64_t cols,
                          std::byte* panel) {
  using Block = typename K::Block;
  const int64_t blocks = cols / (K::kCols * K::kPerBlock);
  auto* out = reinterpret_cast<typename K::Packed*>(panel);
  for (int64_t b = 0; b < blocks; ++b, out += K::kPerBlock) {
    const std::byte* first = src + static_cast<size_t>(b) * sizeof(Block);
    if (rows == kRows) {
      pack_rows_of<K>({first, row_nbytes}, out);
      continue;
    }
    Block padded[kRows]{};  // rows that are not there are zeros, whose scale is zero
    for (int row = 0; row < rows; ++row) {
      __builtin_memcpy(&padded[row], first + static_cast<size_t>(row) * row_nbytes, sizeof(Block));
    }
    pack_rows_of<K>({reinterpret_cast<const std::byte*>(padded), sizeof(Block)}, out);
  }
  auto* used = reinterpret_cast<std::byte*>(out);
  __builtin_memset(used, 0, static_cast<size_t>(panel + panel_nbytes_of<K>(cols) - used));
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
