// Codecs in four lanes, which every processor of the last twenty years has.
//
// Standard headers come before the target region: what they define inline must not be compiled for
// a processor that this file's callers may not have.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <type_traits>

#include "base/f16.h"
#include "quant/codec.h"
#include "quant/neighbours.h"

namespace tokamak::quant {
namespace {

constexpr int kLanes = 4;
// clang-format off: the order of inclusion is the order of definition.
#include "quant/generic/lanes.inl"
#include "quant/generic/fit.inl"
#include "quant/generic/encode.inl"
#include "quant/generic/decode.inl"
#include "quant/generic/lattice.inl"
#include "quant/generic/codecs.inl"
// clang-format on

}  // namespace

extern const CodecTable kBaselineCodecs = {.isa = "baseline", .encode = encode, .decode = decode};

}  // namespace tokamak::quant
