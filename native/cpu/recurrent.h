// Instructions whose rows depend on the rows before: causal convolution, state space scan, linear
// attention.
//
// The state of a sequence is read where the row before the step's first one left it and written at
// the end of every cache block and of the step (cpu/cache.h: LayerState). Rows are computed one
// after another, heads and columns in parallel: neither the company of a sequence nor the way it
// was cut into steps changes a bit.
#pragma once

#include <span>

#include "cpu/instruction.h"

namespace tokamak::cpu {

class Recurrent : public Instruction {
 public:
  explicit Recurrent(LayerState& state) : state_(state) {}
  int64_t nbytes(const Step& step) const noexcept override;

 protected:
  // Calls body(first, end, state) for the rows of a sequence that lie in one cache block, block by
  // block; state is `width` floats from `offset` of the whole, in `memory`, and saved after each
  // call. Tasks may divide the state among them.
  template <class Body>
  void each_stretch(const Step& step, int64_t sequence, int64_t offset, int64_t width,
                    float* memory, const Body& body) const;

  LayerState& state_;
};

// out[t][c] = act(bias[c] + sum_k weight[c][k] * x[t - K + 1 + k][c]); state [K - 1][C].
class CausalConv final : public Recurrent {
 public:
  struct Shape {
    std::span<const float> weight;  // [C][K]
    std::span<const float> bias;    // [C] or empty
    bool acts;
    Act act;
  };
  CausalConv(Operand x, Operand out, LayerState& state, const Shape& shape);
  void run(const Step& step) noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

 private:
  Operand x_, out_;
  Shape shape_;
  int64_t taps_;
};

// state = exp(s a) state + (s x) b^T and out = state c + d x, where s = softplus(dt); see ScanRow.
class Scan final : public Recurrent {
 public:
  struct Shape {
    int64_t heads, groups, states;
    std::span<const float> a;  // [H][states] or [H]
    std::span<const float> d;  // [H]
  };
  struct Inputs {
    Operand x, dt, b, c;
  };
  Scan(const Inputs& inputs, Operand out, LayerState& state, const Shape& shape)
      : Recurrent(state), in_(inputs), out_(out), shape_(shape) {}
  void run(const Step& step) noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

 private:
  Inputs in_;
  Operand out_;
  Shape shape_;
};

// The three rules of MatrixRow.
class LinearAttention final : public Recurrent {
 public:
  struct Shape {
    Rule rule;
    int64_t heads, keys, values;
    std::span<const float> bonus;  // [H][keys], for that rule
  };
  struct Inputs {
    Operand q, k, v, w, a, b;  // a, b as the rule has them
  };
  LinearAttention(const Inputs& inputs, Operand out, LayerState& state, const Shape& shape)
      : Recurrent(state), in_(inputs), out_(out), shape_(shape) {}
  void run(const Step& step) noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

 private:
  MatrixRow row_at(const Step& step, int64_t t, int64_t head) const;

  Inputs in_;
  Operand out_;
  Shape shape_;
};

}  // namespace tokamak::cpu
