#include "sampling/candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "sampling/ranking.h"
#include "sampling/weigh.h"

namespace tokamak::sampling {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr size_t skipped = 64;  // entries that are left out at once if none reaches the border

bool any_from(const float* logits, float border) noexcept {
  int32_t any = 0;
  for (size_t i = 0; i < skipped; ++i) any |= logits[i] >= border ? 1 : 0;
  return any != 0;
}

}  // namespace

void Candidates::weigh(bool with_moment) {
  const auto n = logits_.size();
  if (weights_.size() < n) weights_.resize(n);
  sums_.resize((n + weigh_block - 1) / weigh_block);
  largest_ = largest_of(logits_);
  const Weighed all =
      sampling::weigh(logits_, largest_, weights_.data(), sums_.data(), with_moment);
  total_ = all.total;
  moment_ = all.moment;
}

double Candidates::entropy() const noexcept { return std::log(total_) - moment_ / total_; }

float Candidates::probability(int32_t i) const noexcept {
  return weights_[static_cast<size_t>(i)] / static_cast<float>(total_);
}

std::vector<int32_t> Candidates::in_order() const {
  if (by_logit_) return ranked(logits_);
  std::vector<int32_t> at(logits_.size());
  std::iota(at.begin(), at.end(), 0);
  return at;
}

void Candidates::sort() {
  const auto n = logits_.size();
  const std::vector<int32_t> order = ranked(logits_);
  std::vector<float> logits(n);
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) {
    logits[i] = logit(order[i]);
    ids[i] = id(order[i]);
  }
  kept_.swap(logits);
  ids_.swap(ids);
  logits_ = {kept_.data(), n};
  whole_ = false;
}

template <typename Keep>
void Candidates::keep(Keep stays) {
  const size_t n = logits_.size();
  const bool whole = whole_;
  if (ids_.size() < n) ids_.resize(n);
  if (kept_.size() < n) kept_.resize(n);
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {  // without a branch: writes every entry, and over those left out
    const float logit = logits_[i];
    const int32_t id = whole ? static_cast<int32_t>(i) : ids_[i];
    kept_[count] = logit;
    ids_[count] = id;
    count += stays(static_cast<int32_t>(i), logit) ? 1 : 0;
  }
  whole_ = false;
  logits_ = {kept_.data(), count};
}

void Candidates::keep_from(float border) {
  if (!whole_) {
    keep([border](int32_t, float logit) { return logit >= border; });
    return;
  }
  const auto n = logits_.size();
  if (ids_.size() < n) ids_.resize(n);
  if (kept_.size() < n) kept_.resize(n);
  size_t count = 0;
  const auto offer = [&](size_t i) {
    const float logit = logits_[i];
    kept_[count] = logit;
    ids_[count] = static_cast<int32_t>(i);
    count += logit >= border ? 1 : 0;
  };
  size_t i = 0;
  for (; i + skipped <= n; i += skipped) {
    if (!any_from(logits_.data() + i, border)) continue;
    for (size_t j = i; j < i + skipped; ++j) offer(j);
  }
  for (; i < n; ++i) offer(i);
  whole_ = false;
  logits_ = {kept_.data(), count};
}

void Candidates::cut_after(int32_t at) {
  const float border = logit(at);
  const int32_t last = id(at);
  keep_from(border);
  keep([&](int32_t i, float logit) { return logit > border || id(i) <= last; });
  by_logit_ = true;
}

int32_t Candidates::num_likely(double p) const noexcept {
  const auto least = static_cast<float>(p * total_);
  int32_t count = 0;
  for (size_t i = 0; i < logits_.size(); ++i) count += weights_[i] >= least ? 1 : 0;
  return count;
}

void Candidates::keep_likely(double p) {
  const auto least = static_cast<float>(p * total_);
  keep([&](int32_t i, float) { return weights_[static_cast<size_t>(i)] >= least; });
}

void Candidates::top_k(int32_t k) {
  if (k <= 0 || k >= size()) return;
  cut_after(reach(logits_, nullptr, k, false).at);
}

void Candidates::top_p(double p, int32_t min_keep) {
  weigh();
  const double target = p * total_;
  // What is within a few nats of the largest nearly always reaches p: the rest is not looked at
  // twice.
  for (const float depth : {8.0F, 10.0F, 12.0F, 14.0F, 16.0F, 20.0F}) {
    if (min_keep > 1) break;  // more may have to stay than reach p
    if (weight_from(logits_, weights_.data(), largest_ - depth) < target * (1.0 + 1e-12)) continue;
    keep_from(largest_ - depth);
    weigh();
    break;
  }
  const Reached border = reach(logits_, weights_.data(), target, false);
  if (border.count >= std::min(min_keep, size())) {
    cut_after(border.at);
  } else {
    top_k(min_keep);
  }
  by_logit_ = true;
}

void Candidates::min_p(double p, int32_t min_keep) {
  const auto border = static_cast<float>(static_cast<double>(largest_of(logits_)) + std::log(p));
  if (min_keep > 1 && std::count_if(logits_.begin(), logits_.end(),
                                    [&](float x) { return x >= border; }) < min_keep) {
    top_k(min_keep);
  } else {
    keep_from(border);
  }
}

void Candidates::typical(double p, int32_t min_keep) {
  weigh(true);
  const auto n = logits_.size();
  const auto mean = static_cast<float>(moment_ / total_);  // of ln p, but for a constant
  if (by_logit_) {                                         // ties stay in the order of the draw
    sort();
    weigh(true);
  }
  keys_.resize(n);
  for (size_t i = 0; i < n; ++i) keys_[i] = -std::abs((logits_[i] - largest_) - mean);
  Reached border = reach(keys_, weights_.data(), p * total_, false);
  if (border.count < min_keep) border = reach(keys_, nullptr, std::min(min_keep, size()), false);
  const float key = keys_[static_cast<size_t>(border.at)];
  keep([&](int32_t i, float) {
    const float own = keys_[static_cast<size_t>(i)];
    return own > key || (own == key && i <= border.at);
  });
}

void Candidates::tail_free(double z, int32_t min_keep) {
  if (size() <= 2) return;
  weigh();
  const std::vector<int32_t> order = ranked(logits_);
  std::vector<double> bends(order.size() - 2);
  double total = 0.0;
  for (size_t i = 0; i < bends.size(); ++i) {
    const double a = probability(order[i]), b = probability(order[i + 1]),
                 c = probability(order[i + 2]);
    total += bends[i] = std::abs((c - b) - (b - a));
  }
  size_t count = order.size();
  double spent = 0.0;
  for (size_t i = 0; i < bends.size(); ++i) {
    spent += total > 1e-6 ? bends[i] / total : 1.0 / static_cast<double>(bends.size());
    if (i > 0 && spent > z) {
      count = i;
      break;
    }
  }
  count = std::max({count, static_cast<size_t>(std::max(min_keep, 1))});
  if (count < order.size()) cut_after(order[count - 1]);
  by_logit_ = true;
}

void Candidates::eta(double epsilon, int32_t min_keep) {
  weigh(true);
  const double border = std::min(epsilon, std::sqrt(epsilon) * std::exp(-entropy()));
  if (num_likely(border) < min_keep) {
    top_k(std::max(min_keep, 1));
  } else {
    keep_likely(border);
  }
}

void Candidates::top_n_sigma(double n) {
  if (size() <= 1) return;
  const double border = static_cast<double>(largest_of(logits_)) - n * spread_of(logits_).deviation;
  auto rounded = static_cast<float>(border);
  if (static_cast<double>(rounded) < border) rounded = std::nextafter(rounded, infinity);
  keep_from(rounded);
}

void Candidates::xtc(float threshold, int32_t min_keep) {
  if (threshold > 0.5F || size() < 2) return;
  weigh();
  by_logit_ = true;
  if (num_likely(static_cast<double>(threshold)) < 2) return;
  const auto least = static_cast<float>(static_cast<double>(threshold) * total_);
  int32_t count = 0, last = -1;  // the least likely at or above the threshold
  for (int32_t i = 0; i < size(); ++i) {
    const float weight = weights_[static_cast<size_t>(i)];
    if (weight < least || weight == 0.0F) continue;
    ++count;
    if (last < 0 || logit(i) <= logit(last)) last = i;
  }
  if (count < 2 || size() - (count - 1) < min_keep) return;
  const float border = logit(last);
  keep([&](int32_t i, float x) { return x < border || (x == border && i >= last); });
}

void Candidates::scale(float t) {
  if (kept_.size() < logits_.size()) kept_.resize(logits_.size());
  divide(logits_, t, kept_.data());
  logits_ = {kept_.data(), logits_.size()};
}

void Candidates::temperature(double t) {
  const double most = static_cast<double>(std::numeric_limits<float>::max());
  if (t <= 0.0 || !(std::abs(static_cast<double>(largest_of(logits_))) <= t * most)) {
    top_k(1);
    by_logit_ = true;
  } else if (t != 1.0) {
    scale(static_cast<float>(t));
  }
}

void Candidates::dynamic_temperature(double t, double delta, double exponent) {
  if (size() <= 1) return;
  weigh(true);
  const double low = std::max(0.0, t - delta), high = t + delta;
  const double share = std::max(0.0, entropy() / std::log(static_cast<double>(size())));
  temperature(low + (high - low) * std::pow(share, exponent));
}

double Candidates::zipf_slope() const {
  const int32_t last = reach(logits_, nullptr, std::min(zipf_terms, size()), false).at;
  const float border = logit(last);
  std::vector<double> top;
  for (int32_t i = 0; i < size(); ++i) {
    if (logit(i) < border || (logit(i) == border && i > last)) continue;
    if (probability(i) > 0.0F) top.push_back(static_cast<double>(probability(i)));
  }
  std::sort(top.begin(), top.end(), std::greater<>());
  double both = 0.0, squares = 0.0;
  for (size_t i = 0; i + 1 < top.size(); ++i) {
    const double t = std::log((static_cast<double>(i) + 2.0) / (static_cast<double>(i) + 1.0));
    both += t * std::log(top[i] / top[i + 1]);
    squares += t * t;
  }
  return squares > 0.0 ? both / squares : std::numeric_limits<double>::quiet_NaN();
}

void Candidates::mirostat_1(double mu, int32_t vocab_size) {
  weigh();
  const double s = zipf_slope(), e = s - 1.0;
  const double k = std::pow(
      (e * std::exp2(mu)) / (1.0 - std::pow(static_cast<double>(vocab_size), -e)), 1.0 / s);
  top_k(k >= 1.0 && k < 2147483648.0 ? static_cast<int32_t>(k) : 1);
  by_logit_ = true;
}

void Candidates::mirostat_2(double mu) {
  weigh();
  const double border = std::exp2(-mu);
  if (num_likely(border) == 0) {
    top_k(1);
  } else {
    keep_likely(border);
  }
  by_logit_ = true;
}

int32_t Candidates::drawn_at(std::span<const float> keys, std::span<const float> weights,
                             std::span<const double> sums, double total, double coin) const {
  const double target = coin * total;
  if (by_logit_) return reach(keys, weights.data(), target, true).at;
  double running = 0.0;
  size_t last = sums.size();
  while (last > 1 && !(sums[last - 1] > 0.0)) --last;
  size_t block = 0;
  for (; block + 1 < last && running + sums[block] <= target; ++block) running += sums[block];
  size_t at = block * weigh_block;
  for (size_t i = at; i < std::min(weights.size(), (block + 1) * weigh_block); ++i) {
    if (weights[i] > 0.0F) at = i;
    running += static_cast<double>(weights[i]);
    if (running > target) break;
  }
  return static_cast<int32_t>(at);
}

Candidates::Drawn Candidates::draw(double coin) {
  weigh();
  const int32_t at = drawn_at(logits_, {weights_.data(), logits_.size()}, sums_, total_, coin);
  return {id(at), static_cast<double>(weights_[static_cast<size_t>(at)]) / total_};
}

Candidates::Drawn Candidates::draw_adaptive(double coin, float aim) {
  constexpr float peak = 5.0F, sharpness = 10.0F, width = 0.3F;  // as in sampling/adaptive.py
  weigh();
  keys_.resize(logits_.size());
  spare_.resize(logits_.size());
  for (int32_t i = 0; i < size(); ++i) {
    const float distance = std::abs(probability(i) - aim) / width;
    const float bent = peak - sharpness * distance * distance / (1.0F + distance);
    keys_[static_cast<size_t>(i)] = logit(i) == -infinity ? -infinity : bent;
  }
  const Weighed all = sampling::weigh(keys_, largest_of(keys_), spare_.data(), sums_.data(), false);
  const int32_t at = drawn_at(logits_, spare_, sums_, all.total, coin);
  return {id(at), static_cast<double>(probability(at))};
}

}  // namespace tokamak::sampling
