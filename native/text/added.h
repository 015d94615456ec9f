// Added tokens: literals that are found in the text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tokamak::text {

struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool special = false;      // found only when special tokens are parsed
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool single_word = false;  // only between characters that are not part of words
  bool verbatim = false;     // its content is in normalized form already
};

struct AddedMatch {
  size_t start, end;  // bytes taken, white space included
  size_t resume;      // where the search goes on: the end of the literal itself
  uint32_t id;
};

struct ByteRange {
  size_t start, end;
};

class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Leftmost, then longest match at or after `at`; false: none. `floor`: start of the text not yet
  // taken, which lstrip does not pass. Special tokens match only with parse_special, and only
  // outside `plain`, rising ranges of bytes that are text whatever they look like.
  bool find(std::string_view text, size_t at, size_t floor, bool parse_special,
            const std::vector<ByteRange>& plain, AddedMatch& match) const;
  bool any(bool parse_special) const { return parse_special ? any_ : any_always_; }
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  struct Node {
    std::map<unsigned char, uint32_t> next;
    int token = -1;
  };
  bool longest_at(std::string_view text, size_t at, bool parse_special,
                  const std::vector<ByteRange>& plain, AddedMatch& match) const;

  bool any_ = false;         // there is a token
  bool any_always_ = false;  // ... that is not special
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> starts_special_{};  // bytes that start some token
  std::array<bool, 256> starts_always_{};   // ... some token that is not special
};

}  // namespace tokamak::text
