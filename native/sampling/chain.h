// A chain of filters with its draw: what sampling/chain.py builds from a request, run natively on
// rows of logits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "sampling/candidates.h"
#include "sampling/draw.h"

namespace tokamak::sampling {

// One filter with its settings; which of a, b, c it reads is written at its case in run_stage.
struct Stage {
  enum class Kind : uint8_t {
    top_k,
    top_p,
    min_p,
    typical,
    tail_free,
    eta,
    top_n_sigma,
    xtc,
    temperature,
    mirostat_1,
    mirostat_2
  };
  Kind kind;
  double a, b, c;
  int32_t min_keep;
};

// Throws Error(invalid_params) for a name that is no filter, or settings out of range.
Stage stage_of(std::string_view name, double a, double b, double c, int32_t min_keep);

// What a row is drawn with. aim: mu of mirostat, or the aim of adaptive-p.
struct Place {
  double coin;  // in [0, 1)
  bool with_xtc;
  double aim;
};

// The filters of a request and its draw; rows of several threads may use one at once.
class Chain {
 public:
  // adaptive: adaptive-p draws after the stages.
  Chain(std::vector<Stage> stages, bool adaptive);

  // Candidates that the stages leave of logits[V].
  void run(const Place& place, std::span<const float> logits, Candidates& left) const;

  // {-1, 0} if a logit is not a number or +infinity, or all are -infinity.
  Candidates::Drawn draw(const Place& place, std::span<const float> logits) const;

 private:
  std::vector<Stage> stages_;
  bool adaptive_;
  std::optional<Usual> usual_;  // set if the stages are those of draw.h, which then replaces them
};

// What this thread filters in, so that its buffers are allocated once.
Candidates& candidates_of_thread();

}  // namespace tokamak::sampling
