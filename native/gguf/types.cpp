#include "gguf/types.h"

#include <array>

namespace tokamak::gguf {

namespace {

// Source: ggml.h and ggml-common.h of llama.cpp for ids 0-35 and 39-42, of bitnet.cpp for 36
// and 38. 4, 5, 31-33 and 37 were withdrawn by ggml; bitnet.cpp took 36 and 38, which ggml had used
// for repacked iq4_nl for a few weeks. Id 39 is mxfp4; bitnet.cpp wrote tl2 under the same number.
constexpr std::array<TensorType, 43> kTensorTypes = {{
    {0, "f32", 1, 4},
    {1, "f16", 1, 2},
    {2, "q4_0", 32, 18},
    {3, "q4_1", 32, 20},
    {4, "q4_2", 16, 10},
    {5, "q4_3", 16, 12},
    {6, "q5_0", 32, 22},
    {7, "q5_1", 32, 24},
    {8, "q8_0", 32, 34},
    {9, "q8_1", 32, 36},
    {10, "q2_k", 256, 84},
    {11, "q3_k", 256, 110},
    {12, "q4_k", 256, 144},
    {13, "q5_k", 256, 176},
    {14, "q6_k", 256, 210},
    {15, "q8_k", 256, 292},
    {16, "iq2_xxs", 256, 66},
    {17, "iq2_xs", 256, 74},
    {18, "iq3_xxs", 256, 98},
    {19, "iq1_s", 256, 50},
    {20, "iq4_nl", 32, 18},
    {21, "iq3_s", 256, 110},
    {22, "iq2_s", 256, 82},
    {23, "iq4_xs", 256, 136},
    {24, "i8", 1, 1},
    {25, "i16", 1, 2},
    {26, "i32", 1, 4},
    {27, "i64", 1, 8},
    {28, "f64", 1, 8},
    {29, "iq1_m", 256, 56},
    {30, "bf16", 1, 2},
    {31, "q4_0_4_4", 32, 18},
    {32, "q4_0_4_8", 32, 18},
    {33, "q4_0_8_8", 32, 18},
    {34, "tq1_0", 256, 54},
    {35, "tq2_0", 256, 66},
    {36, "i2_s", 4, 1, Layout::whole_ternary},
    {37, "iq4_nl_4_8", 32, 18},
    {38, "tl1", 1, 1, Layout::opaque},
    {39, "mxfp4", 32, 17},
    {40, "nvfp4", 64, 36},
    {41, "q1_0", 128, 18},
    {42, "q2_0", 64, 18},
}};

constexpr bool ids_are_positions() {
  for (uint32_t i = 0; i < kTensorTypes.size(); ++i) {
    if (kTensorTypes[i].id != i) return false;
  }
  return true;
}
static_assert(ids_are_positions(), "find_tensor_type indexes the table by id");

struct ValueTypeRow {
  std::string_view name;
  uint32_t size;
};

constexpr std::array<ValueTypeRow, kNumValueTypes> kValueTypes = {{
    {"uint8", 1},
    {"int8", 1},
    {"uint16", 2},
    {"int16", 2},
    {"uint32", 4},
    {"int32", 4},
    {"float32", 4},
    {"bool", 1},
    {"string", 0},
    {"array", 0},
    {"uint64", 8},
    {"int64", 8},
    {"float64", 8},
}};

}  // namespace

std::span<const TensorType> tensor_types() noexcept { return kTensorTypes; }

const TensorType* find_tensor_type(uint32_t id) noexcept {
  return id < kTensorTypes.size() ? &kTensorTypes[id] : nullptr;
}

std::string_view value_type_name(ValueType type) noexcept {
  return kValueTypes[static_cast<uint32_t>(type)].name;
}

uint32_t value_type_size(ValueType type) noexcept {
  return kValueTypes[static_cast<uint32_t>(type)].size;
}

}  // namespace tokamak::gguf
