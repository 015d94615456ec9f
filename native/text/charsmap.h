// The precompiled character map of SentencePiece files: a double array over bytes, and the strings
// that its keys become. Read in place from the file; every index is checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tokamak::text {

class CharsMap {
 public:
  // blob: size of the double array (u32, little endian), the array (u32 units), strings ending in
  // NUL.
  explicit CharsMap(std::string_view blob);

  struct Match {
    size_t length = 0;  // bytes matched; 0: none
    std::string_view replacement;
  };
  Match shortest(std::string_view text) const { return find(text, false); }
  Match longest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool longest) const;
  std::string_view string_at(uint32_t offset) const;

  std::vector<uint32_t> units_;
  std::string strings_;
};

}  // namespace tokamak::text
