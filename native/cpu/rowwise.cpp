#include "cpu/rowwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tokamak::cpu {
namespace {

constexpr int64_t kTranscendental = 4;  // cost of an activation against that of an addition

void sigmoid_mul(const float* x, const float* gate, int64_t gates, int64_t n, float* out) {
  const float whole = 1.0f / (1.0f + std::exp(-gate[0]));
  for (int64_t c = 0; c < n; ++c) {
    out[c] = x[c] * (gates == 1 ? whole : 1.0f / (1.0f + std::exp(-gate[c])));
  }
}

void clip(const float* x, float limit, int64_t n, float* out) {
  for (int64_t c = 0; c < n; ++c) out[c] = std::clamp(x[c], -limit, limit);
}

}  // namespace

void Embed::run(const Step& step) noexcept {
  const RowsView& rows = out_.lead == Lead::sources ? step.batch.sources : step.batch;
  const Ints ids = by_position_ ? rows.positions : rows.token_ids;
  step.each_row(step.rows_of(out_), out_.width, [&](int64_t t) {
    const int64_t row = row_ < 0 ? ids[static_cast<size_t>(t)] : row_;
    step.kernels.unpack_row(table_, row, step.row(out_, t));
  });
}

int64_t Embed::nbytes(const Step& step) const noexcept {
  return step.rows_of(out_) * static_cast<int64_t>(quant::row_nbytes(table_.format, table_.cols));
}

void TakeRows::run(const Step& step) noexcept {
  step.each_row(step.rows_of(out_), out_.width, [&](int64_t s) {
    std::memcpy(step.row(out_, s), step.row(x_, step.batch.logit_rows[static_cast<size_t>(s)]),
                static_cast<size_t>(out_.width) * sizeof(float));
  });
}

void Norm::run(const Step& step) noexcept {
  const auto n = static_cast<int64_t>(weight_.size());
  step.each_row(step.rows_of(out_), 2 * out_.width, [&](int64_t t) {
    const float* x = step.row(x_, t);
    if (adds_) {
      float* sum = step.row(residual_.sum, t);
      step.vectors.add(x, step.row(residual_.residual, t), out_.width, sum);
      x = sum;
    }
    float* out = step.row(out_, t);
    for (int64_t c = 0; c < out_.width; c += n) {
      if (bias_.empty()) {
        step.vectors.rms_norm(x + c, weight_.data(), n, eps_, out + c);
      } else {
        step.vectors.layer_norm(x + c, weight_.data(), bias_.data(), n, eps_, out + c);
      }
    }
  });
}

void BinaryOp::run(const Step& step) noexcept {
  if (op_ == Binary::sigmoid_mul) {
    step.each_row(step.rows_of(out_), kTranscendental * out_.width, [&](int64_t t) {
      sigmoid_mul(step.row(x_, t), step.row(y_, t), y_.width, out_.width, step.row(out_, t));
    });
    return;
  }
  if (op_ == Binary::mul && y_.width == 1) {
    step.each_row(step.rows_of(out_), out_.width, [&](int64_t t) {
      step.vectors.scale(step.row(x_, t), step.row(y_, t)[0], out_.width, step.row(out_, t));
    });
    return;
  }
  const auto f = op_ == Binary::add ? step.vectors.add : step.vectors.mul;
  step.each_row(step.rows_of(out_), out_.width, [&](int64_t t) {
    f(step.row(x_, t), step.row(y_, t), out_.width, step.row(out_, t));
  });
}

void Scaling::run(const Step& step) noexcept {
  const auto f = kind_ == Scale::softcap ? step.vectors.softcap
                 : kind_ == Scale::clip  ? &clip
                                         : step.vectors.scale;
  step.each_row(step.rows_of(out_), kTranscendental * out_.width,
                [&](int64_t t) { f(step.row(x_, t), by_, out_.width, step.row(out_, t)); });
}

void Affine::run(const Step& step) noexcept {
  step.each_row(step.rows_of(out_), 2 * out_.width, [&](int64_t t) {
    float* out = step.row(out_, t);
    step.vectors.mul(step.row(x_, t), weight_.data(), out_.width, out);
    if (!bias_.empty()) step.vectors.add(out, bias_.data(), out_.width, out);
  });
}

void Join::run(const Step& step) noexcept {
  const int64_t a = x_.width / heads_;
  const int64_t b = y_.width / y_heads_;
  step.each_row(step.rows_of(out_), out_.width, [&](int64_t t) {
    float* out = step.row(out_, t);
    for (int64_t h = 0; h < heads_; ++h, out += a + b) {
      std::memcpy(out, step.row(x_, t) + h * a, static_cast<size_t>(a) * sizeof(float));
      std::memcpy(out + a, step.row(y_, t) + (y_heads_ == 1 ? 0 : h * b),
                  static_cast<size_t>(b) * sizeof(float));
    }
  });
}

void Activate::run(const Step& step) noexcept {
  // One wide row is worth sharing too, so rows are cut into pieces; elements do not depend on each
  // other.
  constexpr int64_t kPiece = 2048;
  const int64_t pieces = (out_.width + kPiece - 1) / kPiece;
  step.each_row(step.rows_of(out_) * pieces, kTranscendental * std::min(out_.width, kPiece),
                [&](int64_t i) {
                  const int64_t first = i % pieces * kPiece;
                  const int64_t n = std::min(out_.width - first, kPiece);
                  const float* x = step.row(x_, i / pieces) + first;
                  float* out = step.row(out_, i / pieces) + first;
                  if (gated_) {
                    step.vectors.gated(act_, x, x + out_.width, n, out);
                  } else {
                    step.vectors.activate(act_, x, n, out);
                  }
                });
}

RopeTable::RopeTable(std::span<const float> inv_freq, float mscale, int64_t max_rows)
    : inv_freq_(inv_freq),
      mscale_(mscale),
      pages_(static_cast<size_t>(max_rows) * 2 * inv_freq.size() * sizeof(float)),
      angles_(reinterpret_cast<float*>(pages_.data())) {}

void RopeTable::run(const Step& step) noexcept {
  constexpr int64_t kSineCost = 32;
  step.each_row(step.batch.rows(), kSineCost * half(), [&](int64_t t) {
    float* angles = angles_ + 2 * half() * t;
    for (int64_t i = 0; i < half(); ++i) {
      const double angle = static_cast<double>(step.batch.positions[static_cast<size_t>(t)]) *
                           static_cast<double>(inv_freq_[static_cast<size_t>(i)]);
      angles[i] = static_cast<float>(std::cos(angle) * mscale_);
      angles[i + half()] = static_cast<float>(std::sin(angle) * mscale_);
    }
  });
}

void Rope::run(const Step& step) noexcept {
  step.each_row(step.rows_of(out_), 2 * out_.width, [&](int64_t t) {
    const float* x = step.row(x_, t);
    float* out = step.row(out_, t);
    for (int64_t c = 0; c < out_.width; c += head_dim_) {
      step.vectors.rotate(x + c, table_.cosine(t), table_.sine(t), table_.half(), head_dim_,
                          out + c);
    }
  });
}

}  // namespace tokamak::cpu
