// The attention instruction: stores K and V of the step's rows, then attends over the paged cache.
//
// Work is cut into tiles: up to kTileRows (query, head) pairs of one sequence that share a kv head.
// A tile walks the blocks of its sequence, reads each once as floats and lets its rows attend to
// it. Sums start afresh every kSplit blocks, at absolute positions, and are merged in rising order;
// with few tiles the splits become tasks of their own. Either way a row sees the same operations in
// the same order, so its result does not depend on the batch, on how its prompt was cut, or on the
// number of threads.
#pragma once

#include <span>
#include <vector>

#include "cpu/instruction.h"

namespace tokamak::cpu {

// Whose keys: the rows' own text's; those of source texts, by their own rows; those of each
// sequence's source text, of which the rows read now are stored first; or the latest of the rows'
// own text.
enum class Keys : uint8_t { own, sources, cross, recent };

constexpr bool of_sources(Keys keys) noexcept {
  return keys == Keys::sources || keys == Keys::cross;
}

class Attention final : public Instruction {
 public:
  struct Shape {
    int64_t heads;
    int64_t window;  // 0: none; where not causal, half of it on either side
    float scale;
    float softcap;                  // 0: none
    int64_t chunk;                  // 0: none; else keys of the query's own chunk only
    bool causal;                    // else every key of the sequence, all rows being in one step
    std::span<const float> slopes;  // [heads] or empty
    std::span<const float> sinks;   // [heads] or empty
    Keys keys;
    std::vector<float> biases;  // [heads][2 * reach + 1] by distance of key and query, or empty
  };
  Attention(Operand q, Operand k, Operand v, Operand out, LayerCache& cache, Shape shape);
  void run(const Step& step) noexcept override;
  int64_t nbytes(const Step& step) const noexcept override;
  size_t scratch_nbytes(int64_t rows, int threads) const override;

  static constexpr int64_t kTileRows = 32;

 private:
  struct Tile;
  struct Workspace;
  struct Range {
    int64_t low, high;
  };
  // Rows that attend, and the keys of each of their texts.
  const RowsView& reading(const Step& step) const {
    if (shape_.keys == Keys::recent) return step.batch.recent;
    return shape_.keys == Keys::sources ? step.batch.sources : step.batch;
  }
  CrossView keys(const Step& step) const {
    if (shape_.keys == Keys::cross) return step.batch.cross;
    const RowsView& rows = reading(step);
    return {rows.lengths, rows.tables, rows.table_width};
  }

  void store(const Step& step) const;
  Tile tile_at(const Step& step, int64_t index) const;
  int64_t num_tiles(const Step& step) const;
  int64_t most_splits(const Step& step) const;
  Range visible(const Tile& tile, int64_t pair) const;
  void load_queries(const Step& step, const Tile& tile, Workspace& w) const;
  void attend_split(const Step& step, const Tile& tile, int64_t split, const Workspace& w,
                    const AttentionRows& rows) const;
  void run_tiles(const Step& step, int64_t tiles) const;
  void run_splits(const Step& step, int64_t tiles, int64_t splits) const;
  float share(int64_t head, const AttentionRows& sums, int64_t i) const;
  void finish(const Step& step, const Tile& tile, const AttentionRows& sums) const;
  size_t worker_nbytes() const;
  size_t sums_nbytes() const;
  AttentionRows sums_at(std::byte* at, const Workspace& w) const;

  Operand q_, k_, v_, out_;
  LayerCache& cache_;
  Shape shape_;
  int64_t group_;        // query heads per kv head
  int64_t width_;        // the keys' head_dim rounded up to 16
  int64_t value_width_;  // the same of the values
};

}  // namespace tokamak::cpu
