// Packing of the formats of codes32.inl. Layouts of the blocks: native/quant/formats.h.

// 16 bytes of which the low nibbles are columns 0..15.
inline void split_halves(const uint8_t* qs, int count, uint8_t* codes) {
  for (int i = 0; i < count; ++i) {
    codes[i] = qs[i] & 15;
    codes[i + count] = qs[i] >> 4;
  }
}

inline void pack_block(const quant::BlockQ4_1& src, PackedQ4_1& dst, int row) {
  dst.d[row] = src.d;
  dst.m[row] = src.m;
  move_nibbles(src.qs, dst.unit.q, row);
}

inline void pack_block(const quant::BlockQ5_1& src, PackedQ5_1& dst, int row) {
  dst.d[row] = src.d;
  dst.m[row] = src.m;
  move_nibbles(src.qs, dst.unit.q, row);
  set_word(dst.unit.high, row, fifth_bits(src.qh));
}

inline void pack_block(const quant::BlockIQ4_NL& src, PackedIQ4_NL& dst, int row) {
  dst.d[row] = src.d;
  move_nibbles(src.qs, dst.unit.q, row);
}

inline void pack_block(const quant::BlockMXFP4& src, PackedMXFP4& dst, int row) {
  const int normal = (src.e - 1) << 7;  // 2^(e - 128) as bf16 from e = 2 on
  dst.d[row] = static_cast<uint16_t>(src.e < 2 ? 0x20 << src.e : normal);
  move_nibbles(src.qs, dst.unit.q, row);
}

inline void pack_block(const quant::BlockNVFP4& src, PackedNVFP4* dst, int row) {
  for (int g = 0; g < 4; ++g) {
    const uint8_t d = src.d[g] & 127;
    dst[g / 2].d[g % 2][row] = d == 127 ? 0 : d;
  }
  for (int half = 0; half < 2; ++half) {
    uint8_t codes[32];
    split_halves(src.qs + 16 * half, 8, codes);
    split_halves(src.qs + 16 * half + 8, 8, codes + 16);
    set_codes(dst[half].unit, row, codes);
  }
}

inline void pack_block(const quant::BlockQ1_0& src, PackedQ1_0& dst, int row) {
  dst.d[row] = src.d;
  for (int u = 0; u < 4; ++u) {
    uint32_t word = 0;
    for (int quad = 0; quad < 8; ++quad) {
      const uint32_t bits = src.qs[4 * u + quad / 2] >> (4 * (quad % 2)) & 15u;
      word |= (bits * 0x00204081u & 0x01010101u) << quad;
    }
    set_word(dst.unit[u].q, row, word);
  }
}

inline void pack_block(const quant::BlockQ2_0& src, PackedQ2_0& dst, int row) {
  dst.d[row] = src.d;
  uint8_t codes[64];
  for (int i = 0; i < 64; ++i) codes[i] = src.qs[i / 4] >> (2 * (i % 4)) & 3;
  for (int u = 0; u < 2; ++u) set_codes(dst.unit[u], row, codes + 32 * u);
}

// Four planes of `span` bytes, the first in the upper bits.
template <int Span>
inline void split_planes(const uint8_t* qs, uint8_t* codes) {
  for (int plane = 0; plane < 4; ++plane) {
    for (int i = 0; i < Span; ++i) codes[Span * plane + i] = qs[i] >> (6 - 2 * plane) & 3;
  }
}

inline void pack_block(const quant::BlockI2_S_Arm& src, PackedI2_S& dst, int row) {
  uint8_t codes[64];
  split_planes<16>(src.qs, codes);
  for (int u = 0; u < 2; ++u) set_codes(dst.unit[u], row, codes + 32 * u);
}

inline void pack_block(const quant::BlockI2_S& src, PackedI2_S* dst, int row) {
  uint8_t codes[128];
  split_planes<32>(src.qs, codes);
  for (int u = 0; u < 4; ++u) set_codes(dst[u / 2].unit[u % 2], row, codes + 32 * u);
}
