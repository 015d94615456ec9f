// Checks that stand between a batch from Python and code that indexes memory with it.
#pragma once

#include "cpu/step.h"

namespace tokamak::cpu {

struct BatchLimits {
  int64_t num_blocks;
  int64_t max_rows;
  int64_t max_sequences;
  int64_t num_token_ids;
  int64_t num_positions;
  bool needs_sources;
  int64_t num_gates;          // that instructions read
  int64_t num_recent_blocks;  // 0: no cache keeps the latest part of a text only
  int64_t given_width;        // of vectors that may be brought instead of rows, 0: none
};

// Throws Error(invalid_params) naming the array, the index and the value that is wrong: sizes that
// disagree, ids outside the vocabulary, negative positions, starts that fall, contexts longer than
// their block tables, blocks outside the cache, slots that are not where the tables say that a row
// is stored, and source texts that are missing or as wrong.
void check_batch(const BatchView& batch, const BatchLimits& limits);

}  // namespace tokamak::cpu
