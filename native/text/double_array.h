// A trie over bytes in one array: the keys that a text starts with, one load per byte.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/table.h"

namespace tokamak::text {

class DoubleArray {
 public:
  static constexpr int32_t kNoValue = -1;

  // keys: distinct, not empty, sorted by bytes; values below 2^31.
  void build(const std::vector<std::pair<std::string_view, int32_t>>& keys);

  // Calls use(length, value) for every key that is a prefix of text, short ones first.
  template <typename Use>
  void prefixes(std::string_view text, Use use) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t next = units_[node].base ^ static_cast<unsigned char>(text[i]);
      if (next >= units_.size() || units_[next].parent != node) return;
      node = next;
      if (units_[node].value != kNoValue) use(i + 1, units_[node].value);
    }
  }
  size_t nbytes() const { return units_.nbytes(); }
  // values: above all of them.
  void tables(Archive& archive, size_t values) {
    archive.table("units", units_);
    if (!archive.reads()) return;
    int32_t last = kNoValue;
    for (const Unit& u : units_) last = std::max(last, u.value);
    archive.require(!units_.empty() && last < static_cast<int64_t>(values), "units");
  }

 private:
  static constexpr uint32_t kFree = 0xFFFFFFFF;
  static constexpr uint32_t kRoot = 0xFFFFFFFE;
  struct Unit {
    uint32_t base = 0;  // children are at base ^ byte
    uint32_t parent = kFree;
    int32_t value = kNoValue;
  };
  uint32_t find_base(const std::vector<unsigned char>& labels);
  void grow(size_t size);

  Table<Unit> units_{std::vector<Unit>(1)};
  size_t first_free_ = 1;  // no free unit lies before it
};

}  // namespace tokamak::text
