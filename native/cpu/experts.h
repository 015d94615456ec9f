// The experts instruction: of many gated feed-forwards, each row runs the few its router prefers.
//
// Rows are grouped by expert, so that an expert's weights are read once per step. A row's results
// are multiplied by their weights and added in rising expert id: neither the company of a row nor
// the number of threads changes a bit of it.
#pragma once

#include <span>
#include <vector>

#include "cpu/instruction.h"
#include "cpu/tuning.h"

namespace tokamak::cpu {

struct Expert {
  PackedMatrix gate, up, down;  // [F, D], [F, D], [D, F]
};

// What is common to all of them.
struct ExpertUse {
  int64_t used;  // experts per row, at most
  Act act;
  bool weighs_input;                 // the weight multiplies the row, not the result
  std::span<const float> biases[3];  // of gate, up [E, F], down [E, D], or empty
};

class Experts final : public Instruction {
 public:
  // experts: not empty; all with the same shapes and, matrix by matrix, the same formats.
  // weights: [E] of every row, 0 where an expert is not used.
  Experts(Operand x, Operand weights, std::vector<Expert> experts, const ExpertUse& use,
          Operand out, const KernelTable& kernels, const Tuning& tuning);
  void run(const Step& step) noexcept override;
  int64_t nbytes(const Step& step) const noexcept override;
  int64_t macs(const Step& step) const noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

 private:
  struct Workspace;
  // Activations of one matrix: how they are stored, and the bytes of a row.
  struct Kind {
    Activation activation;
    size_t stride;
  };
  using Which = PackedMatrix Expert::*;

  Kind kind_of(const PackedMatrix& w, const KernelTable& kernels) const;
  size_t lay_out(int64_t rows, std::byte* base, Workspace& w) const;
  void choose(const Step& step, const Workspace& w) const;
  void group(const Step& step, Workspace& w) const;
  void gather(const Step& step, const Workspace& w) const;
  void activate(const Step& step, const Workspace& w) const;
  int64_t num_chunks(Which which, const KernelTable& kernels) const;
  struct Product {
    Which which;
    const Kind& kind;
    std::span<const float> bias;
    const std::byte* acts;
    float* out;
    int64_t out_stride;
  };
  void multiply(const Step& step, const Workspace& w, const Product& product, int64_t task) const;
  void combine(const Step& step, const Workspace& w) const;

  Operand x_, weights_, out_;
  std::vector<Expert> experts_;
  ExpertUse use_;
  Tuning tuning_;
  int64_t inner_;  // F
  Kind gate_kind_, up_kind_, down_kind_;
  int64_t expert_nbytes_ = 0;
  int64_t num_active_ = 0;  // experts that the last step used
};

}  // namespace tokamak::cpu
