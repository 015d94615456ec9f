#include "sampling/draw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace tokamak::sampling {
namespace {

struct Candidate {
  float logit;
  int32_t id;
};

// Order of preference: larger logit, then lower id.
bool better(const Candidate& a, const Candidate& b) noexcept {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

constexpr size_t block = 64;  // logits compared with the worst candidate at once

// Whether any of `block` logits exceeds `border` or is not a number. Written so that it vectorises.
bool any_above(const float* logits, float border) noexcept {
  int above = 0;
  for (size_t i = 0; i < block; ++i) above |= static_cast<int>(!(logits[i] <= border));
  return above != 0;
}

// The k best of logits into `heap` (worst at its front); their number, or -1 for a logit that is no
// number.
int32_t select(std::span<const float> logits, int32_t k, Candidate* heap) noexcept {
  int32_t count = 0;
  float border = -std::numeric_limits<float>::infinity();
  const auto offer = [&](size_t i) noexcept {
    const float logit = logits[i];
    if (!(logit <= std::numeric_limits<float>::max())) return false;
    const Candidate candidate{logit, static_cast<int32_t>(i)};
    if (count < k) {
      heap[count++] = candidate;
      std::push_heap(heap, heap + count, better);
    } else if (logit > heap->logit) {  // ids rise, so an equal one is worse
      std::pop_heap(heap, heap + k, better);
      heap[k - 1] = candidate;
      std::push_heap(heap, heap + k, better);
    }
    if (count == k) border = heap->logit;
    return true;
  };
  size_t i = 0;
  for (; i + block <= logits.size(); i += block) {
    if (count == k && !any_above(logits.data() + i, border)) continue;
    for (size_t j = i; j < i + block; ++j) {
      if (!offer(j)) return -1;
    }
  }
  for (; i < logits.size(); ++i) {
    if (!offer(i)) return -1;
  }
  return count;
}

}  // namespace

Candidates::Drawn draw(std::span<const float> logits, const Usual& chain, double coin) noexcept {
  std::array<Candidate, max_top_k> kept;
  std::array<double, max_top_k> running;
  const int32_t k = std::min(std::max(chain.top_k, chain.min_keep), max_top_k);
  int32_t n = select(logits, k, kept.data());
  if (n <= 0) return {-1, 0.0};
  std::sort_heap(kept.begin(), kept.begin() + n, better);
  const double largest = kept[0].logit;
  if (!std::isfinite(largest)) return {-1, 0.0};
  if (chain.top_p < 1.0) {
    double sum = 0.0;
    for (int32_t i = 0; i < n; ++i) running[i] = sum += std::exp(kept[i].logit - largest);
    const auto end = std::lower_bound(running.begin(), running.begin() + n, chain.top_p * sum);
    n = std::min(n, std::max(static_cast<int32_t>(end - running.begin()) + 1, chain.min_keep));
  }
  if (chain.min_p > 0.0) {
    const auto border = static_cast<float>(largest + std::log(chain.min_p));
    int32_t count = 0;
    while (count < n && kept[count].logit >= border) ++count;
    n = std::min(n, std::max(count, chain.min_keep));
  }
  double sum = 0.0;
  const float top = kept[0].logit / chain.temperature;
  if (!std::isfinite(top)) return {kept[0].id, 1.0};  // a temperature of nearly 0
  for (int32_t i = 0; i < n; ++i)
    running[i] = sum += std::exp(double(kept[i].logit / chain.temperature) - double(top));
  const auto border = std::upper_bound(running.begin(), running.begin() + n, coin * sum);
  auto at = std::min<int32_t>(n - 1, static_cast<int32_t>(border - running.begin()));
  while (at > 0 && kept[at].logit == -std::numeric_limits<float>::infinity()) --at;
  return {kept[at].id, (running[at] - (at > 0 ? running[at - 1] : 0.0)) / sum};
}

std::vector<int32_t> likeliest(std::span<const float> logits, int32_t k) {
  std::array<Candidate, max_top_k> kept;
  const int32_t n = select(logits, std::min(k, max_top_k), kept.data());
  std::vector<int32_t> at;
  if (n <= 0) return at;
  std::sort_heap(kept.begin(), kept.begin() + n, better);
  for (int32_t i = 0; i < n; ++i) at.push_back(kept[i].id);
  return at;
}

}  // namespace tokamak::sampling
