#include "cpu/linear.h"

#include <algorithm>
#include <utility>

namespace tokamak::cpu {
namespace {

constexpr int64_t kRowUnit = 24;  // a multiple of every kernel's token tile

int64_t num_panels(const PackedMatrix& w, const KernelTable& kernels) {
  return (w.rows + kernels.panel_rows - 1) / kernels.panel_rows;
}

}  // namespace

int64_t chunk_panels(const PackedMatrix& w, const KernelTable& kernels, int64_t chunk_nbytes) {
  const int64_t unit = kernels.tile_panels;
  const int64_t fit = chunk_nbytes / static_cast<int64_t>(w.panel_nbytes);
  return std::max<int64_t>(1, (fit + unit - 1) / unit) * unit;
}

Linear::Linear(Operand x, std::vector<LinearPart> parts, Operand out, const KernelTable& kernels,
               const Tuning& tuning)
    : x_(x), out_(out), parts_(std::move(parts)) {
  size_t widest = static_cast<size_t>(x.width) * sizeof(float);
  for (const LinearPart& part : parts_) {
    const Activation kind = activation_of(part.weight.format);
    const auto same = [&](const Kind& k) { return k.activation == kind; };
    if (kind != Activation::f32 && std::none_of(kinds_.begin(), kinds_.end(), same)) {
      kinds_.push_back({kind, kernels.activation_nbytes(kind, x.width)});
      widest = kinds_.back().stride;
    }
    weight_nbytes_ +=
        num_panels(part.weight, kernels) * static_cast<int64_t>(part.weight.panel_nbytes);
    row_macs_ += part.weight.rows * part.weight.cols;
  }
  const int64_t fit = tuning.block_nbytes / static_cast<int64_t>(widest);
  block_rows_ = std::max(kRowUnit, std::min<int64_t>(fit, 192) / kRowUnit * kRowUnit);
  plan_chunks(kernels, tuning.chunk_nbytes);
}

void Linear::plan_chunks(const KernelTable& kernels, int64_t chunk_nbytes) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    const PackedMatrix& w = parts_[i].weight;
    const int64_t panels = num_panels(w, kernels);
    const int64_t step = chunk_panels(w, kernels, chunk_nbytes);
    for (int64_t begin = 0; begin < panels; begin += step) {
      chunks_.push_back({i, begin, std::min(panels, begin + step)});
    }
  }
}

size_t Linear::scratch_nbytes(int64_t rows, int /*threads*/) const {
  size_t nbytes = 0;
  for (const Kind& kind : kinds_) nbytes += kind.stride * static_cast<size_t>(rows);
  return nbytes;
}

int64_t Linear::nbytes(const Step& /*step*/) const noexcept { return weight_nbytes_; }

int64_t Linear::macs(const Step& step) const noexcept { return row_macs_ * step.rows_of(x_); }

void Linear::quantise(const Step& step) const {
  const int64_t rows = step.rows_of(x_);
  step.each_row(rows, 2 * x_.width, [&](int64_t t) {
    std::byte* out = step.scratch;
    for (const Kind& kind : kinds_) {
      step.kernels.quantize_row(kind.activation, step.row(x_, t), x_.width,
                                out + static_cast<size_t>(t) * kind.stride);
      out += static_cast<size_t>(rows) * kind.stride;
    }
  });
}

const std::byte* Linear::activations(const Step& step, Activation kind, size_t* stride) const {
  const std::byte* at = step.scratch;
  for (const Kind& k : kinds_) {
    if (k.activation == kind) {
      *stride = k.stride;
      return at;
    }
    at += static_cast<size_t>(step.rows_of(x_)) * k.stride;
  }
  *stride = static_cast<size_t>(x_.stride) * sizeof(float);
  return reinterpret_cast<const std::byte*>(step.base(x_));
}

void Linear::run(const Step& step) noexcept {
  if (!kinds_.empty()) quantise(step);
  const int64_t rows = step.rows_of(x_);
  const int64_t blocks = (rows + block_rows_ - 1) / block_rows_;
  step.pool.run(static_cast<int64_t>(chunks_.size()) * blocks, [&](int64_t task, int) {
    const Chunk& chunk = chunks_[static_cast<size_t>(task / blocks)];
    const LinearPart& part = parts_[chunk.part];
    const int64_t first = task % blocks * block_rows_;
    size_t stride = 0;
    const std::byte* acts = activations(step, activation_of(part.weight.format), &stride);
    step.kernels.matmul(part.weight, acts + static_cast<size_t>(first) * stride, stride,
                        std::min(block_rows_, rows - first), chunk.begin, chunk.end, part.bias,
                        step.row(out_, first) + part.first_column,
                        static_cast<size_t>(out_.stride));
  });
}

}  // namespace tokamak::cpu
