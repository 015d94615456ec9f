// Flat hash tables of the tokenizer: strings to ids and pairs of symbols to merges.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "text/table.h"

namespace tokamak::text {

constexpr uint32_t kNone = 0xFFFFFFFF;

inline uint64_t mix(uint64_t a, uint64_t b) {
  const __uint128_t product = static_cast<__uint128_t>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// n <= 8 bytes as a little-endian number, without a loop or a call.
inline uint64_t few_bytes(const char* p, size_t n) noexcept {
  if (n >= 4) {
    uint32_t first, last;
    std::memcpy(&first, p, 4);
    std::memcpy(&last, p + n - 4, 4);
    return first | static_cast<uint64_t>(last) << (8 * (n - 4));
  }
  if (n == 0) return 0;
  const auto byte = [p](size_t i) { return uint64_t{static_cast<unsigned char>(p[i])} << (8 * i); };
  return byte(0) | byte(n / 2) | byte(n - 1);
}

inline uint64_t hash_bytes(std::string_view s) noexcept {
  constexpr uint64_t k0 = 0xA0761D6478BD642F;
  constexpr uint64_t k1 = 0xE7037ED1A0B428DB;
  const char* p = s.data();
  size_t n = s.size();
  uint64_t h = n * k1;
  while (n > 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    h = mix(h ^ word, k0);
    p += 8;
    n -= 8;
  }
  return mix(h ^ few_bytes(p, n), k1 ^ n);
}

// Bytes of strings one after the other, 4 GB at most; ids are positions.
class Arena {
 public:
  uint32_t add(std::string_view s) {
    bytes_.append(s.begin(), s.end());
    places_.push_back(
        {static_cast<uint32_t>(bytes_.size() - s.size()), static_cast<uint32_t>(s.size())});
    return static_cast<uint32_t>(places_.size() - 1);
  }
  std::string_view operator[](uint32_t id) const noexcept {
    return {bytes_.data() + places_[id].start, places_[id].size};
  }
  uint32_t size() const { return static_cast<uint32_t>(places_.size()); }
  void prefetch_place(uint32_t id) const noexcept { __builtin_prefetch(&places_[id]); }
  void prefetch_bytes(uint32_t id) const noexcept {
    __builtin_prefetch(bytes_.data() + places_[id].start);
  }
  void reserve(size_t strings, size_t nbytes) {
    places_.reserve(strings);
    bytes_.reserve(nbytes);
  }
  // Makes kPadding bytes readable from the start of every string; call after the last add().
  static constexpr size_t kPadding = 16;
  void pad() {
    for (size_t i = 0; i < kPadding && !padded_; ++i) bytes_.push_back('\0');
    padded_ = true;
  }
  size_t nbytes() const { return bytes_.nbytes() + places_.nbytes(); }
  void tables(Archive& archive) {
    if (!archive.reads()) pad();
    archive.table("bytes", bytes_);
    archive.table("places", places_);
    if (!archive.reads()) return;
    padded_ = true;
    bool wrong = false;
    for (const Place& p : places_) wrong |= size_t{p.start} + p.size + kPadding > bytes_.size();
    archive.require(!wrong, "places");
  }

 private:
  struct Place {
    uint32_t start, size;
  };
  Table<char> bytes_;
  Table<Place> places_;
  bool padded_ = false;
};

// String -> id over the strings of an arena. The first of equal strings wins.
class StringMap {
 public:
  void reserve(size_t count) {
    slots_.assign(std::bit_ceil(count + count / 3 + 16), {0, kNone});
    mask_ = slots_.size() - 1;
  }
  // The arena must hold `id` and outlive the map; at most `count` of reserve() insertions.
  bool insert(const Arena& arena, uint32_t id) { return insert(arena, id, hash_bytes(arena[id])); }
  // insert(id) for each of `ids` in order, kNone among them left out; whether none was there.
  // Waits for many slots at once.
  bool insert_all(const Arena& arena, std::span<const uint32_t> ids) {
    constexpr size_t kAhead = 16;
    uint64_t hashes[kAhead];
    bool fresh = true;
    const auto prepare = [&](size_t i) {
      if (i >= ids.size() || ids[i] == kNone) return;
      hashes[i % kAhead] = hash_bytes(arena[ids[i]]);
      prefetch(hashes[i % kAhead]);
    };
    for (size_t i = 0; i < kAhead; ++i) prepare(i);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != kNone) fresh = insert(arena, ids[i], hashes[i % kAhead]) && fresh;
      prepare(i + kAhead);
    }
    return fresh;
  }
  void prefetch(uint64_t hash) const noexcept {
    __builtin_prefetch(slots_.data() + (hash & mask_));
  }
  // After prefetch(), and after each other: where the string lies that is there, or stands in for
  // it.
  void prefetch_place(const Arena& arena, uint64_t hash) const noexcept {
    const uint32_t id = slots_[hash & mask_].id;
    if (id != kNone) arena.prefetch_place(id);
  }
  void prefetch_bytes(const Arena& arena, uint64_t hash) const noexcept {
    const uint32_t id = slots_[hash & mask_].id;
    if (id != kNone) arena.prefetch_bytes(id);
  }
  uint32_t find(const Arena& arena, std::string_view s) const noexcept {
    return find(arena, s, hash_bytes(s));
  }
  // h: hash_bytes(s).
  uint32_t find(const Arena& arena, std::string_view s, uint64_t h) const noexcept {
    for (size_t i = h & mask_; slots_[i].id != kNone; i = (i + 1) & mask_) {
      if (slots_[i].tag == static_cast<uint32_t>(h >> 32) && arena[slots_[i].id] == s) {
        return slots_[i].id;
      }
    }
    return kNone;
  }
  size_t nbytes() const { return slots_.nbytes(); }
  void tables(Archive& archive, const Arena& arena) {
    archive.table("slots", slots_);
    if (!archive.reads()) return;
    bool free = false, wrong = !std::has_single_bit(slots_.size());
    for (const Slot& s : slots_) {
      free |= s.id == kNone;
      wrong |= s.id + 1 > arena.size();  // kNone + 1 is 0
    }
    archive.require(free && !wrong, "slots");
    mask_ = slots_.size() - 1;
  }

 private:
  struct Slot {
    uint32_t tag;
    uint32_t id;
  };
  bool insert(const Arena& arena, uint32_t id, uint64_t h) {
    const std::string_view s = arena[id];
    size_t i = h & mask_;
    for (; slots_[i].id != kNone; i = (i + 1) & mask_) {
      if (slots_[i].tag == static_cast<uint32_t>(h >> 32) && arena[slots_[i].id] == s) return false;
    }
    slots_.at(i) = {static_cast<uint32_t>(h >> 32), id};
    return true;
  }
  Table<Slot> slots_;
  size_t mask_ = 0;
};

struct Merge {
  uint32_t rank;  // lower merges first; kNone: no merge
  uint32_t id;    // the symbol that the pair becomes
};

// Pair of symbols -> merge, in slots of 8 bytes. A pair that is given twice keeps the last, as
// Hugging Face does. Symbols and ranks stay below 2^21, which is more than tokens there can be.
class PairMap {
 public:
  static constexpr unsigned kBits = 21;
  static constexpr uint32_t kMask = (1u << kBits) - 1;

  void reserve(size_t count) {
    slots_.assign(std::bit_ceil(count + count / 3 + 16), kEmpty);
    shift_ = 64u - static_cast<unsigned>(std::countr_zero(slots_.size()));
    merges_.clear();
    merges_.reserve(count);
    ties_ = false;
    in_step_ = true;
  }
  // Ranks rise or fall as the caller likes; two pairs of one rank become one merge only if their
  // ids are equal too.
  void insert(uint32_t left, uint32_t right, Merge merge) {
    const uint64_t key = key_of(left, right);
    size_t i = slot_of(key);
    while (slots_[i] != kEmpty && slots_[i] >> kBits != key) i = (i + 1) & (slots_.size() - 1);
    slots_.at(i) = key << kBits | index_of(merge);
  }
  // Place of the merge in order of rank, or kNone. Four slots are looked at without a branch, which
  // settles almost every pair.
  uint32_t place(uint32_t left, uint32_t right) const noexcept {
    constexpr size_t kAtOnce = 4;
    const uint64_t key = key_of(left, right);
    size_t i = slot_of(key);
    if (i + kAtOnce <= slots_.size()) {
      const uint64_t* slots = slots_.data() + i;
      uint32_t found = kNone;
      bool settled = false;
      for (size_t k = 0; k < kAtOnce; ++k) {
        const bool is = slots[k] >> kBits == key;
        found = is ? static_cast<uint32_t>(slots[k]) & kMask : found;
        settled |= is | (slots[k] == kEmpty);
      }
      if (settled) return found;
    }
    while (slots_[i] >> kBits != key) {
      if (slots_[i] == kEmpty) return kNone;
      i = (i + 1) & (slots_.size() - 1);
    }
    return static_cast<uint32_t>(slots_[i]) & kMask;
  }
  Merge find(uint32_t left, uint32_t right) const noexcept {
    const uint32_t at = place(left, right);
    return at == kNone ? Merge{kNone, kNone} : merges_[at];
  }
  void prefetch(uint32_t left, uint32_t right) const noexcept {
    __builtin_prefetch(slots_.data() + slot_of(key_of(left, right)));
  }
  size_t size() const noexcept { return merges_.size(); }  // places
  // The symbol that the merge at a place makes. Most vocabularies number tokens as merges go, so
  // that nothing is looked up.
  uint32_t result(uint32_t at) const noexcept { return in_step_ ? at + first_id_ : merges_[at].id; }
  // Whether places are ranks: merges were given in order and no two differ only in what they make.
  bool ordered() const noexcept { return !ties_; }
  size_t nbytes() const { return slots_.nbytes() + merges_.nbytes(); }
  void tables(Archive& archive, size_t symbols) {
    archive.table("slots", slots_);
    archive.table("merges", merges_);
    archive.flag("ties", ties_);
    if (!archive.reads()) return;
    bool free = false, wrong = !std::has_single_bit(slots_.size()) || merges_.size() > kMask;
    for (const uint64_t slot : slots_) {
      const bool empty = slot == kEmpty;
      free |= empty;
      wrong |= !empty & ((slot & kMask) >= merges_.size());
    }
    first_id_ = merges_.empty() ? 0 : merges_[0].id;
    uint32_t id = first_id_;
    in_step_ = true;
    for (const Merge& m : merges_) {
      wrong |= m.id >= symbols;
      in_step_ &= m.id == id++;
    }
    archive.require(free && !wrong, "slots");
    shift_ = 64u - static_cast<unsigned>(std::countr_zero(slots_.size()));
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // (kMask, kMask) is no pair of tokens
  static uint64_t key_of(uint32_t left, uint32_t right) {
    return static_cast<uint64_t>(left & kMask) << kBits | (right & kMask);
  }
  size_t slot_of(uint64_t key) const noexcept {
    return static_cast<size_t>(key * 0x9E3779B97F4A7C15 >> shift_);
  }
  uint32_t index_of(Merge merge) {
    const bool same =
        !merges_.empty() && merges_.back().rank == merge.rank && merges_.back().id == merge.id;
    if (!same) {
      ties_ = ties_ || (!merges_.empty() && merges_.back().rank >= merge.rank);
      if (merges_.empty()) first_id_ = merge.id;
      in_step_ = in_step_ && merge.id == first_id_ + merges_.size();
      merges_.push_back(merge);
    }
    return static_cast<uint32_t>(merges_.size() - 1);
  }
  Table<uint64_t> slots_;
  Table<Merge> merges_;
  unsigned shift_ = 60;
  bool ties_ = false;
  bool in_step_ = true;  // the id of each merge is its place + first_id_
  uint32_t first_id_ = 0;
};

}  // namespace tokamak::text
