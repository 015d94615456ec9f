#include "text/engine.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <exception>
#include <utility>

#include "base/error.h"
#include "text/crew.h"
#include "text/workspace.h"

namespace tokamak::text {

namespace {

constexpr size_t kMaxIdle = 64;  // workspaces kept for later calls

}  // namespace

class Engine::Loan {
 public:
  explicit Loan(const Engine& engine) : engine_(engine), unicode_(engine.parts_.options.classes) {
    const std::lock_guard lock(engine.mutex_);
    if (!engine.idle_.empty()) {
      workspace_ = std::move(engine.idle_.back());
      engine.idle_.pop_back();
    }
    if (!workspace_) workspace_ = std::make_unique<Workspace>(engine.parts_.options.cache_nbytes);
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  ~Loan() {
    const std::lock_guard lock(engine_.mutex_);
    if (engine_.idle_.size() < kMaxIdle) engine_.idle_.push_back(std::move(workspace_));
  }
  Workspace& operator*() { return *workspace_; }

 private:
  const Engine& engine_;
  UnicodeScope unicode_;
  std::unique_ptr<Workspace> workspace_;
};

Engine::Engine(EngineParts parts) : parts_(std::move(parts)) {
  if (parts_.options.replace_invalid) replace_invalid_ = make_replace_invalid();
  parts_.texts.pad();
  cacheable_ = parts_.model->cacheable();
  parts_differ_ = parts_.model->knows_whole_words();
  if (cacheable_) raw_cut_ = parts_.raw_cut.get();
  only_patterns_ = true;
  bool alone = parts_.normalizers.empty();  // the piece at the start of the text is the first
  for (const auto& step : parts_.pre_tokenizers) {
    follows_start_ = follows_start_ || (step->marks_first() && !alone);
    alone = false;
    const auto pattern = step->isolated_pattern();
    only_patterns_ = only_patterns_ && pattern != nullptr;
    patterns_.push_back(pattern);
  }
}

Engine::~Engine() = default;

void Engine::encode_word(std::string_view word, Workspace& w) const {
  if (w.taken != nullptr) return w.taken->push_back({std::string(word), -1});
  const size_t before = w.tokens.ids.size();
  if (w.tokens.with_lengths) {
    w.tokens.lengths.clear();
    parts_.model->encode(word, w.tokens, w.scratch);
    auto at = static_cast<size_t>(word.data() - w.base);
    const size_t end = at + word.size();  // bytes of a prefix that fall back are not of the word
    size_t kept = before;
    for (size_t i = 0; i < w.tokens.lengths.size(); ++i) {
      const size_t next = std::min(end, at + (w.tokens.lengths[i] & ~Tokens::kShared));
      const int32_t id = w.tokens.ids[before + i];
      if (id >= 0) {  // below 0: text that was dropped
        w.tokens.ids[kept++] = id;
        w.spans.push_back(w.span_of(at, next));
        if (static_cast<uint32_t>(id) == parts_.shown_id) {
          w.shown.push_back({w.words.size(), std::string(w.base + at, next - at)});
        }
        w.words.push_back(w.piece);
      }
      if ((w.tokens.lengths[i] & Tokens::kShared) == 0) at = next;
    }
    w.tokens.ids.shrink(kept);
    return;
  }
  if (!w.cached) return parts_.model->encode(word, w.tokens, w.scratch);
  WaitingWord at;
  w.place(word, false, at);
  if (word.size() > WordCache::kShort) return encode_rare(at, w);
  int32_t* room = w.tokens.ids.room(WordCache::kShortIds);
  const size_t known = w.cache.find(at.key, at.slot, room);
  if (known - 1 < WordCache::kShortIds) return w.tokens.ids.add(known);
  if (known == 0 || !w.cache.copy_many(room, w.tokens.ids)) encode_missed(at, w);
}

// Queues the words of a block and returns where the next one starts; p where there are none.
const char* Engine::queue_block(const Cutter& cutter, const char* p, const char* end,
                                Workspace& w) const {
  uint64_t starts = cutter.starts(p, end);
  if ((starts & (starts - 1)) == 0) return p;
  if (w.waiting.count > WordQueue::kSize - Cutter::kBlock) flush(w);
  auto at = static_cast<size_t>(std::countr_zero(starts));
  for (starts &= starts - 1; starts != 0; starts &= starts - 1) {
    const auto next = static_cast<size_t>(std::countr_zero(starts));
    w.queue(w.waiting, {p + at, next - at});
    at = next;
  }
  return p + at;
}

// Text that a pattern leaves between its matches is a word too.
void Engine::split(std::string_view text, size_t level, Workspace& w) const {
  if (level == patterns_.size()) {
    ++w.piece;
    if (splits_at_spaces(w)) return split_at_spaces(text, w);
    return encode_word(text, w);
  }
  const Pattern& pattern = *patterns_[level];
  const char* end = text.data() + text.size();
  const char* gap = text.data();
  const bool last = level + 1 == patterns_.size();
  const bool batched = last && w.cached;
  const Cutter* cutter = batched ? pattern.cutter() : nullptr;
  for (const char* p = gap; p < end;) {
    if (cutter != nullptr) {
      const char* from = p;
      p = queue_block(*cutter, p, end, w);
      gap = p;
      if (p != from) continue;
    }
    const char* stop = pattern.match(p, end);
    if (stop == nullptr || stop == p) {
      p += decode_utf8(p, end).length;
      continue;
    }
    if (gap < p) {
      flush(w);
      split({gap, static_cast<size_t>(p - gap)}, level + 1, w);
    }
    const std::string_view word(p, static_cast<size_t>(stop - p));
    if (!last) {
      split(word, level + 1, w);
    } else if (batched) {
      w.queue(w.waiting, word);
      if (w.waiting.count == WordQueue::kSize) flush(w);
    } else {
      ++w.piece;
      encode_word(word, w);
    }
    p = gap = stop;
  }
  flush(w);
  if (gap < end) split({gap, static_cast<size_t>(end - gap)}, level + 1, w);
}

// Not where spans are asked for: those after text that the model drops lie as much too low, within
// a word.
bool Engine::splits_at_spaces(const Workspace& w) const {
  return parts_.model->splits_at_spaces() && !w.tokens.with_lengths;
}

// No token has U+2581 after another character, so merges never cross the place before it.
void Engine::split_at_spaces(std::string_view text, Workspace& w) const {
  if (w.taken != nullptr) return encode_word(text, w);
  size_t start = 0;
  for (size_t at = text.find(kSpaceSymbol); at != std::string_view::npos;) {
    const bool run = at >= start + 3 && text.substr(at - 3, 3) == kSpaceSymbol;
    if (at > start && !run) {
      encode_word(text.substr(start, at - start), w);
      start = at;
    }
    at = text.find(kSpaceSymbol, at + 3);
  }
  if (start < text.size()) encode_word(text.substr(start), w);
}

// One stretch of normalized text without added tokens; `at` is its place in w.base.
void Engine::encode_segment(std::string_view text, size_t at, bool at_start, Workspace& w) const {
  if (text.empty()) return;
  if (only_patterns_) return split(text, 0, w);
  const char* outer_base = w.base;
  const char* outer_readable = w.readable;
  const Span* outer_origin = w.origin;
  Buffer& buffer = w.segment;
  buffer.tracked = w.tokens.with_lengths || (follows_start_ && at_start);
  buffer.assign(text, w.shift + static_cast<int64_t>(at));
  if (buffer.tracked && w.origin != nullptr) {
    buffer.origin.assign(w.origin + at, w.origin + at + text.size());
  }
  Pieces pieces{buffer, {{0, text.size()}}, at_start};
  for (const auto& step : parts_.pre_tokenizers) step->apply(pieces);
  w.base = buffer.text.data();
  w.readable = w.base + buffer.text.size();
  w.origin = buffer.tracked ? buffer.origin.data() : nullptr;
  for (const Piece& p : pieces.list) {
    const std::string_view word = std::string_view(buffer.text).substr(p.start, p.end - p.start);
    ++w.piece;
    if (splits_at_spaces(w)) {
      split_at_spaces(word, w);
    } else {
      encode_word(word, w);
    }
  }
  w.base = outer_base;
  w.readable = outer_readable;
  w.origin = outer_origin;
}

void Engine::encode_normalized(std::string_view text, bool at_start, bool parse_special,
                               Workspace& w) const {
  size_t done = 0;
  AddedMatch match{};
  for (size_t at = 0; parts_.normalized.find(text, at, done, parse_special, {}, match);) {
    if (match.start > done) {
      encode_segment(text.substr(done, match.start - done), done, at_start && done == 0, w);
    }
    const std::string_view token = text.substr(match.start, match.end - match.start);
    w.put(match.id, w.tokens.with_lengths ? w.span_of(match.start, match.end) : Span{}, true,
          token);
    done = match.end;
    at = match.resume;
  }
  encode_segment(text.substr(std::min(done, text.size())), done, at_start && done == 0, w);
}

// One stretch of the input between added tokens; `origin` is its place there.
void Engine::encode_stretch(std::string_view text, size_t origin, const EncodeFlags& flags,
                            Workspace& w) const {
  const bool repair = replace_invalid_ && !flags.is_utf8 && !replace_invalid_->keeps(text);
  if (raw_cut_ && !repair && w.cached) {
    w.shift = static_cast<int64_t>(origin);
    w.origin = nullptr;
    return encode_raw(text, origin == 0, flags.parse_special, w);
  }
  encode_whole(text, origin, repair, flags.parse_special, w);
}

// The same, all of it at once.
void Engine::encode_whole(std::string_view text, size_t origin, bool repair, bool parse_special,
                          Workspace& w) const {
  const bool keeps = std::all_of(parts_.normalizers.begin(), parts_.normalizers.end(),
                                 [text](const auto& n) { return n->keeps(text); });
  w.shift = static_cast<int64_t>(origin);
  w.origin = nullptr;
  if (repair || !keeps) {
    w.buffer.tracked = w.tokens.with_lengths || (follows_start_ && origin == 0);
    w.buffer.assign(text, w.shift);
    if (repair) replace_invalid_->apply(w.buffer);
    for (const auto& n : parts_.normalizers) {
      if (!n->keeps(w.buffer.text)) n->apply(w.buffer);
    }
    text = w.buffer.text;
    if (w.buffer.tracked) w.origin = w.buffer.origin.data();
  }
  w.base = text.data();
  w.readable = text.data() + text.size();
  encode_normalized(text, origin == 0, parse_special, w);
}

void Engine::encode_text(std::string_view text, const EncodeFlags& flags,
                         const std::vector<ByteRange>& plain, Workspace& w) const {
  size_t done = 0;
  AddedMatch match{};
  for (size_t at = 0; parts_.added.find(text, at, done, flags.parse_special, plain, match);) {
    if (match.start > done) {
      encode_stretch(text.substr(done, match.start - done), done, flags, w);
    }
    w.put(match.id, {static_cast<int64_t>(match.start), static_cast<int64_t>(match.end)}, true,
          text.substr(match.start, match.end - match.start));
    done = match.end;
    at = match.resume;
  }
  if (done < text.size()) encode_stretch(text.substr(done), done, flags, w);
}

void Engine::encode(std::string_view text, const EncodeFlags& flags,
                    const std::vector<ByteRange>& plain, Encoding& out) const {
  Loan loan(*this);
  Workspace& w = *loan;
  w.tokens.with_lengths = flags.with_spans;
  w.tokens.ids.clear();
  w.spans.clear();
  w.words.clear();
  w.shown.clear();
  w.piece = -1;
  w.begin(cacheable_ && !flags.with_spans);
  if (flags.add_special) {
    for (const int32_t id : parts_.options.prefix) w.put(static_cast<uint32_t>(id), {}, false);
  }
  encode_text(text, flags, plain, w);
  if (flags.add_special) {
    for (const int32_t id : parts_.options.suffix) w.put(static_cast<uint32_t>(id), {}, false);
  }
  out.ids.assign(w.tokens.ids.data(), w.tokens.ids.data() + w.tokens.ids.size());
  out.spans = w.spans;
  out.words = w.words;
  out.shown = w.shown;
}

std::vector<Word> Engine::words(std::string_view text, bool parse_special) const {
  Loan loan(*this);
  Workspace& w = *loan;
  std::vector<Word> found;
  w.begin(false);
  w.tokens.with_lengths = true;
  w.taken = &found;
  encode_text(text, {false, parse_special, true, false}, {}, w);
  w.taken = nullptr;
  return found;
}

std::vector<std::vector<int32_t>> Engine::encode_batch(const std::vector<std::string_view>& texts,
                                                       const EncodeFlags& flags,
                                                       size_t threads) const {
  std::vector<std::vector<int32_t>> results(texts.size());
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&]() {
    try {
      for (size_t i = next++; i < texts.size(); i = next++) {
        Encoding encoding;
        encode(texts[i], flags, {}, encoding);
        results[i] = std::move(encoding.ids);
      }
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  Crew::current().run(std::min(threads, texts.size()), work);
  if (failure) std::rethrow_exception(failure);
  return results;
}

size_t Engine::nbytes() const {
  return parts_.model->nbytes() + parts_.texts.nbytes() + decode_nbytes_ + cache_nbytes();
}

size_t Engine::cache_nbytes() const {
  const std::lock_guard lock(mutex_);
  return idle_.size() * parts_.options.cache_nbytes;
}

void Engine::tables(Archive& archive) { parts_.tables(archive); }

void EngineParts::tables(Archive& archive) {
  archive.enter("model");
  model->tables(archive);
  archive.leave();
  archive.enter("texts");
  texts.tables(archive);
  archive.leave();
}

}  // namespace tokamak::text
