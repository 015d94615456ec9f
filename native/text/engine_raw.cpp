// Encoding by pieces of the raw text, which the cache knows; see raw_cut.h.
#include <algorithm>
#include <utility>

#include "text/workspace.h"

namespace tokamak::text {

void Engine::encode_raw(std::string_view text, bool at_start, bool parse_special,
                        Workspace& w) const {
  if (parts_.normalized.any(parse_special)) {  // they are found in the normalized text
    return encode_whole(text, at_start ? 0 : 1, false, parse_special, w);
  }
  const char* p = text.data();
  const char* end = p + text.size();
  if (raw_cut_->first_is_special()) {
    const std::string_view first = text.substr(0, raw_cut_->piece_end(text, 0));
    encode_first(first, at_start, parse_special, w);
    p += first.size();
  }
  w.raw = true;
  w.base = text.data();
  w.readable = end;
  while (p < end) {
    const char* next = queue_block(raw_cut_->cutter(), p, end, w);
    if (next == p) {
      const size_t from = static_cast<size_t>(p - text.data());
      const std::string_view piece = text.substr(from, raw_cut_->piece_end(text, from) - from);
      if (piece.size() <= WordCache::kLongest) {
        if (w.waiting.count == WordQueue::kSize) flush(w);
        w.queue(w.waiting, piece);
      } else {
        flush(w);
        encode_new(piece, w);
      }
      next = p + piece.size();
    }
    p = next;
  }
  flush(w);
  w.raw = false;
}

// The piece that starts a stretch. In the cache it is another word than the same piece inside;
// where the stretch does not start the text, it is not kept.
void Engine::encode_first(std::string_view piece, bool at_start, bool parse_special,
                          Workspace& w) const {
  const bool keep = at_start && piece.size() <= WordCache::kLongest;
  const uint64_t hash = keep ? hash_bytes(piece) ^ WordCache::kPart : 0;
  if (keep && w.cache.find_long(piece, hash, w.tokens.ids)) return;
  const size_t before = w.tokens.ids.size();
  w.cached = false;
  encode_whole(piece, at_start ? 0 : 1, false, parse_special, w);
  w.cached = true;
  if (!keep) return;
  w.cache.insert_long(piece, hash, w.tokens.ids.data() + before, w.tokens.ids.size() - before);
}

// What the cache does not know: a word, or a piece of the raw text.
void Engine::encode_new(std::string_view word, Workspace& w) const {
  if (!w.raw) return parts_.model->encode(word, w.tokens, w.scratch);
  const char* base = std::exchange(w.base, word.data());
  const char* readable = std::exchange(w.readable, word.data() + word.size());
  w.raw = w.cached = false;
  if (!encode_plain(word, w)) encode_inner(word, w);
  w.raw = w.cached = true;
  w.base = base;
  w.readable = readable;
}

// A piece that is not the first of its text, by the whole pipeline.
void Engine::encode_inner(std::string_view piece, Workspace& w) const {
  w.buffer.tracked = false;
  w.buffer.assign(piece, 0);
  for (const auto& n : raw_cut_->inner()) {
    if (!n->keeps(w.buffer.text)) n->apply(w.buffer);
  }
  w.base = w.buffer.text.data();
  w.readable = w.base + w.buffer.text.size();
  encode_segment(w.buffer.text, 0, false, w);
}

// The same for the usual pieces, without the pipeline; false where the piece is none of them.
bool Engine::encode_plain(std::string_view piece, Workspace& w) const {
  const RawCut::Plain plain = raw_cut_->plain();
  if (plain == RawCut::Plain::none) return false;
  std::string& word = w.piece_text;
  if (plain == RawCut::Plain::symbols) {
    if (piece[0] != ' ' || piece.find(' ', 1) != std::string_view::npos) return false;
    word.assign(kSpaceSymbol).append(piece.substr(1));
    if (parts_.model->splits_at_spaces() || word.find(kSpaceSymbol, 3) == std::string::npos) {
      split_at_spaces(word, w);
      return true;
    }
    return false;
  }
  const auto is_white = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!piece.empty() && is_white(piece[0])) piece.remove_prefix(1);
  if (!std::all_of(piece.begin(), piece.end(), [](char c) { return c > ' ' && c < 0x7F; })) {
    return false;
  }
  word.assign(piece);
  if (plain == RawCut::Plain::folded_words) {
    for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  }
  if (!word.empty()) encode_word(word, w);
  return true;
}

}  // namespace tokamak::text
