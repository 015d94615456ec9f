// What penalties look for in the recent text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tokamak::sampling {

// For each i, how many tokens ending at i equal those ending at the end, at most limit: same as
// sampling/penalties.py. The Z-algorithm on the reversed sequence, O(n).
std::vector<int32_t> suffix_matches(std::span<const int32_t> tokens, int32_t limit);

}  // namespace tokamak::sampling
