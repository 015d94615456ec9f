// Codecs of weight formats per instruction set: runs of whole groups to and from f32.
//
// Everything is computed lane by lane, a group or super-group to a lane, and no lane ever meets
// another: the bytes do not depend on the instruction set, on the number of threads or on how a
// tensor is cut. The plain twins, one file per family, are tokamak/quant/*.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tokamak::quant {

// Formats with a native codec, in the order of kCodecFormats.
enum class Codec : uint8_t {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
  mxfp4,
  nvfp4,
  tq1_0,
  tq2_0,
  q1_0,
  q2_0,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq1_s,
  iq1_m,
};

struct CodecFormat {
  std::string_view name;
  int block_size;  // elements per group
  int type_size;   // bytes per group
};

inline constexpr CodecFormat kCodecFormats[] = {
    {"f32", 1, 4},        {"f16", 1, 2},        {"bf16", 1, 2},       {"q4_0", 32, 18},
    {"q4_1", 32, 20},     {"q5_0", 32, 22},     {"q5_1", 32, 24},     {"q8_0", 32, 34},
    {"q2_k", 256, 84},    {"q3_k", 256, 110},   {"q4_k", 256, 144},   {"q5_k", 256, 176},
    {"q6_k", 256, 210},   {"iq4_nl", 32, 18},   {"iq4_xs", 256, 136}, {"mxfp4", 32, 17},
    {"nvfp4", 64, 36},    {"tq1_0", 256, 54},   {"tq2_0", 256, 66},   {"q1_0", 128, 18},
    {"q2_0", 64, 18},     {"iq2_xxs", 256, 66}, {"iq2_xs", 256, 74},  {"iq2_s", 256, 82},
    {"iq3_xxs", 256, 98}, {"iq3_s", 256, 110},  {"iq1_s", 256, 50},   {"iq1_m", 256, 56},
};

constexpr const CodecFormat& codec_format(Codec codec) noexcept {
  return kCodecFormats[static_cast<size_t>(codec)];
}

struct CodecTable {
  const char* isa;
  // out: groups of num_elements (a multiple of the block size) values x; w: weight of each squared
  // error, > 0, or null for ones.
  void (*encode)(Codec codec, const float* x, const float* w, size_t num_elements,
                 uint8_t* out) noexcept;
  void (*decode)(Codec codec, const uint8_t* groups, size_t num_elements, float* y) noexcept;
};

extern const CodecTable kBaselineCodecs;
#if defined(__x86_64__) || defined(_M_X64)
extern const CodecTable kAvx2Codecs;
extern const CodecTable kAvx512Codecs;
#endif

}  // namespace tokamak::quant
