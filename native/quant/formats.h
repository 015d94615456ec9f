// Weight formats as they lie in files: names, type ids, group layouts.
//
// Source: the block structures of ggml. A group is the run of columns that shares a scale; the
// 256-column formats are super-groups with a float scale over 8 or 16 groups with small integer
// scales.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tokamak::quant {

// Values are ggml type ids.
enum class Format : uint8_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  i2_s = 36,  // as bitnet.cpp writes it on x86
  mxfp4 = 39,
  nvfp4 = 40,
  q1_0 = 41,
  q2_0 = 42,
  i2_s_arm = 64,  // ours: the other layout of type 36
};

// x[j] = d * (code - 8); byte j holds columns j (low nibble) and j + 16.
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// x[j] = d * code + m; as q4_0.
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// x[j] = d * (code - 16); bit j of qh is the fifth bit of column j.
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// x[j] = d * code + m; as q5_0.
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// x[j] = d * qs[j]
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// x = d * (scales[g] & 15) * code - dmin * (scales[g] >> 4), g = column / 16; 32 bytes of qs hold
// 128 columns in four planes of 2 bits.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;
  uint16_t dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// x = d * scale[column / 16] * (code - 4); low bits of the code as in q2_k, bit j of hmask[l] is
// the third bit of column 32 * j + l; 6-bit scales + 32 share `scales`.
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// x = d * scale[g] * code - dmin * min[g], g = column / 32; 6-bit scales and minima share `scales`.
struct BlockQ4_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qs[128];  // 32 bytes per 64 columns: low nibbles are the first 32
};
static_assert(sizeof(BlockQ4_K) == 144);

// As q4_k with a fifth bit: bit g of qh[l] belongs to column 32 * g + l.
struct BlockQ5_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// x = d * scales[column / 16] * (code - 32)
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// x = d * (code - 1), codes 0..2; 2 bits each, 32 bytes per 128 columns.
struct BlockTQ2_0 {
  uint8_t qs[64];
  uint16_t d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

// As tq2_0, five base-3 digits a byte: digit n of qs[b] is column b + 32 * n for b < 32, 160 + b -
// 32 + 16 * n above; digit n of qh[b] is column 240 + b + 4 * n. A byte is ceil(number * 256 /
// 243).
struct BlockTQ1_0 {
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

// Codes t + 1 of -1, 0, 1 without a scale (the tensor has one): bits 6, 4, 2, 0 of qs[b] are
// columns b, b + 32, b + 64, b + 96.
struct BlockI2_S {
  uint8_t qs[32];
};
static_assert(sizeof(BlockI2_S) == 32);

// The same over 64 columns: b, b + 16, b + 32, b + 48.
struct BlockI2_S_Arm {
  uint8_t qs[16];
};
static_assert(sizeof(BlockI2_S_Arm) == 16);

// x = bit ? d : -d, 128 columns in order, lowest bit first.
struct BlockQ1_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ1_0) == 18);

// x = d * (code - 1), 64 columns in order, lowest bits first.
struct BlockQ2_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ2_0) == 18);

// x = d * level[code]; codes as in q4_0.
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// x = d * (scale[g] - 32) * level[code], g = column / 32: low 4 bits of a scale in scales_l, high 2
// in scales_h; 16 bytes of qs hold 32 columns as in q4_0.
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// x = 2^(e - 128) * level[code]; codes as in q4_0.
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// x = d[column / 16] / 2 * level[code], d in unsigned e4m3; 8 bytes of qs hold 16 columns.
struct BlockNVFP4 {
  uint8_t d[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

// The lattice formats: a point of a lattice (quant/grids.h) and signs per 8 or 4 columns. Layouts
// of the fields: src/tokamak/quant/iquants.py.
struct BlockIQ2_XXS {
  uint16_t d;
  uint8_t qs[64];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

struct BlockIQ2_XS {
  uint16_t d;
  uint16_t qs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

struct BlockIQ2_S {
  uint16_t d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

struct BlockIQ3_XXS {
  uint16_t d;
  uint8_t qs[64];
  uint8_t signs[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

struct BlockIQ3_S {
  uint16_t d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

struct BlockIQ1_S {
  uint16_t d;
  uint8_t qs[32];
  uint16_t qh[8];
};
static_assert(sizeof(BlockIQ1_S) == 50);

struct BlockIQ1_M {
  uint8_t qs[32];
  uint8_t qh[16];
  uint16_t scales[4];
};
static_assert(sizeof(BlockIQ1_M) == 56);

// Levels of the codebook formats.
inline constexpr int8_t kIQ4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kE2M1Levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct FormatRow {
  Format format;
  std::string_view name;
  int block_size;  // columns per block
  int type_size;   // bytes per block
};

inline constexpr std::array<FormatRow, 30> kFormats = {{
    {Format::f32, "f32", 1, 4},
    {Format::f16, "f16", 1, 2},
    {Format::bf16, "bf16", 1, 2},
    {Format::q4_0, "q4_0", 32, sizeof(BlockQ4_0)},
    {Format::q4_1, "q4_1", 32, sizeof(BlockQ4_1)},
    {Format::q5_0, "q5_0", 32, sizeof(BlockQ5_0)},
    {Format::q5_1, "q5_1", 32, sizeof(BlockQ5_1)},
    {Format::q8_0, "q8_0", 32, sizeof(BlockQ8_0)},
    {Format::q2_k, "q2_k", 256, sizeof(BlockQ2_K)},
    {Format::q3_k, "q3_k", 256, sizeof(BlockQ3_K)},
    {Format::q4_k, "q4_k", 256, sizeof(BlockQ4_K)},
    {Format::q5_k, "q5_k", 256, sizeof(BlockQ5_K)},
    {Format::q6_k, "q6_k", 256, sizeof(BlockQ6_K)},
    {Format::iq1_s, "iq1_s", 256, sizeof(BlockIQ1_S)},
    {Format::iq1_m, "iq1_m", 256, sizeof(BlockIQ1_M)},
    {Format::iq2_xxs, "iq2_xxs", 256, sizeof(BlockIQ2_XXS)},
    {Format::iq2_xs, "iq2_xs", 256, sizeof(BlockIQ2_XS)},
    {Format::iq2_s, "iq2_s", 256, sizeof(BlockIQ2_S)},
    {Format::iq3_xxs, "iq3_xxs", 256, sizeof(BlockIQ3_XXS)},
    {Format::iq3_s, "iq3_s", 256, sizeof(BlockIQ3_S)},
    {Format::iq4_nl, "iq4_nl", 32, sizeof(BlockIQ4_NL)},
    {Format::iq4_xs, "iq4_xs", 256, sizeof(BlockIQ4_XS)},
    {Format::mxfp4, "mxfp4", 32, sizeof(BlockMXFP4)},
    {Format::nvfp4, "nvfp4", 64, sizeof(BlockNVFP4)},
    {Format::q1_0, "q1_0", 128, sizeof(BlockQ1_0)},
    {Format::q2_0, "q2_0", 64, sizeof(BlockQ2_0)},
    {Format::tq1_0, "tq1_0", 256, sizeof(BlockTQ1_0)},
    {Format::tq2_0, "tq2_0", 256, sizeof(BlockTQ2_0)},
    {Format::i2_s, "i2_s", 128, sizeof(BlockI2_S)},
    {Format::i2_s_arm, "i2_s_arm", 64, sizeof(BlockI2_S_Arm)},
}};

// The row of kFormats; null for a value that is none of them.
constexpr const FormatRow* find_format(Format format) noexcept {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return &row;
  }
  return nullptr;
}

constexpr const FormatRow* find_format(std::string_view name) noexcept {
  for (const FormatRow& row : kFormats) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

// Bytes of one row of `cols` columns as in a file; cols must be a multiple of the block size.
constexpr size_t row_nbytes(Format format, int64_t cols) noexcept {
  const FormatRow* row = find_format(format);
  return row == nullptr
             ? 0
             : static_cast<size_t>(cols / row->block_size) * static_cast<size_t>(row->type_size);
}

}  // namespace tokamak::quant
