// What one call of an engine works with; kept for the next call.
#pragma once

#include <array>
#include <vector>

#include "text/cutter.h"
#include "text/engine.h"

namespace tokamak::text {

struct Engine::WaitingWord {
  WordCache::Key key;  // of a long word: its hash in the low half
  const char* start;
  uint32_t size, slot;
  // Whether it is a part of a word, where words may have other ids.
  bool part() const { return (key.high & WordCache::kPart) != 0; }

  std::string_view text() const { return {start, size}; }
};

struct Engine::WordQueue {
  static constexpr size_t kSize = 8 * Cutter::kBlock;  // many new words wait together
  static constexpr size_t kAhead = 8;  // a set that was asked for long ago is asked for again
  std::array<WaitingWord, kSize + kAhead> words{};
  size_t count = 0;
};

struct Engine::Workspace {
  explicit Workspace(size_t cache_nbytes) : cache(cache_nbytes) {}

  WordCache cache;
  ModelScratch scratch;
  Tokens tokens;
  std::vector<Span> spans;
  std::vector<int32_t> words;  // with spans: the piece of each token
  std::vector<Shown> shown;
  int32_t piece = -1;                  // the one at hand
  std::vector<Word>* taken = nullptr;  // where pieces go instead of to the model, if anywhere
  Buffer buffer;                       // the normalized text of a stretch
  Buffer segment;                      // a part of it on its way through pre-tokenizers

  // Where words lie: `base` is the start of the text they are cut from, `origin` the input bytes of
  // each of its bytes, or null where that is `shift` plus the place in the text.
  const char* base = nullptr;
  const char* readable = nullptr;  // end of the memory that words lie in
  const Span* origin = nullptr;
  int64_t shift = 0;

  WordQueue waiting;
  WordQueue parts;  // of a long word
  // Words that the cache lacks, to be encoded together.
  std::array<ShortWord, WordQueue::kSize> missed;
  std::array<WaitingWord, WordQueue::kSize> missed_at;
  size_t num_missed = 0;

  std::string piece_text;  // a raw piece as the model gets it
  bool cached = false;     // words go through the cache
  bool raw = false;        // ... and are pieces of the raw text

  // At the start of a call; an exception may have ended the last one anywhere.
  void begin(bool with_cache) {
    cached = with_cache;
    raw = false;
    waiting.count = parts.count = num_missed = 0;
    taken = nullptr;
  }

  void queue(WordQueue& queue, std::string_view word, bool part = false) {
    place(word, part, queue.words[queue.count++]);
  }
  // Fills `at` and asks for the memory of the cache where the word may be.
  void place(std::string_view word, bool part, WaitingWord& at) const {
    at.start = word.data();
    at.size = static_cast<uint32_t>(word.size());
    const uint64_t kind = part ? WordCache::kPart : 0;
    if (word.size() > WordCache::kShort) {
      at.key = {hash_bytes(word) ^ kind, kind};
      cache.prefetch_long(at.key.low);
      return;
    }
    at.key = WordCache::key_of(word.data(), word.size(), readable);
    at.key.high |= kind;
    at.slot = static_cast<uint32_t>(cache.slot_of(at.key));
    cache.prefetch(at.slot);
  }

  // in_text: it is a piece of the text, not put around it.
  void put(uint32_t id, Span span, bool in_text, std::string_view text = {}) {
    if (taken != nullptr) return taken->push_back({{}, static_cast<int32_t>(id)});
    tokens.ids.push_back(static_cast<int32_t>(id));
    if (!tokens.with_lengths) return;
    spans.push_back(span);
    if (!text.empty()) shown.push_back({words.size(), std::string(text)});
    words.push_back(in_text ? ++piece : -1);
  }
  Span span_of(size_t start, size_t end) const {
    if (origin != nullptr) {
      return start < end ? Span{origin[start].start, origin[end - 1].end} : Span{};
    }
    return {shift + static_cast<int64_t>(start), shift + static_cast<int64_t>(end)};
  }
};

}  // namespace tokamak::text
