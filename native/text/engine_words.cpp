// Encoding by words that the cache may know.
#include <algorithm>
#include <utility>

#include "text/workspace.h"

namespace tokamak::text {

// Words wait in a queue while the cache lines that they need are on their way.
void Engine::flush(Workspace& w) const {
  run(w.waiting, w);
  w.cache.grow();  // no slot is waiting now
}

void Engine::run(WordQueue& queue, Workspace& w) const {
  const size_t count = std::exchange(queue.count, 0);
  IdBuffer& ids = w.tokens.ids;
  int32_t* at = ids.room(count * WordCache::kShortIds);
  bool learned = w.raw;
  for (size_t i = 0; i < count; ++i) {
    const WaitingWord& word = queue.words[i];
    w.cache.prefetch(queue.words[i + WordQueue::kAhead].slot);
    const bool is_short = word.size <= WordCache::kShort;
    size_t known = is_short ? w.cache.find(word.key, word.slot, at) : 0;
    if (known == 0 && !learned && (is_short || !w.cache.has_long(word.key.low))) {
      learned = true;
      learn(queue, i, count, w);
      known = is_short ? w.cache.find(word.key, word.slot, at) : 0;
    }
    if (known - 1 < WordCache::kShortIds) {
      at += known;
      continue;
    }
    ids.shrink(static_cast<size_t>(at - ids.data()));
    if (is_short) {
      if (known == 0 || !w.cache.copy_many(at, ids)) encode_missed(word, w);
    } else {
      encode_rare(word, w);
    }
    at = ids.room((count - i) * WordCache::kShortIds);
  }
  ids.shrink(static_cast<size_t>(at - ids.data()));
}

// Takes what is new of a queue into the cache: words, and the parts of long ones.
void Engine::learn(const WordQueue& queue, size_t from, size_t count, Workspace& w) const {
  for (size_t i = from; i < count; ++i) {
    const WaitingWord& word = queue.words[i];
    if (word.size <= WordCache::kShort) {
      miss(word, w);
      continue;
    }
    if (word.size > WordCache::kLong || w.cache.has_long(word.key.low)) continue;
    for (std::string_view rest = word.text(); !rest.empty();) {
      const size_t cut = parts_.model->first_cut(rest);
      WaitingWord part = word;
      if (cut < word.size) w.place(rest.substr(0, cut), parts_differ_, part);
      miss(part, w);
      rest.remove_prefix(cut);
    }
  }
  encode_misses(w);
}

void Engine::miss(const WaitingWord& word, Workspace& w) const {
  if (word.size > ShortWord::kMostBytes) return;
  if (word.size <= WordCache::kShort) {
    if (w.cache.has(word.key, word.slot)) return;
    w.cache.mark(word.key, word.slot);  // it is not to come twice
  }
  if (w.num_missed == w.missed.size()) encode_misses(w);
  w.missed_at[w.num_missed] = word;
  ShortWord& to_encode = w.missed[w.num_missed++];
  to_encode.start = word.start;
  to_encode.size = word.size;
  to_encode.part = word.part();
}

void Engine::encode_misses(Workspace& w) const {
  const size_t count = std::exchange(w.num_missed, 0);
  parts_.model->encode_many(w.missed.data(), count, w.scratch);
  for (size_t i = 0; i < count; ++i) {
    const ShortWord& word = w.missed[i];
    if (word.count != 0) remember(w.missed_at[i], word.ids, word.count, w);
  }
}

void Engine::remember(const WaitingWord& word, const int32_t* ids, size_t count,
                      Workspace& w) const {
  if (word.size <= WordCache::kShort) return w.cache.insert(word.key, word.slot, ids, count);
  w.cache.insert_long(word.text(), word.key.low, ids, count);
}

// A short word that is new.
void Engine::encode_missed(const WaitingWord& word, Workspace& w) const {
  const size_t before = w.tokens.ids.size();
  encode_parts(word, w);
  remember(word, w.tokens.ids.data() + before, w.tokens.ids.size() - before, w);
}

// A long word.
void Engine::encode_rare(const WaitingWord& word, Workspace& w) const {
  if (word.size > WordCache::kLongest) return encode_parts(word, w);
  if (w.cache.find_long(word.text(), word.key.low, w.tokens.ids)) return;
  const size_t before = w.tokens.ids.size();
  encode_parts(word, w);
  remember(word, w.tokens.ids.data() + before, w.tokens.ids.size() - before, w);
}

// A long word by the parts that no token joins.
void Engine::encode_parts(const WaitingWord& word, Workspace& w) const {
  std::string_view rest = word.text();
  if (word.part()) return parts_.model->encode_part(rest, w.tokens, w.scratch);
  const bool whole = w.raw || word.size <= WordCache::kShort;
  size_t cut = whole ? rest.size() : parts_.model->first_cut(rest);
  if (cut == rest.size()) return encode_new(rest, w);
  while (!rest.empty()) {
    if (w.parts.count == WordQueue::kSize) run(w.parts, w);
    w.queue(w.parts, rest.substr(0, cut), parts_differ_);
    rest.remove_prefix(cut);
    cut = parts_.model->first_cut(rest);
  }
  run(w.parts, w);
}

}  // namespace tokamak::text
