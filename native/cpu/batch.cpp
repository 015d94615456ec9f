#include "cpu/batch.h"

#include <string>

#include "base/error.h"
#include "cpu/cache.h"

namespace tokamak::cpu {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::invalid_params, what); }

// "name[i]"
std::string indexed(const char* name, size_t i) {
  std::string text(name);
  text += '[';
  text += std::to_string(i);
  text += ']';
  return text;
}

void check_range(const char* name, Ints values, int64_t end) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= end) {
      refuse(indexed(name, i) + " is " + std::to_string(values[i]) + ", expected 0 .. " +
             std::to_string(end - 1));
    }
  }
}

void check_size(const char* name, size_t size, int64_t expected) {
  if (static_cast<int64_t>(size) != expected) {
    refuse(std::string(name) + " has " + std::to_string(size) + " entries, expected " +
           std::to_string(expected));
  }
}

void check_sizes(const BatchView& batch, const BatchLimits& limits) {
  if (batch.rows() < 1 || batch.rows() > limits.max_rows) {
    refuse("a step has 1 .. " + std::to_string(limits.max_rows) + " rows, not " +
           std::to_string(batch.rows()));
  }
  if (batch.sequences() < 1 || batch.sequences() > limits.max_sequences) {
    refuse("a step has 1 .. " + std::to_string(limits.max_sequences) + " sequences, not " +
           std::to_string(batch.sequences()));
  }
  check_size("positions", batch.positions.size(), batch.rows());
  check_size("slots", batch.slots.size(), batch.rows());
  check_size("starts", batch.starts.size(), batch.sequences() + 1);
  check_size("tables", batch.tables.size(), batch.sequences() * batch.table_width);
}

void check_starts(const BatchView& batch) {
  if (batch.starts.front() != 0 || batch.starts.back() != batch.rows()) {
    refuse("starts must go from 0 to " + std::to_string(batch.rows()));
  }
  for (size_t b = 1; b < batch.starts.size(); ++b) {
    if (batch.starts[b] <= batch.starts[b - 1]) {
      refuse("starts[" + std::to_string(b) + "] is " + std::to_string(batch.starts[b]) +
             ", expected more than " + std::to_string(batch.starts[b - 1]));
    }
  }
}

// The blocks of sequence b, and that its rows are stored in them.
void check_sequence(const BatchView& batch, size_t b, int64_t num_blocks) {
  const std::string name = indexed("tables", b);
  const int64_t length = batch.lengths[b];
  const int64_t rows = batch.starts[b + 1] - batch.starts[b];
  if (length < rows || length > batch.table_width * kBlock) {
    refuse(indexed("lengths", b) + " is " + std::to_string(length) + ", expected " +
           std::to_string(rows) + " .. " + std::to_string(batch.table_width * kBlock) +
           " (rows of the step .. room in the block table)");
  }
  const Ints table = batch.tables.subspan(b * static_cast<size_t>(batch.table_width));
  check_range(name.c_str(), table.first(static_cast<size_t>((length + kBlock - 1) / kBlock)),
              num_blocks);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t index = length - rows + r;
    const int64_t expected =
        int64_t{table[static_cast<size_t>(index / kBlock)]} * kBlock + index % kBlock;
    const auto t = static_cast<size_t>(batch.starts[b] + r);
    if (batch.slots[t] != expected) {
      refuse(indexed("slots", t) + " is " + std::to_string(batch.slots[t]) + ", but " + name +
             " puts that row in slot " + std::to_string(expected));
    }
  }
}

}  // namespace

void check_batch(const BatchView& batch, const BatchLimits& limits) {
  check_sizes(batch, limits);
  check_range("token_ids", batch.token_ids, limits.num_token_ids);
  check_range("positions", batch.positions, limits.num_positions);
  check_starts(batch);
  for (size_t b = 0; b < batch.lengths.size(); ++b) check_sequence(batch, b, limits.num_blocks);
  check_range("logit_rows", batch.logit_rows, batch.rows());
  for (size_t s = 1; s < batch.logit_rows.size(); ++s) {
    if (batch.logit_rows[s] <= batch.logit_rows[s - 1]) {
      refuse("logit_rows[" + std::to_string(s) + "] is " + std::to_string(batch.logit_rows[s]) +
             ", expected more than " + std::to_string(batch.logit_rows[s - 1]));
    }
  }
}

}  // namespace tokamak::cpu
