// Word -> ids, for words that come again: a direct-mapped table of fixed size, so its memory has a
// hard limit and text without repeats costs one failed compare per word.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "text/hash.h"

namespace tokamak::text {

class WordCache {
 public:
  static constexpr size_t kMaxWord = 15;  // bytes
  static constexpr size_t kMaxIds = 4;

  explicit WordCache(size_t nbytes) : entries_(std::bit_floor(nbytes / sizeof(Entry))) {}
  size_t nbytes() const { return entries_.size() * sizeof(Entry); }

  struct Key {
    uint64_t low, high;
  };
  // The word with its length in the last byte; word.size() <= kMaxWord.
  static Key key_of(std::string_view word) noexcept {
    unsigned char buffer[16] = {};
    std::memcpy(buffer, word.data(), word.size());
    buffer[15] = static_cast<unsigned char>(word.size());
    Key key;
    std::memcpy(&key.low, buffer, 8);
    std::memcpy(&key.high, buffer + 8, 8);
    return key;
  }

  // Appends the ids to `out` and returns true, or returns false.
  bool find(const Key& key, std::vector<int32_t>& out) const {
    const Entry& e = entries_[slot_of(key)];
    if (e.key.low != key.low || e.key.high != key.high) return false;
    const size_t count = e.ids[0] >> kCountShift;
    out.push_back(static_cast<int32_t>(e.ids[0] & kIdMask));
    for (size_t i = 1; i < count; ++i) out.push_back(static_cast<int32_t>(e.ids[i]));
    return true;
  }

  // Ids of at most kMaxIds tokens below 2^24; anything else is not kept.
  void insert(const Key& key, const int32_t* ids, size_t count) {
    if (count == 0 || count > kMaxIds) return;
    Entry e{key, {0, 0, 0, 0}};
    for (size_t i = 0; i < count; ++i) e.ids[i] = static_cast<uint32_t>(ids[i]);
    if (e.ids[0] > kIdMask) return;
    e.ids[0] |= static_cast<uint32_t>(count) << kCountShift;
    entries_[slot_of(key)] = e;
  }

 private:
  static constexpr uint32_t kCountShift = 24;
  static constexpr uint32_t kIdMask = (1u << kCountShift) - 1;
  struct Entry {
    Key key;
    uint32_t ids[kMaxIds];
  };
  size_t slot_of(const Key& key) const noexcept {
    return mix(key.low ^ 0x9E3779B97F4A7C15, key.high ^ 0xD1B54A32D192ED03) & (entries_.size() - 1);
  }
  std::vector<Entry> entries_;
};

}  // namespace tokamak::text
