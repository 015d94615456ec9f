// Layout of the paged K/V cache.
//
// A block holds 32 positions of every kv head, heads one after another; a head is its keys, then
// its values:
//   keys    [head_dim][32 positions]   transposed: a vector register holds one dim of several
//   positions values  [32 positions][head_dim]
// Quantised types keep the same order of codes and append their scales (half precision), one per 32
// dims of a position: keys [head_dim / 32][32], values [32][head_dim / 32]. q4_0 packs two dims
// into a byte: dims d and d + 16 of a group of 32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/pages.h"

namespace tokamak::cpu {

inline constexpr int kBlock = 32;  // positions of a block
inline constexpr int kSplit = 16;  // blocks whose keys are summed before their sums are merged
inline constexpr int kMaxHeadDim = 1024;  // largest head_dim the attention kernels have room for

enum class CacheType : uint8_t { f32, f16, bf16, q8_0, q4_0 };

// Throws Error(invalid_params) for an unknown name.
CacheType cache_type(std::string_view name);

// Bytes of the keys (or of the values) of one head in one block.
constexpr size_t half_nbytes(CacheType type, int64_t head_dim) noexcept {
  const auto positions = static_cast<size_t>(kBlock);
  const auto dim = static_cast<size_t>(head_dim);
  switch (type) {
    case CacheType::f32:
      return positions * dim * 4;
    case CacheType::f16:
    case CacheType::bf16:
      return positions * dim * 2;
    case CacheType::q8_0:
      return positions * dim + positions * (dim / 32) * 2;
    case CacheType::q4_0:
      return positions * dim / 2 + positions * (dim / 32) * 2;
  }
  return 0;
}

// K and V of one attention layer.
class LayerCache {
 public:
  // Throws Error: unsupported if a quantised type does not divide head_dim, invalid_params for bad
  // sizes.
  LayerCache(CacheType type, int64_t num_blocks, int64_t kv_heads, int64_t head_dim,
             int64_t value_dim);

  CacheType type() const noexcept { return type_; }
  int64_t kv_heads() const noexcept { return kv_heads_; }
  int64_t head_dim() const noexcept { return head_dim_; }    // of keys
  int64_t value_dim() const noexcept { return value_dim_; }  // of values
  int64_t num_blocks() const noexcept { return num_blocks_; }
  size_t nbytes() const noexcept { return pages_.size(); }
  size_t position_nbytes() const noexcept {
    return block_nbytes_ / kBlock;
  }  // K and V of one position
  std::byte* keys(int64_t block, int64_t head) const noexcept {
    return pages_.data() + static_cast<size_t>(block) * block_nbytes_ +
           static_cast<size_t>(head) * (keys_nbytes_ + values_nbytes_);
  }
  std::byte* values(int64_t block, int64_t head) const noexcept {
    return keys(block, head) + keys_nbytes_;
  }
  size_t block_nbytes() const noexcept { return block_nbytes_; }
  void copy_block(int64_t from, int64_t to) noexcept;

 private:
  CacheType type_;
  int64_t num_blocks_, kv_heads_, head_dim_, value_dim_;
  size_t keys_nbytes_, values_nbytes_, block_nbytes_;
  Pages pages_;
};

// The recurrent state of one layer, one per cache block: as it was after the last position computed
// in that block. So a block that is shared, copied or used again as a prefix brings it along.
class LayerState {
 public:
  // Throws Error(invalid_params) for bad sizes.
  LayerState(int64_t num_blocks, int64_t width);

  int64_t width() const noexcept { return width_; }
  size_t nbytes() const noexcept { return pages_.size(); }
  float* at(int64_t block) const noexcept {
    return reinterpret_cast<float*>(pages_.data()) + block * width_;
  }
  void copy_block(int64_t from, int64_t to) noexcept;

 private:
  int64_t width_;  // floats
  Pages pages_;
};

}  // namespace tokamak::cpu
