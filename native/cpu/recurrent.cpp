#include "cpu/recurrent.h"

#include <algorithm>
#include <cstring>

namespace tokamak::cpu {
namespace {

constexpr int64_t kColumns = 64;     // of a convolution, done by one task
constexpr int64_t kTaskState = 512;  // floats of state that are worth a task of their own

size_t floats(int64_t n) { return (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64; }

float* worker_memory(const Step& step, int worker, size_t nbytes) {
  return reinterpret_cast<float*>(step.scratch + static_cast<size_t>(worker) * nbytes);
}

// Heads that one task does: several where their states are small.
int64_t heads_per_task(int64_t width) { return std::max<int64_t>(1, kTaskState / width); }

}  // namespace

int64_t Recurrent::nbytes(const Step& step) const noexcept {
  return 2 * step.batch.sequences() * state_.width() * static_cast<int64_t>(sizeof(float));
}

template <class Body>
void Recurrent::each_stretch(const Step& step, int64_t sequence, int64_t offset, int64_t width,
                             float* memory, const Body& body) const {
  const RowsView& batch = step.batch.recent;
  const auto i = static_cast<size_t>(sequence);
  const int64_t rows = batch.starts[i + 1] - batch.starts[i];
  const int64_t position = batch.lengths[i] - rows;
  const auto block_of = [&](int64_t at) {
    return int64_t{batch.tables[static_cast<size_t>(sequence * batch.table_width + at / kBlock)]};
  };
  const auto nbytes = static_cast<size_t>(width) * sizeof(float);
  if (position == 0) {
    std::memset(memory, 0, nbytes);
  } else {
    std::memcpy(memory, state_.at(block_of(position - 1)) + offset, nbytes);
  }
  for (int64_t done = 0; done < rows;) {
    const int64_t at = position + done;
    const int64_t count = std::min(rows - done, kBlock - at % kBlock);
    const int64_t first = batch.starts[i] + done;
    body(first, first + count, memory);
    std::memcpy(state_.at(block_of(at)) + offset, memory, nbytes);
    done += count;
  }
}

CausalConv::CausalConv(Operand x, Operand out, LayerState& state, const Shape& shape)
    : Recurrent(state),
      x_(x),
      out_(out),
      shape_(shape),
      taps_(static_cast<int64_t>(shape.weight.size()) / x.width) {}

size_t CausalConv::scratch_nbytes(int64_t /*rows*/, int threads) const {
  return static_cast<size_t>(threads) * floats((taps_ + 1) * kColumns);
}

void CausalConv::run(const Step& step) noexcept {
  const int64_t columns = x_.width;
  const int64_t tasks = (columns + kColumns - 1) / kColumns;
  const size_t memory_nbytes = floats((taps_ + 1) * kColumns);
  step.pool.run(step.batch.sequences() * tasks, [&](int64_t task, int worker) {
    const int64_t first = task % tasks * kColumns;
    const int64_t n = std::min(kColumns, columns - first);
    // Rows of the state are `columns` apart, so each is carried by itself.
    float* window = worker_memory(step, worker, memory_nbytes);  // [taps - 1][n]
    float* sums = window + taps_ * n;
    const auto i = static_cast<size_t>(task / tasks);
    const RowsView& batch = step.batch.recent;
    const int64_t rows = batch.starts[i + 1] - batch.starts[i];
    const int64_t position = batch.lengths[i] - rows;
    const auto state_at = [&](int64_t at) {
      const size_t entry =
          i * static_cast<size_t>(batch.table_width) + static_cast<size_t>(at / kBlock);
      return state_.at(batch.tables[entry]) + first;
    };
    const auto row_nbytes = static_cast<size_t>(n) * sizeof(float);
    for (int64_t k = 0; k + 1 < taps_; ++k) {
      if (position == 0) {
        std::memset(window + k * n, 0, row_nbytes);
      } else {
        std::memcpy(window + k * n, state_at(position - 1) + k * columns, row_nbytes);
      }
    }
    for (int64_t t = batch.starts[i]; t < batch.starts[i + 1]; ++t) {
      std::memcpy(window + (taps_ - 1) * n, step.row(x_, t) + first, row_nbytes);
      for (int64_t c = 0; c < n; ++c) {
        sums[c] = shape_.bias.empty() ? 0.0f : shape_.bias[static_cast<size_t>(first + c)];
      }
      for (int64_t k = 0; k < taps_; ++k) {
        const float* weight = shape_.weight.data() + first * taps_ + k;
        for (int64_t c = 0; c < n; ++c) sums[c] += weight[c * taps_] * window[k * n + c];
      }
      float* out = step.row(out_, t) + first;
      if (shape_.acts) {
        step.vectors.activate(shape_.act, sums, n, out);
      } else {
        std::memcpy(out, sums, row_nbytes);
      }
      std::memmove(window, window + n, static_cast<size_t>(taps_ - 1) * row_nbytes);
      const int64_t at = position + t - batch.starts[i];
      if ((at + 1) % kBlock != 0 && t + 1 < batch.starts[i + 1]) continue;
      for (int64_t k = 0; k + 1 < taps_; ++k) {
        std::memcpy(state_at(at) + k * columns, window + k * n, row_nbytes);
      }
    }
  });
}

size_t Scan::scratch_nbytes(int64_t /*rows*/, int threads) const {
  const int64_t width = state_.width() / shape_.heads;
  return static_cast<size_t>(threads) * floats(heads_per_task(width) * width);
}

void Scan::run(const Step& step) noexcept {
  const int64_t width = state_.width() / shape_.heads;  // P * N
  const int64_t per_task = heads_per_task(width);
  const int64_t tasks = (shape_.heads + per_task - 1) / per_task;
  const int64_t p = in_.x.width / shape_.heads;
  const int64_t heads_per_group = shape_.heads / shape_.groups;
  const bool scalar = static_cast<int64_t>(shape_.a.size()) == shape_.heads && shape_.states != 1;
  const size_t memory_nbytes = floats(per_task * width);
  step.pool.run(step.batch.sequences() * tasks, [&](int64_t task, int worker) {
    const int64_t first_head = task % tasks * per_task;
    const int64_t count = std::min(per_task, shape_.heads - first_head);
    float* memory = worker_memory(step, worker, memory_nbytes);
    const auto body = [&](int64_t first, int64_t end, float* state) {
      for (int64_t t = first; t < end; ++t) {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t h = first_head + i;
          const int64_t group = h / heads_per_group * shape_.states;
          const float* a = shape_.a.data() + (scalar ? h : h * shape_.states);
          step.vectors.scan(
              {p, shape_.states, step.row(in_.dt, t)[h], a, scalar,
               shape_.d[static_cast<size_t>(h)], step.row(in_.x, t) + h * p,
               step.row(in_.b, t) + group, step.row(in_.c, t) + group, step.row(out_, t) + h * p},
              state + i * width);
        }
      }
    };
    each_stretch(step, task / tasks, first_head * width, count * width, memory, body);
  });
}

size_t LinearAttention::scratch_nbytes(int64_t /*rows*/, int threads) const {
  const int64_t width = shape_.keys * shape_.values;
  return static_cast<size_t>(threads) * floats(heads_per_task(width) * width + shape_.values);
}

MatrixRow LinearAttention::row_at(const Step& step, int64_t t, int64_t head) const {
  const int64_t key = head * shape_.keys;
  const int64_t value = head * shape_.values;
  MatrixRow row{shape_.rule,
                shape_.keys,
                shape_.values,
                step.row(in_.q, t) + key,
                step.row(in_.k, t) + key,
                step.row(in_.v, t) + value,
                nullptr,
                nullptr,
                nullptr,
                step.row(out_, t) + value,
                nullptr};
  if (shape_.rule == Rule::delta) {
    row.w = step.row(in_.w, t) + head;
    row.a = step.row(in_.a, t) + head;
  } else {
    row.w = step.row(in_.w, t) + key;
    row.a = shape_.rule == Rule::bonus ? shape_.bonus.data() + key : step.row(in_.a, t) + key;
    if (shape_.rule == Rule::removal) row.b = step.row(in_.b, t) + key;
  }
  return row;
}

void LinearAttention::run(const Step& step) noexcept {
  const int64_t width = shape_.keys * shape_.values;
  const int64_t per_task = heads_per_task(width);
  const int64_t tasks = (shape_.heads + per_task - 1) / per_task;
  const size_t memory_nbytes = floats(per_task * width + shape_.values);
  step.pool.run(step.batch.sequences() * tasks, [&](int64_t task, int worker) {
    const int64_t first_head = task % tasks * per_task;
    const int64_t count = std::min(per_task, shape_.heads - first_head);
    float* memory = worker_memory(step, worker, memory_nbytes);
    float* scratch = memory + per_task * width;
    const auto body = [&](int64_t first, int64_t end, float* state) {
      for (int64_t t = first; t < end; ++t) {
        for (int64_t i = 0; i < count; ++i) {
          MatrixRow row = row_at(step, t, first_head + i);
          row.scratch = scratch;
          step.vectors.linear_attention(row, state + i * width);
        }
      }
    };
    each_stretch(step, task / tasks, first_head * width, count * width, memory, body);
  });
}

}  // namespace tokamak::cpu
