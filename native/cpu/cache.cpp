#include "cpu/cache.h"

#include <cstring>
#include <string>

#include "base/error.h"

namespace tokamak::cpu {

CacheType cache_type(std::string_view name) {
  if (name == "f32") return CacheType::f32;
  if (name == "f16") return CacheType::f16;
  if (name == "bf16") return CacheType::bf16;
  if (name == "q8_0") return CacheType::q8_0;
  if (name == "q4_0") return CacheType::q4_0;
  throw Error(ErrorKind::invalid_params,
              "kv_dtype '" + std::string(name) + "' is unknown; known: f32, f16, bf16, q8_0, q4_0");
}

namespace {

size_t checked_half(CacheType type, int64_t num_blocks, int64_t kv_heads, int64_t head_dim) {
  const bool quantised = type == CacheType::q8_0 || type == CacheType::q4_0;
  if (num_blocks < 1 || num_blocks > INT32_MAX / kBlock || kv_heads < 1 || kv_heads > 4096 ||
      head_dim < 1) {
    throw Error(ErrorKind::invalid_params, "a cache of " + std::to_string(num_blocks) +
                                               " blocks, " + std::to_string(kv_heads) +
                                               " heads of " + std::to_string(head_dim) +
                                               " is out of range");
  }
  if (head_dim > kMaxHeadDim || (quantised && head_dim % 32 != 0)) {
    throw Error(
        ErrorKind::unsupported,
        "head_dim " + std::to_string(head_dim) +
            (head_dim > kMaxHeadDim ? " is larger than " + std::to_string(kMaxHeadDim)
                                    : " is no multiple of 32, which kv_dtype q8_0 and q4_0 need; "
                                      "use kv_dtype f16"));
  }
  return half_nbytes(type, head_dim);
}

}  // namespace

LayerCache::LayerCache(CacheType type, int64_t num_blocks, int64_t kv_heads, int64_t head_dim,
                       int64_t value_dim)
    : type_(type),
      num_blocks_(num_blocks),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      value_dim_(value_dim),
      keys_nbytes_(checked_half(type, num_blocks, kv_heads, head_dim)),
      values_nbytes_(checked_half(type, num_blocks, kv_heads, value_dim)),
      block_nbytes_((keys_nbytes_ + values_nbytes_) * static_cast<size_t>(kv_heads)),
      pages_(block_nbytes_ * static_cast<size_t>(num_blocks)) {}

void LayerCache::copy_block(int64_t from, int64_t to) noexcept {
  std::memmove(keys(to, 0), keys(from, 0), block_nbytes_);
}

namespace {

size_t checked_state(int64_t num_blocks, int64_t width) {
  if (num_blocks < 1 || num_blocks > INT32_MAX / kBlock || width < 1 || width > INT32_MAX) {
    throw Error(ErrorKind::invalid_params, "a state of " + std::to_string(num_blocks) +
                                               " blocks of " + std::to_string(width) +
                                               " numbers is out of range");
  }
  return static_cast<size_t>(num_blocks) * static_cast<size_t>(width) * sizeof(float);
}

}  // namespace

LayerState::LayerState(int64_t num_blocks, int64_t width)
    : width_(width), pages_(checked_state(num_blocks, width)) {}

void LayerState::copy_block(int64_t from, int64_t to) noexcept {
  std::memmove(at(to), at(from), static_cast<size_t>(width_) * sizeof(float));
}

}  // namespace tokamak::cpu
