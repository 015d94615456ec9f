// A compiled graph: instructions over arenas, with weights and cache. Knows no model and no
// request.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/pages.h"
#include "cpu/batch.h"
#include "cpu/instruction.h"
#include "cpu/tuning.h"
#include "cpu/weights.h"

namespace tokamak::cpu {

struct ProgramLimits {
  int64_t num_blocks;
  int64_t num_recent_blocks;  // of caches that keep the latest part of a text only, and of states
  int64_t max_rows;
  int64_t max_sequences;
  int threads;
  size_t row_nbytes;          // arena of Lead::rows, bytes per row, a multiple of 64
  size_t wanted_nbytes;       // arena of Lead::wanted
  int64_t result_width;       // columns of the result: the vocabulary size, where it is logits
  size_t source_nbytes = 0;   // arena of Lead::sources
  int threads_batch = 0;      // for steps that read several rows of a sequence; 0: as threads
  std::vector<int> affinity;  // a processor for each thread; empty: threads are not bound
  Tuning tuning;
};

// An intermediate to copy once the instruction of that index has run.
struct Tap {
  int64_t instruction;
  Operand value;
  float* to;  // [rows][value.width]
};

class Program {
 public:
  // isa: a name of kernels.h, or empty for the best. Throws Error for limits out of range.
  Program(const ProgramLimits& limits, std::string_view isa);

  const ProgramLimits& limits() const noexcept { return limits_; }
  // Positions from `count` on are refused: a table of learned positions ends there.
  void limit_positions(int64_t count) noexcept { num_positions_ = std::min(num_positions_, count); }
  const KernelTable& kernels() const noexcept { return kernels_; }
  Weights& weights() noexcept { return weights_; }
  Pool& pool() noexcept { return pool_; }
  std::mutex& mutex() noexcept { return mutex_; }

  // recent: of keys of which only the latest are read.
  int64_t add_cache(CacheType type, bool recent, int64_t kv_heads, int64_t head_dim,
                    int64_t value_dim);
  int64_t add_state(int64_t width);  // floats per sequence
  bool keeps_recent(int64_t cache);  // throws Error(invalid_params)
  LayerState& state(int64_t index);  // throws Error(invalid_params)
  LayerCache& cache(int64_t index);  // throws Error(invalid_params)
  void add(std::unique_ptr<Instruction> instruction, std::string node, std::string op,
           std::string kernel);
  // Token ids must be below `count`; of several limits the lowest counts.
  void limit_token_ids(int64_t count) noexcept { num_token_ids_ = std::min(num_token_ids_, count); }
  // Steps may bring vectors of this width instead of rows.
  void take_given(int64_t width) noexcept { given_width_ = width; }
  // Steps must bring at least so many gates for each row; of several counts the highest counts.
  void need_gates(int64_t count) noexcept { num_gates_ = std::max(num_gates_, count); }
  // Batches without source texts are refused.
  void need_sources() noexcept { needs_sources_ = true; }
  int64_t num_instructions() const noexcept { return static_cast<int64_t>(instructions_.size()); }

  // Lays out working memory for the largest step; called once, after the last instruction. What a
  // smaller step does not touch costs address space only.
  void seal();

  // One step: K and V of every row are stored, `result` [S][result_width] is filled. Callers wait
  // for each other. Throws Error: invalid_params for a batch that does not fit, cancelled,
  // unavailable after a fork.
  void run(const BatchView& batch, float* result, std::span<const Tap> taps = {});
  // Makes the step in progress, if there is one, throw at its next instruction.
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  // Copies cache blocks in every layer that keeps whole texts, or in the others. Throws
  // Error(invalid_params) for a block outside the cache.
  void copy_blocks(std::span<const std::pair<int64_t, int64_t>> pairs, bool recent);

  // Bytes of a block of one layer's store: caches first, then recurrent states.
  size_t store_nbytes(int64_t store);  // throws Error(invalid_params)
  // Contents of blocks to or from bytes[blocks][store_nbytes]. Throws Error(invalid_params) for a
  // block outside the cache or a wrong size.
  void read_blocks(int64_t store, std::span<const int64_t> blocks, std::byte* bytes);
  void write_blocks(int64_t store, std::span<const int64_t> blocks,
                    std::span<const std::byte> bytes);

  std::vector<Record> records();
  size_t cache_nbytes() const noexcept;
  size_t arena_nbytes() const noexcept {
    return rows_.size() + wanted_.size() + sources_.size() + scratch_.size();
  }
  // Allocations made inside `run` so far; still after the first step.
  uint64_t allocations() const noexcept { return allocations_; }

 private:
  void execute(const Step& step, std::span<const Tap> taps);
  std::byte* block_bytes(int64_t store, int64_t block);
  int64_t num_blocks(bool recent) const noexcept {
    return recent ? limits_.num_recent_blocks : limits_.num_blocks;
  }

  ProgramLimits limits_;
  int64_t num_positions_ = int64_t{1} << 31;
  const KernelTable& kernels_;
  const VectorTable& vectors_;
  Pool pool_;
  Weights weights_;
  std::vector<std::unique_ptr<LayerCache>> caches_;
  std::vector<bool> recent_;  // of each cache
  bool uses_recent_ = false;
  std::vector<std::unique_ptr<LayerState>> states_;
  std::vector<std::unique_ptr<Instruction>> instructions_;
  Pages rows_, wanted_, sources_, scratch_;
  bool needs_sources_ = false;
  int64_t num_gates_ = 0;
  int64_t given_width_ = 0;
  bool sealed_ = false;
  std::atomic<bool> cancelled_{false};
  uint64_t allocations_ = 0;
  int64_t num_token_ids_ = INT32_MAX;
  std::mutex mutex_;
};

}  // namespace tokamak::cpu
