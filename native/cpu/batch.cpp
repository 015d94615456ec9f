#include "cpu/batch.h"

#include <string>

#include "base/error.h"
#include "cpu/cache.h"

namespace tokamak::cpu {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::invalid_params, what); }

// "name[i]"
std::string indexed(const std::string& name, size_t i) {
  std::string text(name);
  text += '[';
  text += std::to_string(i);
  text += ']';
  return text;
}

void check_range(const std::string& name, Ints values, int64_t end) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= end) {
      refuse(indexed(name, i) + " is " + std::to_string(values[i]) + ", expected 0 .. " +
             std::to_string(end - 1));
    }
  }
}

void check_size(const std::string& name, size_t size, int64_t expected) {
  if (static_cast<int64_t>(size) != expected) {
    refuse(name + " has " + std::to_string(size) + " entries, expected " +
           std::to_string(expected));
  }
}

// Arrays of one set of rows; `prefix` stands before their names.
struct Named {
  const RowsView& view;
  std::string prefix;
  std::string name(const char* array) const { return prefix + array; }
};

void check_sizes(const Named& rows) {
  const RowsView& view = rows.view;
  check_size(rows.name("positions"), view.positions.size(), view.rows());
  check_size(rows.name("slots"), view.slots.size(), view.rows());
  check_size(rows.name("starts"), view.starts.size(), view.sequences() + 1);
  check_size(rows.name("tables"), view.tables.size(), view.sequences() * view.table_width);
}

void check_count(const Named& rows, int64_t least, const BatchLimits& limits) {
  const auto check = [&](const char* what, int64_t count, int64_t most) {
    if (count >= least && count <= most) return;
    refuse("a step has " + std::to_string(least) + " .. " + std::to_string(most) + " " +
           rows.prefix + what + ", not " + std::to_string(count));
  };
  check("rows", rows.view.rows(), limits.max_rows);
  check("sequences", rows.view.sequences(), limits.max_sequences);
}

void check_starts(const Named& rows) {
  const Ints starts = rows.view.starts;
  if (starts.front() != 0 || starts.back() != rows.view.rows()) {
    refuse(rows.name("starts") + " must go from 0 to " + std::to_string(rows.view.rows()));
  }
  for (size_t b = 1; b < starts.size(); ++b) {
    if (starts[b] <= starts[b - 1]) {
      refuse(indexed(rows.name("starts"), b) + " is " + std::to_string(starts[b]) +
             ", expected more than " + std::to_string(starts[b - 1]));
    }
  }
}

// Blocks of a text of `length` keys, at least `least` of them.
Ints check_table(const std::string& lengths, const std::string& tables, int64_t length,
                 int64_t least, Ints table, int64_t num_blocks) {
  const auto room = static_cast<int64_t>(table.size()) * kBlock;
  if (length < least || length > room) {
    refuse(lengths + " is " + std::to_string(length) + ", expected " + std::to_string(least) +
           " .. " + std::to_string(room) + " (rows of the step .. room in the block table)");
  }
  check_range(tables, table.first(static_cast<size_t>((length + kBlock - 1) / kBlock)), num_blocks);
  return table;
}

// The blocks of text b, and that its rows are stored in them.
void check_sequence(const Named& all, size_t b, int64_t num_blocks) {
  const RowsView& view = all.view;
  const std::string name = indexed(all.name("tables"), b);
  const int64_t length = view.lengths[b];
  const int64_t rows = view.starts[b + 1] - view.starts[b];
  const auto width = static_cast<size_t>(view.table_width);
  const Ints table = check_table(indexed(all.name("lengths"), b), name, length, rows,
                                 view.tables.subspan(b * width, width), num_blocks);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t index = length - rows + r;
    const int64_t expected =
        int64_t{table[static_cast<size_t>(index / kBlock)]} * kBlock + index % kBlock;
    const auto t = static_cast<size_t>(view.starts[b] + r);
    if (view.slots[t] != expected) {
      refuse(indexed(all.name("slots"), t) + " is " + std::to_string(view.slots[t]) + ", but " +
             name + " puts that row in slot " + std::to_string(expected));
    }
  }
}

void check_rows(const Named& rows, int64_t least, const BatchLimits& limits) {
  check_count(rows, least, limits);
  check_sizes(rows);
  check_range(rows.name("token_ids"), rows.view.token_ids, limits.num_token_ids);
  check_range(rows.name("positions"), rows.view.positions, limits.num_positions);
  check_starts(rows);
  for (size_t b = 0; b < rows.view.lengths.size(); ++b) {
    check_sequence(rows, b, limits.num_blocks);
  }
}

// Where rows lie in caches that keep the latest part only. Blocks given back stand as any other.
void check_recent(const BatchView& batch, const BatchLimits& limits) {
  const Named rows{batch.recent, "recent."};
  check_sizes(rows);
  for (size_t b = 0; b < batch.recent.lengths.size(); ++b) {
    check_sequence(rows, b, limits.num_recent_blocks);
  }
}

// Sources are read whole, and every sequence has one.
void check_sources(const BatchView& batch, const BatchLimits& limits) {
  if (!batch.has_sources) refuse("sources is None, and this model's sequences attend to a text");
  check_rows({batch.sources, "sources."}, 0, limits);
  for (size_t b = 0; b < batch.sources.lengths.size(); ++b) {
    const int32_t rows = batch.sources.starts[b + 1] - batch.sources.starts[b];
    if (batch.sources.lengths[b] != rows) {
      refuse(indexed("sources.lengths", b) + " is " + std::to_string(batch.sources.lengths[b]) +
             ", expected all of its " + std::to_string(rows) + " rows");
    }
  }
  const CrossView& cross = batch.cross;
  check_size("sources.cross_lengths", cross.lengths.size(), batch.sequences());
  check_size("sources.cross_tables", cross.tables.size(), batch.sequences() * cross.table_width);
  const auto width = static_cast<size_t>(cross.table_width);
  for (size_t b = 0; b < cross.lengths.size(); ++b) {
    check_table(indexed("sources.cross_lengths", b), indexed("sources.cross_tables", b),
                cross.lengths[b], 1, cross.tables.subspan(b * width, width), limits.num_blocks);
  }
}

// Weights of adapters for each row, at least as many as instructions read.
void check_gates(const BatchView& batch, const BatchLimits& limits) {
  if (limits.num_gates == 0 && batch.gates.empty()) return;
  check_size("gates", batch.gates.size(), batch.rows() * batch.num_gates);
  if (batch.num_gates < limits.num_gates) {
    refuse("gates has " + std::to_string(batch.num_gates) + " columns, expected " +
           std::to_string(limits.num_gates));
  }
}

// Vectors for some of the rows, as wide as the program takes them.
void check_given(const BatchView& batch, const BatchLimits& limits) {
  if (batch.given_width == 0) return;
  if (batch.given_width != limits.given_width) {
    refuse("given.vectors has " + std::to_string(batch.given_width) + " columns, expected " +
           (limits.given_width == 0 ? "none at all" : std::to_string(limits.given_width)));
  }
  check_size("given.vectors", batch.given_vectors.size(),
             static_cast<int64_t>(batch.given_rows.size()) * batch.given_width);
  check_range("given.rows", batch.given_rows, batch.rows());
  for (size_t r = 1; r < batch.given_rows.size(); ++r) {
    if (batch.given_rows[r] <= batch.given_rows[r - 1]) {
      refuse(indexed("given.rows", r) + " is " + std::to_string(batch.given_rows[r]) +
             ", expected more than " + std::to_string(batch.given_rows[r - 1]));
    }
  }
}

}  // namespace

void check_batch(const BatchView& batch, const BatchLimits& limits) {
  check_rows({batch, ""}, 1, limits);
  if (limits.num_recent_blocks > 0) check_recent(batch, limits);
  if (limits.needs_sources) check_sources(batch, limits);
  check_gates(batch, limits);
  check_given(batch, limits);
  check_range("logit_rows", batch.logit_rows, batch.rows());
  for (size_t s = 1; s < batch.logit_rows.size(); ++s) {
    if (batch.logit_rows[s] <= batch.logit_rows[s - 1]) {
      refuse("logit_rows[" + std::to_string(s) + "] is " + std::to_string(batch.logit_rows[s]) +
             ", expected more than " + std::to_string(batch.logit_rows[s - 1]));
    }
  }
}

}  // namespace tokamak::cpu
