// What one step of a program works on: the batch, the working memory, the threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "cpu/vectors.h"

namespace tokamak::cpu {

using Ints = std::span<const int32_t>;

// T rows of B texts, one text after another.
struct RowsView {
  Ints token_ids;           // [T]
  Ints positions;           // [T]
  Ints slots;               // [T]
  Ints starts;              // [B + 1]
  Ints lengths;             // [B]
  Ints tables;              // [B * table_width]
  int64_t table_width = 0;  // M

  int64_t rows() const { return static_cast<int64_t>(token_ids.size()); }
  int64_t sequences() const { return static_cast<int64_t>(lengths.size()); }
};

// Where the texts lie that each sequence attends to besides its own.
struct CrossView {
  Ints lengths;  // [B]
  Ints tables;   // [B * table_width]
  int64_t table_width = 0;
};

// The arrays of types.Batch, checked (`check_batch`) before a program sees them.
struct BatchView : RowsView {
  Ints logit_rows;           // [S]
  bool has_sources = false;  // else the next two are empty
  RowsView sources;          // texts that are read in this step
  CrossView cross;
  RowsView
      recent;  // the same rows, with their places in caches that keep the latest part of a text
  std::span<const float> gates;  // [T * num_gates]
  int64_t num_gates = 0;
  Ints given_rows = {};  // [R], rising: rows that are given instead of computed
  std::span<const float> given_vectors = {};  // [R * given_width]
  int64_t given_width = 0;                    // 0: none are given

  float gate(int64_t t, int64_t index) const {
    return gates[static_cast<size_t>(t * num_gates + index)];
  }
};

enum class Lead : uint8_t {
  rows,     // T: the arena of all rows
  wanted,   // S: the arena of rows whose logits are wanted
  result,   // S: the array that `run` returns
  sources,  // M: the arena of rows of source texts
};
inline constexpr int kLeads = 4;

// Where a value lies: row t begins at arena[lead] + rows[lead] * offset + 4 * (t * stride +
// column).
struct Operand {
  Lead lead;
  size_t offset;   // bytes per row of the step
  int64_t column;  // floats
  int64_t width;   // floats of a row that belong to the value
  int64_t stride;  // floats from row to row
};

struct Step {
  const BatchView& batch;
  int64_t rows[kLeads];
  std::byte* arena[kLeads];
  std::byte* scratch;  // shared by the instructions, each free to use all of it
  Pool& pool;
  const KernelTable& kernels;
  const VectorTable& vectors;

  int64_t rows_of(const Operand& x) const { return rows[static_cast<size_t>(x.lead)]; }
  float* base(const Operand& x) const {
    const auto lead = static_cast<size_t>(x.lead);
    return reinterpret_cast<float*>(arena[lead] + static_cast<size_t>(rows[lead]) * x.offset) +
           x.column;
  }
  float* row(const Operand& x, int64_t t) const { return base(x) + t * x.stride; }

  // Calls body(t) for every row, on all threads if the rows times their cost (about one per float
  // touched) are worth waking anybody.
  template <class Body>
  void each_row(int64_t count, int64_t cost, const Body& body) const {
    constexpr int64_t kWorthSharing = 32768;
    if (count * cost < kWorthSharing || pool.threads() == 1) {
      for (int64_t t = 0; t < count; ++t) body(t);
      return;
    }
    const int64_t per_chunk =
        std::max<int64_t>(1, std::max(count / (8 * pool.threads()), 8192 / cost));
    pool.run((count + per_chunk - 1) / per_chunk, [&](int64_t chunk, int) {
      const int64_t end = std::min(count, (chunk + 1) * per_chunk);
      for (int64_t t = chunk * per_chunk; t < end; ++t) body(t);
    });
  }
};

}  // namespace tokamak::cpu
