// Packing of the formats of codes256.inl. Layouts of the blocks: src/tokamak/quant/{kquants,fp4,
// iquants}.py, the readable twins.

// Unit u of q2_k and q3_k: bits 2 * (u % 4) of 32 bytes.
inline void planar_pairs(const uint8_t* qs, int u, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] = qs[32 * (u / 4) + i] >> (2 * (u % 4)) & 3;
}

inline void pack_block(const quant::BlockQ2_K& src, PackedQ2_K& dst, int row) {
  dst.d[row] = src.d;
  dst.dmin[row] = src.dmin;
  for (int g = 0; g < 16; ++g) dst.both[g / 2][row][g % 2] = src.scales[g];
  for (int u = 0; u < 8; ++u) {
    uint8_t codes[32];
    planar_pairs(src.qs, u, codes);
    set_codes(dst.unit[u], row, codes);
  }
}

// The 6-bit scales + 32: low nibbles in bytes 0..7, the upper two bits in bytes 8..11.
inline int q3_k_scale(const uint8_t (&scales)[12], int g) {
  const int low = scales[g % 8] >> (4 * (g / 8)) & 15;
  const int high = scales[8 + g % 4] >> (2 * (g / 4)) & 3;
  return (low | high << 4) - 32;
}

inline void pack_block(const quant::BlockQ3_K& src, PackedQ3_K& dst, int row) {
  dst.d[row] = src.d;
  dst.unused[row] = 0;
  for (int g = 0; g < 16; ++g) dst.scale[g][row] = static_cast<int8_t>(q3_k_scale(src.scales, g));
  for (int u = 0; u < 8; ++u) {
    uint8_t codes[32];
    planar_pairs(src.qs, u, codes);
    for (int i = 0; i < 32; ++i)
      codes[i] = static_cast<uint8_t>(codes[i] | (src.hmask[i] >> u & 1) << 2);
    set_codes(dst.unit[u], row, codes);
  }
}

inline void pack_block(const quant::BlockIQ4_XS& src, PackedIQ4_XS& dst, int row) {
  dst.d[row] = src.d;
  dst.unused[row] = 0;
  for (int g = 0; g < 8; ++g) {
    const int low = src.scales_l[g / 2] >> (4 * (g % 2)) & 15;
    const int high = src.scales_h >> (2 * g) & 3;
    dst.scale[g][row] = static_cast<int8_t>((low | high << 4) - 32);
    uint8_t codes[32];
    for (int i = 0; i < 16; ++i) {
      codes[i] = src.qs[16 * g + i] & 15;
      codes[i + 16] = src.qs[16 * g + i] >> 4;
    }
    set_codes(dst.unit[g], row, codes);
  }
}

// Codes of 8 columns: a point's digits with bit i of `signs` at bit `at` of column i.
inline void signed_point(const uint8_t* digits, unsigned signs, int at, uint8_t* codes) {
  for (int half = 0; half < 2; ++half) {
    const uint32_t bits = (signs >> (4 * half) & 15u) * 0x00204081u & 0x01010101u;
    const uint32_t word = word_at(digits, half) | bits << at;
    __builtin_memcpy(codes + 4 * half, &word, 4);
  }
}

// Seven signs are completed to an even number of minus signs.
inline unsigned even_signs(uint32_t seven) {
  seven &= 127;
  return seven | (static_cast<unsigned>(__builtin_popcount(seven)) & 1u) << 7;
}

// The scale of 4 bits of group g of 16 columns, or of 32.
inline uint8_t odd_scale(unsigned scale) { return static_cast<uint8_t>(2 * (scale & 15) + 1); }

// Fills a packed iq2 row: point(i) and signs(i) of 8 columns each, scale(g) of a group.
template <int Groups, class Point, class Signs, class Scale>
inline void pack_iq2(PackedIQ2<Groups>& dst, int row, uint16_t d, quant::Grid grid, Point point,
                     Signs signs, Scale scale) {
  const quant::Lattice& lattice = quant::lattice(grid);
  dst.d[row] = d;
  dst.unused[row] = 0;
  for (int g = 0; g < Groups; ++g) dst.scale[g][row] = odd_scale(scale(g));
  for (int u = 0; u < 8; ++u) {
    uint8_t codes[32];
    for (int i = 0; i < 4; ++i)
      signed_point(lattice.point(point(4 * u + i)), signs(4 * u + i), 2, codes + 8 * i);
    set_codes(dst.unit[u], row, codes);
  }
}

inline uint32_t u32_at(const uint8_t* bytes, int i) {
  uint32_t word;
  __builtin_memcpy(&word, bytes + 4 * i, 4);
  return word;
}

inline void pack_block(const quant::BlockIQ2_XXS& src, PackedIQ2<8>& dst, int row) {
  pack_iq2(
      dst, row, src.d, quant::Grid::iq2_xxs, [&](int i) { return src.qs[8 * (i / 4) + i % 4]; },
      [&](int i) { return even_signs(u32_at(src.qs, 2 * (i / 4) + 1) >> (7 * (i % 4))); },
      [&](int g) { return u32_at(src.qs, 2 * g + 1) >> 28; });
}

inline void pack_block(const quant::BlockIQ2_XS& src, PackedIQ2<16>& dst, int row) {
  pack_iq2(
      dst, row, src.d, quant::Grid::iq2_xs, [&](int i) { return src.qs[i] & 511; },
      [&](int i) { return even_signs(src.qs[i] >> 9); },
      [&](int g) { return static_cast<unsigned>(src.scales[g / 2]) >> (4 * (g % 2)); });
}

inline void pack_block(const quant::BlockIQ2_S& src, PackedIQ2<16>& dst, int row) {
  pack_iq2(
      dst, row, src.d, quant::Grid::iq2_s,
      [&](int i) { return src.qs[i] | (src.qh[i / 4] >> (2 * (i % 4)) & 3) << 8; },
      [&](int i) { return unsigned{src.signs[i]}; },
      [&](int g) { return static_cast<unsigned>(src.scales[g / 2]) >> (4 * (g % 2)); });
}

// The same for iq3: point(i) of 4 columns, signs(i) of 8, scale(g) of 32.
template <class Packed, class Point, class Signs, class Scale>
inline void pack_iq3(Packed& dst, int row, uint16_t d, quant::Grid grid, Point point, Signs signs,
                     Scale scale) {
  const quant::Lattice& lattice = quant::lattice(grid);
  dst.d[row] = d;
  dst.unused[row] = 0;
  for (int u = 0; u < 8; ++u) {
    dst.scale[u][row] = odd_scale(scale(u));
    uint8_t codes[32];
    for (int i = 0; i < 4; ++i) {
      uint8_t digits[8];
      for (int half = 0; half < 2; ++half)
        __builtin_memcpy(digits + 4 * half, lattice.point(point(8 * u + 2 * i + half)), 4);
      signed_point(digits, signs(4 * u + i), 3, codes + 8 * i);
    }
    set_codes(dst.unit[u], row, codes);
  }
}

inline void pack_block(const quant::BlockIQ3_XXS& src, PackedIQ3_XXS& dst, int row) {
  pack_iq3(
      dst, row, src.d, quant::Grid::iq3_xxs, [&](int i) { return int{src.qs[i]}; },
      [&](int i) { return even_signs(u32_at(src.signs, i / 4) >> (7 * (i % 4))); },
      [&](int g) { return u32_at(src.signs, g) >> 28; });
}

inline void pack_block(const quant::BlockIQ3_S& src, PackedIQ3_S& dst, int row) {
  pack_iq3(
      dst, row, src.d, quant::Grid::iq3_s,
      [&](int i) { return src.qs[i] | (src.qh[i / 8] >> (i % 8) & 1) << 8; },
      [&](int i) { return unsigned{src.signs[i]}; },
      [&](int g) { return static_cast<unsigned>(src.scales[g / 2]) >> (4 * (g % 2)); });
}

inline void pack_block(const quant::BlockIQ1_M& src, PackedIQ1_M& dst, int row) {
  const quant::Lattice& lattice = quant::lattice(quant::Grid::iq1);
  unsigned d = 0;
  for (int i = 0; i < 4; ++i) d |= static_cast<unsigned>(src.scales[i] >> 12) << (4 * i);
  dst.d[row] = static_cast<uint16_t>(d);
  dst.unused[row] = 0;
  for (int g = 0; g < 16; ++g) {
    const unsigned scale = static_cast<unsigned>(src.scales[g / 4]) >> (3 * (g % 4)) & 7u;
    dst.scale[g][row] = odd_scale(scale);
  }
  for (int u = 0; u < 8; ++u) {
    uint8_t codes[32];
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * u + i;
      const unsigned nibble = static_cast<unsigned>(src.qh[at / 2]) >> (4 * (at % 2)) & 15u;
      const int point = src.qs[at] | static_cast<int>(nibble & 7) << 8;
      signed_point(lattice.point(point), nibble >> 3 != 0 ? 255 : 0, 2, codes + 8 * i);
    }
    set_codes(dst.unit[u], row, codes);
  }
}

inline void pack_block(const quant::BlockIQ1_S& src, PackedIQ1_S& dst, int row) {
  const quant::Lattice& lattice = quant::lattice(quant::Grid::iq1);
  dst.d[row] = src.d;
  dst.unused[row] = 0;
  for (int u = 0; u < 8; ++u) {
    const int scale = 2 * (src.qh[u] >> 12 & 7) + 1;
    dst.both[u / 2][row][u % 2] = static_cast<int8_t>(src.qh[u] >> 15 != 0 ? -scale : scale);
    uint8_t codes[32];
    for (int i = 0; i < 4; ++i) {
      const int point = src.qs[4 * u + i] | (src.qh[u] >> (3 * i) & 7) << 8;
      __builtin_memcpy(codes + 8 * i, lattice.point(point), 8);
    }
    set_codes(dst.unit[u], row, codes);
  }
}
