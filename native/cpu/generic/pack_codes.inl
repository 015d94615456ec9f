// Packing of 32 columns of one row, codes one per byte, into the layouts of codes.inl.

inline void set_codes(Nibbles& dst, int row, const uint8_t* codes) {
  set_nibbles(dst.q, 4, row, codes);
}
inline void set_codes(Threes& dst, int row, const uint8_t* codes) {
  const uint32_t sixth = word_at(codes, 6);
  const uint32_t seventh = word_at(codes, 7);
  for (int v = 0; v < 3; ++v) {
    const uint32_t rest = (sixth >> v & 0x01010101u) << 3 | (seventh >> v & 0x01010101u) << 7;
    set_word(dst.q[v], row, word_at(codes, 2 * v) | word_at(codes, 2 * v + 1) << 4 | rest);
  }
}
inline void set_codes(Pairs& dst, int row, const uint8_t* codes) {
  set_pairs(dst.q, 2, row, codes);
}
