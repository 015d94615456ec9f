// Character classes of one Unicode version, as sets of code points that patterns are built from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tokamak::text {

// A set of code points as rising, disjoint, inclusive ranges; kEndOfText may be a member.
class CodeSet {
 public:
  struct Range {
    uint32_t first, last;
    bool operator==(const Range&) const = default;
  };

  CodeSet() = default;
  static CodeSet of(uint32_t first, uint32_t last);
  // A general category or its first letter ("Lu", "L"), a script ("Han"), "White_Space" or "Word";
  // throws UnsupportedError for any other name.
  static CodeSet property(std::string_view name);

  void add(uint32_t first, uint32_t last);
  void add(const CodeSet& other);
  // Everything else below kEndOfText; with_end also turns membership of kEndOfText around.
  CodeSet complement(bool with_end) const;
  CodeSet intersect(const CodeSet& other) const;
  bool contains(uint32_t c) const;
  const std::vector<Range>& ranges() const { return ranges_; }
  bool operator==(const CodeSet&) const = default;

 private:
  void normalize();
  std::vector<Range> ranges_;
};

const char* unicode_version();
bool is_white_space(uint32_t c);
bool is_word(uint32_t c);  // \w of the followed regex engine

}  // namespace tokamak::text
