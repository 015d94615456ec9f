// The whole way from bytes of text to token ids and back, of one tokenizer. Immutable once built,
// used from any number of threads; every call borrows a workspace of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "text/added.h"
#include "text/cache.h"
#include "text/decode_table.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalize.h"
#include "text/pattern.h"
#include "text/pretokenize.h"
#include "text/raw_cut.h"
#include "text/unicode.h"

namespace tokamak::text {

struct EngineOptions {
  bool replace_invalid = false;           // bytes that are not UTF-8 become U+FFFD
  bool strip_space = false;               // decoding drops one space at the very start
  bool strip_each = false;                // ... from each token until there is text
  size_t cache_nbytes = size_t{8} << 20;  // per concurrent call
  std::vector<int32_t> prefix;            // ids put before and after with add_special
  std::vector<int32_t> suffix;
  const ClassTable* classes = nullptr;  // of characters; null: those built in
};

// What an engine is made of.
struct EngineParts {
  std::unique_ptr<Model> model;
  std::vector<std::unique_ptr<Normalizer>> normalizers;
  std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers;
  std::vector<std::unique_ptr<Decoder>> decoders;
  AddedTokens added{{}};       // found in the text as it comes
  AddedTokens normalized{{}};  // found after normalizing
  Arena texts;                 // what each id decodes to; the token itself where there are decoders
  std::vector<bool> is_special;  // per id: left out with skip_special
  uint32_t shown_id = kNone;     // the unknown token, if it is shown by its text
  uint32_t surface_id = kNone;   // the unknown token, if it decodes to a text of its own
  std::vector<bool> is_absent;   // per id: no token has it
  std::vector<bool> is_byte;     // per id: stands for one byte of a character that has no token
  bool byte_runs = false;        // a run of such that is not UTF-8 decodes to one U+FFFD per byte
  bool join_with_space = false;  // no decoder: tokens are joined by spaces
  std::unique_ptr<const RawCut> raw_cut;  // where there is one
  EngineOptions options;

  void tables(Archive& archive);
};

// An id whose text is not its token's: an added token with the white space that it took and in
// normalized form, and what a Unigram model does not know.
struct Shown {
  size_t row;
  std::string text;
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<Span> spans;     // only when asked for; (0, 0) for ids that stand for no text
  std::vector<int32_t> words;  // with spans: which piece of pre-tokenizing, counted; -1 outside
  std::vector<Shown> shown;    // with spans: ids that are shown by their text, in order
};

// A piece of pre-tokenizing as the model gets it, or an added token.
struct Word {
  std::string text;
  int32_t id;  // -1: none, `text` is for the model
};

struct EncodeFlags {
  bool add_special = true;
  bool parse_special = false;
  bool with_spans = false;
  bool is_utf8 = false;  // the text is known to be; else it is looked at
};

class Engine {
 public:
  explicit Engine(EngineParts parts);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void encode(std::string_view text, const EncodeFlags& flags, const std::vector<ByteRange>& plain,
              Encoding& out) const;
  // What the model would be asked, in order.
  std::vector<Word> words(std::string_view text, bool parse_special) const;
  // Texts in order, over `threads` threads; one result per text.
  std::vector<std::vector<int32_t>> encode_batch(const std::vector<std::string_view>& texts,
                                                 const EncodeFlags& flags, size_t threads) const;
  // Bytes of the text; as_text: with U+FFFD for runs of byte tokens that are
  // no UTF-8, where decoding says so. Throws InvalidParams
  // with index and value of the first id outside the vocabulary.
  ByteBuffer decode(const int32_t* ids, size_t count, bool skip_special, bool strip_space,
                    bool as_text) const;
  bool is_byte(uint32_t id) const { return parts_.is_byte[id]; }
  void check_ids(const int32_t* ids, size_t count) const;
  // Added tokens that are looked for in normalized text, as they look there.
  const std::vector<AddedToken>& normalized() const { return parts_.normalized.tokens(); }
  std::string_view text_of(uint32_t id) const { return parts_.texts[id]; }
  uint32_t vocab_size() const { return parts_.texts.size(); }
  // Bytes of memory of its own: tables that were built, and caches; not what lies in an image.
  size_t nbytes() const;
  size_t cache_nbytes() const;
  // The arrays that took time to make, for an image.
  void tables(Archive& archive);

 private:
  struct Workspace;
  struct WaitingWord;
  struct WordQueue;
  class Loan;
  void encode_text(std::string_view text, const EncodeFlags& flags,
                   const std::vector<ByteRange>& plain, Workspace& w) const;
  void encode_stretch(std::string_view text, size_t origin, const EncodeFlags& flags,
                      Workspace& w) const;
  void encode_whole(std::string_view text, size_t origin, bool repair, bool parse_special,
                    Workspace& w) const;
  void encode_raw(std::string_view text, bool at_start, bool parse_special, Workspace& w) const;
  void encode_first(std::string_view piece, bool at_start, bool parse_special, Workspace& w) const;
  void encode_new(std::string_view word, Workspace& w) const;
  void encode_inner(std::string_view piece, Workspace& w) const;
  bool encode_plain(std::string_view piece, Workspace& w) const;
  void encode_normalized(std::string_view text, bool at_start, bool parse_special,
                         Workspace& w) const;
  void encode_segment(std::string_view text, size_t at, bool at_start, Workspace& w) const;
  void split(std::string_view text, size_t level, Workspace& w) const;
  const char* queue_block(const Cutter& cutter, const char* p, const char* end, Workspace& w) const;
  void flush(Workspace& w) const;
  bool splits_at_spaces(const Workspace& w) const;
  void split_at_spaces(std::string_view text, Workspace& w) const;
  void encode_word(std::string_view word, Workspace& w) const;
  void run(WordQueue& queue, Workspace& w) const;
  void learn(const WordQueue& queue, size_t from, size_t count, Workspace& w) const;
  void miss(const WaitingWord& word, Workspace& w) const;
  void encode_misses(Workspace& w) const;
  void remember(const WaitingWord& word, const int32_t* ids, size_t count, Workspace& w) const;
  void encode_missed(const WaitingWord& word, Workspace& w) const;
  void encode_rare(const WaitingWord& word, Workspace& w) const;
  void encode_parts(const WaitingWord& word, Workspace& w) const;
  const DecodeTable* decode_table(size_t count) const;
  Arena followers() const;
  size_t decode_start(const int32_t* ids, size_t count, ByteBuffer& out) const;
  void decode_runs(const DecodeTable& table, const int32_t* ids, size_t first, size_t count,
                   ByteBuffer& out) const;
  std::string decode_by_steps(const int32_t* ids, size_t count) const;

  EngineParts parts_;
  std::unique_ptr<Normalizer> replace_invalid_;
  // The pre-tokenizers' patterns, if patterns are all they are: then nothing is copied.
  std::vector<std::shared_ptr<const Pattern>> patterns_;
  bool only_patterns_ = false;
  bool follows_start_ = false;  // words depend on which of them came from the start of the input
  bool cacheable_ = false;
  bool parts_differ_ = false;        // a part of a word may have other ids than the same word
  const RawCut* raw_cut_ = nullptr;  // in use
  mutable std::atomic<size_t> decoded_{0};  // ids so far
  mutable std::once_flag decode_once_;
  mutable std::unique_ptr<const DecodeTable> decode_table_;
  mutable std::atomic<size_t> decode_nbytes_{0};
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace tokamak::text
