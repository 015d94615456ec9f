// Between which characters a byte-level token may reach: where none does, a word may be cut in two
// that are encoded apart. Chinese and Japanese run on for sentences without a space; most of their
// neighbours are in no token together, and what lies between such places comes again.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/table.h"

namespace tokamak::text {

class Seams {
 public:
  // Call add() for every token, then finish().
  void add(std::string_view token);
  void finish();
  bool empty() const { return filter_.empty(); }

  // End of the shortest start of `word` that no token reaches past; its size where there is none.
  // Only places next to a character outside ASCII are looked at.
  size_t first_cut(std::string_view word) const noexcept;
  size_t nbytes() const { return half_.nbytes() + filter_.nbytes(); }
  void tables(Archive& archive);

 private:
  static uint64_t hash(uint32_t left, uint32_t right) {
    return (left * uint64_t{0x9E3779B97F4A7C15}) ^ (right * uint64_t{0xC2B2AE3D27D4EB4F});
  }
  static bool has(const Table<uint64_t>& bits, uint64_t at) {
    return (bits[at >> 6] >> (at & 63) & 1) != 0;
  }

  Table<uint64_t> half_;    // bit (a << 8 | b): some token has bytes ab where a character is cut
  Table<uint64_t> filter_;  // bits by the hash of two whole characters next to each other
  unsigned shift_ = 0;
  std::vector<uint64_t> hashes_;  // until finish()
};

}  // namespace tokamak::text
