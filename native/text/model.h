// From one word of normalized text to token ids: the interface of the model kinds, and the merge
// model.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/hash.h"
#include "text/ids.h"
#include "text/merge.h"
#include "text/seams.h"

namespace tokamak::text {

// Where ids go. `lengths`, when asked for, gets the bytes of the word that each id stands for.
struct Tokens {
  // Of a length: the token after it stands for the same bytes.
  static constexpr uint32_t kShared = uint32_t{1} << 31;

  IdBuffer ids;
  std::vector<uint32_t> lengths;
  bool with_lengths = false;

  void add(uint32_t id, uint32_t length) {
    ids.push_back(static_cast<int32_t>(id));
    if (with_lengths) lengths.push_back(length);
  }
};

struct ViterbiNode {
  static constexpr uint32_t kUnreached = 0xFFFFFFFF;
  double sum;      // of the best path that ends here
  uint32_t start;  // where its last piece starts
  uint32_t id;
};

// A short word of several that a model encodes at once.
struct ShortWord {
  static constexpr size_t kMostBytes = 31;
  const char* start;
  uint32_t size;   // at most kMostBytes
  uint32_t count;  // of ids; 0: the model leaves the word to encode()
  bool part;       // of a word
  int32_t ids[kMostBytes + 1];
};

struct ModelScratch {
  static constexpr size_t kTogether = 64;

  struct Cut {
    size_t start, end;
    uint32_t id;
    bool unknown;
  };
  std::vector<Symbol> symbols;
  MergeScratch merge;
  std::vector<ViterbiNode> nodes;
  std::vector<Cut> cuts;
  std::string key;
  ShortMerge short_words[kTogether];
};

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, SentencePiece's space
// Whether U+2581 stands after another character than itself.
bool has_inner_space(std::string_view piece);

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;
  virtual void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const = 0;
  // The ids of many short words, which costs less than each alone. Some models leave all.
  virtual void encode_many(ShortWord* words, size_t count, ModelScratch& scratch) const {
    (void)scratch;
    for (size_t i = 0; i < count; ++i) words[i].count = 0;
  }
  // Whether a word that is a token is that token, whatever its parts would become.
  virtual bool knows_whole_words() const { return false; }
  // The ids of a part of a word, between cuts.
  virtual void encode_part(std::string_view part, Tokens& out, ModelScratch& scratch) const {
    encode(part, out, scratch);
  }
  // Whether a word's ids depend on the word alone and may be remembered.
  virtual bool cacheable() const { return true; }
  // Whether no token continues past U+2581 after another character, so that text may be cut there.
  virtual bool splits_at_spaces() const { return false; }
  // End of the longest start of `word` after which no token can continue; the size of the word
  // where there is no such place. Its ids and those of the rest join to those of the word.
  virtual size_t first_cut(std::string_view word) const { return word.size(); }
  virtual size_t nbytes() const = 0;
  // Its arrays, for an image or from one; a model that is made of options alone takes them so.
  virtual void tables(Archive& archive) = 0;
};

enum class Unknown {
  drop,   // characters without a token vanish (byte-level BPE of Hugging Face)
  bytes,  // one <0xXX> token per byte, where all exist
  token,  // the unknown token
};

struct MergeOptions {
  bool byte_symbols = true;   // words start as bytes; else as UTF-8 characters
  bool whole_words = false;   // a word that is a token is that token, whatever the merges say
  bool fuse_unknown = false;  // neighbouring unknown tokens become one
  uint32_t unknown_id = kNone;
  std::array<uint32_t, 256>
      byte_ids{};  // byte -> token: symbols (byte_symbols) or fallback; kNone: none
};

class MergeModel final : public Model {
 public:
  // pieces: token strings as words contain them. Ids listed in `lookup` can be found by their
  // string.
  MergeModel(Arena pieces, const std::vector<uint32_t>& lookup, MergeOptions options);

  // For an image: tables() fills it.
  explicit MergeModel(MergeOptions options) : options_(options) {}

  void tables(Archive& archive) override;
  uint32_t find(std::string_view piece) const { return map_.find(pieces_, piece); }
  // The same for many strings at once.
  struct Search {
    std::string_view piece;
    uint64_t hash;
    uint32_t id;
  };
  Search search(std::string_view piece) const {
    const Search s{piece, hash_bytes(piece), kNone};
    map_.prefetch(s.hash);
    return s;
  }
  // Those that have no id yet.
  void find_all(std::span<Search> searches) const {
    for (const Search& s : searches) map_.prefetch_place(pieces_, s.hash);
    for (const Search& s : searches) map_.prefetch_bytes(pieces_, s.hash);
    for (Search& s : searches) {
      if (s.id == kNone) s.id = map_.find(pieces_, s.piece, s.hash);
    }
  }
  // Whether find(piece) is `id`, if that costs nothing to see.
  bool is(std::string_view piece, uint32_t id) const {
    return unique_ && !piece.empty() && id < num_tokens_ && pieces_[id] == piece;
  }
  void prefetch_merge(uint32_t left, uint32_t right) const { pairs_.prefetch(left, right); }
  // Call after the last merge.
  void finish();
  void reserve_merges(size_t count) { pairs_.reserve(count); }
  void add_merge(uint32_t left, uint32_t right, Merge merge) { pairs_.insert(left, right, merge); }
  // Every way to cut a mergeable piece in two known strings becomes a merge; higher scores first.
  void add_merges_by_score(const std::vector<uint32_t>& mergeable,
                           const std::vector<double>& scores);

  void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const override;
  void encode_many(ShortWord* words, size_t count, ModelScratch& scratch) const override;
  void encode_part(std::string_view part, Tokens& out, ModelScratch& scratch) const override;
  bool knows_whole_words() const override { return options_.whole_words; }
  bool splits_at_spaces() const override { return splits_at_spaces_; }
  size_t first_cut(std::string_view word) const override;
  size_t nbytes() const override;

 private:
  bool merges_short() const;
  void find_many(ShortWord* words, size_t count) const;
  void start_short(const ShortWord& word, ShortMerge& out) const;
  void start_characters(std::string_view word, std::vector<Symbol>& symbols) const;
  void start_bytes(std::string_view word, ModelScratch& scratch) const;
  void add_unknown(std::string_view bytes, Tokens& out, bool& previous_unknown) const;
  void learn_characters(std::string_view piece);

  Arena pieces_;  // tokens, then characters that occur in pieces without being tokens
  uint32_t num_tokens_ = 0;
  StringMap map_;
  PairMap pairs_;
  Table<uint32_t> byte_pairs_;  // place of the merge of each pair of bytes, byte_symbols only
  Seams seams_;
  MergeOptions options_;
  bool splits_at_spaces_ = false;
  bool unique_ = false;       // no two strings that can be found are equal, while it is built
  bool short_words_ = false;  // encode_many() does something
};

}  // namespace tokamak::text
