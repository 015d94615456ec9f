// Weights of experts for every row: scores of the router's logits, of which a few are kept.
#pragma once

#include <span>

#include "cpu/instruction.h"

namespace tokamak::cpu {

enum class Score : uint8_t { softmax, sigmoid, sparsemixer };

struct Routing {
  int64_t used;  // experts per row
  Score score;
  bool normed;    // weights of the chosen ones are divided by their sum
  float scaling;  // then multiplied by this
  int64_t groups, top_groups, group_top;
};

// out[t][e] is the weight of expert e for row t, 0 for those not chosen. Scores are compared with
// the bias added, weights are without it. Ties go to the lower id; where nothing compares (NaN),
// the lowest ids are taken and their weights are NaN.
class Route final : public Instruction {
 public:
  Route(Operand logits, std::span<const float> bias, const Routing& routing, Operand out)
      : logits_(logits), out_(out), bias_(bias), routing_(routing) {}
  void run(const Step& step) noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

 private:
  struct Row;
  void choose(const Row& row) const;
  void leave_groups(const Row& row) const;

  Operand logits_, out_;
  std::span<const float> bias_;
  Routing routing_;
};

}  // namespace tokamak::cpu
