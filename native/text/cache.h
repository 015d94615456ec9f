// Word -> ids, for words that come again. Tables of fixed size, so memory has a hard limit and text
// without repeats costs one failed compare per word: short words in two-way sets of one cache line,
// longer ones in a direct-mapped table. Words that are longer still, or have many ids, are not
// kept.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "text/hash.h"
#include "text/ids.h"

namespace tokamak::text {

class WordCache {
 public:
  static constexpr size_t kShort = 15;  // bytes of a short word
  static constexpr size_t kLong = 38;   // bytes of the longest word that is kept

  explicit WordCache(size_t nbytes)
      : sets_(std::bit_floor(nbytes / 2 / sizeof(Set))),
        longs_(std::bit_floor(nbytes / 2 / sizeof(Long))) {}
  size_t nbytes() const { return sets_.size() * sizeof(Set) + longs_.size() * sizeof(Long); }

  struct Key {
    uint64_t low, high;
    bool operator==(const Key&) const = default;
  };
  // The bytes of a short word with its length in the last byte. Up to 16 bytes are read if they lie
  // before `readable`, else only the word.
  static Key key_of(std::string_view word, const char* readable) noexcept {
    const size_t n = word.size();
    Key key{0, 0};
    if (readable - word.data() >= 16) {
      std::memcpy(&key.low, word.data(), 8);
      std::memcpy(&key.high, word.data() + 8, 8);
      key.low &= n >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * n)) - 1;
      key.high &= n <= 8 ? 0 : (uint64_t{1} << (8 * (n - 8))) - 1;
    } else {
      std::memcpy(&key.low, word.data(), n < 8 ? n : 8);
      if (n > 8) std::memcpy(&key.high, word.data() + 8, n - 8);
    }
    key.high |= static_cast<uint64_t>(n) << 56;
    return key;
  }

  size_t slot_of(const Key& key) const noexcept {
    return mix(key.low ^ 0x9E3779B97F4A7C15, key.high ^ 0xD1B54A32D192ED03) & (sets_.size() - 1);
  }
  void prefetch(size_t slot) const noexcept { __builtin_prefetch(&sets_[slot]); }

  static constexpr size_t kShortIds = 4;  // of a short word at most

  // Writes the ids to `room`, which has place for kShortIds, and returns their number; 0: not here.
  // slot: of the key.
  size_t find(const Key& key, size_t slot, int32_t* room) const noexcept {
    const Set& set = sets_[slot];
    const Short& e = set.way[set.way[1].key == key ? 1 : 0];
    if (e.key != key) return 0;
    std::memcpy(room, e.ids, sizeof e.ids);
    room[0] = static_cast<int32_t>(e.ids[0] & kIdMask);
    return e.ids[0] >> kCountShift;
  }

  void insert(const Key& key, const int32_t* ids, size_t count) {
    if (count == 0 || count > kShortIds || static_cast<uint32_t>(ids[0]) > kIdMask) return;
    Short e{key, {0, 0, 0, 0}};
    for (size_t i = 0; i < count; ++i) e.ids[i] = static_cast<uint32_t>(ids[i]);
    e.ids[0] |= static_cast<uint32_t>(count) << kCountShift;
    Set& set = sets_[slot_of(key)];
    set.way[1] = set.way[0];
    set.way[0] = e;
  }

  // The same for words of kShort < size <= kLong bytes; hash: of the word.
  bool find_long(std::string_view word, uint64_t hash, IdBuffer& out) const {
    const Long& e = longs_[hash & (longs_.size() - 1)];
    if (e.length != word.size() || std::memcmp(e.bytes, word.data(), word.size()) != 0)
      return false;
    std::memcpy(out.room(kLongIds), e.ids, sizeof e.ids);
    out.add(e.count);
    return true;
  }
  void insert_long(std::string_view word, uint64_t hash, const int32_t* ids, size_t count) {
    if (count == 0 || count > kLongIds) return;
    Long& e = longs_[hash & (longs_.size() - 1)];
    e.length = static_cast<uint8_t>(word.size());
    e.count = static_cast<uint8_t>(count);
    std::memcpy(e.bytes, word.data(), word.size());
    std::memcpy(e.ids, ids, count * sizeof(int32_t));
  }

 private:
  static constexpr size_t kLongIds = 6;
  static constexpr uint32_t kCountShift = 24;  // the number of ids lies above the first id
  static constexpr uint32_t kIdMask = (1u << kCountShift) - 1;
  struct Short {
    Key key;
    uint32_t ids[kShortIds];
  };
  struct alignas(64) Set {
    Short way[2];
  };
  struct alignas(64) Long {
    uint8_t length;  // 0: empty
    uint8_t count;
    char bytes[kLong];
    int32_t ids[kLongIds];
  };
  static_assert(sizeof(Set) == 64 && sizeof(Long) == 64);

  std::vector<Set> sets_;
  std::vector<Long> longs_;
};

}  // namespace tokamak::text
