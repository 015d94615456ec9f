// The two large parts of a tokenizer.json, its vocabulary and its merges, read straight into
// columns.
//
// A scanner for what such files look like, not a reader of JSON: the rest of the file is given back
// with `{}` or `[]` in their places, for a reader that checks it. What is out of the ordinary (a
// key twice, a lone surrogate, an id that is no plain number, anything malformed) is left to that
// reader too, with the whole file, so that what it accepts and says stays as it is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/hash.h"

namespace tokamak::text {

// Strings one after the other: string i is blob[offsets[i], offsets[i + 1]).
struct OwnedStrings {
  std::unique_ptr<uint8_t[]> blob;
  size_t nbytes = 0;
  std::vector<int64_t> offsets{0};

  // Room for `most` bytes; what is not written costs nothing.
  void start(size_t most) {
    blob = std::make_unique_for_overwrite<uint8_t[]>(most);
    offsets.reserve(most / 8);
  }
  // The string is what was written since the last end.
  void end() { offsets.push_back(static_cast<int64_t>(nbytes)); }
  std::string_view operator[](size_t i) const {
    const auto from = static_cast<size_t>(offsets[i]);
    return {reinterpret_cast<const char*>(blob.get()) + from,
            static_cast<size_t>(offsets[i + 1]) - from};
  }
};

class JsonColumns {
 public:
  // Nothing where the file is better read as a whole.
  static std::optional<JsonColumns> scan(std::string_view file);

  // The id of a token, or kNone.
  uint32_t find(std::string_view token) const;
  size_t size() const { return count_; }  // of tokens

  std::string rest;
  OwnedStrings tokens;           // by id, empty where no token has the id
  std::vector<uint8_t> present;  // by id: 1 where one has
  bool has_scores = false;       // the vocabulary is a list of pairs
  std::vector<double> scores;    // by id
  OwnedStrings merges;           // "left right" as in the file, or left and right around a NUL

 private:
  friend class JsonScanner;
  bool index();

  size_t count_ = 0;
  Arena arena_;
  StringMap map_;
};

}  // namespace tokamak::text
