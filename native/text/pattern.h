// Pre-tokenizer patterns: a subset of Perl regular expressions, compiled once to a table automaton.
//
// Alternatives and greedy or lazy repeats keep their priorities (leftmost-first, as a backtracking
// engine finds them), but matching reads each character once: no backtracking, no blow-up.
// Lookahead is one character deep, which is all that pre-tokenizers use; anything else is an
// UnsupportedError that names the construct.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/cutter.h"
#include "text/utf8.h"

namespace tokamak::text {

class Pattern {
 public:
  // Compiled patterns are shared: the same source is compiled once per process.
  static std::shared_ptr<const Pattern> compile(const std::string& source);

  // End of the match that starts at p, or nullptr. p <= end. An invalid byte reads as U+FFFD.
  const char* match(const char* p, const char* end) const noexcept {
    return wide_ ? match_wide(p, end) : match_plain(p, end);
  }
  // The same, one character at a time, and 16 at a time where a state returns to itself (SSSE3).
  const char* match_plain(const char* p, const char* end) const noexcept;
  const char* match_wide(const char* p, const char* end) const noexcept;

  // All matches of a text in order: use(start, stop). An empty one is left out where the match
  // before ends, as Oniguruma's and Rust's iterators do.
  template <typename Use>
  void each_match(std::string_view text, Use use) const {
    const char* begin = text.data();
    const char* end = begin + text.size();
    const char* last = nullptr;
    for (const char* p = begin; p < end || (p == end && matches_empty_);) {
      const char* stop = match(p, end);
      if (stop == nullptr || (stop == p && p == last)) {
        if (p == end) break;
        p += decode_utf8(p, end).length;
        continue;
      }
      use(static_cast<size_t>(p - begin), static_cast<size_t>(stop - begin));
      last = p = stop;
    }
  }
  // Whether some match is empty.
  bool matches_empty() const noexcept { return matches_empty_; }

  // Finds many words at once, of patterns that are known; else null.
  const Cutter* cutter() const noexcept { return cutter_.get(); }

  size_t num_states() const { return table_.size() / num_classes_; }
  size_t num_classes() const { return num_classes_; }

 private:
  friend class PatternCompiler;
  uint32_t class_of(uint32_t c) const noexcept { return pages_[page_of_[c >> 7]][c & 127]; }

  // ASCII characters on which a state returns to itself, as tables for byte shuffles: a character
  // is one if low[c & 15] and high[c >> 4] share a bit.
  struct Run {
    std::array<uint8_t, 16> low{};
    std::array<uint8_t, 16> high{1, 2, 4, 8, 16, 32, 64, 128};
    bool matched = false;  // what was read before each of them is a match
  };
  void find_runs();

  std::shared_ptr<const Cutter> cutter_;
  // next state * num_classes << 1 | whether the characters before this one are a match; next 0:
  // stop.
  std::vector<uint32_t> table_;
  std::vector<uint8_t> run_at_;  // per state * num_classes: 1 + its run, or 0
  std::vector<Run> runs_;
  bool wide_ = false;
  bool matches_empty_ = false;
  uint32_t num_classes_ = 0;
  uint32_t end_class_ = 0;
  uint32_t start_ = 0;
  std::array<uint8_t, 128> ascii_{};
  std::array<uint16_t, (kEndOfText >> 7)> page_of_{};
  std::vector<std::array<uint8_t, 128>> pages_;
};

}  // namespace tokamak::text
