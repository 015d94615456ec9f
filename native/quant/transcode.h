// Rows of one weight format to another, piece by piece over threads, without the f32 tensor
// between.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "quant/codec.h"

namespace tokamak::quant {

// Throws Error(unsupported) naming a format without a native codec.
Codec codec_named(std::string_view name);

// Instruction sets that run here, the best first; their bytes are equal.
std::span<const CodecTable* const> codec_tables() noexcept;

struct Transcoding {
  Codec source;
  Codec target;
  int64_t columns;                    // of a row; both block sizes divide it
  std::span<const float> importance;  // of each column, > 0; empty: all alike
  const CodecTable* table;
};

// rows: whole rows in `source`; out: as many in `target`. threads >= 1.
// Throws Error(invalid_params) naming the first row with a value that is not finite, if the target
// has groups.
void transcode(const Transcoding& job, std::span<const uint8_t> rows, std::span<uint8_t> out,
               int threads);

}  // namespace tokamak::quant
