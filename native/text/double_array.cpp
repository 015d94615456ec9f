#include "text/double_array.h"

#include <algorithm>

namespace tokamak::text {

void DoubleArray::grow(size_t size) {
  if (units_.size() < size) units_.resize((size + 255) / 256 * 256 + 256);
}

// A base whose places for all labels are free. Children of one node share a block of 256 units.
uint32_t DoubleArray::find_base(const std::vector<unsigned char>& labels) {
  constexpr size_t kTries =
      64;  // then a fresh block: keeps building linear at the cost of some room
  while (first_free_ < units_.size() && units_[first_free_].parent != kFree) ++first_free_;
  size_t tries = 0;
  for (size_t at = first_free_; at < units_.size() && tries < kTries; ++at) {
    if (units_[at].parent != kFree) continue;
    ++tries;
    const auto base = static_cast<uint32_t>(at) ^ labels[0];
    const bool fits = std::all_of(labels.begin(), labels.end(), [&](unsigned char label) {
      const uint32_t place = base ^ label;
      return place != 0 && place < units_.size() && units_[place].parent == kFree;
    });
    if (fits) return base;
  }
  if (tries == kTries) first_free_ += 16;  // crowded: leave some holes behind for good
  const size_t block = (units_.size() + 255) / 256 * 256;
  grow(block + 256);
  return static_cast<uint32_t>(block);
}

void DoubleArray::build(const std::vector<std::pair<std::string_view, int32_t>>& keys) {
  struct Range {
    size_t first, last, depth;
    uint32_t node;
  };
  units_.assign(256, {});
  units_.at(0).parent = kRoot;  // taken, and nobody's child
  first_free_ = 1;
  std::vector<Range> pending{{0, keys.size(), 0, 0}};
  std::vector<unsigned char> labels;
  std::vector<size_t> starts;
  while (!pending.empty()) {
    Range range = pending.back();
    pending.pop_back();
    if (range.first < range.last && keys[range.first].first.size() == range.depth) {
      units_.at(range.node).value = keys[range.first].second;
      ++range.first;
    }
    if (range.first == range.last) continue;
    labels.clear();
    starts.clear();
    for (size_t i = range.first; i < range.last; ++i) {
      const auto label = static_cast<unsigned char>(keys[i].first[range.depth]);
      if (labels.empty() || labels.back() != label) {
        labels.push_back(label);
        starts.push_back(i);
      }
    }
    starts.push_back(range.last);
    const uint32_t base = find_base(labels);
    units_.at(range.node).base = base;
    for (size_t i = 0; i < labels.size(); ++i) {
      const uint32_t child = base ^ labels[i];
      grow(child + 1);
      units_.at(child).parent = range.node;
      pending.push_back({starts[i], starts[i + 1], range.depth + 1, child});
    }
  }
}

}  // namespace tokamak::text
