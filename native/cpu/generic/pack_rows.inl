// Packing of one block of all rows of a panel at once, for the formats that most files are in. The
// words of 32 bytes of every row are 8 quads, and quads are what the rest is done on: several times
// the speed of row by row (pack.inl), which serves the other formats.

// The same block of kRows rows of a file, `stride` bytes apart.
template <class Block>
struct BlockRows {
  const std::byte* first;
  size_t stride;

  template <class T>
  T at(int row, size_t offset) const {
    T value;
    __builtin_memcpy(&value, first + static_cast<size_t>(row) * stride + offset, sizeof value);
    return value;
  }
  void quads(size_t offset, VQuad (&out)[8]) const { load_quads(first + offset, stride, out); }
};

// Both nibbles of two quads: the low ones of the bytes into one vector, the high ones into another.
inline void store_nibbles(VQuad even, VQuad odd, uint8_t* low, uint8_t* high) {
  store_quad(low, mask_or(mask(even, 0x0f), shift_left(odd, 4), 0xf0));
  store_quad(high, mask_or(mask(shift_right(even, 4), 0x0f), odd, 0xf0));
}

// `bits` bits of N quads from bit `shift` on, side by side in one vector.
template <int N>
inline VQuad side_by_side(const VQuad* quads, int shift, int bits) {
  const int keep = (1 << bits) - 1;
  VQuad out = mask(shift_right(quads[0], shift), static_cast<uint8_t>(keep));
#pragma GCC unroll kUnroll
  for (int i = 1; i < N; ++i) {
    const int to = bits * i;
    const VQuad moved =
        to > shift ? shift_left(quads[i], to - shift) : shift_right(quads[i], shift - to);
    out = mask_or(out, moved, static_cast<uint8_t>(keep << to));
  }
  return out;
}

// The 6-bit scales and minima of q4_k and q5_k, four at a time.  Source: ggml, get_scale_min_k4.
template <class Block, class Packed>
inline void pack_scales_and_minima(const BlockRows<Block>& src, Packed& dst) {
  constexpr size_t kAt = offsetof(Block, scales);
  for (int row = 0; row < kRows; ++row) {
    dst.d[row] = src.template at<uint16_t>(row, offsetof(Block, d));
    dst.dmin[row] = src.template at<uint16_t>(row, offsetof(Block, dmin));
    const auto lower = src.template at<uint32_t>(row, kAt);
    const auto minima = src.template at<uint32_t>(row, kAt + 4);
    const auto upper = src.template at<uint32_t>(row, kAt + 8);
    const uint32_t scale[2] = {lower & 0x3f3f3f3fu,
                               (upper & 0x0f0f0f0fu) | (lower >> 2 & 0x30303030u)};
    const uint32_t min[2] = {minima & 0x3f3f3f3fu,
                             (upper >> 4 & 0x0f0f0f0fu) | (minima >> 2 & 0x30303030u)};
    for (int g = 0; g < 8; ++g) {
      dst.scale[g][row] = static_cast<uint8_t>(scale[g / 4] >> (8 * (g % 4)));
    }
    for (int j = 0; j < 4; ++j) {
      const auto pair = static_cast<uint16_t>(min[j / 2] >> (16 * (j % 2)));
      __builtin_memcpy(dst.min[j][row], &pair, 2);
    }
  }
}

inline void pack_rows(const BlockRows<quant::BlockQ4_K>& src, PackedQ4_K& dst) {
  pack_scales_and_minima(src, dst);
  for (int j = 0; j < 4; ++j) {
    VQuad q[8];
    src.quads(offsetof(quant::BlockQ4_K, qs) + 32 * static_cast<size_t>(j), q);
#pragma GCC unroll kUnroll
    for (int v = 0; v < 4; ++v) {
      store_nibbles(q[2 * v], q[2 * v + 1], dst.q[2 * j][v], dst.q[2 * j + 1][v]);
    }
  }
}

inline void pack_rows(const BlockRows<quant::BlockQ5_K>& src, PackedQ5_K& dst) {
  pack_scales_and_minima(src, dst);
  VQuad high[8];
  src.quads(offsetof(quant::BlockQ5_K, qh), high);
  for (int j = 0; j < 4; ++j) {
    VQuad q[8];
    src.quads(offsetof(quant::BlockQ5_K, qs) + 32 * static_cast<size_t>(j), q);
    PackedQ5_K::Group* group = dst.group + 2 * j;
#pragma GCC unroll kUnroll
    for (int v = 0; v < 4; ++v) {
      store_nibbles(q[2 * v], q[2 * v + 1], group[0].q[v], group[1].q[v]);
    }
    for (int i = 0; i < 2; ++i) store_quad(group[i].high, side_by_side<8>(high, 2 * j + i, 1));
  }
}

inline void pack_rows(const BlockRows<quant::BlockQ6_K>& src, PackedQ6_K& dst) {
  for (int row = 0; row < kRows; ++row) {
    dst.d[row] = src.at<uint16_t>(row, offsetof(quant::BlockQ6_K, d));
    dst.unused[row] = 0;
    for (int g = 0; g < 16; ++g) {
      dst.scale[g][row] =
          src.at<int8_t>(row, offsetof(quant::BlockQ6_K, scales) + static_cast<size_t>(g));
    }
  }
  for (int half = 0; half < 2; ++half) {
    VQuad high[8];
    src.quads(offsetof(quant::BlockQ6_K, qh) + 32 * static_cast<size_t>(half), high);
    for (int i = 0; i < 2; ++i) {
      VQuad q[8];  // quarter i in the low nibbles, quarter i + 2 in the high ones
      src.quads(offsetof(quant::BlockQ6_K, ql) + 32 * static_cast<size_t>(2 * half + i), q);
      for (int first = 0; first < 2; ++first) {
        PackedQ6_K::Group& low = dst.group[8 * half + 2 * i + first];
        PackedQ6_K::Group& top = dst.group[8 * half + 2 * i + first + 4];
        const VQuad* quads = q + 4 * first;
        store_nibbles(quads[0], quads[1], low.q[0], top.q[0]);
        store_nibbles(quads[2], quads[3], low.q[1], top.q[1]);
        store_quad(low.high, side_by_side<4>(high + 4 * first, 2 * i, 2));
        store_quad(top.high, side_by_side<4>(high + 4 * first, 2 * i + 4, 2));
      }
    }
  }
}

inline void pack_rows(const BlockRows<quant::BlockTQ2_0>& src, PackedTQ2_0& dst) {
  for (int row = 0; row < kRows; ++row) {
    dst.d[row] = src.at<uint16_t>(row, offsetof(quant::BlockTQ2_0, d));
  }
  for (int half = 0; half < 2; ++half) {
    VQuad q[8];
    src.quads(32 * static_cast<size_t>(half), q);
    for (int v = 0; v < 8; ++v) {
      store_quad(dst.q[8 * half + v], side_by_side<4>(q + 4 * (v % 2), 2 * (v / 2), 2));
    }
  }
}

inline void pack_rows(const BlockRows<quant::BlockQ8_0>& src, PackedQ8_0& dst) {
  for (int row = 0; row < kRows; ++row) dst.d[row] = src.at<uint16_t>(row, 0);
  VQuad q[8];
  src.quads(offsetof(quant::BlockQ8_0, qs), q);
#pragma GCC unroll kUnroll
  for (int i = 0; i < 8; ++i) store_quad(dst.q[i], kSignedCodes ? q[i] : flip_signs(q[i]));
}
