#include "sampling/penalties.h"

#include <algorithm>

namespace tokamak::sampling {

std::vector<int32_t> suffix_matches(std::span<const int32_t> tokens, int32_t limit) {
  const size_t n = tokens.size();
  std::vector<int32_t> z(n, 0);
  size_t left = 0, right = 0;  // of the match that reaches farthest, in the reversed sequence
  for (size_t i = 1; i < n; ++i) {
    size_t length = i < right ? std::min(static_cast<size_t>(z[i - left]), right - i) : 0;
    while (i + length < n && tokens[n - 1 - length] == tokens[n - 1 - i - length]) ++length;
    z[i] = static_cast<int32_t>(length);
    if (i + length > right) {
      left = i;
      right = i + length;
    }
  }
  std::reverse(z.begin(), z.end());
  for (int32_t& length : z) length = std::min(length, limit);
  return z;
}

}  // namespace tokamak::sampling
