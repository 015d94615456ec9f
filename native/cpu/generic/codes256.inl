// Formats of 256 columns with 8 or 16 groups, one kernel for all of them.
//
//   acc = fma(d_w * d_a, float(sum_g scale_g * sum (u - zero) * q), acc)
//   acc = acc - (dmin_w * d_a) * float(sum_g min_g * sum q)           q2_k
//   acc = fma(d_w * d_a, float(8 * sum_g scale_g * sum u * q + sum_g min_g * sum q), acc)   iq1_s
//
// u are unsigned codes, or levels of a table plus `zero`. A packed form says how its codes lie,
// what its zero is and how many quads fit an int16 sum where sums are pairs:
//   q2_k 3 * 127 * 8;  q3_k 4 * 127 * 8 around zero;  iq1_s 2 * 127 * 16;  iq1_m 9 * 127 * 8
//   iq3 31 * 127 * 8 around zero = 31496;  iq2 43 * 127 * 4 around zero = 21844;  iq4_xs: one quad,
//   signed

// How a sum begins so that it ends as the sum of (u - zero) * q.
enum class Start { zero, offset32, offset4, offset64, levels };

// Minima: none, floats of their own, or integers that share the scale.
enum class Minima { none, floats, integers };

template <int Groups, int QuadsPerSum, Start S, Minima M = Minima::none>
struct Rules256 {
  static constexpr int kGroups = Groups;
  static constexpr int kQuadsPerSum = kPairSums ? QuadsPerSum : 64 / Groups;
  static constexpr Start kStart = S;
  static constexpr Minima kMinima = M;
  using Act = std::conditional_t<S == Start::offset64, Q8FineSuperGroup, Q8SuperGroup>;

  // The sum over quads [first, first + kQuadsPerSum) of unit u (32 columns).
  static VSum start(const Act& a, int u, int first) {
    if constexpr (S == Start::zero) return sum_zero();
    if constexpr (S == Start::levels)
      return level_start(4 * (a.offset32[2 * u] + a.offset32[2 * u + 1]));
    if constexpr (S == Start::offset64) {
      VSum sum = sum_from(a.offset64[4 * u + first / 2]);
      for (int i = 1; i < kQuadsPerSum / 2; ++i)
        sum = sum_add(sum, sum_from(a.offset64[4 * u + first / 2 + i]));
      return sum;
    }
    VSum sum = sum_from(a.offset32[2 * u + first / 4]);
    if constexpr (kQuadsPerSum > 4) sum = sum_add(sum, sum_from(a.offset32[2 * u + 1]));
    return S == Start::offset4 ? sum_shift_right(sum, 3) : sum;
  }
  static VSum multiply(VSum sum, VQuad codes, VQuad acts) {
    return S == Start::levels ? dot_levels(sum, codes, acts) : dot(sum, codes, acts);
  }
};

// Adds one super-group's integers, scaled, to the chain of a (row, token).
template <class Rules, class Source>
inline void finish_codes256(const Source& w, const typename Rules::Act& a, vi total, vf& acc) {
  const vf d = set1(a.d);
  if constexpr (Rules::kMinima == Minima::none) {
    acc = fma(mul(w.scale_f32(), d), to_float(total), acc);
  } else {
    const int16_t* sums = Rules::kGroups == 16 ? a.sums16 : a.sums;
    vi minima = int_zero();
#pragma GCC unroll kUnroll
    for (int j = 0; j < Rules::kGroups / 2; ++j)
      minima = dot_pair(minima, w.min_pair(j), sums + 2 * j);
    if constexpr (Rules::kMinima == Minima::floats) {
      acc = fma(mul(w.scale_f32(), d), to_float(total), acc);
      acc = fnma(mul(w.min_f32(), d), to_float(minima), acc);
    } else {
      acc = fma(mul(w.scale_f32(), d), to_float(add_int(shift_left_int(total, 3), minima)), acc);
    }
  }
}

// One super-group of P panels times those of N tokens.
template <class Rules, int P, int N, class Source>
inline void step_codes256(const Source* const (&w)[P], const typename Rules::Act* const (&a)[N],
                          Tile<P, N>& tile) {
  constexpr int kQuads = Rules::kQuadsPerSum;
  constexpr int kPerRun = Source::kPerRun;
  vi total[P][N];
#pragma GCC unroll kUnroll
  for (int i = 0; i < P * N; ++i) total[i / N][i % N] = int_zero();
  VSum s[P][N];
#pragma GCC unroll kUnroll
  for (int i = 0; i < P * N; ++i) s[i / N][i % N] = sum_zero();
  for (int u = 0; u < 8; ++u) {
#pragma GCC unroll kUnroll
    for (int run = 0; run < 8 / kPerRun; ++run) {
      VQuad codes[P][kPerRun];
#pragma GCC unroll kUnroll
      for (int p = 0; p < P; ++p) w[p]->codes(u, run, codes[p]);
#pragma GCC unroll kUnroll
      for (int i = 0; i < kPerRun; ++i) {
        const int quad = kPerRun * run + i;
#pragma GCC unroll kUnroll
        for (int t = 0; t < N; ++t) {
          if (quad % kQuads == 0) {
            const VSum begin = Rules::start(*a[t], u, quad);
#pragma GCC unroll kUnroll
            for (int p = 0; p < P; ++p) s[p][t] = begin;
          }
          const VQuad x = splat_quad(a[t]->q + 32 * u + 4 * quad);
#pragma GCC unroll kUnroll
          for (int p = 0; p < P; ++p) s[p][t] = Rules::multiply(s[p][t], codes[p][i], x);
        }
        if (quad % kQuads == kQuads - 1) {
#pragma GCC unroll kUnroll
          for (int p = 0; p < P; ++p) {
            const VScale scale =
                w[p]->group_scale(Rules::kGroups / 8 * u + Rules::kGroups * quad / 64);
#pragma GCC unroll kUnroll
            for (int t = 0; t < N; ++t) total[p][t] = scale_add(total[p][t], s[p][t], scale);
          }
        }
      }
    }
  }
#pragma GCC unroll kUnroll
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll kUnroll
    for (int t = 0; t < N; ++t) finish_codes256<Rules>(*w[p], *a[t], total[p][t], tile.acc[p][t]);
  }
}

// Codes one per byte, scales widened: what many tokens read from the first-level cache. Formats
// with the same rules share it.
template <class Rules>
struct alignas(64) UnpackedCodes256 {
  static constexpr int kPerRun = PlainCodes::kPerRun;
  static constexpr int kPairs = Rules::kMinima == Minima::none ? 1 : Rules::kGroups / 2;

  PlainCodes unit[8];
  uint8_t scale[Rules::kGroups][4 * kRows];
  uint8_t min[kPairs][4 * kRows];
  float d[kRows];
  float dmin[kRows];

  template <class Packed>
  explicit UnpackedCodes256(const Packed& src) {
    for (int u = 0; u < 8; ++u) {
#pragma GCC unroll kUnroll
      for (int run = 0; run < 8 / Packed::kPerRun; ++run) {
        VQuad quads[Packed::kPerRun];
        src.codes(u, run, quads);
#pragma GCC unroll kUnroll
        for (int i = 0; i < Packed::kPerRun; ++i)
          store_quad(unit[u].q[Packed::kPerRun * run + i], quads[i]);
      }
    }
    for (int g = 0; g < Rules::kGroups; ++g) store_scale(scale[g], src.group_scale(g));
    store(d, src.scale_f32());
    if constexpr (Rules::kMinima != Minima::none) {
      for (int j = 0; j < kPairs; ++j) store_pair(min[j], src.min_pair(j));
    }
    if constexpr (Rules::kMinima == Minima::floats) store(dmin, src.min_f32());
  }
  void codes(int u, int run, VQuad (&out)[1]) const { unit[u].codes(run, out); }
  VScale group_scale(int g) const { return load_scale(scale[g]); }
  VPair min_pair(int j) const { return load_pair(min[j]); }
  vf scale_f32() const { return load(d); }
  vf min_f32() const { return load(dmin); }
};

// What every packed form here has: codes of 32 columns, the kernel, the unpacked form.
template <class Codes, class R>
struct Packed256 {
  using Rules = R;
  using Act = typename Rules::Act;
  using Unpacked = UnpackedCodes256<Rules>;
  static constexpr int kPerRun = Codes::kPerRun;

  template <int P, int N, class Source>
  static void step(const Source* const (&w)[P], const Act* const (&a)[N], Tile<P, N>& tile) {
    step_codes256<Rules, P, N>(w, a, tile);
  }
};

// A scale and a minimum of 4 bits each to a byte.
struct PackedQ2_K : Packed256<Pairs, Rules256<16, 4, Start::zero, Minima::floats>> {
  uint16_t d[kRows];
  uint16_t dmin[kRows];
  uint8_t both[8][kRows][2];  // groups 2 * j, 2 * j + 1: scale | min << 4
  Pairs unit[8];

  void codes(int u, int run, VQuad (&out)[4]) const { unit[u].codes(run, out); }
  VScale group_scale(int g) const {
    const VPair scales = pair_mask(pair_from_u8(both[g >> 1][0]), 0x0f);
    return (g & 1) != 0 ? pair_odd(scales) : pair_even(scales);
  }
  VPair min_pair(int j) const { return pair_shift_right(pair_from_u8(both[j][0]), 4); }
  vf scale_f32() const { return load_f16(d); }
  vf min_f32() const { return load_f16(dmin); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    for (int g = 0; g < 16; ++g) {
      const uint8_t byte = both[g / 2][row][g % 2];
      const float scale = f16_to_f32(d[row]) * static_cast<float>(byte & 15);
      const float min = f16_to_f32(dmin[row]) * static_cast<float>(byte >> 4);
      uint8_t column[32];
      row_codes(unit[g / 2], row, column);
      for (int i = 0; i < 16; ++i)
        *out++ = scale * static_cast<float>(column[16 * (g % 2) + i]) - min;
    }
  }
};
static_assert(sizeof(PackedQ2_K) == 84 * kRows);

// 3-bit codes around 4, signed scales per 16 columns.
struct PackedQ3_K : Packed256<Threes, Rules256<16, 4, Start::offset4>> {
  uint16_t d[kRows];
  uint16_t unused[kRows];  // keeps the quads of a panel aligned to a vector, here and below
  int8_t scale[16][kRows];
  Threes unit[8];

  void codes(int u, int run, VQuad (&out)[8]) const { unit[u].codes(run, out); }
  VScale group_scale(int g) const { return scale_from_s8(scale[g]); }
  vf scale_f32() const { return load_f16(d); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    for (int g = 0; g < 16; ++g) {
      const float y = f16_to_f32(d[row]) * static_cast<float>(scale[g][row]);
      uint8_t column[32];
      row_codes(unit[g / 2], row, column);
      for (int i = 0; i < 16; ++i) *out++ = y * static_cast<float>(column[16 * (g % 2) + i] - 4);
    }
  }
};
static_assert(sizeof(PackedQ3_K) == 116 * kRows);

struct PackedIQ4_XS : Packed256<Nibbles, Rules256<8, 1, Start::levels>> {
  uint16_t d[kRows];
  uint16_t unused[kRows];
  int8_t scale[8][kRows];
  Nibbles unit[8];

  void codes(int u, int run, VQuad (&out)[2]) const {
    unit[u].codes(run, out);
    look_up(kIQ4Table, out);
  }
  VScale group_scale(int g) const { return scale_from_s8(scale[g]); }
  vf scale_f32() const { return load_f16(d); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    for (int g = 0; g < 8; ++g) {
      const float y = f16_to_f32(d[row]) * static_cast<float>(scale[g][row]);
      uint8_t column[32];
      row_codes(unit[g], row, column);
      for (const uint8_t code : column) *out++ = static_cast<float>(quant::kIQ4Levels[code]) * y;
    }
  }
};
static_assert(sizeof(PackedIQ4_XS) == 140 * kRows);

// d * (1 + 2 * scale) * sign * odd level; code = level index | sign << 3.
inline constexpr int8_t kIQ3_SLevels[16] = {1,  3,  5,  7,  9,  11,  13,  15,
                                            -1, -3, -5, -7, -9, -11, -13, -15};
// Half of the levels of iq3_xxs, whose factor is d / 2 * (1/2 + scale) = d / 4 * (1 + 2 * scale).
inline constexpr int8_t kIQ3_XXSLevels[16] = {2,  6,  10,  14,  18,  22,  26,  31,
                                              -2, -6, -10, -14, -18, -22, -26, -31};
// d / 4 * (1/2 + scale) = d / 8 * (1 + 2 * scale); code = level index | sign << 2.
inline constexpr int8_t kIQ2Levels[16] = {8, 25, 43, 0, -8, -25, -43, 0};
// 8 * (point +- 1/8), factor d / 8 * (1 + 2 * scale); code = point + 1 | (delta < 0) << 2.
inline constexpr int8_t kIQ1Levels[16] = {-7, 1, 9, 0, -9, -1, 7, 0};

// Levels of a lattice with an odd scale per group. Unit and Half say how a value is written by the
// codec: (d * (scale * Half)) * Unit times the level of the file.
template <class Codes, const int8_t (&Levels)[16], int Zero, int Groups, int QuadsPerSum, Start S>
struct PackedLattice : Packed256<Codes, Rules256<Groups, QuadsPerSum, S>> {
  static constexpr Table kTable = table_of(Levels, Zero);

  uint16_t d[kRows];
  uint16_t unused[kRows];
  uint8_t scale[Groups][kRows];  // 1 + 2 * scale
  Codes unit[8];

  void codes(int u, int run, VQuad (&out)[Codes::kPerRun]) const {
    unit[u].codes(run, out);
    look_up(kTable, out);
  }
  VScale group_scale(int g) const { return scale_from_u8(scale[g]); }

  // value(scale, level) for every column.
  template <class F>
  void each_value(int row, float* out, F value) const {
    for (int g = 0; g < Groups; ++g) {
      constexpr int kColumns = 256 / Groups;
      uint8_t column[32];
      row_codes(unit[kColumns * g / 32], row, column);
      for (int i = 0; i < kColumns; ++i) {
        const int level = Levels[column[kColumns * g % 32 + i]];
        *out++ = value(static_cast<float>(scale[g][row]), static_cast<float>(level));
      }
    }
  }
};

struct PackedIQ3_S : PackedLattice<Nibbles, kIQ3_SLevels, 32, 8, 4, Start::offset32> {
  vf scale_f32() const { return load_f16(d); }
  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    const float base = f16_to_f32(d[row]);
    each_value(row, out, [=](float s, float level) { return level * (base * s); });
  }
};

struct PackedIQ3_XXS : PackedLattice<Nibbles, kIQ3_XXSLevels, 32, 8, 4, Start::offset32> {
  vf scale_f32() const { return mul(load_f16(d), set1(0.5f)); }
  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    const float base = f16_to_f32(d[row]);
    each_value(row, out,
               [=](float s, float level) { return 2 * level * (base * (0.5f * s) * 0.5f); });
  }
};
static_assert(sizeof(PackedIQ3_XXS) == 140 * kRows);

// iq2_xxs has 8 groups, the others 16.
template <int Groups>
struct PackedIQ2 : PackedLattice<Threes, kIQ2Levels, 64, Groups, 2, Start::offset64> {
  vf scale_f32() const { return mul(load_f16(this->d), set1(0.125f)); }
  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    const float base = f16_to_f32(this->d[row]);
    this->each_value(row, out,
                     [=](float s, float level) { return level * (base * (0.5f * s) * 0.25f); });
  }
};
static_assert(sizeof(PackedIQ2<8>) == 108 * kRows && sizeof(PackedIQ2<16>) == 116 * kRows);

struct PackedIQ1_M : PackedLattice<Threes, kIQ1Levels, 32, 16, 4, Start::offset32> {
  vf scale_f32() const { return mul(load_f16(d), set1(0.125f)); }
  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    const float base = f16_to_f32(d[row]);
    each_value(row, out, [=](float s, float level) { return level * (base * s * 0.125f); });
  }
};

// Codes point + 1. One signed byte a group: +- (1 + 2 * scale) with the sign of delta, so that
// 8 * (u - 1) +- 1 needs a minimum of +- scale - 8 * scale.
struct PackedIQ1_S : Packed256<Pairs, Rules256<8, 8, Start::zero, Minima::integers>> {
  uint16_t d[kRows];
  uint16_t unused[kRows];
  int8_t both[4][kRows][2];  // groups 2 * j, 2 * j + 1
  Pairs unit[8];

  void codes(int u, int run, VQuad (&out)[4]) const { unit[u].codes(run, out); }
  VScale group_scale(int g) const {
    const VPair scales = pair_abs(pair_from_s8(both[g >> 1][0]));
    return (g & 1) != 0 ? pair_odd(scales) : pair_even(scales);
  }
  VPair min_pair(int j) const {
    const VPair deltas = pair_from_s8(both[j][0]);
    return pair_minus_eight(deltas, pair_abs(deltas));
  }
  vf scale_f32() const { return mul(load_f16(d), set1(0.125f)); }

  void unpack(const PackedMatrix& /*w*/, int row, float* out) const {
    for (int g = 0; g < 8; ++g) {
      const int byte = both[g / 2][row][g % 2];
      const int delta = byte < 0 ? -1 : 1;
      const float y = f16_to_f32(d[row]) * static_cast<float>(delta * byte) * 0.125f;
      uint8_t column[32];
      row_codes(unit[g], row, column);
      for (const uint8_t code : column) *out++ = static_cast<float>(8 * (code - 1) + delta) * y;
    }
  }
};
static_assert(sizeof(PackedIQ1_S) == 76 * kRows);

template <quant::Format Name, class Packed, class Block>
using Kind256 = Kind<Name, Packed, Family::own, 256, Block>;

using Kinds = KindList<Kind256<quant::Format::q2_k, PackedQ2_K, quant::BlockQ2_K>,
                       Kind256<quant::Format::q3_k, PackedQ3_K, quant::BlockQ3_K>,
                       Kind256<quant::Format::iq4_xs, PackedIQ4_XS, quant::BlockIQ4_XS>,
                       Kind256<quant::Format::iq3_s, PackedIQ3_S, quant::BlockIQ3_S>,
                       Kind256<quant::Format::iq3_xxs, PackedIQ3_XXS, quant::BlockIQ3_XXS>,
                       Kind256<quant::Format::iq2_s, PackedIQ2<16>, quant::BlockIQ2_S>,
                       Kind256<quant::Format::iq2_xs, PackedIQ2<16>, quant::BlockIQ2_XS>,
                       Kind256<quant::Format::iq2_xxs, PackedIQ2<8>, quant::BlockIQ2_XXS>,
                       Kind256<quant::Format::iq1_m, PackedIQ1_M, quant::BlockIQ1_M>,
                       Kind256<quant::Format::iq1_s, PackedIQ1_S, quant::BlockIQ1_S>>;
