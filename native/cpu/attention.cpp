#include "cpu/attention.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace tokamak::cpu {
namespace {

constexpr int64_t kSplitKeys = int64_t{kSplit} * kBlock;
constexpr int64_t kMaxPartials =
    1024;  // sums of splits held at once; more work than that needs no splitting

constexpr size_t align64(size_t n) { return (n + 63) / 64 * 64; }
constexpr size_t floats(int64_t n) { return align64(static_cast<size_t>(n) * sizeof(float)); }

}  // namespace

// Pairs [first, first + count) of sequence `sequence` at kv head `head`; pair p is query p / group,
// head p % group.
struct Attention::Tile {
  int64_t sequence, head, first, count;
  int64_t length;       // keys of the sequence
  int64_t first_row;    // row of the sequence's first query
  int64_t first_index;  // its absolute position
};

// Memory of one worker: a block as floats, queries, and their visible ranges.
struct Attention::Workspace {
  float* block;
  float* q;
  float* slope;
  int64_t low[kTileRows];
  int64_t high[kTileRows];
  int64_t position[kTileRows];
  const float* bias[kTileRows];
  std::byte* rest;  // two sets of sums

  Workspace(std::byte* at, int64_t head_dim, int64_t width, int64_t value_width) {
    const auto take = [&](int64_t n) {
      auto* p = reinterpret_cast<float*>(at);
      at += floats(n);
      return p;
    };
    block = take((head_dim + value_width) * kBlock);
    q = take(width * kTileRows);
    slope = take(kTileRows);
    rest = at;
  }
};

Attention::Attention(Operand q, Operand k, Operand v, Operand out, LayerCache& cache, Shape shape)
    : q_(q),
      k_(k),
      v_(v),
      out_(out),
      cache_(cache),
      shape_(std::move(shape)),
      group_(shape_.heads / cache.kv_heads()),
      width_((cache.head_dim() + 15) / 16 * 16),
      value_width_((cache.value_dim() + 15) / 16 * 16) {}

size_t Attention::sums_nbytes() const {
  return floats(value_width_ * kTileRows) + 2 * floats(kTileRows);
}

size_t Attention::worker_nbytes() const {
  return floats((cache_.head_dim() + value_width_) * kBlock) + floats(width_ * kTileRows) +
         floats(kTileRows) + 2 * sums_nbytes();
}

size_t Attention::scratch_nbytes(int64_t /*rows*/, int threads) const {
  return static_cast<size_t>(threads) * worker_nbytes() +
         static_cast<size_t>(kMaxPartials) * sums_nbytes();
}

int64_t Attention::nbytes(const Step& step) const noexcept {
  int64_t positions = 0;
  for (const int32_t length : keys(step).lengths) {
    positions += shape_.window > 0 ? std::min<int64_t>(length, shape_.window) : length;
  }
  return positions * static_cast<int64_t>(cache_.position_nbytes());
}

void Attention::store(const Step& step) const {
  const int64_t dim = cache_.head_dim();
  const int64_t value_dim = cache_.value_dim();
  const RowsView& rows = of_sources(shape_.keys) ? step.batch.sources : reading(step);
  step.each_row(rows.rows(), 4 * dim * cache_.kv_heads(), [&](int64_t t) {
    const int32_t slot = rows.slots[static_cast<size_t>(t)];
    for (int64_t g = 0; g < cache_.kv_heads(); ++g) {
      step.vectors.store_key(cache_.type(), step.row(k_, t) + g * dim, dim, slot % kBlock,
                             cache_.keys(slot / kBlock, g));
      step.vectors.store_value(cache_.type(), step.row(v_, t) + g * value_dim, value_dim,
                               slot % kBlock, cache_.values(slot / kBlock, g));
    }
  });
}

int64_t Attention::num_tiles(const Step& step) const {
  int64_t tiles = 0;
  const RowsView& rows = reading(step);
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    const auto i = static_cast<size_t>(b);
    const int64_t pairs = (rows.starts[i + 1] - rows.starts[i]) * group_;
    tiles += (pairs + kTileRows - 1) / kTileRows;
  }
  return tiles * cache_.kv_heads();
}

int64_t Attention::most_splits(const Step& step) const {
  int64_t most = 0;
  for (const int32_t length : keys(step).lengths) most = std::max<int64_t>(most, length);
  return (most + kSplitKeys - 1) / kSplitKeys;
}

Attention::Tile Attention::tile_at(const Step& step, int64_t index) const {
  const RowsView& batch = reading(step);
  const CrossView texts = keys(step);
  const int64_t head = index % cache_.kv_heads();
  int64_t rest = index / cache_.kv_heads();
  for (int64_t b = 0;; ++b) {
    const auto i = static_cast<size_t>(b);
    const int64_t rows = batch.starts[i + 1] - batch.starts[i];
    const int64_t tiles = (rows * group_ + kTileRows - 1) / kTileRows;
    if (rest < tiles) {
      // Long contexts first, so that the last tiles to be claimed are the short ones.
      const int64_t first = (tiles - 1 - rest) * kTileRows;
      return {b,
              head,
              first,
              std::min(kTileRows, rows * group_ - first),
              texts.lengths[i],
              batch.starts[i],
              texts.lengths[i] - rows};
    }
    rest -= tiles;
  }
}

Attention::Range Attention::visible(const Tile& tile, int64_t pair) const {
  const int64_t position = tile.first_index + (tile.first + pair) / group_;
  if (!shape_.causal) {
    if (shape_.window == 0) return {0, tile.length};
    const int64_t half = shape_.window / 2;
    return {std::max<int64_t>(0, position - half), std::min(tile.length, position + half + 1)};
  }
  int64_t low = shape_.window > 0 ? std::max<int64_t>(0, position - shape_.window + 1) : 0;
  if (shape_.chunk > 0) low = std::max(low, position / shape_.chunk * shape_.chunk);
  return {low, position + 1};
}

void Attention::load_queries(const Step& step, const Tile& tile, Workspace& w) const {
  const int64_t dim = cache_.head_dim();
  for (int64_t i = 0; i < tile.count; ++i) {
    const int64_t pair = tile.first + i;
    const float* q =
        step.row(q_, tile.first_row + pair / group_) + (tile.head * group_ + pair % group_) * dim;
    step.vectors.scale(q, shape_.scale, dim, w.q + i * width_);
    for (int64_t c = dim; c < width_; ++c) w.q[i * width_ + c] = 0.0f;
    const Range range = visible(tile, i);
    w.low[i] = range.low;
    w.high[i] = range.high;
    const auto head = static_cast<size_t>(tile.head * group_ + pair % group_);
    if (!shape_.slopes.empty()) w.slope[i] = shape_.slopes[head];
    if (!shape_.biases.empty()) {
      const size_t width = shape_.biases.size() / static_cast<size_t>(shape_.heads);
      w.bias[i] = shape_.biases.data() + head * width + width / 2;
      w.position[i] = tile.first_index + pair / group_;
    }
  }
}

AttentionRows Attention::sums_at(std::byte* at, const Workspace& w) const {
  auto* acc = reinterpret_cast<float*>(at);
  auto* most = reinterpret_cast<float*>(at + floats(value_width_ * kTileRows));
  auto* total = reinterpret_cast<float*>(at + floats(value_width_ * kTileRows) + floats(kTileRows));
  const float* slope = shape_.slopes.empty() ? nullptr : w.slope;
  const auto reach = static_cast<int64_t>(shape_.biases.size()) / shape_.heads / 2;
  const float* const* bias = shape_.biases.empty() ? nullptr : w.bias;
  return {kTileRows, width_, value_width_,   w.q,  acc,        most, total, w.low,
          w.high,    slope,  shape_.softcap, bias, w.position, reach};
}

void Attention::attend_split(const Step& step, const Tile& tile, int64_t split, const Workspace& w,
                             const AttentionRows& rows) const {
  std::memset(rows.acc, 0, static_cast<size_t>(tile.count * value_width_) * sizeof(float));
  for (int64_t i = 0; i < tile.count; ++i) {
    rows.most[i] = -std::numeric_limits<float>::infinity();
    rows.total[i] = 0.0f;
  }
  const int64_t low = std::max(w.low[0], split * kSplitKeys);
  const int64_t high = std::min(w.high[tile.count - 1], (split + 1) * kSplitKeys);
  const int64_t dim = cache_.head_dim();
  const CrossView texts = keys(step);
  AttentionRows active = rows;
  active.count = tile.count;
  for (int64_t block = low / kBlock; block * kBlock < high; ++block) {
    const int32_t id = texts.tables[static_cast<size_t>(tile.sequence * texts.table_width + block)];
    step.vectors.attend(active, block * kBlock, cache_.type(), dim, cache_.value_dim(),
                        cache_.keys(id, tile.head), cache_.values(id, tile.head), w.block);
  }
}

// 1 / the sum of exp(score - most), where a sink is one more score.
float Attention::share(int64_t head, const AttentionRows& sums, int64_t i) const {
  if (shape_.sinks.empty()) return 1.0f / sums.total[i];
  return 1.0f / (sums.total[i] + std::exp(shape_.sinks[static_cast<size_t>(head)] - sums.most[i]));
}

void Attention::finish(const Step& step, const Tile& tile, const AttentionRows& sums) const {
  const int64_t dim = cache_.value_dim();
  for (int64_t i = 0; i < tile.count; ++i) {
    const int64_t pair = tile.first + i;
    const int64_t head = tile.head * group_ + pair % group_;
    float* out = step.row(out_, tile.first_row + pair / group_) + head * dim;
    step.vectors.scale(sums.acc + i * value_width_, share(head, sums, i), dim, out);
  }
}

void Attention::run_tiles(const Step& step, int64_t tiles) const {
  step.pool.run(tiles, [&](int64_t index, int worker) {
    Workspace w(step.scratch + static_cast<size_t>(worker) * worker_nbytes(), cache_.head_dim(),
                width_, value_width_);
    const Tile tile = tile_at(step, index);
    load_queries(step, tile, w);
    const AttentionRows part = sums_at(w.rest, w);
    const AttentionRows all = sums_at(w.rest + sums_nbytes(), w);
    const int64_t first = w.low[0] / kSplitKeys;
    const int64_t end = (w.high[tile.count - 1] + kSplitKeys - 1) / kSplitKeys;
    for (int64_t split = first; split < end; ++split) {
      attend_split(step, tile, split, w, split == first ? all : part);
      for (int64_t i = 0; i < tile.count && split > first; ++i) {
        if (part.total[i] == 0.0f) continue;
        step.vectors.merge(value_width_, part.acc + i * value_width_, part.most[i], part.total[i],
                           all.acc + i * value_width_, all.most + i, all.total + i);
      }
    }
    finish(step, tile, all);
  });
}

void Attention::run_splits(const Step& step, int64_t tiles, int64_t splits) const {
  std::byte* partials = step.scratch + static_cast<size_t>(step.pool.capacity()) * worker_nbytes();
  step.pool.run(tiles * splits, [&](int64_t task, int worker) {
    Workspace w(step.scratch + static_cast<size_t>(worker) * worker_nbytes(), cache_.head_dim(),
                width_, value_width_);
    const Tile tile = tile_at(step, task / splits);
    load_queries(step, tile, w);
    attend_split(step, tile, task % splits, w,
                 sums_at(partials + static_cast<size_t>(task) * sums_nbytes(), w));
  });
  Workspace w(step.scratch, cache_.head_dim(), width_, value_width_);
  for (int64_t index = 0; index < tiles; ++index) {
    const Tile tile = tile_at(step, index);
    AttentionRows all = sums_at(partials + static_cast<size_t>(index * splits) * sums_nbytes(), w);
    for (int64_t split = 1; split < splits; ++split) {
      const AttentionRows part =
          sums_at(partials + static_cast<size_t>(index * splits + split) * sums_nbytes(), w);
      for (int64_t i = 0; i < tile.count; ++i) {
        if (part.total[i] == 0.0f) continue;
        step.vectors.merge(value_width_, part.acc + i * value_width_, part.most[i], part.total[i],
                           all.acc + i * value_width_, all.most + i, all.total + i);
      }
    }
    finish(step, tile, all);
  }
}

void Attention::run(const Step& step) noexcept {
  store(step);
  const int64_t tiles = num_tiles(step);
  const int64_t splits = most_splits(step);
  const bool few = tiles < 4 * step.pool.threads() && splits > 1 && tiles * splits <= kMaxPartials;
  if (few && step.pool.threads() > 1) {
    run_splits(step, tiles, splits);
  } else {
    run_tiles(step, tiles);
  }
}

}  // namespace tokamak::cpu
