#include "cpu/carried.h"

#include <algorithm>

namespace tokamak::cpu {

void Gate::run(const Step& step) noexcept {
  step.each_row(step.rows_of(out_), out_.width, [&](int64_t t) {
    const float* x = step.row(x_, t);
    float* out = step.row(out_, t);
    for (const Group& group : groups_) {
      step.vectors.scale(x, step.batch.gate(t, group.gate), group.width, out);
      x += group.width;
      out += group.width;
    }
  });
}

void Steer::run(const Step& step) noexcept {
  step.each_row(step.rows_of(out_), 2 * out_.width, [&](int64_t t) {
    float* out = step.row(out_, t);
    step.vectors.scale(direction_.data(), step.batch.gate(t, gate_), out_.width, out);
    step.vectors.add(step.row(x_, t), out, out_.width, out);
  });
}

void ReplaceRows::run(const Step& step) noexcept {
  const Ints rows = step.batch.given_rows;
  const float* vectors = step.batch.given_vectors.data();
  step.each_row(step.rows_of(out_), out_.width, [&](int64_t t) {
    const auto at = std::lower_bound(rows.begin(), rows.end(), t);
    const bool given = at != rows.end() && *at == t;
    const float* from = given ? vectors + (at - rows.begin()) * out_.width : step.row(x_, t);
    std::copy_n(from, out_.width, step.row(out_, t));
  });
}

}  // namespace tokamak::cpu
