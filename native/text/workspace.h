// What one call of an engine works with; kept for the next call.
#pragma once

#include <array>
#include <vector>

#include "text/cutter.h"
#include "text/engine.h"

namespace tokamak::text {

struct Engine::Workspace {
  explicit Workspace(size_t cache_nbytes) : cache(cache_nbytes) {}

  WordCache cache;
  ModelScratch scratch;
  Tokens tokens;
  std::vector<Span> spans;
  std::vector<int32_t> words;          // with spans: the piece of each token
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

  struct Waiting {
    WordCache::Key key;
    const char* start;
    uint32_t size, slot;
  };
  static constexpr size_t kQueue =
      2 * Cutter::kBlock;  // a block more may come when half are waiting
  std::array<Waiting, kQueue> waiting;
  size_t queued = 0;

  std::string piece_text;  // a raw piece as the model gets it
  bool cached = false;     // words go through the cache
  bool raw = false;        // ... and are pieces of the raw text

  // At the start of a call; an exception may have ended the last one anywhere.
  void begin(bool with_cache) {
    cached = with_cache;
    raw = false;
    queued = 0;
    taken = nullptr;
  }

  void queue(std::string_view word) {
    Waiting& next = waiting[queued++];
    next.start = word.data();
    next.size = static_cast<uint32_t>(word.size());  // at most kLong
    if (word.size() > WordCache::kShort) return;
    next.key = WordCache::key_of(word.data(), word.size(), readable);
    next.slot = static_cast<uint32_t>(cache.slot_of(next.key));
    cache.prefetch(next.slot);
  }

  // in_text: it is a piece of the text, not put around it.
  void put(uint32_t id, Span span, bool in_text) {
    if (taken != nullptr) return taken->push_back({{}, static_cast<int32_t>(id)});
    tokens.ids.push_back(static_cast<int32_t>(id));
    if (!tokens.with_lengths) return;
    spans.push_back(span);
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
