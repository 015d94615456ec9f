// Instructions about what a step brings for rows besides their tokens: weights of adapters, vectors
// that stand for them.
#pragma once

#include <vector>

#include "cpu/instruction.h"

namespace tokamak::cpu {

// Groups of consecutive columns, each times one of the row's gates:
// out[t][c] = x[t][c] * gates[t][g], g the gate of the group that c belongs to.
class Gate final : public Instruction {
 public:
  struct Group {
    int64_t gate, width;
  };
  Gate(Operand x, std::vector<Group> groups, Operand out)
      : x_(x), out_(out), groups_(std::move(groups)) {}
  void run(const Step& step) noexcept override;

 private:
  Operand x_, out_;
  std::vector<Group> groups_;
};

// out[t] = x[t] + gates[t][gate] * direction
class Steer final : public Instruction {
 public:
  Steer(Operand x, int64_t gate, std::span<const float> direction, Operand out)
      : x_(x), out_(out), gate_(gate), direction_(direction) {}
  void run(const Step& step) noexcept override;

 private:
  Operand x_, out_;
  int64_t gate_;
  std::span<const float> direction_;
};

// out = x, but for the rows that the step gives vectors for.
class ReplaceRows final : public Instruction {
 public:
  ReplaceRows(Operand x, Operand out) : x_(x), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  Operand x_, out_;
};

}  // namespace tokamak::cpu
