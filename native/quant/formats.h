// Weight formats as they lie in files: names, type ids, block sizes.
#pragma once

#include <cstddef>
#include <cstdint>

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

}  // namespace tokamak::quant
