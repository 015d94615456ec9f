#include "cpu/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tokamak::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

int64_t argmax(const float* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) best = x[i] > x[best] ? i : best;
  return best;
}

// x becomes its exponentials from the largest on; their sum.
float exponentials(const float* x, int64_t n, float* out) {
  const float most = *std::max_element(x, x + n);
  float total = 0.0f;
  for (int64_t e = 0; e < n; ++e) total += out[e] = std::exp(x[e] - most);
  return total;
}

// The largest logit, then the largest of the others; each weighs what its softmax over the logits
// near it is. Source: Liu et al. 2024, GRIN, algorithm 1, as in evaluation.
void sparsemixer(const float* logits, int64_t n, float* left, float* out) {
  std::copy(logits, logits + n, left);
  std::fill(out, out + n, 0.0f);
  for (int turn = 0; turn < 2; ++turn) {
    const int64_t chosen = argmax(left, n);
    const float most = left[chosen];
    float total = 0.0f;
    for (int64_t e = 0; e < n; ++e) {
      const float room = 0.02f * std::max(std::fabs(logits[e]), most);
      if (most - logits[e] <= room) total += std::exp(left[e] - most);
    }
    out[chosen] = 1.0f / total;
    left[chosen] = kLowest;
  }
}

}  // namespace

struct Route::Row {
  const float* logits;
  float* scores;  // [E]
  float* ranked;  // [E] what is compared; -inf is not chosen
  float* groups;  // [groups] what groups are compared by
  float* out;
  int64_t count;  // E
};

size_t Route::scratch_nbytes(int64_t rows, int /*threads*/) const {
  const int64_t width = 2 * logits_.width + routing_.groups;
  return static_cast<size_t>(rows * width) * sizeof(float);
}

// Ranks of experts outside the best groups become -inf.
void Route::leave_groups(const Row& row) const {
  const int64_t size = row.count / routing_.groups;
  for (int64_t g = 0; g < routing_.groups; ++g) {
    const float* ranked = row.ranked + g * size;
    float total = 0.0f;
    float bound = std::numeric_limits<float>::infinity();
    // The group_top largest one after another, equal ones counted as often as they occur.
    for (int64_t left = routing_.group_top; left > 0;) {
      float best = kLowest;
      for (int64_t e = 0; e < size; ++e) {
        if (ranked[e] < bound && ranked[e] > best) best = ranked[e];
      }
      const auto same = static_cast<int64_t>(std::count(ranked, ranked + size, best));
      if (same == 0) break;  // not numbers
      total += best * static_cast<float>(std::min(left, same));
      left -= same;
      bound = best;
    }
    row.groups[g] = total;
  }
  for (int64_t g = 0; g < routing_.groups; ++g) {
    int64_t ahead = 0;
    for (int64_t o = 0; o < routing_.groups; ++o) {
      ahead += row.groups[o] > row.groups[g] || (row.groups[o] == row.groups[g] && o < g);
    }
    if (ahead < routing_.top_groups) continue;
    std::fill(row.ranked + g * size, row.ranked + (g + 1) * size, kLowest);
  }
}

void Route::choose(const Row& row) const {
  float total = 1.0f;
  if (routing_.score == Score::softmax) {
    total = exponentials(row.logits, row.count, row.scores);
  } else {
    for (int64_t e = 0; e < row.count; ++e)
      row.scores[e] = 1.0f / (1.0f + std::exp(-row.logits[e]));
  }
  for (int64_t e = 0; e < row.count; ++e) {
    const float bias = bias_.empty() ? 0.0f : bias_[static_cast<size_t>(e)];
    row.ranked[e] = bias_.empty() ? row.scores[e] : row.scores[e] / total + bias;
  }
  if (routing_.top_groups < routing_.groups) leave_groups(row);
  std::fill(row.out, row.out + row.count, 0.0f);
  float sum = 0.0f;
  for (int64_t i = 0; i < routing_.used; ++i) {
    int64_t best = -1;
    for (int64_t e = 0; e < row.count; ++e) {
      if (row.out[e] != 0.0f) continue;  // chosen
      if (best < 0 || row.ranked[e] > row.ranked[best]) best = e;
    }
    row.out[best] = 1.0f;
  }
  for (int64_t e = 0; e < row.count; ++e) sum += row.out[e] != 0.0f ? row.scores[e] : 0.0f;
  const float factor = routing_.scaling / (routing_.normed ? sum : total);
  for (int64_t e = 0; e < row.count; ++e) {
    if (row.out[e] != 0.0f) row.out[e] = row.scores[e] * factor;
  }
}

void Route::run(const Step& step) noexcept {
  const int64_t count = logits_.width;
  const int64_t width = 2 * count + routing_.groups;
  step.each_row(step.rows_of(out_), (8 + routing_.used) * count, [&](int64_t t) {
    float* at = reinterpret_cast<float*>(step.scratch) + t * width;
    const Row row{step.row(logits_, t), at, at + count, at + 2 * count, step.row(out_, t), count};
    if (routing_.score == Score::sparsemixer) {
      sparsemixer(row.logits, count, row.scores, row.out);
    } else {
      choose(row);
    }
  });
}

}  // namespace tokamak::cpu
