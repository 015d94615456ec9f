// The candidates that the filters of a chain have left, and the filters: same as
// sampling/filters.py, without sorting what need not be sorted. Shapes: n candidates left of a
// vocabulary of V.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tokamak::sampling {

// Ids rise, or at least those of equal logits do. `by_logit` says that the order of the draw is by
// logit from the highest (ties by id) and not that of the ids.
class Candidates {
 public:
  // Begins with all of logits[V], V >= 1, none of them +infinity or no number; they stay valid
  // until the draw. One object serves many rows, so that its buffers are allocated once.
  void begin(std::span<const float> logits) noexcept {
    logits_ = logits;
    whole_ = true;
    by_logit_ = false;
  }

  int32_t size() const noexcept { return static_cast<int32_t>(logits_.size()); }
  bool by_logit() const noexcept { return by_logit_; }
  float logit(int32_t i) const noexcept { return logits_[static_cast<size_t>(i)]; }
  int32_t id(int32_t i) const noexcept { return whole_ ? i : ids_[static_cast<size_t>(i)]; }
  // Positions in the order of the draw.
  std::vector<int32_t> in_order() const;

  void top_k(int32_t k);
  void top_p(double p, int32_t min_keep);
  void min_p(double p, int32_t min_keep);
  void typical(double p, int32_t min_keep);
  void tail_free(double z, int32_t min_keep);
  void eta(double epsilon, int32_t min_keep);
  void top_n_sigma(double n);
  void xtc(float threshold, int32_t min_keep);
  void temperature(double t);
  void dynamic_temperature(double t, double delta, double exponent);
  void mirostat_1(double mu, int32_t vocab_size);
  void mirostat_2(double mu);

  struct Drawn {
    int32_t id;
    double probability;  // among the candidates left
  };
  Drawn draw(double coin);
  // After adaptive-p has reshaped the candidates towards `aim`; probability: the one before that.
  Drawn draw_adaptive(double coin, float aim);

 private:
  static constexpr int32_t zipf_terms = 100;  // likeliest candidates whose slope mirostat looks at

  // Fills weights_, sums_, total_ and largest_ for the candidates left; moment_ if asked, which
  // entropy() needs.
  void weigh(bool with_moment = false);
  double entropy() const noexcept;
  float probability(int32_t i) const noexcept;
  // The position drawn from weights[n] in the order of the draw by `keys`.
  int32_t drawn_at(std::span<const float> keys, std::span<const float> weights,
                   std::span<const double> sums, double total, double coin) const;
  template <typename Keep>
  void keep(Keep stays);
  void keep_from(float border);
  void cut_after(int32_t at);  // keeps what is not behind it in the order by logit
  void scale(float t);
  void sort();  // by logit, in memory too
  // How many have probability p and above, and keeping only those. After weigh.
  int32_t num_likely(double p) const noexcept;
  void keep_likely(double p);
  double zipf_slope() const;

  std::span<const float> logits_;  // in kept_ once anything was left out or changed
  std::vector<int32_t> ids_;       // of the first size(), unless whole_
  std::vector<float> kept_, weights_, keys_, spare_;
  std::vector<double> sums_;
  double total_ = 0.0, moment_ = 0.0;
  float largest_ = 0.0F;
  bool whole_ = true, by_logit_ = false;
};

}  // namespace tokamak::sampling
