// Instructions that treat every row alone: embedding, norms, elementwise functions, rope, row
// selection.
#pragma once

#include <span>
#include <vector>

#include "cpu/instruction.h"

namespace tokamak::cpu {

// out[t] = table[token_ids[t]], or of the position, or one row for all
class Embed final : public Instruction {
 public:
  Embed(const PackedMatrix& table, bool by_position, int64_t row, Operand out)
      : table_(table), by_position_(by_position), row_(row), out_(out) {}
  void run(const Step& step) noexcept override;
  int64_t nbytes(const Step& step) const noexcept override;

 private:
  PackedMatrix table_;
  bool by_position_;
  int64_t row_;  // < 0: as the ids say
  Operand out_;
};

// out[s] = x[logit_rows[s]]
class TakeRows final : public Instruction {
 public:
  TakeRows(Operand x, Operand out) : x_(x), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  Operand x_, out_;
};

// A norm over every `weight.size()` columns; without bias rms_norm, with bias layer_norm. With a
// residual, x + residual is normed and also written to `sum`.
class Norm final : public Instruction {
 public:
  struct Residual {
    Operand residual, sum;
  };
  Norm(Operand x, std::span<const float> weight, std::span<const float> bias, float eps,
       Operand out)
      : x_(x), out_(out), weight_(weight), bias_(bias), eps_(eps) {}
  void add_residual(const Residual& residual) {
    residual_ = residual;
    adds_ = true;
  }
  void run(const Step& step) noexcept override;

 private:
  Operand x_, out_;
  Residual residual_{};
  bool adds_ = false;
  std::span<const float> weight_, bias_;
  float eps_;
};

enum class Binary : uint8_t { add, mul, sigmoid_mul };
enum class Scale : uint8_t { scale, softcap, clip };

// sigmoid_mul: x * sigmoid(y). In it and in mul, y may have one column for all of x.
class BinaryOp final : public Instruction {
 public:
  BinaryOp(Binary op, Operand x, Operand y, Operand out) : op_(op), x_(x), y_(y), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  Binary op_;
  Operand x_, y_, out_;
};

// x * by, by * tanh(x / by), or x within [-by, by]
class Scaling final : public Instruction {
 public:
  Scaling(Scale kind, float by, Operand x, Operand out) : kind_(kind), by_(by), x_(x), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  Scale kind_;
  float by_;
  Operand x_, out_;
};

// x * weight + bias, column by column; the bias may be empty
class Affine final : public Instruction {
 public:
  Affine(Operand x, std::span<const float> weight, std::span<const float> bias, Operand out)
      : x_(x), out_(out), weight_(weight), bias_(bias) {}
  void run(const Step& step) noexcept override;

 private:
  Operand x_, out_;
  std::span<const float> weight_, bias_;
};

// Heads of x and of y side by side; y may have one head for all of x.
class Join final : public Instruction {
 public:
  Join(int64_t heads, Operand x, Operand y, int64_t y_heads, Operand out)
      : heads_(heads), y_heads_(y_heads), x_(x), y_(y), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  int64_t heads_, y_heads_;
  Operand x_, y_, out_;
};

// act(x), or act(first half of x) * second half
class Activate final : public Instruction {
 public:
  Activate(Act act, bool gated, Operand x, Operand out)
      : act_(act), gated_(gated), x_(x), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  Act act_;
  bool gated_;
  Operand x_, out_;
};

// Cosines and sines of positions * inv_freq, times mscale, once per step for all the layers that
// share them.
class RopeTable final : public Instruction {
 public:
  RopeTable(std::span<const float> inv_freq, float mscale, int64_t max_rows);
  void run(const Step& step) noexcept override;
  int64_t half() const noexcept { return static_cast<int64_t>(inv_freq_.size()); }
  const float* cosine(int64_t t) const noexcept { return angles_ + 2 * half() * t; }
  const float* sine(int64_t t) const noexcept { return cosine(t) + half(); }

 private:
  std::span<const float> inv_freq_;
  double mscale_;
  Pages pages_;
  float* angles_;
};

// Every head_dim columns are a head; the first 2 * half of each turn.
class Rope final : public Instruction {
 public:
  Rope(const RopeTable& table, int64_t head_dim, Operand x, Operand out)
      : table_(table), head_dim_(head_dim), x_(x), out_(out) {}
  void run(const Step& step) noexcept override;

 private:
  const RopeTable& table_;
  int64_t head_dim_;
  Operand x_, out_;
};

}  // namespace tokamak::cpu
