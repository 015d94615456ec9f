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
  q5_0 = 6,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30,
  tq2_0 = 35,
};

// x[j] = d * (code - 8); byte j holds columns j (low nibble) and j + 16.
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// x[j] = d * (code - 16); bit j of qh is the fifth bit of column j.
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// x[j] = d * qs[j]
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

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

struct FormatRow {
  Format format;
  std::string_view name;
  int block_size;  // columns per block
  int type_size;   // bytes per block
};

inline constexpr std::array<FormatRow, 10> kFormats = {{
    {Format::f32, "f32", 1, 4},
    {Format::f16, "f16", 1, 2},
    {Format::bf16, "bf16", 1, 2},
    {Format::q4_0, "q4_0", 32, sizeof(BlockQ4_0)},
    {Format::q5_0, "q5_0", 32, sizeof(BlockQ5_0)},
    {Format::q8_0, "q8_0", 32, sizeof(BlockQ8_0)},
    {Format::q4_k, "q4_k", 256, sizeof(BlockQ4_K)},
    {Format::q5_k, "q5_k", 256, sizeof(BlockQ5_K)},
    {Format::q6_k, "q6_k", 256, sizeof(BlockQ6_K)},
    {Format::tq2_0, "tq2_0", 256, sizeof(BlockTQ2_0)},
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
