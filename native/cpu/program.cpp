#include "cpu/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "cpu/dispatch.h"
#include "cpu/topology.h"

namespace tokamak::cpu {
namespace {

void check_limit(const char* name, int64_t value, int64_t most) {
  if (value < 1 || value > most) {
    throw Error(ErrorKind::invalid_params, std::string(name) + " is " + std::to_string(value) +
                                               ", expected 1 .. " + std::to_string(most));
  }
}

const ProgramLimits& checked(const ProgramLimits& limits) {
  check_limit("num_blocks", limits.num_blocks, INT32_MAX / kBlock);
  check_limit("num_recent_blocks", limits.num_recent_blocks, INT32_MAX / kBlock);
  check_limit("max_rows", limits.max_rows, int64_t{1} << 20);
  check_limit("max_sequences", limits.max_sequences, int64_t{1} << 20);
  check_limit("result_width", limits.result_width, INT32_MAX);
  check_limit("threads", limits.threads, Pool::kMaxThreads);
  if (limits.threads_batch != 0) {
    check_limit("threads_batch", limits.threads_batch, Pool::kMaxThreads);
  }
  check_tuning(limits.tuning);
  for (const size_t nbytes : {limits.row_nbytes, limits.wanted_nbytes, limits.source_nbytes}) {
    if (nbytes % 64 == 0 && nbytes <= size_t{1} << 32) continue;
    throw Error(ErrorKind::invalid_params, "bytes per row must be a multiple of 64, at most 2^32");
  }
  return limits;
}

int64_t nanoseconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() -
                                                              begin)
      .count();
}

int most_threads(const ProgramLimits& limits) {
  return std::max(limits.threads, limits.threads_batch);
}

}  // namespace

void check_tuning(const Tuning& tuning) {
  const auto check = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    throw Error(ErrorKind::invalid_params,
                std::string("tuning: ") + name + " is " + std::to_string(value) + ", expected " +
                    std::to_string(least) + " .. " + std::to_string(most));
  };
  check("chunk_nbytes", tuning.chunk_nbytes, 4 << 10, 16 << 20);
  check("block_nbytes", tuning.block_nbytes, 16 << 10, 16 << 20);
  check("spin_us", tuning.spin_us, 0, 10000);
}

Program::Program(const ProgramLimits& limits, std::string_view isa)
    : limits_(checked(limits)),
      kernels_(isa.empty() ? cpu::kernels() : kernels_named(isa)),
      vectors_(vectors_named(kernels_.isa)),
      pool_(most_threads(limits), limits.affinity,
            std::chrono::microseconds(limits.tuning.spin_us)),
      weights_(kernels_) {}

int64_t Program::add_cache(CacheType type, bool recent, int64_t kv_heads, int64_t head_dim,
                           int64_t value_dim) {
  caches_.push_back(
      std::make_unique<LayerCache>(type, num_blocks(recent), kv_heads, head_dim, value_dim));
  recent_.push_back(recent);
  uses_recent_ = uses_recent_ || recent;
  return static_cast<int64_t>(caches_.size()) - 1;
}

int64_t Program::add_state(int64_t width) {
  states_.push_back(std::make_unique<LayerState>(limits_.num_recent_blocks, width));
  uses_recent_ = true;
  return static_cast<int64_t>(states_.size()) - 1;
}

LayerState& Program::state(int64_t index) {
  if (index < 0 || index >= static_cast<int64_t>(states_.size())) {
    throw Error(ErrorKind::invalid_params, "state " + std::to_string(index) + " does not exist");
  }
  return *states_[static_cast<size_t>(index)];
}

LayerCache& Program::cache(int64_t index) {
  if (index < 0 || index >= static_cast<int64_t>(caches_.size())) {
    throw Error(ErrorKind::invalid_params, "cache " + std::to_string(index) + " does not exist");
  }
  return *caches_[static_cast<size_t>(index)];
}

bool Program::keeps_recent(int64_t index) {
  cache(index);
  return recent_[static_cast<size_t>(index)];
}

void Program::add(std::unique_ptr<Instruction> instruction, std::string node, std::string op,
                  std::string kernel) {
  if (sealed_) throw Error(ErrorKind::invalid_params, "the program is sealed");
  instruction->record.node = std::move(node);
  instruction->record.op = std::move(op);
  instruction->record.kernel = std::move(kernel) + "." + kernels_.isa;
  instructions_.push_back(std::move(instruction));
}

void Program::seal() {
  size_t scratch = 64;
  for (const auto& instruction : instructions_) {
    scratch = std::max(scratch, instruction->scratch_nbytes(limits_.max_rows, pool_.capacity()));
  }
  const auto rows = static_cast<size_t>(limits_.max_rows);
  rows_ = Pages(rows * limits_.row_nbytes);
  wanted_ = Pages(rows * limits_.wanted_nbytes);
  if (limits_.source_nbytes > 0) sources_ = Pages(rows * limits_.source_nbytes);
  scratch_ = Pages(scratch);
  sealed_ = true;
}

void Program::run(const BatchView& batch, float* result, std::span<const Tap> taps) {
  const std::lock_guard lock(mutex_);
  pool_.check_process();
  const uint64_t before = allocation_count();
  check_batch(batch, {limits_.num_blocks, limits_.max_rows, limits_.max_sequences, num_token_ids_,
                      num_positions_, needs_sources_, num_gates_,
                      uses_recent_ ? limits_.num_recent_blocks : 0, given_width_});
  if (!sealed_) throw Error(ErrorKind::invalid_params, "the program is not sealed");
  cancelled_.store(false, std::memory_order_relaxed);
  const BoundCaller bound(limits_.affinity);
  // A prompt is among them.
  const bool reads = batch.rows() > batch.sequences() || batch.sources.rows() > 0;
  pool_.use(reads && limits_.threads_batch > 0 ? limits_.threads_batch : limits_.threads);
  const auto wanted = static_cast<int64_t>(batch.logit_rows.size());
  const Step step{
      batch,
      {batch.rows(), wanted, wanted, batch.sources.rows()},
      {rows_.data(), wanted_.data(), reinterpret_cast<std::byte*>(result), sources_.data()},
      scratch_.data(),
      pool_,
      kernels_,
      vectors_};
  execute(step, taps);
  allocations_ += allocation_count() - before;
}

void Program::execute(const Step& step, std::span<const Tap> taps) {
  for (size_t i = 0; i < instructions_.size(); ++i) {
    if (cancelled_.load(std::memory_order_relaxed)) {
      throw Error(ErrorKind::cancelled, "the step was cancelled");
    }
    Instruction& instruction = *instructions_[i];
    const auto begin = std::chrono::steady_clock::now();
    instruction.run(step);
    Record& record = instruction.record;
    record.nanoseconds += nanoseconds_since(begin);
    record.nbytes += instruction.nbytes(step);
    record.macs += instruction.macs(step);
    ++record.calls;
    for (const Tap& tap : taps) {
      if (tap.instruction != static_cast<int64_t>(i)) continue;
      for (int64_t t = 0; t < step.rows_of(tap.value); ++t) {
        std::memcpy(tap.to + t * tap.value.width, step.row(tap.value, t),
                    static_cast<size_t>(tap.value.width) * sizeof(float));
      }
    }
  }
}

void Program::copy_blocks(std::span<const std::pair<int64_t, int64_t>> pairs, bool recent) {
  const std::lock_guard lock(mutex_);
  const int64_t count = num_blocks(recent);
  for (const auto& [from, to] : pairs) {
    if (std::min(from, to) < 0 || std::max(from, to) >= count) {
      throw Error(ErrorKind::invalid_params,
                  "cannot copy block " + std::to_string(from) + " to " + std::to_string(to) +
                      ": the cache has blocks 0 .. " + std::to_string(count - 1));
    }
  }
  for (const auto& [from, to] : pairs) {
    for (size_t i = 0; i < caches_.size(); ++i) {
      if (recent_[i] == recent) caches_[i]->copy_block(from, to);
    }
    if (!recent) continue;
    for (const auto& state : states_) state->copy_block(from, to);
  }
}

size_t Program::store_nbytes(int64_t store) {
  const auto count = static_cast<int64_t>(caches_.size());
  if (store < count) return cache(store).block_nbytes();
  return static_cast<size_t>(state(store - count).width()) * sizeof(float);
}

std::byte* Program::block_bytes(int64_t store, int64_t block) {
  const auto count = static_cast<int64_t>(caches_.size());
  const int64_t end = num_blocks(store >= count || keeps_recent(store));
  if (block < 0 || block >= end) {
    throw Error(ErrorKind::invalid_params, "block " + std::to_string(block) +
                                               " is outside the cache of " + std::to_string(end));
  }
  if (store < count) return cache(store).keys(block, 0);
  return reinterpret_cast<std::byte*>(state(store - count).at(block));
}

void Program::read_blocks(int64_t store, std::span<const int64_t> blocks, std::byte* bytes) {
  const std::lock_guard lock(mutex_);
  const size_t size = store_nbytes(store);
  for (const int64_t block : blocks) {
    std::memcpy(bytes, block_bytes(store, block), size);
    bytes += size;
  }
}

void Program::write_blocks(int64_t store, std::span<const int64_t> blocks,
                           std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  const size_t size = store_nbytes(store);
  if (bytes.size() != blocks.size() * size) {
    throw Error(ErrorKind::invalid_params, "blocks take " + std::to_string(blocks.size() * size) +
                                               " bytes, given are " + std::to_string(bytes.size()));
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    std::memcpy(block_bytes(store, blocks[i]), bytes.data() + i * size, size);
  }
}

std::vector<Record> Program::records() {
  const std::lock_guard lock(mutex_);
  std::vector<Record> all;
  all.reserve(instructions_.size());
  for (const auto& instruction : instructions_) all.push_back(instruction->record);
  return all;
}

size_t Program::cache_nbytes() const noexcept {
  size_t total = 0;
  for (const auto& cache : caches_) total += cache->nbytes();
  for (const auto& state : states_) total += state->nbytes();
  return total;
}

}  // namespace tokamak::cpu
