// Places in the order of preference (larger key first, then the earlier position) without sorting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tokamak::sampling {

struct Reached {
  int32_t at;     // position of the entry that reaches the target
  int32_t count;  // entries up to it, itself included
};

// The first entry in that order whose running weight reaches `target` (exceeds it, if `beyond`), or
// else the last of positive weight. keys, weights: [n], n >= 1, keys below +infinity; null weights
// count 1 each.
//
// The range of the keys is cut into bins; only the bin in which the running sum crosses the target
// is looked at again, so the cost is one pass over n and little more. Equal keys need no order but
// that of their positions.
Reached reach(std::span<const float> keys, const float* weights, double target, bool beyond);

// Positions in that order, all of them.
std::vector<int32_t> ranked(std::span<const float> keys);

}  // namespace tokamak::sampling
