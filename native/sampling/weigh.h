// Passes over a row of logits that every chain makes: the largest, exponentials and their sums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tokamak::sampling {

inline constexpr size_t weigh_block = 256;  // entries that share one partial sum

struct Weighed {
  double total;   // sum of the weights
  double moment;  // sum of weight * (logit - largest), if asked for
};

// Largest of logits; NaN if one is no number or +infinity.
float largest_of(std::span<const float> logits) noexcept;

// How many of logits[n] come before position `at` in the order of preference, and it itself.
int64_t rank_of(std::span<const float> logits, int32_t at) noexcept;

// First position of logits[n] with that value, n if there is none.
int32_t first_of(std::span<const float> logits, float value) noexcept;

// weights[i] = e^(logits[i] - largest), 0 below e^-87 and for -infinity, within 2 ulp.
// largest: finite, no logit exceeds it. sums[ceil(n / weigh_block)]: of each block, in float64.
Weighed weigh(std::span<const float> logits, float largest, float* weights, double* sums,
              bool with_moment) noexcept;

// Sum of the weights of the logits that are `border` and above.
double weight_from(std::span<const float> logits, const float* weights, float border) noexcept;

// out[i] = logits[i] / t; may be the same memory.
void divide(std::span<const float> logits, float t, float* out) noexcept;

// ln of the sum of e^logit; NaN as above, -infinity if all are.
double log_total(std::span<const float> logits);

// Mean and standard deviation of the logits that are not -infinity; {0, 0} of none.
struct Spread {
  double mean, deviation;
};
Spread spread_of(std::span<const float> logits) noexcept;

}  // namespace tokamak::sampling
