#include "text/engine.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "base/error.h"

namespace tokamak::text {

namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581
constexpr size_t kMaxIdle = 64;                            // workspaces kept for later calls

}  // namespace

struct Engine::Workspace {
  explicit Workspace(size_t cache_nbytes) : cache(cache_nbytes) {}
  WordCache cache;
  ModelScratch scratch;
  Tokens tokens;
  std::string normalized;
  std::vector<Span> origin;  // per byte of `normalized`: the input bytes it came from
};

class Engine::Loan {
 public:
  explicit Loan(const Engine& engine) : engine_(engine) {
    const std::lock_guard lock(engine.mutex_);
    if (!engine.idle_.empty()) {
      workspace_ = std::move(engine.idle_.back());
      engine.idle_.pop_back();
    }
    if (!workspace_) workspace_ = std::make_unique<Workspace>(engine.options_.cache_nbytes);
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
  std::unique_ptr<Workspace> workspace_;
};

Engine::Engine(std::unique_ptr<const Model> model,
               std::vector<std::shared_ptr<const Pattern>> patterns, AddedTokens added, Arena texts,
               std::vector<bool> is_special, EngineOptions options)
    : model_(std::move(model)),
      patterns_(std::move(patterns)),
      added_(std::move(added)),
      texts_(std::move(texts)),
      is_special_(std::move(is_special)),
      options_(std::move(options)) {}

Engine::~Engine() = default;

void Engine::encode_word(std::string_view word, Workspace& w) const {
  if (w.tokens.with_lengths || word.size() > WordCache::kMaxWord) {
    model_->encode(word, w.tokens, w.scratch);
    return;
  }
  const WordCache::Key key = WordCache::key_of(word);
  if (w.cache.find(key, w.tokens.ids)) return;
  const size_t before = w.tokens.ids.size();
  model_->encode(word, w.tokens, w.scratch);
  w.cache.insert(key, w.tokens.ids.data() + before, w.tokens.ids.size() - before);
}

// Text that a pattern leaves between its matches is a word too.
void Engine::split(std::string_view text, size_t level, Workspace& w) const {
  if (level == patterns_.size()) {
    if (model_->splits_at_spaces()) return split_at_spaces(text, w);
    return encode_word(text, w);
  }
  const Pattern& pattern = *patterns_[level];
  const char* end = text.data() + text.size();
  const char* gap = text.data();
  const bool last = level + 1 == patterns_.size();
  for (const char* p = gap; p < end;) {
    const char* stop = pattern.match(p, end);
    if (stop == nullptr || stop == p) {
      p += decode_utf8(p, end).length;
      continue;
    }
    if (gap < p) split({gap, static_cast<size_t>(p - gap)}, level + 1, w);
    const std::string_view word(p, static_cast<size_t>(stop - p));
    if (last) {
      encode_word(word, w);
    } else {
      split(word, level + 1, w);
    }
    p = gap = stop;
  }
  if (gap < end) split({gap, static_cast<size_t>(end - gap)}, level + 1, w);
}

// No token has U+2581 after another character, so merges never cross the place before it.
void Engine::split_at_spaces(std::string_view text, Workspace& w) const {
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

namespace {

// Appends to the normalized text and, when spans are wanted, where each byte came from.
class Writer {
 public:
  Writer(std::string& text, std::vector<Span>* origin) : text_(text), origin_(origin) {
    text_.clear();
    if (origin_ != nullptr) origin_->clear();
  }
  void put(std::string_view bytes, size_t start, size_t end) {
    text_.append(bytes);
    if (origin_ != nullptr) {
      origin_->insert(origin_->end(), bytes.size(),
                      {static_cast<int64_t>(start), static_cast<int64_t>(end)});
    }
  }
  void copy(std::string_view input, size_t start, size_t end) {
    text_.append(input.substr(start, end - start));
    for (size_t i = start; origin_ != nullptr && i < end; ++i) {
      origin_->push_back({static_cast<int64_t>(i), static_cast<int64_t>(i + 1)});
    }
  }

 private:
  std::string& text_;
  std::vector<Span>* origin_;
};

// Bytes from `at` that stay as they are.
size_t valid_until(std::string_view text, size_t at) {
  const char* end = text.data() + text.size();
  const char* p = text.data() + at;
  while (p < end) {
    const Character c = decode_utf8(p, end);
    if (!c.valid) break;
    p += c.length;
  }
  return static_cast<size_t>(p - text.data());
}

void replace_invalid(std::string_view text, Writer& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t until = valid_until(text, at);
    out.copy(text, at, until);
    at = until;
    if (at == text.size()) return;
    const auto byte = [&](size_t i) {
      return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
    };
    if (byte(0) == 0xC0 && byte(1) == 0x80) {
      out.put({"\0", 1}, at, at + 2);
      at += 2;
    } else if (byte(0) == 0xED && byte(1) >= 0xA0 && byte(1) < 0xC0 && (byte(2) & 0xC0) == 0x80) {
      out.copy(text, at, at + 3);
      at += 3;
    } else {
      out.put("\xEF\xBF\xBD", at, at + 1);
      at += 1;
    }
  }
}

void mark_spaces(std::string_view text, const EngineOptions& options, Writer& out) {
  const size_t first = options.collapse_spaces ? text.find_first_not_of(' ') : 0;
  if (first == std::string_view::npos) return;
  if (options.prefix_space) out.put(kSpaceSymbol, 0, 0);
  for (size_t at = first; at < text.size();) {
    const size_t space = std::min(text.find(' ', at), text.size());
    out.copy(text, at, space);
    at = space;
    if (at == text.size()) return;
    const size_t next = options.collapse_spaces ? text.find_first_not_of(' ', at) : at + 1;
    if (next == std::string_view::npos) return;
    out.put(kSpaceSymbol, at, next);
    at = next;
  }
}

}  // namespace

void Engine::normalize(std::string_view text, Workspace& w) const {
  Writer out(w.normalized, w.tokens.with_lengths ? &w.origin : nullptr);
  if (options_.space_symbol) {
    mark_spaces(text, options_, out);
  } else {
    replace_invalid(text, out);
  }
}

void Engine::encode_stretch(std::string_view text, size_t origin, Workspace& w,
                            Encoding& out) const {
  const bool changes = options_.space_symbol || (options_.invalid == Invalid::replace &&
                                                 valid_until(text, 0) != text.size());
  std::string_view words = text;
  if (changes) {
    normalize(text, w);
    words = w.normalized;
  }
  w.tokens.ids.swap(out.ids);
  w.tokens.lengths.clear();
  split(words, 0, w);
  w.tokens.ids.swap(out.ids);
  if (!w.tokens.with_lengths) return;
  const size_t first = out.ids.size() - w.tokens.lengths.size();
  size_t at = 0;
  size_t kept = first;
  for (size_t i = 0; i < w.tokens.lengths.size(); ++i) {
    const size_t next = at + w.tokens.lengths[i];
    Span span{static_cast<int64_t>(at), static_cast<int64_t>(next)};
    if (changes) span = {w.origin[at].start, w.origin[next - 1].end};
    at = next;
    if (out.ids[first + i] < 0) continue;  // text that was dropped
    out.ids[kept++] = out.ids[first + i];
    const auto shift = static_cast<int64_t>(origin);
    out.spans.push_back({span.start + shift, span.end + shift});
  }
  out.ids.resize(kept);
}

void Engine::encode(std::string_view text, const EncodeFlags& flags,
                    const std::vector<ByteRange>& plain, Encoding& out) const {
  Loan loan(*this);
  Workspace& w = *loan;
  w.tokens.with_lengths = flags.with_spans;
  const auto put = [&](int32_t id, Span span) {
    out.ids.push_back(id);
    if (flags.with_spans) out.spans.push_back(span);
  };
  if (flags.add_special) {
    for (const int32_t id : options_.prefix) put(id, {0, 0});
  }
  size_t done = 0;
  AddedMatch match{};
  for (size_t at = 0; added_.find(text, at, done, flags.parse_special, plain, match);) {
    if (match.start > done) encode_stretch(text.substr(done, match.start - done), done, w, out);
    put(static_cast<int32_t>(match.id),
        {static_cast<int64_t>(match.start), static_cast<int64_t>(match.end)});
    done = match.end;
    at = match.resume;
  }
  if (done < text.size()) encode_stretch(text.substr(done), done, w, out);
  if (flags.add_special) {
    for (const int32_t id : options_.suffix) put(id, {0, 0});
  }
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
  std::vector<std::jthread> others;
  for (size_t i = 1; i < std::min(threads, texts.size()); ++i) others.emplace_back(work);
  work();
  others.clear();  // joins
  if (failure) std::rethrow_exception(failure);
  return results;
}

void Engine::check_ids(const int32_t* ids, size_t count) const {
  const uint32_t size = vocab_size();
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) bad |= static_cast<uint32_t>(ids[i]) >= size ? 1u : 0u;
  if (bad == 0) return;
  for (size_t i = 0; i < count; ++i) {
    if (static_cast<uint32_t>(ids[i]) < size) continue;
    throw Error(ErrorKind::invalid_params,
                "token id " + std::to_string(ids[i]) + " at index " + std::to_string(i) +
                    " is outside the vocabulary of " + std::to_string(size));
  }
}

std::string Engine::decode(const int32_t* ids, size_t count, bool skip_special,
                           bool strip_space) const {
  check_ids(ids, count);
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    if (skip_special && is_special_[id]) continue;
    out.append(texts_[id]);
  }
  if (strip_space && options_.strip_space && !out.empty() && out[0] == ' ') out.erase(0, 1);
  return out;
}

size_t Engine::nbytes() const {
  const std::lock_guard lock(mutex_);
  return model_->nbytes() + texts_.nbytes() + idle_.size() * options_.cache_nbytes;
}

}  // namespace tokamak::text
