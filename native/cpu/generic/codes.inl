// How codes of 32 columns (8 quads) lie in the vectors of a panel and come out of them, for the
// formats of codes256.inl and codes32.inl. A run is what comes out of one read.
//
//   nibbles  4 vectors: quad 2 * v in the low, 2 * v + 1 in the high bits of vector v
//   threes   3 vectors: the same for bits 0..2 and 4..6 of quads 0..5; bits 3 and 7 of vector v are
//   bit
//            v of quads 6 and 7
//   pairs    2 vectors: quad 4 * v + i in bits 2 * i, 2 * i + 1 of vector v
//   bits     1 vector: quad i in bit i
//
// A table maps codes to levels on the way (a byte shuffle); it lies in the code, not in the panel.

struct Nibbles {
  uint8_t q[4][4 * kRows];
  static constexpr int kPerRun = 2;

  void codes(int run, VQuad (&out)[2]) const { split_nibbles(q[run], out); }
};

struct Threes {
  uint8_t q[3][4 * kRows];
  static constexpr int kPerRun = 8;

  void codes(int /*run*/, VQuad (&out)[8]) const {
    VQuad rest[3];
#pragma GCC unroll kUnroll
    for (int v = 0; v < 3; ++v) {
      const VQuad all = load_quad(q[v]);
      out[2 * v] = mask(all, 0x07);
      out[2 * v + 1] = mask(shift_right(all, 4), 0x07);
      rest[v] = shift_right(all, 3 - v);
    }
    const VQuad both = mask_or(mask_or(mask(rest[0], 0x11), rest[1], 0x22), rest[2], 0x44);
    out[6] = mask(both, 0x07);
    out[7] = mask(shift_right(both, 4), 0x07);
  }
};

struct Pairs {
  uint8_t q[2][4 * kRows];
  static constexpr int kPerRun = 4;

  void codes(int run, VQuad (&out)[4]) const {
    const VQuad all = load_quad(q[run]);
    out[0] = mask(all, 0x03);
    out[1] = mask(shift_right(all, 2), 0x03);
    out[2] = mask(shift_right(all, 4), 0x03);
    out[3] = mask(shift_right(all, 6), 0x03);
  }
};

// Codes one per byte, levels already looked up.
struct PlainCodes {
  uint8_t q[8][4 * kRows];
  static constexpr int kPerRun = 1;

  void codes(int run, VQuad (&out)[1]) const { out[0] = load_quad(q[run]); }
};

// Tables of 16 bytes. A level table is signed, or + 128, as kSignedCodes wants it.
struct Table {
  uint8_t bytes[16];
};

constexpr Table table_of(const int8_t (&levels)[16], int zero) {
  Table out{};
  for (int i = 0; i < 16; ++i) out.bytes[i] = static_cast<uint8_t>(levels[i] + zero);
  return out;
}

constexpr int kLevelZero = kSignedCodes ? 0 : 128;
inline constexpr Table kIQ4Table = table_of(quant::kIQ4Levels, kLevelZero);

// Quads become levels of a table.
template <int N>
inline void look_up(const Table& table, VQuad (&quads)[N]) {
  const VQuad levels = load_table(table.bytes);
#pragma GCC unroll kUnroll
  for (int i = 0; i < N; ++i) quads[i] = lookup(levels, quads[i]);
}

// One row of what `codes` gives for 32 columns, as bytes.
template <class Codes>
inline void row_codes(const Codes& codes, int row, uint8_t* out) {
  for (int run = 0; run < 8 / Codes::kPerRun; ++run) {
    VQuad quads[Codes::kPerRun];
    codes.codes(run, quads);
    for (int i = 0; i < Codes::kPerRun; ++i) {
      uint8_t bytes[4 * kRows];
      store_quad(bytes, quads[i]);
      __builtin_memcpy(out + 4 * (Codes::kPerRun * run + i), bytes + 4 * row, 4);
    }
  }
}
