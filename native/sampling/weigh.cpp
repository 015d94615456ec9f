#include "sampling/weigh.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/features.h"

namespace tokamak::sampling {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();
constexpr float finite = std::numeric_limits<float>::max();

namespace plain {
#include "sampling/weigh.inl"
}  // namespace plain

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#include "sampling/weigh.inl"
}  // namespace avx2
#pragma GCC pop_options
#else
namespace avx2 = plain;
#endif

bool wide() noexcept { return cpu::features().avx2; }

}  // namespace

float largest_of(std::span<const float> logits) noexcept {
  bool bad = false;
  const float largest = wide() ? avx2::largest_of(logits.data(), logits.size(), &bad)
                               : plain::largest_of(logits.data(), logits.size(), &bad);
  return bad ? std::numeric_limits<float>::quiet_NaN() : largest;
}

int64_t rank_of(std::span<const float> logits, int32_t at) noexcept {
  const float own = logits[static_cast<size_t>(at)];
  int32_t above = 0, before = 0;
  for (const float logit : logits) above += logit > own ? 1 : 0;
  for (const float logit : logits.first(static_cast<size_t>(at))) before += logit == own ? 1 : 0;
  return int64_t{1} + above + before;
}

int32_t first_of(std::span<const float> logits, float value) noexcept {
  constexpr size_t block = 64;  // compared at once
  size_t i = 0;
  for (; i + block <= logits.size(); i += block) {
    int32_t any = 0;
    for (size_t j = i; j < i + block; ++j) any |= logits[j] == value ? 1 : 0;
    if (any != 0) break;
  }
  while (i < logits.size() && logits[i] != value) ++i;
  return static_cast<int32_t>(i);
}

Weighed weigh(std::span<const float> logits, float largest, float* weights, double* sums,
              bool with_moment) noexcept {
  const auto plainly = with_moment ? plain::weigh<true> : plain::weigh<false>;
  const auto widely = with_moment ? avx2::weigh<true> : avx2::weigh<false>;
  return (wide() ? widely : plainly)(logits.data(), logits.size(), largest, weights, sums);
}

double weight_from(std::span<const float> logits, const float* weights, float border) noexcept {
  return wide() ? avx2::weight_from(logits.data(), logits.size(), weights, border)
                : plain::weight_from(logits.data(), logits.size(), weights, border);
}

void divide(std::span<const float> logits, float t, float* out) noexcept {
  (wide() ? avx2::divide : plain::divide)(logits.data(), logits.size(), t, out);
}

double log_total(std::span<const float> logits) {
  const float largest = largest_of(logits);
  if (!std::isfinite(largest)) return static_cast<double>(largest);
  thread_local std::vector<float> weights;
  thread_local std::vector<double> sums;
  weights.resize(logits.size());
  sums.resize((logits.size() + weigh_block - 1) / weigh_block);
  const Weighed all = weigh(logits, largest, weights.data(), sums.data(), false);
  return static_cast<double>(largest) + std::log(all.total);
}

Spread spread_of(std::span<const float> logits) noexcept {
  double sums[3];
  const auto add = wide() ? avx2::moments : plain::moments;
  add(logits.data(), logits.size(), 0.0, sums);
  if (sums[0] == 0.0) return {0.0, 0.0};
  const double mean = sums[1] / sums[0];
  add(logits.data(), logits.size(), mean, sums);  // about the mean: no cancellation
  return {mean, std::sqrt(sums[2] / sums[0])};
}

}  // namespace tokamak::sampling
