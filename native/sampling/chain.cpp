#include "sampling/chain.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "base/error.h"
#include "sampling/weigh.h"

namespace tokamak::sampling {
namespace {

using Kind = Stage::Kind;

constexpr std::array<std::pair<std::string_view, Kind>, 11> names{{
    {"top_k", Kind::top_k},
    {"top_p", Kind::top_p},
    {"min_p", Kind::min_p},
    {"typical", Kind::typical},
    {"tail_free", Kind::tail_free},
    {"eta", Kind::eta},
    {"top_n_sigma", Kind::top_n_sigma},
    {"xtc", Kind::xtc},
    {"temperature", Kind::temperature},
    {"mirostat_1", Kind::mirostat_1},
    {"mirostat_2", Kind::mirostat_2},
}};

void run_stage(const Stage& stage, const Place& place, int32_t vocab_size, Candidates& left) {
  switch (stage.kind) {
    case Kind::top_k:  // a: k
      return left.top_k(static_cast<int32_t>(stage.a));
    case Kind::top_p:  // a: p, as in the next three
      return left.top_p(stage.a, stage.min_keep);
    case Kind::min_p:
      return left.min_p(stage.a, stage.min_keep);
    case Kind::typical:
      return left.typical(stage.a, stage.min_keep);
    case Kind::tail_free:  // a: z
      return left.tail_free(stage.a, stage.min_keep);
    case Kind::eta:  // a: epsilon
      return left.eta(stage.a, stage.min_keep);
    case Kind::top_n_sigma:  // a: n
      return left.top_n_sigma(stage.a);
    case Kind::xtc:  // a: threshold
      if (place.with_xtc) left.xtc(static_cast<float>(stage.a), stage.min_keep);
      return;
    case Kind::temperature:  // a: t; b: delta, c: exponent, of the dynamic one
      return stage.b > 0.0 ? left.dynamic_temperature(stage.a, stage.b, stage.c)
                           : left.temperature(stage.a);
    case Kind::mirostat_1:
      return left.mirostat_1(place.aim, vocab_size);
    case Kind::mirostat_2:
      return left.mirostat_2(place.aim);
  }
}

bool is_greedy(const Stage& stage) noexcept {
  return stage.kind == Kind::temperature && !(stage.a > 0.0) && !(stage.b > 0.0);
}

std::optional<Usual> usual_of(std::span<const Stage> stages) noexcept {
  constexpr std::array order{Kind::top_k, Kind::top_p, Kind::min_p, Kind::temperature};
  if (stages.empty() || stages[0].kind != Kind::top_k) return {};
  Usual found{0, 1.0, 0.0, 1.0F, std::max(stages[0].min_keep, 1)};
  size_t next = 0;
  for (const Stage& stage : stages) {
    while (next < order.size() && order[next] != stage.kind) ++next;
    if (next++ == order.size() || stage.min_keep != stages[0].min_keep) return {};
    if (stage.kind == Kind::top_k) found.top_k = static_cast<int32_t>(stage.a);
    if (stage.kind == Kind::top_p) found.top_p = stage.a;
    if (stage.kind == Kind::min_p) found.min_p = stage.a;
    if (stage.kind == Kind::temperature) found.temperature = static_cast<float>(stage.a);
  }
  const bool dynamic = stages.back().kind == Kind::temperature && stages.back().b > 0.0;
  const bool fits = found.top_k >= found.min_keep && found.top_k <= max_top_k;
  return fits && !dynamic && found.temperature > 0.0F ? std::optional(found) : std::nullopt;
}

}  // namespace

Stage stage_of(std::string_view name, double a, double b, double c, int32_t min_keep) {
  const bool in_range = std::abs(a) <= 2147483647.0 && std::isfinite(b) && std::isfinite(c);
  for (const auto& [known, kind] : names) {
    if (known != name) continue;
    if (!in_range || a < 0.0 || min_keep < 0 ||
        (kind == Kind::min_p && !(a > 0.0))) {  // its logarithm is taken
      throw Error(ErrorKind::invalid_params,
                  "a setting of " + std::string(name) + " is out of range");
    }
    return {kind, a, b, c, min_keep};
  }
  throw Error(ErrorKind::invalid_params, "no filter is called " + std::string(name));
}

Chain::Chain(std::vector<Stage> stages, bool adaptive)
    : stages_(std::move(stages)), adaptive_(adaptive) {
  if (!adaptive) usual_ = usual_of(stages_);
}

void Chain::run(const Place& place, std::span<const float> logits, Candidates& left) const {
  left.begin(logits);
  for (const Stage& stage : stages_) {
    run_stage(stage, place, static_cast<int32_t>(logits.size()), left);
  }
}

Candidates::Drawn Chain::draw(const Place& place, std::span<const float> logits) const {
  if (usual_) return sampling::draw(logits, *usual_, place.coin);
  const float largest = largest_of(logits);
  if (!std::isfinite(largest)) return {-1, 0.0};
  if (!stages_.empty() && is_greedy(stages_[0])) return {first_of(logits, largest), 1.0};
  Candidates& left = candidates_of_thread();
  run(place, logits, left);
  return adaptive_ ? left.draw_adaptive(place.coin, static_cast<float>(place.aim))
                   : left.draw(place.coin);
}

Candidates& candidates_of_thread() {
  thread_local Candidates candidates;
  return candidates;
}

}  // namespace tokamak::sampling
