// The usual chain of filters and the draw in one pass over the vocabulary: same as
// sampling/filters.py (top_k, top_p, min_p, temperature, in this order) and sampler.draw, but
// without arrays in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sampling/candidates.h"

namespace tokamak::sampling {

struct Usual {
  int32_t top_k;      // in [1, max_top_k]
  double top_p;       // 1 and above: off
  double min_p;       // 0 and below: off
  float temperature;  // > 0
  int32_t min_keep;   // tokens that every filter leaves at least, >= 1
};

inline constexpr int32_t max_top_k = 1024;

// Token drawn from logits[V], V >= 1, at `coin` in [0, 1); {-1, 0} if a logit is not a number or
// +infinity, or all are -infinity.
Candidates::Drawn draw(std::span<const float> logits, const Usual& chain, double coin) noexcept;

// Positions of the largest of logits[V], at most k <= max_top_k, from the highest, ties by
// position; none if a logit is not a number or +infinity.
std::vector<int32_t> likeliest(std::span<const float> logits, int32_t k);

}  // namespace tokamak::sampling
