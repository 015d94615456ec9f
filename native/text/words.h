// Models that look words up: WordPiece, WordLevel, single characters, and byte pair encoding over
// characters as Hugging Face does it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "text/double_array.h"
#include "text/hash.h"
#include "text/model.h"

namespace tokamak::text {

// Greedy longest match; continuing pieces carry a prefix. A word that does not fit is one unknown
// token.
class WordPieceModel final : public Model {
 public:
  // start: prefix of pieces that start a word; prefix: of those that continue one.
  WordPieceModel(const Arena& pieces, std::string_view start, std::string_view prefix,
                 size_t max_characters, uint32_t unknown_id);
  WordPieceModel() = default;  // for an image, as the others: tables() fills it
  void tables(Archive& archive) override;
  void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const override;
  size_t nbytes() const override { return starting_.nbytes() + continuing_.nbytes(); }

 private:
  DoubleArray starting_, continuing_;  // pieces without their prefix
  uint32_t num_tokens_ = 0;
  size_t max_characters_ = 0;  // per word
  uint32_t unknown_id_ = kNone;
};

// A word is a token or unknown.
class WordLevelModel final : public Model {
 public:
  WordLevelModel(Arena pieces, uint32_t unknown_id);
  WordLevelModel() = default;
  void tables(Archive& archive) override;
  void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const override;
  size_t nbytes() const override { return pieces_.nbytes() + map_.nbytes(); }

 private:
  Arena pieces_;
  StringMap map_;
  uint32_t unknown_id_ = kNone;
};

// The longest token that the rest of the text starts with, byte by byte.
class LongestMatchModel final : public Model {
 public:
  explicit LongestMatchModel(const Arena& pieces);
  LongestMatchModel() = default;
  void tables(Archive& archive) override;
  void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const override;
  size_t nbytes() const override { return trie_.nbytes(); }

 private:
  DoubleArray trie_;
  uint32_t num_tokens_ = 0;
};

struct CharacterBpeOptions {
  std::string prefix;  // of characters that do not start a word
  std::string suffix;  // of the character that ends a word
  bool whole_words = false;
  bool byte_fallback = false;
  bool fuse_unknown = false;
  uint32_t unknown_id = kNone;  // kNone: unknown characters vanish
};

// Words start as characters, looked up with prefix and suffix; unknown ones take part in the
// merging.
class CharacterBpe final : public Model {
 public:
  CharacterBpe(Arena pieces, CharacterBpeOptions options);
  explicit CharacterBpe(CharacterBpeOptions options) : options_(std::move(options)) {}
  void tables(Archive& archive) override;
  uint32_t find(std::string_view piece) const { return map_.find(pieces_, piece); }
  void reserve_merges(size_t count) { pairs_.reserve(count); }
  // result: the merged token.
  void add_merge(uint32_t left, uint32_t right, Merge merge);
  // Call after the last merge.
  void finish();

  void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const override;
  bool splits_at_spaces() const override { return splits_at_spaces_; }
  size_t nbytes() const override { return pieces_.nbytes() + map_.nbytes() + pairs_.nbytes(); }

 private:
  void start_symbols(std::string_view word, ModelScratch& scratch) const;
  bool add_bytes(std::string_view s, std::vector<Symbol>& symbols) const;

  Arena pieces_;
  StringMap map_;
  PairMap pairs_;
  CharacterBpeOptions options_;
  std::array<uint32_t, 256> byte_ids_{};
  bool inner_space_ = false;  // some merge makes a token with U+2581 after another character
  bool splits_at_spaces_ = false;
};

}  // namespace tokamak::text
