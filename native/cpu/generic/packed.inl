// Packed super-groups and groups of every format: layout, and how codes and scales come out of
// them.
//
// One struct is what a panel of kRows rows holds for one group (32 columns) or super-group (256),
// in the order the kernels read it, so that a panel is one rising stream. Byte 4 * r + i of a quad
// is column i of row r. A byte of `q` with two codes holds quad 2 * v in the low and quad 2 * v + 1
// in the high bits.
//
// Integer bounds where sums of pairs are kept in int16 (they may wrap on the way, the finished sum
// fits):
//   q4_k  16 products of 15 * 127                       = 30480
//   q5_k   8 products of 31 * 127, hence two sums a group = 31496
//   q6_k   8 products of 32 * 127 around zero            = 32512
//   tq2_0 128 products of 2 * 127 around zero            = 32512
//   q4_0  16 products of 8 * 127 around zero = 16256;  q5_0  16 products of 16 * 127 = 32512

// Quads 2 * v (low nibbles) and 2 * v + 1.
inline void split_nibbles(const uint8_t* p, VQuad (&out)[2]) {
  const VQuad both = load_quad(p);
  out[0] = mask(both, 0x0f);
  out[1] = mask(shift_right(both, 4), 0x0f);
}

// Bits 2 * v and 2 * v + 1 of `high` become bit 4 of the two quads.
inline void add_fifth_bits(const uint8_t* high, int v, VQuad (&out)[2]) {
  const VQuad h = load_quad(high);
  out[0] = mask_or(out[0], v < 2 ? shift_left(h, 4 - 2 * v) : shift_right(h, 2 * v - 4), 0x10);
  out[1] = mask_or(out[1], v < 2 ? shift_left(h, 3 - 2 * v) : shift_right(h, 2 * v - 3), 0x10);
}

// 256-column formats: kGroups groups of kVectors * kPerVector quads, each with an integer scale.
struct PackedQ4_K {
  uint16_t d[kRows];
  uint16_t dmin[kRows];
  uint8_t scale[8][kRows];
  uint8_t min[4][kRows][2];  // groups 2 * j, 2 * j + 1
  uint8_t q[8][4][4 * kRows];

  static constexpr int kGroups = 8;
  static constexpr int kPerVector = 2;      // quads that one stored vector holds
  static constexpr int kVectors = 4;        // stored vectors of a group
  static constexpr int kVectorsPerSum = 4;  // as far as a sum of pairs fits
  static constexpr bool kHasMin = true;

  void codes(int g, int v, VQuad (&out)[2]) const { split_nibbles(q[g][v], out); }
  VScale group_scale(int g) const { return scale_from_u8(scale[g]); }
  VPair min_pair(int j) const { return pair_from_u8(min[j][0]); }
  vf scale_f32() const { return load_f16(d); }
  vf min_f32() const { return load_f16(dmin); }
};
static_assert(sizeof(PackedQ4_K) == 148 * kRows);

struct PackedQ5_K {
  struct Group {
    uint8_t high[4 * kRows];  // bit `quad`
    uint8_t q[4][4 * kRows];
  };
  uint16_t d[kRows];
  uint16_t dmin[kRows];
  uint8_t scale[8][kRows];
  uint8_t min[4][kRows][2];
  Group group[8];

  static constexpr int kGroups = 8;
  static constexpr int kPerVector = 2;
  static constexpr int kVectors = 4;
  static constexpr int kVectorsPerSum = kPairSums ? 2 : 4;
  static constexpr bool kHasMin = true;

  void codes(int g, int v, VQuad (&out)[2]) const {
    split_nibbles(group[g].q[v], out);
    add_fifth_bits(group[g].high, v, out);
  }
  VScale group_scale(int g) const { return scale_from_u8(scale[g]); }
  VPair min_pair(int j) const { return pair_from_u8(min[j][0]); }
  vf scale_f32() const { return load_f16(d); }
  vf min_f32() const { return load_f16(dmin); }
};
static_assert(sizeof(PackedQ5_K) == 180 * kRows);

struct PackedQ6_K {
  struct Group {
    uint8_t high[4 * kRows];  // bits 2 * quad, 2 * quad + 1
    uint8_t q[2][4 * kRows];
  };
  uint16_t d[kRows];
  uint16_t unused[kRows];  // keeps the quads of a panel aligned to a vector
  int8_t scale[16][kRows];
  Group group[16];

  static constexpr int kGroups = 16;
  static constexpr int kPerVector = 2;
  static constexpr int kVectors = 2;
  static constexpr int kVectorsPerSum = 2;
  static constexpr bool kHasMin = false;

  void codes(int g, int v, VQuad (&out)[2]) const {
    split_nibbles(group[g].q[v], out);
    const VQuad h = load_quad(group[g].high);
    out[0] = mask_or(out[0], v == 0 ? shift_left(h, 4) : h, 0x30);
    out[1] = mask_or(out[1], v == 0 ? shift_left(h, 2) : shift_right(h, 2), 0x30);
  }
  VScale group_scale(int g) const { return scale_from_s8(scale[g]); }
  vf scale_f32() const { return load_f16(d); }
};
static_assert(sizeof(PackedQ6_K) == 212 * kRows);

// 256 columns, no group scales.
struct PackedTQ2_0 {
  uint16_t d[kRows];
  uint8_t q[16][4 * kRows];  // bits 2 * i, 2 * i + 1: quad 4 * v + i

  static constexpr int kPerVector = 4;
  static constexpr int kVectors = 16;

  void codes(int v, VQuad (&out)[4]) const {
    const VQuad all = load_quad(q[v]);
    out[0] = mask(all, 0x03);
    out[1] = mask(shift_right(all, 2), 0x03);
    out[2] = mask(shift_right(all, 4), 0x03);
    out[3] = mask(shift_right(all, 6), 0x03);
  }
  vf scale_f32() const { return load_f16(d); }
};
static_assert(sizeof(PackedTQ2_0) == 66 * kRows);

// 32-column formats.
struct PackedQ4_0 {
  uint16_t d[kRows];
  uint8_t q[4][4 * kRows];

  static constexpr bool kSigned = false;
  static constexpr int kPerVector = 2;
  static constexpr int kVectors = 4;

  void codes(int v, VQuad (&out)[2]) const { split_nibbles(q[v], out); }
  static int32_t offset(const Q8Group& a) { return a.offset8; }
  vf scale_f32() const { return load_f16(d); }
};
static_assert(sizeof(PackedQ4_0) == 18 * kRows);

struct PackedQ5_0 {
  uint16_t d[kRows];
  uint8_t high[4 * kRows];  // bit `quad`
  uint8_t q[4][4 * kRows];

  static constexpr bool kSigned = false;
  static constexpr int kPerVector = 2;
  static constexpr int kVectors = 4;

  void codes(int v, VQuad (&out)[2]) const {
    split_nibbles(q[v], out);
    add_fifth_bits(high, v, out);
  }
  static int32_t offset(const Q8Group& a) { return a.offset16; }
  vf scale_f32() const { return load_f16(d); }
};
static_assert(sizeof(PackedQ5_0) == 22 * kRows);

struct PackedQ8_0 {
  uint16_t d[kRows];
  uint8_t q[8][4 * kRows];  // int8, or int8 + 128 unless kSignedCodes

  static constexpr bool kSigned = true;
  static constexpr int kPerVector = 1;
  static constexpr int kVectors = 8;

  void codes(int v, VQuad (&out)[1]) const { out[0] = load_quad(q[v]); }
  static int32_t offset(const Q8Group& a) { return a.offset128; }
  vf scale_f32() const { return load_f16(d); }
};
static_assert(sizeof(PackedQ8_0) == 34 * kRows);

// Float weights: one column of kRows rows.
struct PackedF32 {
  float x[kRows];
  vf value() const { return load(x); }
};
struct PackedF16 {
  uint16_t x[kRows];
  vf value() const { return load_f16(x); }
};
struct PackedBF16 {
  uint16_t x[kRows];
  vf value() const { return load_bf16(x); }
};
