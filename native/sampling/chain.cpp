#include "sampling/chain.h"

#include <array>
#include <cmath>
#include <limits>
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

void run(std::span<const Stage> stages, const Place& place, std::span<const float> logits,
         Candidates& left) {
  left.begin(logits);
  for (const Stage& stage : stages) {
    run_stage(stage, place, static_cast<int32_t>(logits.size()), left);
  }
}

Candidates::Drawn draw(std::span<const Stage> stages, bool adaptive, const Place& place,
                       std::span<const float> logits, Candidates& left) {
  if (!std::isfinite(largest_of(logits))) return {-1, 0.0};
  run(stages, place, logits, left);
  return adaptive ? left.draw_adaptive(place.coin, static_cast<float>(place.aim))
                  : left.draw(place.coin);
}

}  // namespace tokamak::sampling
