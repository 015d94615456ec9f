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

#include "text/utf8.h"

namespace tokamak::text {

class Pattern {
 public:
  // Compiled patterns are shared: the same source is compiled once per process.
  static std::shared_ptr<const Pattern> compile(const std::string& source);

  // End of the match that starts at p, or nullptr. p <= end. An invalid byte reads as U+FFFD.
  const char* match(const char* p, const char* end) const noexcept;

  size_t num_states() const { return table_.size() / num_classes_; }
  size_t num_classes() const { return num_classes_; }

 private:
  friend class PatternCompiler;
  uint32_t class_of(uint32_t c) const noexcept { return pages_[page_of_[c >> 7]][c & 127]; }

  // next state * num_classes << 1 | whether the characters before this one are a match; next 0:
  // stop.
  std::vector<uint32_t> table_;
  uint32_t num_classes_ = 0;
  uint32_t end_class_ = 0;
  uint32_t start_ = 0;
  std::array<uint8_t, 128> ascii_{};
  std::array<uint16_t, (kEndOfText >> 7)> page_of_{};
  std::vector<std::array<uint8_t, 128>> pages_;
};

inline const char* Pattern::match(const char* p, const char* end) const noexcept {
  const char* found = nullptr;
  uint32_t state = start_;
  const uint32_t* table = table_.data();
  while (p < end) {
    const auto b = static_cast<unsigned char>(*p);
    uint32_t cls;
    uint32_t length = 1;
    if (b < 0x80) {
      cls = ascii_[b];
    } else {
      const Character c = decode_utf8(p, end);
      cls = class_of(c.code);
      length = c.length;
    }
    const uint32_t step = table[state + cls];
    if ((step & 1) != 0) found = p;
    state = step >> 1;
    if (state == 0) return found;
    p += length;
  }
  if ((table[state + end_class_] & 1) != 0) found = p;
  return found;
}

}  // namespace tokamak::text
