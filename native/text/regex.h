// Parser of the regular expressions that tokenizer files contain: text in, tree of character sets
// out.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/unicode.h"

namespace tokamak::text {

struct RegexNode {
  enum class Kind { empty, set, ahead, cat, alt, repeat };
  Kind kind = Kind::empty;
  CodeSet set;  // kind set: the character; kind ahead: what may follow, kEndOfText included
  std::vector<RegexNode> children;
  int min = 0;
  int max = -1;  // repeat: -1 is no limit
  bool greedy = true;
};

// Throws UnsupportedError, naming construct and place.
RegexNode parse_regex(std::string_view source);

}  // namespace tokamak::text
