// The whole way from bytes of text to token ids and back, of one tokenizer. Immutable once built,
// used from any number of threads; every call borrows a workspace of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "text/added.h"
#include "text/cache.h"
#include "text/model.h"
#include "text/pattern.h"

namespace tokamak::text {

// What bytes that are not UTF-8 become.
enum class Invalid {
  keep,     // passed on as single bytes
  replace,  // U+FFFD each, but surrogates stay and C0 80 is NUL, as the byte-level engines do
};

struct EngineOptions {
  Invalid invalid = Invalid::keep;
  bool space_symbol = false;              // spaces become U+2581 (SentencePiece)
  bool prefix_space = false;              // a space is put before every stretch of text
  bool collapse_spaces = false;           // runs of spaces become one, none at the ends
  bool strip_space = false;               // decoding drops one space at the very start
  size_t cache_nbytes = size_t{1} << 20;  // per concurrent call
  std::vector<int32_t> prefix;            // ids put before and after with add_special
  std::vector<int32_t> suffix;
};

struct Span {
  int64_t start, end;  // bytes of the input
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<Span> spans;  // only when asked for; (0, 0) for ids that stand for no text
};

struct EncodeFlags {
  bool add_special = true;
  bool parse_special = false;
  bool with_spans = false;
};

class Engine {
 public:
  // texts: what each id decodes to. is_special: per id, whether skip_special leaves it out.
  Engine(std::unique_ptr<const Model> model, std::vector<std::shared_ptr<const Pattern>> patterns,
         AddedTokens added, Arena texts, std::vector<bool> is_special, EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void encode(std::string_view text, const EncodeFlags& flags, const std::vector<ByteRange>& plain,
              Encoding& out) const;
  // Texts in order, over `threads` threads; one result per text.
  std::vector<std::vector<int32_t>> encode_batch(const std::vector<std::string_view>& texts,
                                                 const EncodeFlags& flags, size_t threads) const;
  // Throws InvalidParams with index and value of the first id outside the vocabulary.
  std::string decode(const int32_t* ids, size_t count, bool skip_special, bool strip_space) const;
  void check_ids(const int32_t* ids, size_t count) const;
  std::string_view text_of(uint32_t id) const { return texts_[id]; }
  uint32_t vocab_size() const { return texts_.size(); }
  size_t nbytes() const;

 private:
  struct Workspace;
  class Loan;
  void encode_stretch(std::string_view text, size_t origin, Workspace& w, Encoding& out) const;
  void split(std::string_view text, size_t level, Workspace& w) const;
  void split_at_spaces(std::string_view text, Workspace& w) const;
  void encode_word(std::string_view word, Workspace& w) const;
  void normalize(std::string_view text, Workspace& w) const;

  std::unique_ptr<const Model> model_;
  std::vector<std::shared_ptr<const Pattern>> patterns_;
  AddedTokens added_;
  Arena texts_;
  std::vector<bool> is_special_;
  EngineOptions options_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace tokamak::text
