// Word -> ids, for words that come again. Tables of fixed size, so memory has a hard limit and text
// without repeats costs one failed compare per word: short words in two-way sets of one cache line,
// which say where ids lie that are many; the others, and those ids, in a log that starts afresh
// when it is full.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/huge_pages.h"
#include "text/hash.h"
#include "text/ids.h"

namespace tokamak::text {

// Per size of a short word: which bits of bytes [first, first + 8) of 16 belong to it.
constexpr std::array<uint64_t, 16> masks_by_size(size_t first) {
  std::array<uint64_t, 16> masks{};
  for (size_t size = 0; size < masks.size(); ++size) {
    const size_t n = size < first ? 0 : size - first;
    masks[size] = n >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * n)) - 1;
  }
  return masks;
}
inline constexpr auto kLowBytes = masks_by_size(0);
inline constexpr auto kHighBytes = masks_by_size(8);

class WordCache {
 public:
  static constexpr size_t kShort = 15;                 // bytes of a short word
  static constexpr size_t kShortIds = 4;               // of a short word at most
  static constexpr size_t kMany = 255;                 // more ids than that
  static constexpr size_t kLong = 1000;                // bytes of a long word
  static constexpr size_t kLongest = size_t{1} << 20;  // ... and of the longest that is kept
  static constexpr size_t kMinBytes = 512;
  static constexpr uint64_t kPart = uint64_t{1} << 63;  // of keys and hashes: not a word, a part

  // nbytes: at least kMinBytes.
  explicit WordCache(size_t nbytes)
      : most_sets_(std::bit_floor(nbytes / 2 / sizeof(Set))),
        most_slots_(std::bit_floor(nbytes / 16 / sizeof(Slot))),
        sets_(std::min(most_sets_, kFirstNbytes / sizeof(Set))),
        slots_(std::min(most_slots_, kFirstNbytes / 8 / sizeof(Slot))),
        most_log_(nbytes / 16 * 7 / sizeof(uint32_t)),
        log_(std::min(most_log_, kFirstNbytes / sizeof(uint32_t))) {}
  size_t nbytes() const { return sets_.nbytes() + slots_.nbytes() + log_.nbytes(); }

  // Larger tables where many words have come: a short text does not pay for what it leaves empty.
  // Slots of keys are others from then on.
  void grow() {
    if (num_short_ > sets_.size() / 2 && sets_.size() < most_sets_) {
      HugeArray<Set> old(std::min(most_sets_, sets_.size() * kGrowth));
      std::swap(old, sets_);
      for (size_t i = 0; i < old.size(); ++i) {
        for (const Short& e : {old[i].way[1], old[i].way[0]}) {
          if (e.key.high != 0) put(e, slot_of(e.key));
        }
      }
    }
    if (num_long_ > slots_.size() / 4 && slots_.size() < most_slots_) {
      HugeArray<Slot> old(std::min(most_slots_, slots_.size() * kGrowth));
      std::swap(old, slots_);
      for (size_t i = old.size(); i-- > 0;) {
        if (old[i].place != 0) put(old[i]);
      }
    }
  }

  struct Key {
    uint64_t low, high;
    bool operator==(const Key&) const = default;
  };
  // The bytes of a short word with its length in the last byte. Up to 16 bytes are read if they lie
  // before `readable`, else only the word.
  static Key key_of(const char* word, size_t size, const char* readable) noexcept {
    Key key{0, 0};
    if (readable - word >= 16) {
      std::memcpy(&key.low, word, 8);
      std::memcpy(&key.high, word + 8, 8);
      key.low &= kLowBytes[size];
      key.high = (key.high & kHighBytes[size]) | static_cast<uint64_t>(size) << 56;
      return key;
    }
    std::memcpy(&key.low, word, size < 8 ? size : 8);
    if (size > 8) std::memcpy(&key.high, word + 8, size - 8);
    key.high |= static_cast<uint64_t>(size) << 56;
    return key;
  }

  size_t slot_of(const Key& key) const noexcept {
    return mix(key.low ^ 0x9E3779B97F4A7C15, key.high ^ 0xD1B54A32D192ED03) & (sets_.size() - 1);
  }
  void prefetch(size_t slot) const noexcept { __builtin_prefetch(&sets_[slot]); }

  void prefetch_long(uint64_t hash) const noexcept { __builtin_prefetch(bucket(hash)); }

  // Writes the ids to `room`, which has place for kShortIds, and returns their number; 0: not here;
  // kMany: more ids, which copy_many() may have if it gets the same room. slot: of the key.
  size_t find(const Key& key, size_t slot, int32_t* room) const noexcept {
    const Set& set = sets_[slot];
    const uint64_t first = (set.way[0].key.low ^ key.low) | (set.way[0].key.high ^ key.high);
    const uint64_t second = (set.way[1].key.low ^ key.low) | (set.way[1].key.high ^ key.high);
    if (first != 0 && second != 0) return 0;
    const Short& e = set.way[second == 0 ? 1 : 0];
    std::memcpy(room, e.ids, sizeof e.ids);
    room[0] = static_cast<int32_t>(e.ids[0] & kIdMask);
    return e.ids[0] >> kCountShift;
  }

  bool has(const Key& key, size_t slot) const noexcept {
    return sets_[slot].way[0].key == key || sets_[slot].way[1].key == key;
  }

  void insert(const Key& key, size_t slot, const int32_t* ids, size_t count) noexcept {
    Short e{key, {0, 0, 0, 0}};
    if (count - 1 < kShortIds && static_cast<uint32_t>(ids[0]) <= kIdMask) {
      for (size_t i = 0; i < count; ++i) e.ids[i] = static_cast<uint32_t>(ids[i]);
      e.ids[0] |= static_cast<uint32_t>(count) << kCountShift;
    } else {
      const size_t at = log({}, ids, count);
      e = {key, {kManyIds, static_cast<uint32_t>(at), era_, 0}};
    }
    put(e, slot);
    ++num_short_;
  }
  // That the key is there, with ids to come.
  void mark(const Key& key, size_t slot) noexcept { put({key, {kManyIds, 0, 0, 0}}, slot); }
  // The ids of a short word of which find() said kMany and left `room`; false: not here.
  bool copy_many(const int32_t* room, IdBuffer& out) const {
    const auto at = static_cast<uint32_t>(room[1]);
    if (at == 0 || static_cast<uint32_t>(room[2]) != era_) return false;
    const uint32_t* entry = &log_[at - 1];
    const size_t count = entry[1];
    std::memcpy(out.room(count), entry + 2, count * sizeof(int32_t));
    out.add(count);
    return true;
  }

  // Whether a word of that hash is there, most likely.
  bool has_long(uint64_t hash) const noexcept {
    const Slot* slots = bucket(hash);
    size_t way = 0;
    while (way < kWays && slots[way].tag != static_cast<uint32_t>(hash >> 32)) ++way;
    return way < kWays;
  }
  // The same for words of any size up to kLongest; hash: of the word.
  bool find_long(std::string_view word, uint64_t hash, IdBuffer& out) const {
    const Slot* slots = bucket(hash);
    size_t way = 0;
    while (way < kWays && slots[way].tag != static_cast<uint32_t>(hash >> 32)) ++way;
    if (way == kWays || slots[way].place == 0) return false;
    const Slot slot = slots[way];
    const uint32_t* entry = &log_[slot.place - 1];
    const size_t size = entry[0];
    const size_t count = entry[1];
    const uint32_t* ids = entry + 2 + (size + 3) / 4;
    if (size != word.size() || std::memcmp(entry + 2, word.data(), size) != 0) return false;
    std::memcpy(out.room(count), ids, count * sizeof(int32_t));
    out.add(count);
    return true;
  }
  void insert_long(std::string_view word, uint64_t hash, const int32_t* ids,
                   size_t count) noexcept {
    if (word.empty() || word.size() > kLongest) return;
    const size_t at = log(word, ids, count);
    if (at == 0) return;
    put({static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(at)});
    ++num_long_;
  }

 private:
  static constexpr uint32_t kCountShift = 24;  // the number of ids lies above the first id
  static constexpr uint32_t kIdMask = (1u << kCountShift) - 1;
  static constexpr uint32_t kManyIds = static_cast<uint32_t>(kMany) << kCountShift;
  struct Short {
    Key key;
    uint32_t ids[kShortIds];
  };
  struct alignas(64) Set {
    Short way[2];
  };
  static_assert(sizeof(Set) == 64);
  struct Slot {
    uint32_t tag;
    uint32_t place;  // 1 + where its entry lies in the log; 0: empty
  };

  static constexpr size_t kWays = 4;
  static constexpr size_t kFirstNbytes = 256 << 10;  // of the sets at first
  static constexpr size_t kGrowth = 16;
  const Slot* bucket(uint64_t hash) const noexcept {
    return &slots_[(hash >> 32) * kWays & (slots_.size() - 1)];
  }
  // Place of a new entry in the log, counted from 1; 0: it is too large.
  size_t log(std::string_view word, const int32_t* ids, size_t count) noexcept {
    const size_t words = 2 + (word.size() + 3) / 4 + count;
    if (words > most_log_ / 2) return 0;
    while (used_ + words > log_.size() && log_.size() < most_log_) {
      HugeArray<uint32_t> old(std::min(most_log_, log_.size() * kGrowth));
      std::swap(old, log_);
      std::memcpy(&log_[0], &old[0], used_ * sizeof(uint32_t));
    }
    if (used_ + words > log_.size()) {
      slots_.clear();
      used_ = 0;
      ++era_;
    }
    uint32_t* entry = &log_[used_];
    entry[0] = static_cast<uint32_t>(word.size());
    entry[1] = static_cast<uint32_t>(count);
    if (!word.empty()) std::memcpy(entry + 2, word.data(), word.size());
    if (count != 0) std::memcpy(entry + 2 + (word.size() + 3) / 4, ids, count * sizeof(int32_t));
    used_ += words;
    return used_ - words + 1;
  }
  void put(const Slot& slot) noexcept {
    Slot* slots = &slots_[size_t{slot.tag} * kWays & (slots_.size() - 1)];
    for (size_t way = kWays - 1; way > 0; --way) slots[way] = slots[way - 1];
    slots[0] = slot;
  }
  void put(const Short& e, size_t slot) noexcept {
    Set& set = sets_[slot];
    if (set.way[1].key == e.key) {
      set.way[1] = e;
      return;
    }
    if (!(set.way[0].key == e.key)) set.way[1] = set.way[0];
    set.way[0] = e;
  }

  size_t most_sets_, most_slots_;
  HugeArray<Set> sets_;
  HugeArray<Slot> slots_;
  size_t most_log_;
  HugeArray<uint32_t> log_;  // entries: size, number of ids, bytes of the word, ids
  size_t used_ = 0;
  uint32_t era_ = 1;      // how often the log started
  size_t num_short_ = 0;  // words that came in
  size_t num_long_ = 0;
};

}  // namespace tokamak::text
