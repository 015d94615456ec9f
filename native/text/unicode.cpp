#include "text/unicode.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

#include "text/unicode_data.inl"

constexpr const char* kProperties[] = {
    "Lu",     "Ll",       "Lt",        "Lm",     "Lo",       "Mn",    "Mc",          "Me",
    "Nd",     "Nl",       "No",        "Pc",     "Pd",       "Ps",    "Pe",          "Pi",
    "Pf",     "Po",       "Sm",        "Sc",     "Sk",       "So",    "Zs",          "Zl",
    "Zp",     "Cc",       "Cf",        "Cs",     "Co",       "Cn",    "White_Space", "Word",
    "Han",    "Hiragana", "Katakana",  "Hangul", "Cyrillic", "Latin", "Greek",       "Arabic",
    "Hebrew", "Thai",     "Devanagari"};
constexpr size_t kNumCategories = 30;
constexpr size_t kNumRuns = sizeof(kClassRuns) / sizeof(kClassRuns[0]);

uint64_t property_mask(std::string_view name) {
  uint64_t mask = 0;
  for (size_t i = 0; i < std::size(kProperties); ++i) {
    const std::string_view p = kProperties[i];
    if (p == name || (name.size() == 1 && i < kNumCategories && p[0] == name[0])) {
      mask |= uint64_t{1} << i;
    }
  }
  if (mask == 0) {
    throw Error(ErrorKind::unsupported,
                "character class \\p{" + std::string(name) + "} is not known here");
  }
  return mask;
}

uint64_t properties_of(uint32_t c) {
  const auto* run = std::upper_bound(kClassRuns, kClassRuns + kNumRuns, c << 8 | 0xFF);
  return kClassProperties[run[-1] & 0xFF];
}

constexpr uint64_t kWhiteSpaceBit = uint64_t{1} << 30;
constexpr uint64_t kWordBit = uint64_t{1} << 31;

}  // namespace

CodeSet CodeSet::of(uint32_t first, uint32_t last) {
  CodeSet s;
  s.ranges_.push_back({first, last});
  return s;
}

CodeSet CodeSet::property(std::string_view name) {
  const uint64_t mask = property_mask(name);
  CodeSet s;
  for (size_t i = 0; i < kNumRuns; ++i) {
    if ((kClassProperties[kClassRuns[i] & 0xFF] & mask) == 0) continue;
    const uint32_t next = i + 1 < kNumRuns ? kClassRuns[i + 1] >> 8 : kEndOfText;
    s.ranges_.push_back({kClassRuns[i] >> 8, next - 1});
  }
  s.normalize();
  return s;
}

void CodeSet::normalize() {
  std::sort(ranges_.begin(), ranges_.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<Range> merged;
  for (const Range& r : ranges_) {
    if (!merged.empty() && r.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, r.last);
    } else {
      merged.push_back(r);
    }
  }
  ranges_ = std::move(merged);
}

void CodeSet::add(uint32_t first, uint32_t last) {
  ranges_.push_back({first, last});
  normalize();
}

void CodeSet::add(const CodeSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalize();
}

CodeSet CodeSet::complement(bool with_end) const {
  CodeSet s;
  uint32_t next = 0;
  for (const Range& r : ranges_) {
    if (r.first > next) s.ranges_.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  const uint32_t last = with_end ? kEndOfText : kEndOfText - 1;
  if (next <= last) s.ranges_.push_back({next, last});
  return s;
}

CodeSet CodeSet::intersect(const CodeSet& other) const {
  CodeSet s;
  size_t i = 0;
  size_t j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const Range a = ranges_[i];
    const Range b = other.ranges_[j];
    const uint32_t first = std::max(a.first, b.first);
    const uint32_t last = std::min(a.last, b.last);
    if (first <= last) s.ranges_.push_back({first, last});
    (a.last < b.last ? i : j) += 1;
  }
  return s;
}

bool CodeSet::contains(uint32_t c) const {
  const auto it = std::upper_bound(ranges_.begin(), ranges_.end(), c,
                                   [](uint32_t v, const Range& r) { return v < r.first; });
  return it != ranges_.begin() && c <= it[-1].last;
}

const char* unicode_version() { return kUnicodeVersion; }

bool is_white_space(uint32_t c) { return (properties_of(c) & kWhiteSpaceBit) != 0; }

bool is_word(uint32_t c) { return (properties_of(c) & kWordBit) != 0; }

}  // namespace tokamak::text
