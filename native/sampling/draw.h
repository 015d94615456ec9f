// The default chain of filters and the draw in one pass over the vocabulary: same as
// sampling/filters.py (top_k, top_p, min_p, temperature, in this order) and sampler.draw, but
// without arrays in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tokamak::sampling {

struct Chain {
  int32_t top_k;      // in [1, max_top_k]
  double top_p;       // 1 and above: off
  double min_p;       // 0 and below: off
  float temperature;  // > 0
  int32_t min_keep;   // tokens that every filter leaves at least, >= 1
};

inline constexpr int32_t max_top_k = 1024;

// Token drawn from logits[V], V >= 1, at `coin` in [0, 1); -1 if a logit is not a number or
// +infinity, or all are -infinity.
int64_t draw(std::span<const float> logits, const Chain& chain, double coin) noexcept;

}  // namespace tokamak::sampling
