#include "cpu/experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

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
  float* scores;     // [T][E]
  int32_t* chosen;   // [T][used] expert ids, rising
  float* weights;    // [T][used]
  int32_t* place;    // [T][used] of every choice
  int32_t* row;      // [T * used] of every place
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

Experts::Experts(Operand x, Operand router, std::vector<Expert> experts, const Routing& routing,
                 Operand out, const KernelTable& kernels, const Tuning& tuning)
    : x_(x),
      router_(router),
      out_(out),
      experts_(std::move(experts)),
      routing_(routing),
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
  w.places = rows * routing_.used;
  w.scores = floats(rows * num_experts);
  w.chosen = ints(w.places);
  w.weights = floats(w.places);
  w.place = ints(w.places);
  w.row = ints(w.places);
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

// Softmax of the router's logits; the `used` largest, ties to the lower id. Where nothing compares
// (NaN), the lowest ids are taken and their weights are NaN.
void Experts::route(const Step& step, const Workspace& w) const {
  const auto num_experts = static_cast<int64_t>(experts_.size());
  step.each_row(step.rows_of(x_), (8 + routing_.used) * num_experts, [&](int64_t t) {
    const float* logits = step.row(router_, t);
    float* scores = w.scores + t * num_experts;
    const float most = *std::max_element(logits, logits + num_experts);
    float total = 0.0f;
    for (int64_t e = 0; e < num_experts; ++e) total += scores[e] = std::exp(logits[e] - most);
    int32_t* chosen = w.chosen + t * routing_.used;
    for (int64_t i = 0; i < routing_.used; ++i) {
      int32_t best = -1;
      for (int32_t e = 0; e < num_experts; ++e) {
        if (std::find(chosen, chosen + i, e) != chosen + i) continue;
        if (best < 0 || scores[e] > scores[best]) best = e;
      }
      chosen[i] = best;
    }
    std::sort(chosen, chosen + routing_.used);
    float sum = 0.0f;
    for (int64_t i = 0; i < routing_.used; ++i) sum += scores[chosen[i]];
    const float factor = routing_.scaling / (routing_.normed ? sum : total);
    for (int64_t i = 0; i < routing_.used; ++i) {
      w.weights[t * routing_.used + i] = scores[chosen[i]] * factor;
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
    for (int64_t i = t * routing_.used; i < (t + 1) * routing_.used; ++i) {
      w.place[i] = w.cursors[w.chosen[i]]++;
      w.row[w.place[i]] = static_cast<int32_t>(t);
    }
  }
}

void Experts::gather(const Step& step, const Workspace& w) const {
  step.each_row(w.places, 4 * x_.width, [&](int64_t p) {
    const float* x = step.row(x_, w.row[p]);
    const auto at = static_cast<size_t>(p);
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
    step.vectors.gated(routing_.act, gate, gate + inner_, inner_, acted);
    store(step.kernels, down_kind_.activation, acted, inner_,
          w.down_acts + static_cast<size_t>(p) * down_kind_.stride);
  });
}

int64_t Experts::macs(const Step& step) const noexcept {
  return step.rows_of(x_) * routing_.used * 3 * inner_ * x_.width;
}

int64_t Experts::chunk_panels(const PackedMatrix& w) const {
  return std::max<int64_t>(1, tuning_.chunk_nbytes / static_cast<int64_t>(w.panel_nbytes));
}

int64_t Experts::num_chunks(Which which, const KernelTable& kernels) const {
  const PackedMatrix& w = experts_[0].*which;
  return (num_panels(w, kernels) + chunk_panels(w) - 1) / chunk_panels(w);
}

// Some panels of the matrix of one expert, for all of its rows.
void Experts::multiply(const Step& step, const Workspace& w, Which which, const Kind& kind,
                       int64_t task, const std::byte* acts, float* out, int64_t out_stride) const {
  const int64_t chunks = num_chunks(which, step.kernels);
  const int32_t expert = w.active[task / chunks];
  const PackedMatrix& matrix = experts_[static_cast<size_t>(expert)].*which;
  const int64_t begin = task % chunks * chunk_panels(matrix);
  const int64_t end = std::min(num_panels(matrix, step.kernels), begin + chunk_panels(matrix));
  const int64_t fit = tuning_.block_nbytes / static_cast<int64_t>(kind.stride);
  const int64_t block = std::max(kRowUnit, fit / kRowUnit * kRowUnit);
  for (int64_t p = w.starts[expert]; p < w.starts[expert + 1]; p += block) {
    step.kernels.matmul(matrix, acts + static_cast<size_t>(p) * kind.stride, kind.stride,
                        std::min<int64_t>(block, w.starts[expert + 1] - p), begin, end, nullptr,
                        out + p * out_stride, static_cast<size_t>(out_stride));
  }
}

void Experts::combine(const Step& step, const Workspace& w) const {
  step.each_row(step.rows_of(x_), routing_.used * out_.width, [&](int64_t t) {
    float* out = step.row(out_, t);
    for (int64_t i = t * routing_.used; i < (t + 1) * routing_.used; ++i) {
      const float* result = w.results + int64_t{w.place[i]} * out_.width;
      const float weight = w.weights[i];
      const bool first = i == t * routing_.used;
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
  route(step, w);
  group(step, w);
  gather(step, w);
  num_active_ = 0;
  const auto num_experts = static_cast<int32_t>(experts_.size());
  for (int32_t e = 0; e < num_experts; ++e) num_active_ += w.starts[e + 1] > w.starts[e];
  const int64_t gates = num_active_ * num_chunks(&Expert::gate, step.kernels);
  const int64_t ups = num_active_ * num_chunks(&Expert::up, step.kernels);
  step.pool.run(gates + ups, [&](int64_t task, int) {
    if (task < gates) {
      multiply(step, w, &Expert::gate, gate_kind_, task, w.gate_acts, w.hidden, 2 * inner_);
    } else {
      multiply(step, w, &Expert::up, up_kind_, task - gates, w.up_acts, w.hidden + inner_,
               2 * inner_);
    }
  });
  activate(step, w);
  step.pool.run(num_active_ * num_chunks(&Expert::down, step.kernels), [&](int64_t task, int) {
    multiply(step, w, &Expert::down, down_kind_, task, w.down_acts, w.results, out_.width);
  });
  combine(step, w);
}

}  // namespace tokamak::cpu
