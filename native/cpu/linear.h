// The linear instruction: one or several packed matrices applied to the same rows, side by side.
#pragma once

#include <vector>

#include "cpu/instruction.h"
#include "cpu/tuning.h"

namespace tokamak::cpu {

struct LinearPart {
  PackedMatrix weight;
  const float* bias;     // [weight.rows], or null
  int64_t first_column;  // of the output
};

// Panels of a chunk: about `chunk_nbytes`, in whole tiles of the many-token kernels.
int64_t chunk_panels(const PackedMatrix& w, const KernelTable& kernels, int64_t chunk_nbytes);

// Rows are quantised once per kind of activation the formats need, then panels are claimed in
// chunks. A chunk covers a block of rows, small enough that their activations stay in the
// second-level cache while its panels stream past.
class Linear final : public Instruction {
 public:
  Linear(Operand x, std::vector<LinearPart> parts, Operand out, const KernelTable& kernels,
         const Tuning& tuning);
  void run(const Step& step) noexcept override;
  int64_t nbytes(const Step& step) const noexcept override;
  int64_t macs(const Step& step) const noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

 private:
  struct Kind {
    Activation activation;
    size_t stride;  // bytes of a quantised row
  };
  struct Chunk {
    size_t part;
    int64_t begin, end;  // panels
  };
  void quantise(const Step& step) const;
  const std::byte* activations(const Step& step, Activation kind, size_t* stride) const;
  void plan_chunks(const KernelTable& kernels, int64_t chunk_nbytes);

  Operand x_, out_;
  std::vector<LinearPart> parts_;
  std::vector<Kind> kinds_;  // without f32, which needs no copy
  std::vector<Chunk> chunks_;
  int64_t block_rows_ = 0;  // rows of a chunk
  int64_t weight_nbytes_ = 0;
  int64_t row_macs_ = 0;
};

}  // namespace tokamak::cpu
