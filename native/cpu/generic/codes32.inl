// Formats with a float scale per 16 to 128 columns, over activations of 32 columns, and i2_s, which
// has one scale for the matrix.
//
//   acc = fma(d_w * d_a, float(sum (u - zero) * q), acc)      per float scale
//   acc = fma(m_w, d_a * sum q, acc)                          q4_1, q5_1
//   i2_s: acc = acc + float(sum code * q), exact; out = (acc - sum q) * (d_w * d_a)
//
// Integer bounds where sums of pairs are kept in int16, as in packed.inl:
//   q4_1 16 * 15 * 127;  q5_1 8 * 31 * 127;  mxfp4 16 * 12 * 127 around zero;  nvfp4 8 * 12 * 127
//   q1_0 16 * 2 * 127;  q2_0 16 * 3 * 127;  i2_s 32 * 2 * 127;  iq4_nl: one quad, signed

// How a sum begins so that it ends as the sum of (u - zero) * q.
enum class Start32 { zero, offset1, offset16, half16, levels };

// Groups: of 32 columns in a packed struct. Scales: of a group, 1 or 2.
template <int Groups, int Scales, int QuadsPerSum, Start32 S, bool HasMin = false>
struct Rules32 {
  static constexpr int kGroups = Groups;
  static constexpr int kScales = Scales;
  static constexpr int kQuadsPerSum = kPairSums ? QuadsPerSum : 8 / Scales;
  static constexpr bool kHasMin = HasMin;

  static VSum start(const Q8Group& a, int quad) {
    if constexpr (S == Start32::offset1) return sum_shift_right(sum_from(a.offset8), 3);
    if constexpr (S == Start32::offset16) return sum_from(a.offset16);
    if constexpr (S == Start32::half16) return sum_from(a.half16[quad / 4]);
    if constexpr (S == Start32::levels) return level_start(a.offset128);
    return sum_zero();
  }
  static VSum multiply(VSum sum, VQuad codes, VQuad acts) {
    return S == Start32::levels ? dot_levels(sum, codes, acts) : dot(sum, codes, acts);
  }
};

template <int Groups>
struct Q8Groups {
  Q8Group group[Groups];
};

template <class Rules, int P, int N, class Source>
inline void step_codes32(const Source* const (&w)[P], const Q8Groups<Rules::kGroups>* const (&a)[N],
                         Tile<P, N>& tile) {
  constexpr int kQuads = Rules::kQuadsPerSum;
  constexpr int kPerRun = Source::kPerRun;
  for (int g = 0; g < Rules::kGroups; ++g) {
    VSum s[P][N];
    vi total[P][N];
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) s[i / N][i % N] = sum_zero();
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) total[i / N][i % N] = int_zero();
#pragma GCC unroll kUnroll
    for (int run = 0; run < 8 / kPerRun; ++run) {
      VQuad codes[P][kPerRun];
#pragma GCC unroll kUnroll
      for (int p = 0; p < P; ++p) w[p]->codes(g, run, codes[p]);
#pragma GCC unroll kUnroll
      for (int i = 0; i < kPerRun; ++i) {
        const int quad = kPerRun * run + i;
        const bool first = quad % (8 / Rules::kScales) < kQuads;  // sum of its scale
        const bool last = quad % (8 / Rules::kScales) == 8 / Rules::kScales - 1;
#pragma GCC unroll kUnroll
        for (int t = 0; t < N; ++t) {
          const Q8Group& group = a[t]->group[g];
          if (quad % kQuads == 0) {
            const VSum begin = Rules::start(group, quad);
#pragma GCC unroll kUnroll
            for (int p = 0; p < P; ++p) s[p][t] = begin;
          }
          const VQuad x = splat_quad(group.q + 4 * quad);
#pragma GCC unroll kUnroll
          for (int p = 0; p < P; ++p) {
            s[p][t] = Rules::multiply(s[p][t], codes[p][i], x);
            if (quad % kQuads == kQuads - 1) {
              const vi sum = widen(s[p][t]);
              total[p][t] = first ? sum : add_int(total[p][t], sum);
            }
            if (last) {
              const vf d = mul(w[p]->scale_f32(g, Rules::kScales * quad / 8), set1(group.d));
              tile.acc[p][t] = fma(d, to_float(total[p][t]), tile.acc[p][t]);
            }
          }
        }
      }
    }
    if constexpr (Rules::kHasMin) {
#pragma GCC unroll kUnroll
      for (int i = 0; i < P * N; ++i) {
        vf& acc = tile.acc[i / N][i % N];
        acc = fma(w[i / N]->min_f32(), set1(a[i % N]->group[g].s), acc);
      }
    }
  }
}

template <class Rules>
struct alignas(64) UnpackedCodes32 {
  static constexpr int kPerRun = PlainCodes::kPerRun;

  PlainCodes unit[Rules::kGroups];
  float d[Rules::kGroups][Rules::kScales][kRows];
  float m[kRows];

  template <class Packed>
  explicit UnpackedCodes32(const Packed& src) {
    for (int g = 0; g < Rules::kGroups; ++g) {
#pragma GCC unroll kUnroll
      for (int run = 0; run < 8 / Packed::kPerRun; ++run) {
        VQuad quads[Packed::kPerRun];
        src.codes(g, run, quads);
#pragma GCC unroll kUnroll
        for (int i = 0; i < Packed::kPerRun; ++i)
          store_quad(unit[g].q[Packed::kPerRun * run + i], quads[i]);
      }
      for (int h = 0; h < Rules::kScales; ++h) store(d[g][h], src.scale_f32(g, h));
    }
    if constexpr (Rules::kHasMin) store(m, src.min_f32());
  }
  void codes(int g, int run, VQuad (&out)[1]) const { unit[g].codes(run, out); }
  vf scale_f32(int g, int h) const { return load(d[g][h]); }
  vf min_f32() const { return load(m); }
};

// What every packed form here but i2_s has.
template <class Codes, class R>
struct Packed32 {
  using Rules = R;
  using Act = Q8Groups<Rules::kGroups>;
  using Unpacked = UnpackedCodes32<Rules>;
  static constexpr int kPerRun = Codes::kPerRun;

  template <int P, int N, class Source>
  static void step(const Source* const (&w)[P], const Act* const (&a)[N], Tile<P, N>& tile) {
    step_codes32<Rules, P, N>(w, a, tile);
  }
};

struct PackedQ4_1 : Packed32<Nibbles, Rules32<1, 1, 8, Start32::zero, true>> {
  uint16_t d[kRows];
  uint16_t m[kRows];
  Nibbles unit;

  void codes(int /*g*/, int run, VQuad (&out)[2]) const { unit.codes(run, out); }
  vf scale_f32(int /*g*/, int /*h*/) const { return load_f16(d); }
  vf min_f32() const { return load_f16(m); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    uint8_t column[32];
    row_codes(unit, row, column);
    for (const uint8_t code : column)
      *out++ = static_cast<float>(code) * f16_to_f32(d[row]) + f16_to_f32(m[row]);
  }
};
static_assert(sizeof(PackedQ4_1) == 20 * kRows);

// Nibbles and a fifth bit.
struct Fives {
  uint8_t high[4 * kRows];  // bit `quad`
  uint8_t q[4][4 * kRows];
  static constexpr int kPerRun = 2;

  void codes(int run, VQuad (&out)[2]) const {
    split_nibbles(q[run], out);
    add_fifth_bits(high, run, out);
  }
};

struct PackedQ5_1 : Packed32<Fives, Rules32<1, 1, 4, Start32::zero, true>> {
  uint16_t d[kRows];
  uint16_t m[kRows];
  Fives unit;

  void codes(int /*g*/, int run, VQuad (&out)[2]) const { unit.codes(run, out); }
  vf scale_f32(int /*g*/, int /*h*/) const { return load_f16(d); }
  vf min_f32() const { return load_f16(m); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    uint8_t column[32];
    row_codes(unit, row, column);
    for (const uint8_t code : column)
      *out++ = static_cast<float>(code) * f16_to_f32(d[row]) + f16_to_f32(m[row]);
  }
};
static_assert(sizeof(PackedQ5_1) == 24 * kRows);

struct PackedIQ4_NL : Packed32<Nibbles, Rules32<1, 1, 1, Start32::levels>> {
  uint16_t d[kRows];
  Nibbles unit;

  void codes(int /*g*/, int run, VQuad (&out)[2]) const {
    unit.codes(run, out);
    look_up(kIQ4Table, out);
  }
  vf scale_f32(int /*g*/, int /*h*/) const { return load_f16(d); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    uint8_t column[32];
    row_codes(unit, row, column);
    for (const uint8_t code : column)
      *out++ = static_cast<float>(quant::kIQ4Levels[code]) * f16_to_f32(d[row]);
  }
};
static_assert(sizeof(PackedIQ4_NL) == 18 * kRows);

inline constexpr Table kE2M1Table = table_of(quant::kE2M1Levels, 16);

// The power of two as bf16, which holds the subnormal ones too.
struct PackedMXFP4 : Packed32<Nibbles, Rules32<1, 1, 8, Start32::offset16>> {
  uint16_t d[kRows];
  Nibbles unit;

  void codes(int /*g*/, int run, VQuad (&out)[2]) const {
    unit.codes(run, out);
    look_up(kE2M1Table, out);
  }
  vf scale_f32(int /*g*/, int /*h*/) const { return load_bf16(d); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    uint8_t column[32];
    row_codes(unit, row, column);
    for (const uint8_t code : column)
      *out++ = static_cast<float>(quant::kE2M1Levels[code]) * bf16_to_f32(d[row]);
  }
};
static_assert(sizeof(PackedMXFP4) == 18 * kRows);

// Half of a block: two e4m3 scales without sign and without 0x7f, which means zero.
struct PackedNVFP4 : Packed32<Nibbles, Rules32<1, 2, 4, Start32::half16>> {
  uint8_t d[2][kRows];
  Nibbles unit;

  void codes(int /*g*/, int run, VQuad (&out)[2]) const {
    unit.codes(run, out);
    look_up(kE2M1Table, out);
  }
  vf scale_f32(int /*g*/, int h) const { return load_e4m3(d[h]); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    uint8_t column[32];
    row_codes(unit, row, column);
    for (int i = 0; i < 32; ++i) {
      const float y = f16_to_f32(static_cast<uint16_t>(d[i / 16][row] << 7)) * 128.0f;
      *out++ = static_cast<float>(quant::kE2M1Levels[column[i]]) * y;
    }
  }
};
static_assert(sizeof(PackedNVFP4) == 18 * kRows);

// Codes 0 and 2 of 32 columns: bit i of a byte belongs to quad i.
struct Bits {
  uint8_t q[4 * kRows];
  static constexpr int kPerRun = 8;

  void codes(int /*run*/, VQuad (&out)[8]) const {
    const VQuad all = load_quad(q);
#pragma GCC unroll kUnroll
    for (int i = 0; i < 8; ++i)
      out[i] = mask(i == 0 ? shift_left(all, 1) : shift_right(all, i - 1), 0x02);
  }
};

// d and Units units of 32 columns of codes around 1.
template <class Codes, int Units>
struct PackedAroundOne : Packed32<Codes, Rules32<Units, 1, 8, Start32::offset1>> {
  uint16_t d[kRows];
  Codes unit[Units];

  void codes(int g, int run, VQuad (&out)[Codes::kPerRun]) const { unit[g].codes(run, out); }
  vf scale_f32(int /*g*/, int /*h*/) const { return load_f16(d); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    for (const Codes& codes : unit) {
      uint8_t column[32];
      row_codes(codes, row, column);
      for (const uint8_t code : column) *out++ = static_cast<float>(code - 1) * f16_to_f32(d[row]);
    }
  }
};
using PackedQ1_0 = PackedAroundOne<Bits, 4>;
using PackedQ2_0 = PackedAroundOne<Pairs, 2>;
static_assert(sizeof(PackedQ1_0) == 18 * kRows && sizeof(PackedQ2_0) == 18 * kRows);

// 64 columns of i2_s.
struct Q8Columns {
  int8_t q[64];
};

struct alignas(64) UnpackedI2_S {
  static constexpr int kPerRun = PlainCodes::kPerRun;
  PlainCodes unit[2];

  template <class Packed>
  explicit UnpackedI2_S(const Packed& src) {
    for (int u = 0; u < 2; ++u) {
      for (int run = 0; run < 2; ++run) {
        VQuad quads[4];
        src.codes(u, run, quads);
#pragma GCC unroll kUnroll
        for (int i = 0; i < 4; ++i) store_quad(unit[u].q[4 * run + i], quads[i]);
      }
    }
  }
  void codes(int u, int run, VQuad (&out)[1]) const { unit[u].codes(run, out); }
};

struct PackedI2_S {
  using Act = Q8Columns;
  using Unpacked = UnpackedI2_S;
  static constexpr int kPerRun = Pairs::kPerRun;
  Pairs unit[2];

  void codes(int u, int run, VQuad (&out)[4]) const { unit[u].codes(run, out); }

  template <int P, int N, class Source>
  static void step(const Source* const (&w)[P], const Act* const (&a)[N], Tile<P, N>& tile) {
    VSum s[P][N];
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) s[i / N][i % N] = sum_zero();
#pragma GCC unroll kUnroll
    for (int run = 0; run < 16 / Source::kPerRun; ++run) {
      VQuad codes[P][Source::kPerRun];
#pragma GCC unroll kUnroll
      for (int p = 0; p < P; ++p)
        w[p]->codes(Source::kPerRun * run / 8, run % (8 / Source::kPerRun), codes[p]);
#pragma GCC unroll kUnroll
      for (int i = 0; i < Source::kPerRun; ++i) {
#pragma GCC unroll kUnroll
        for (int t = 0; t < N; ++t) {
          const VQuad x = splat_quad(a[t]->q + 4 * (Source::kPerRun * run + i));
#pragma GCC unroll kUnroll
          for (int p = 0; p < P; ++p) s[p][t] = dot(s[p][t], codes[p][i], x);
        }
      }
    }
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) {
      vf& acc = tile.acc[i / N][i % N];
      acc = add(acc, to_float(widen(s[i / N][i % N])));
    }
  }

  template <class Call>
  static vf finish(const Call& call, int64_t token, vf acc) {
    const std::byte* row = call.acts + static_cast<size_t>(token) * call.act_stride;
    const auto& end = *reinterpret_cast<const Q8RowEnd*>(row + (call.w.cols + 63) / 64 * 64);
    return mul(sub(acc, set1(end.sum)), set1(call.w.scale * end.d));
  }

  void unpack(const PackedMatrix& w, int row, float* out) const {
    for (const Pairs& codes : unit) {
      uint8_t column[32];
      row_codes(codes, row, column);
      for (const uint8_t code : column) *out++ = static_cast<float>(code - 1) * w.scale;
    }
  }
};
static_assert(sizeof(PackedI2_S) == 16 * kRows);

template <quant::Format Name, class Packed, int Cols, class Block, int PerBlock = 1>
using Kind32 = Kind<Name, Packed, Family::own, Cols, Block, PerBlock>;

using Kinds = KindList<Kind32<quant::Format::q4_1, PackedQ4_1, 32, quant::BlockQ4_1>,
                       Kind32<quant::Format::q5_1, PackedQ5_1, 32, quant::BlockQ5_1>,
                       Kind32<quant::Format::iq4_nl, PackedIQ4_NL, 32, quant::BlockIQ4_NL>,
                       Kind32<quant::Format::mxfp4, PackedMXFP4, 32, quant::BlockMXFP4>,
                       Kind32<quant::Format::nvfp4, PackedNVFP4, 32, quant::BlockNVFP4, 2>,
                       Kind32<quant::Format::q1_0, PackedQ1_0, 128, quant::BlockQ1_0>,
                       Kind32<quant::Format::q2_0, PackedQ2_0, 64, quant::BlockQ2_0>,
                       Kind32<quant::Format::i2_s_arm, PackedI2_S, 64, quant::BlockI2_S_Arm>,
                       Kind32<quant::Format::i2_s, PackedI2_S, 64, quant::BlockI2_S, 2>>;
