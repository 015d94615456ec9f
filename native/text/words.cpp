#include "text/words.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

StringMap index_all(const Arena& pieces) {
  StringMap map;
  map.reserve(pieces.size());
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    if (!pieces[id].empty()) map.insert(pieces, id);
  }
  return map;
}

size_t count_characters(std::string_view s) {
  size_t count = 0;
  for (const char c : s) count += is_continuation(static_cast<unsigned char>(c)) ? 0 : 1;
  return count;
}

[[noreturn]] void no_unknown_token() {
  throw Error(ErrorKind::tokenizer_file,
              "the text has a word that the vocabulary lacks, and it has no unknown token");
}

// A trie of the pieces that have `prefix`, without it; of equal pieces the first.
DoubleArray trie_of(const Arena& pieces, std::string_view prefix) {
  std::vector<std::pair<std::string_view, int32_t>> keys;
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    const std::string_view piece = pieces[id];
    if (piece.size() <= prefix.size() || !piece.starts_with(prefix)) continue;
    keys.emplace_back(piece.substr(prefix.size()), static_cast<int32_t>(id));
  }
  std::sort(keys.begin(), keys.end());
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  keys.erase(std::unique(keys.begin(), keys.end(), same), keys.end());
  DoubleArray trie;
  trie.build(keys);
  return trie;
}

}  // namespace

WordPieceModel::WordPieceModel(const Arena& pieces, std::string_view start, std::string_view prefix,
                               size_t max_characters, uint32_t unknown_id)
    : starting_(trie_of(pieces, start)),
      continuing_(trie_of(pieces, prefix)),
      num_tokens_(pieces.size()),
      max_characters_(max_characters),
      unknown_id_(unknown_id) {}

void WordPieceModel::encode(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  (void)scratch;
  const size_t ids_before = out.ids.size();
  const size_t lengths_before = out.lengths.size();
  bool fits = word.size() <= max_characters_ || count_characters(word) <= max_characters_;
  for (size_t start = 0; fits && start < word.size();) {
    size_t size = 0;
    uint32_t id = kNone;
    (start == 0 ? starting_ : continuing_)
        .prefixes(word.substr(start), [&](size_t length, int32_t value) {
          const size_t end = start + length;
          const bool inside =
              end < word.size() && is_continuation(static_cast<unsigned char>(word[end]));
          if (inside) return;
          size = length;
          id = static_cast<uint32_t>(value);
        });
    fits = id != kNone;
    if (fits) out.add(id, static_cast<uint32_t>(size));
    start += size;
  }
  if (fits) return;
  out.ids.shrink(ids_before);
  out.lengths.resize(lengths_before);
  if (unknown_id_ == kNone) no_unknown_token();
  out.add(unknown_id_, static_cast<uint32_t>(word.size()));
}

WordLevelModel::WordLevelModel(Arena pieces, uint32_t unknown_id)
    : pieces_(std::move(pieces)), map_(index_all(pieces_)), unknown_id_(unknown_id) {}

void WordLevelModel::encode(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  (void)scratch;
  uint32_t id = map_.find(pieces_, word);
  if (id == kNone) id = unknown_id_;
  if (id == kNone) no_unknown_token();
  out.add(id, static_cast<uint32_t>(word.size()));
}

LongestMatchModel::LongestMatchModel(const Arena& pieces)
    : trie_(trie_of(pieces, {})), num_tokens_(pieces.size()) {}

void LongestMatchModel::encode(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  (void)scratch;
  for (size_t at = 0; at < word.size();) {
    size_t length = 0;
    uint32_t id = kNone;
    trie_.prefixes(word.substr(at), [&](size_t size, int32_t value) {
      length = size;
      id = static_cast<uint32_t>(value);
    });
    if (id == kNone) no_unknown_token();
    out.add(id, static_cast<uint32_t>(length));
    at += length;
  }
}

CharacterBpe::CharacterBpe(Arena pieces, CharacterBpeOptions options)
    : pieces_(std::move(pieces)), map_(index_all(pieces_)), options_(std::move(options)) {
  pairs_.reserve(0);
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (size_t b = 0; b < 256; ++b) {
    byte_ids_[b] = find(std::string("<0x") + kDigits[b >> 4] + kDigits[b & 15] + ">");
  }
}

void CharacterBpe::add_merge(uint32_t left, uint32_t right, Merge merge) {
  pairs_.insert(left, right, merge);
  inner_space_ = inner_space_ || has_inner_space(pieces_[merge.id]);
}

void CharacterBpe::finish() {
  splits_at_spaces_ = !inner_space_ && !options_.whole_words && options_.prefix.empty() &&
                      options_.suffix.empty() && find(kSpaceSymbol) != kNone;
}

bool CharacterBpe::add_bytes(std::string_view s, std::vector<Symbol>& symbols) const {
  const auto missing = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)] == kNone; };
  if (std::any_of(s.begin(), s.end(), missing)) return false;
  for (const char c : s) symbols.push_back({byte_ids_[static_cast<unsigned char>(c)], 1});
  return true;
}

// An unknown character waits until the next known one, or the end; bytes of fallback overtake it.
void CharacterBpe::start_symbols(std::string_view word, ModelScratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  symbols.clear();
  uint32_t waiting = 0;  // bytes of the unknown symbol that waits; 0: none
  for (size_t at = 0; at < word.size();) {
    const uint32_t length = decode_utf8(word.data() + at, word.data() + word.size()).length;
    std::string_view s = word.substr(at, length);
    const bool first = at == 0;
    at += length;
    const bool dressed =
        (!first && !options_.prefix.empty()) || (at == word.size() && !options_.suffix.empty());
    if (dressed) {
      scratch.key.assign(first ? "" : options_.prefix).append(s);
      if (at == word.size()) scratch.key.append(options_.suffix);
      s = scratch.key;
    }
    const uint32_t id = find(s);
    if (id != kNone) {
      if (waiting != 0) symbols.push_back({options_.unknown_id, waiting});
      waiting = 0;
      symbols.push_back({id, length});
      continue;
    }
    if (options_.byte_fallback && add_bytes(s, symbols)) continue;
    if (options_.unknown_id == kNone) continue;
    if (waiting != 0 && !options_.fuse_unknown) {
      symbols.push_back({options_.unknown_id, waiting});
      waiting = 0;
    }
    waiting += length;
  }
  if (waiting != 0) symbols.push_back({options_.unknown_id, waiting});
}

void CharacterBpe::encode(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  if (options_.whole_words) {
    const uint32_t id = find(word);
    if (id != kNone) return out.add(id, static_cast<uint32_t>(word.size()));
  }
  start_symbols(word, scratch);
  merge_symbols(pairs_, scratch.symbols, scratch.merge);
  for (const Symbol& s : scratch.symbols) out.add(s.id, s.length);
}

void WordPieceModel::tables(Archive& archive) {
  archive.value("num_tokens", num_tokens_);
  archive.enter("starting");
  starting_.tables(archive, num_tokens_);
  archive.leave();
  archive.enter("continuing");
  continuing_.tables(archive, num_tokens_);
  archive.leave();
  archive.value("max_characters", max_characters_);
  archive.value("unknown", unknown_id_);
}

void WordLevelModel::tables(Archive& archive) {
  archive.enter("pieces");
  pieces_.tables(archive);
  archive.leave();
  archive.enter("words");
  map_.tables(archive, pieces_);
  archive.leave();
  archive.value("unknown", unknown_id_);
}

void LongestMatchModel::tables(Archive& archive) {
  archive.value("num_tokens", num_tokens_);
  archive.enter("trie");
  trie_.tables(archive, num_tokens_);
  archive.leave();
}

void CharacterBpe::tables(Archive& archive) {
  archive.enter("pieces");
  pieces_.tables(archive);
  archive.leave();
  archive.enter("words");
  map_.tables(archive, pieces_);
  archive.leave();
  archive.enter("pairs");
  pairs_.tables(archive, pieces_.size());
  archive.leave();
  archive.value("byte_ids", byte_ids_);
  archive.flag("splits_at_spaces", splits_at_spaces_);
  if (!archive.reads()) return;
  bool holds = pieces_.size() < PairMap::kMask;
  for (const uint32_t id : byte_ids_) holds = holds && (id == kNone || id < pieces_.size());
  archive.require(holds, "byte_ids");
}

}  // namespace tokamak::text
