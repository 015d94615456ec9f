#include "cpu/experts.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/linear.h"

namespace tokamak::cpu {
namespace {

constexpr int64_t kRowUnit = 24;  // a multiple of every kernel's token tile

constexpr size_t align64(size_t n) { return (n + 63) / 64 * 64; }

int64_t num_panels(const PackedMatrix& w, const KernelTable& kernels) {
  return (w.rows + kernels.panel_rows - 1) / kernels.panel_rows;
}

void store(const KernelTable& kernels, Activation kind, const float* x, int64_t n, std::byte* out) {
  if (kind == Activation::f32) {
    std::memcpy(out, x, static_cast<size_t>(n) * sizeof(float));
  } else {
    kernels.quantize_row(kind, x, n, out);
  }
}

}  // namespace

// Arrays in the step's scratch. A place is a (row, expert) pair; places are ordered by expert, then
// by row. Choices are pairs too, ordered by row, then by expert.
struct Experts::Workspace {
  int32_t* chosen;   // [T][used] expert ids, rising
  float* weights;    // [T][used]
  int32_t* place;    // [T][used] of every choice
  int32_t* row;      // [T * used] of every place
  int32_t* expert;   // [T * used] of every place
  int32_t* starts;   // [E + 1] first place of every expert
  int32_t* cursors;  // [E]
  int32_t* active;   // [num_active] experts that have rows
  std::byte* gate_acts;
  std::byte* up_acts;  // the same as gate_acts where both are stored alike
  float* hidden;       // [places][2 * F] gate and up
  float* acted;        // [places][F]
  std::byte* down_acts;
  float* results;  // [places][D]
  int64_t places;
};

Experts::Experts(Operand x, Operand weights, std::vector<Expert> experts, const ExpertUse& use,
                 Operand out, const KernelTable& kernels, const Tuning& tuning)
    : x_(x),
      weights_(weights),
      out_(out),
      experts_(std::move(experts)),
      use_(use),
      tuning_(tuning),
      inner_(experts_[0].gate.rows),
      gate_kind_(kind_of(experts_[0].gate, kernels)),
      up_kind_(kind_of(experts_[0].up, kernels)),
      down_kind_(kind_of(experts_[0].down, kernels)) {
  const Expert& first = experts_[0];
  for (const PackedMatrix& w : {first.gate, first.up, first.down}) {
    expert_nbytes_ += num_panels(w, kernels) * static_cast<int64_t>(w.panel_nbytes);
  }
}

Experts::Kind Experts::kind_of(const PackedMatrix& w, const KernelTable& kernels) const {
  const Activation kind = activation_of(w.format);
  if (kind != Activation::f32) return {kind, kernels.activation_nbytes(kind, w.cols)};
  return {kind, align64(static_cast<size_t>(w.cols) * sizeof(float))};
}

size_t Experts::lay_out(int64_t rows, std::byte* base, Workspace& w) const {
  size_t used = 0;
  const auto take = [&](size_t nbytes) {
    std::byte* at = base == nullptr ? nullptr : base + used;
    used += align64(nbytes);
    return at;
  };
  const auto floats = [&](int64_t n) {
    return reinterpret_cast<float*>(take(static_cast<size_t>(n) * sizeof(float)));
  };
  const auto ints = [&](int64_t n) {
    return reinterpret_cast<int32_t*>(take(static_cast<size_t>(n) * sizeof(int32_t)));
  };
  const auto num_experts = static_cast<int64_t>(experts_.size());
  w.places = rows * use_.used;
  w.chosen = ints(w.places);
  w.weights = floats(w.places);
  w.place = ints(w.places);
  w.row = ints(w.places);
  w.expert = ints(w.places);
  w.starts = ints(num_experts + 1);
  w.cursors = ints(num_experts);
  w.active = ints(num_experts);
  const auto places = static_cast<size_t>(w.places);
  w.gate_acts = take(places * gate_kind_.stride);
  const bool alike = up_kind_.activation == gate_kind_.activation;
  w.up_acts = alike ? w.gate_acts : take(places * up_kind_.stride);
  w.hidden = floats(w.places * 2 * inner_);
  w.acted = floats(w.places * inner_);
  w.down_acts = take(places * down_kind_.stride);
  w.results = floats(w.places * out_.width);
  return used;
}

size_t Experts::scratch_nbytes(int64_t rows, int /*threads*/) const {
  Workspace w{};
  return lay_out(rows, nullptr, w);
}

int64_t Experts::nbytes(const Step& /*step*/) const noexcept {
  return num_active_ * expert_nbytes_;
}

// Experts whose weight is not 0, rising; where they are fewer than `used`, the lowest others, which
// then add 0.
void Experts::choose(const Step& step, const Workspace& w) const {
  const auto num_experts = static_cast<int32_t>(experts_.size());
  step.each_row(step.rows_of(x_), num_experts, [&](int64_t t) {
    const float* weights = step.row(weights_, t);
    int32_t* chosen = w.chosen + t * use_.used;
    int64_t lacking = use_.used;
    for (int32_t e = 0; e < num_experts; ++e) lacking -= weights[e] != 0.0f;
    int64_t i = 0;
    for (int32_t e = 0; e < num_experts && i < use_.used; ++e) {
      if (weights[e] == 0.0f && lacking-- <= 0) continue;
      chosen[i] = e;
      w.weights[t * use_.used + i++] = weights[e];
    }
  });
}

void Experts::group(const Step& step, Workspace& w) const {
  const auto num_experts = static_cast<int64_t>(experts_.size());
  std::fill(w.starts, w.starts + num_experts + 1, 0);
  for (int64_t i = 0; i < w.places; ++i) ++w.starts[w.chosen[i] + 1];
  int64_t active = 0;
  for (int32_t e = 0; e < num_experts; ++e) {
    if (w.starts[e + 1] > 0) w.active[active++] = e;
    w.starts[e + 1] += w.starts[e];
    w.cursors[e] = w.starts[e];
  }
  for (int64_t t = 0; t < step.rows_of(x_); ++t) {
    for (int64_t i = t * use_.used; i < (t + 1) * use_.used; ++i) {
      w.place[i] = w.cursors[w.chosen[i]]++;
      w.row[w.place[i]] = static_cast<int32_t>(t);
      w.expert[w.place[i]] = w.chosen[i];
    }
  }
}

void Experts::gather(const Step& step, const Workspace& w) const {
  step.each_row(w.places, 4 * x_.width, [&](int64_t p) {
    const float* x = step.row(x_, w.row[p]);
    const auto at = static_cast<size_t>(p);
    if (use_.weighs_input) {
      float* weighed = w.results + p * out_.width;  // not written before the gates are read
      step.vectors.scale(x, step.row(weights_, w.row[p])[w.expert[p]], x_.width, weighed);
      x = weighed;
    }
    store(step.kernels, gate_kind_.activation, x, x_.width, w.gate_acts + at * gate_kind_.stride);
    if (w.up_acts != w.gate_acts) {
      store(step.kernels, up_kind_.activation, x, x_.width, w.up_acts + at * up_kind_.stride);
    }
  });
}

void Experts::activate(const Step& step, const Workspace& w) const {
  step.each_row(w.places, 8 * inner_, [&](int64_t p) {
    const float* gate = w.hidden + p * 2 * inner_;
    float* acted = w.acted + p * inner_;
    step.vectors.gated(use_.act, gate, gate + inner_, inner_, acted);
    store(step.kernels, down_kind_.activation, acted, inner_,
          w.down_acts + static_cast<size_t>(p) * down_kind_.stride);
  });
}

int64_t Experts::macs(const Step& step) const noexcept {
  return step.rows_of(x_) * use_.used * 3 * inner_ * x_.width;
}

int64_t Experts::num_chunks(Which which, const KernelTable& kernels) const {
  const PackedMatrix& w = experts_[0].*which;
  const int64_t step = chunk_panels(w, kernels, tuning_.chunk_nbytes);
  return (num_panels(w, kernels) + step - 1) / step;
}

// Some panels of the matrix of one expert, for all of its rows.
void Experts::multiply(const Step& step, const Workspace& w, const Product& product,
                       int64_t task) const {
  const int64_t chunks = num_chunks(product.which, step.kernels);
  const int32_t expert = w.active[task / chunks];
  const PackedMatrix& matrix = experts_[static_cast<size_t>(expert)].*product.which;
  const float* bias = product.bias.empty() ? nullptr : product.bias.data() + expert * matrix.rows;
  const size_t stride = product.kind.stride;
  const int64_t panels = chunk_panels(matrix, step.kernels, tuning_.chunk_nbytes);
  const int64_t begin = task % chunks * panels;
  const int64_t end = std::min(num_panels(matrix, step.kernels), begin + panels);
  const int64_t fit = tuning_.block_nbytes / static_cast<int64_t>(stride);
  const int64_t block = std::max(kRowUnit, fit / kRowUnit * kRowUnit);
  for (int64_t p = w.starts[expert]; p < w.starts[expert + 1]; p += block) {
    step.kernels.matmul(matrix, product.acts + static_cast<size_t>(p) * stride, stride,
                        std::min<int64_t>(block, w.starts[expert + 1] - p), begin, end, bias,
                        product.out + p * product.out_stride,
                        static_cast<size_t>(product.out_stride));
  }
}

void Experts::combine(const Step& step, const Workspace& w) const {
  step.each_row(step.rows_of(x_), use_.used * out_.width, [&](int64_t t) {
    float* out = step.row(out_, t);
    for (int64_t i = t * use_.used; i < (t + 1) * use_.used; ++i) {
      const float* result = w.results + int64_t{w.place[i]} * out_.width;
      const float weight = use_.weighs_input ? 1.0f : w.weights[i];
      const bool first = i == t * use_.used;
      for (int64_t c = 0; c < out_.width; ++c) {
        const float product = weight * result[c];
        out[c] = first ? product : out[c] + product;
      }
    }
  });
}

void Experts::run(const Step& step) noexcept {
  Workspace w{};
  lay_out(step.rows_of(x_), step.scratch, w);
  choose(step, w);
  group(step, w);
  gather(step, w);
  num_active_ = 0;
  const auto num_experts = static_cast<int32_t>(experts_.size());
  for (int32_t e = 0; e < num_experts; ++e) num_active_ += w.starts[e + 1] > w.starts[e];
  const int64_t gates = num_active_ * num_chunks(&Expert::gate, step.kernels);
  const int64_t ups = num_active_ * num_chunks(&Expert::up, step.kernels);
  const Product gate{&Expert::gate, gate_kind_, use_.biases[0], w.gate_acts, w.hidden, 2 * inner_};
  const Product up{&Expert::up, up_kind_, use_.biases[1], w.up_acts, w.hidden + inner_, 2 * inner_};
  const Product down{&Expert::down, down_kind_, use_.biases[2], w.down_acts, w.results, out_.width};
  step.pool.run(gates + ups, [&](int64_t task, int) {
    multiply(step, w, task < gates ? gate : up, task < gates ? task : task - gates);
  });
  activate(step, w);
  step.pool.run(num_active_ * num_chunks(&Expert::down, step.kernels),
                [&](int64_t task, int) { multiply(step, w, down, task); });
  combine(step, w);
}

}  // namespace tokamak::cpu
