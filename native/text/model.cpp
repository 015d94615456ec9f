#include "text/model.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

constexpr size_t kManyWords = 64;  // that are looked up together

}  // namespace

bool has_inner_space(std::string_view piece) {
  for (size_t at = piece.find(kSpaceSymbol); at != std::string_view::npos;
       at = piece.find(kSpaceSymbol, at + 3)) {
    if (at >= 3 && piece.substr(at - 3, 3) == kSpaceSymbol) continue;
    if (at > 0) return true;
  }
  return false;
}

MergeModel::MergeModel(Arena pieces, const std::vector<uint32_t>& lookup, MergeOptions options)
    : pieces_(std::move(pieces)), num_tokens_(pieces_.size()), options_(options) {
  size_t characters = 0;
  if (!options_.byte_symbols) {
    for (const uint32_t id : lookup) characters += pieces_[id].size();
  }
  map_.reserve(lookup.size() + std::min<size_t>(characters, kEndOfText));
  pairs_.reserve(0);
  std::vector<uint32_t> ids(lookup);
  for (uint32_t& id : ids) {
    if (pieces_[id].empty()) id = kNone;
  }
  unique_ = map_.insert_all(pieces_, ids);
}

void MergeModel::learn_characters(std::string_view piece) {
  const std::string copy(piece);  // the arena may move while it grows
  for (const char* p = copy.data(); p < copy.data() + copy.size();) {
    const Character c = decode_utf8(p, copy.data() + copy.size());
    if (map_.find(pieces_, {p, c.length}) == kNone)
      map_.insert(pieces_, pieces_.add({p, c.length}));
    p += c.length;
  }
}

void MergeModel::add_merges_by_score(const std::vector<uint32_t>& mergeable,
                                     const std::vector<double>& scores) {
  splits_at_spaces_ = !options_.byte_symbols;
  for (const uint32_t id : mergeable) {
    if (!options_.byte_symbols) learn_characters(pieces_[id]);
    splits_at_spaces_ = splits_at_spaces_ && !has_inner_space(pieces_[id]);
  }
  if (pieces_.size() >= PairMap::kMask) {
    throw Error(ErrorKind::tokenizer_file, "there are too many tokens and characters to merge");
  }
  std::vector<double> order;
  for (const uint32_t id : mergeable) order.push_back(scores[id]);
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  struct Found {
    uint32_t left, right, rank, id;
  };
  std::vector<Found> found;
  for (const uint32_t id : mergeable) {
    const std::string_view piece = pieces_[id];
    if (map_.find(pieces_, piece) != id) continue;  // an equal piece came first
    const auto rank = static_cast<uint32_t>(
        std::lower_bound(order.begin(), order.end(), scores[id], std::greater<>()) - order.begin());
    for (size_t cut = 0; cut < piece.size();) {
      cut += options_.byte_symbols
                 ? 1
                 : decode_utf8(piece.data() + cut, piece.data() + piece.size()).length;
      if (cut >= piece.size()) break;
      const uint32_t left = find(piece.substr(0, cut));
      const uint32_t right = left == kNone ? kNone : find(piece.substr(cut));
      if (right != kNone) found.push_back({left, right, rank, id});
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Found& a, const Found& b) { return a.rank < b.rank; });
  pairs_.reserve(found.size());
  for (const Found& f : found) pairs_.insert(f.left, f.right, {f.rank, f.id});
}

void MergeModel::finish() {
  if (!options_.byte_symbols) return;
  byte_pairs_.assign(size_t{256} * 256, kNone);
  for (size_t a = 0; a < 256; ++a) {
    for (size_t b = 0; b < 256; ++b) {
      const uint32_t left = options_.byte_ids[a];
      const uint32_t right = options_.byte_ids[b];
      if (left != kNone && right != kNone) byte_pairs_.at(a << 8 | b) = pairs_.place(left, right);
    }
  }
  for (uint32_t id = 0; id < num_tokens_; ++id) seams_.add(pieces_[id]);
  seams_.finish();
  short_words_ = merges_short();
}

size_t MergeModel::first_cut(std::string_view word) const {
  return seams_.empty() ? word.size() : seams_.first_cut(word);
}

void MergeModel::tables(Archive& archive) {
  archive.enter("pieces");
  pieces_.tables(archive);
  archive.leave();
  archive.enter("words");
  map_.tables(archive, pieces_);
  archive.leave();
  archive.enter("pairs");
  pairs_.tables(archive, pieces_.size());
  archive.leave();
  archive.enter("seams");
  seams_.tables(archive);
  archive.leave();
  archive.table("byte_pairs", byte_pairs_);
  archive.value("byte_ids", options_.byte_ids);
  archive.value("num_tokens", num_tokens_);
  archive.flag("splits_at_spaces", splits_at_spaces_);
  if (!archive.reads()) return;
  bool holds = num_tokens_ <= pieces_.size() && pieces_.size() < PairMap::kMask;
  for (const uint32_t id : options_.byte_ids) holds = holds && (id == kNone || id < pieces_.size());
  holds = holds && byte_pairs_.size() == (options_.byte_symbols ? size_t{256} * 256 : 0);
  uint32_t last = 0;  // counted from 1
  for (const uint32_t p : byte_pairs_) last = std::max(last, p + 1);
  holds = holds && last <= pairs_.size();
  archive.require(holds, "byte_ids");
  short_words_ = merges_short();
}

size_t MergeModel::nbytes() const {
  return pieces_.nbytes() + map_.nbytes() + pairs_.nbytes() + seams_.nbytes() +
         byte_pairs_.nbytes();
}

void MergeModel::start_bytes(std::string_view word, ModelScratch& scratch) const {
  const size_t n = word.size();
  scratch.symbols.resize(n);
  const auto* bytes = reinterpret_cast<const unsigned char*>(word.data());
  for (size_t i = 0; i < n; ++i) scratch.symbols[i] = {options_.byte_ids[bytes[i]], 1};
  if (n > kFewSymbols) return;
  for (size_t i = 0; i + 1 < n; ++i) {
    const size_t pair = static_cast<size_t>(bytes[i]) << 8 | bytes[i + 1];
    scratch.merge.keys[i] = key_of_pair(byte_pairs_[pair], i);
  }
}

void MergeModel::start_characters(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  const char* end = word.data() + word.size();
  for (const char* p = word.data(); p < end;) {
    const uint32_t length = decode_utf8(p, end).length;
    symbols.push_back({find({p, length}), length});
    p += length;
  }
}

void MergeModel::encode(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  if (word.empty()) return;
  if (options_.whole_words) {
    const uint32_t id = find(word);
    if (id < num_tokens_) return out.add(id, static_cast<uint32_t>(word.size()));
  }
  encode_part(word, out, scratch);
}

void MergeModel::encode_part(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  if (options_.byte_symbols) {
    start_bytes(word, scratch);
  } else {
    start_characters(word, scratch.symbols);
  }
  merge_symbols(pairs_, scratch.symbols, scratch.merge, options_.byte_symbols);
  size_t at = 0;
  bool previous_unknown = false;
  for (const Symbol& s : scratch.symbols) {
    if (s.id < num_tokens_) {
      out.add(s.id, s.length);
      previous_unknown = false;
    } else {
      add_unknown(word.substr(at, s.length), out, previous_unknown);
    }
    at += s.length;
  }
}

// Whether every byte is a token, so that no word has anything unknown.
bool MergeModel::merges_short() const {
  const auto& ids = options_.byte_ids;
  return options_.byte_symbols && pairs_.ordered() &&
         std::none_of(ids.begin(), ids.end(), [this](uint32_t id) { return id >= num_tokens_; });
}

void MergeModel::start_short(const ShortWord& word, ShortMerge& out) const {
  const auto* bytes = reinterpret_cast<const unsigned char*>(word.start);
  out.made[0] = out.made[1] = {kShortSymbols - 1, PairMap::kMask, PairMap::kMask};
  out.alive = static_cast<uint32_t>((uint64_t{1} << word.size) - 1);
  out.padded = std::max<uint32_t>((word.size + 6) / 8 * 8, 8);
  for (size_t i = 0; i < out.padded; ++i) out.keys[i] = kNoKey;
  for (size_t i = 0; i < word.size; ++i) {
    out.ids[i] = options_.byte_ids[bytes[i]];
    if (i == 0) continue;
    const size_t pair = static_cast<size_t>(bytes[i - 1]) << 8 | bytes[i];
    out.keys[i - 1] = key_of_pair(byte_pairs_[pair], i - 1);
  }
}

// Words that are tokens; count is 0 of the others. Each step of all before the next: the memory
// that they need is on its way together.
void MergeModel::find_many(ShortWord* words, size_t count) const {
  uint64_t hashes[kManyWords];
  for (size_t from = 0; from < count; from += kManyWords) {
    const size_t n = std::min(count - from, kManyWords);
    ShortWord* part = words + from;
    for (size_t i = 0; i < n; ++i) {
      hashes[i] = hash_bytes({part[i].start, part[i].size});
      if (!part[i].part) map_.prefetch(hashes[i]);
    }
    const auto each = [&](auto&& step) {
      for (size_t i = 0; i < n; ++i) {
        if (!part[i].part) step(part[i], hashes[i]);
      }
    };
    each([&](const ShortWord&, uint64_t hash) { map_.prefetch_place(pieces_, hash); });
    each([&](const ShortWord&, uint64_t hash) { map_.prefetch_bytes(pieces_, hash); });
    for (size_t i = 0; i < n; ++i) part[i].count = 0;
    each([&](ShortWord& word, uint64_t hash) {
      const uint32_t id = map_.find(pieces_, {word.start, word.size}, hash);
      word.count = id < num_tokens_ ? 1 : 0;
      word.ids[0] = static_cast<int32_t>(id);
    });
  }
}

void MergeModel::encode_many(ShortWord* words, size_t count, ModelScratch& scratch) const {
  if (!short_words_) return Model::encode_many(words, count, scratch);
  if (options_.whole_words) find_many(words, count);
  ShortWord* waiting[ModelScratch::kTogether];
  for (size_t i = 0; i < count;) {
    size_t n = 0;
    for (; i < count && n < ModelScratch::kTogether; ++i) {
      if (options_.whole_words && words[i].count != 0) continue;
      start_short(words[i], scratch.short_words[n]);
      waiting[n++] = &words[i];
    }
    merge_short(pairs_, scratch.short_words, n);
    for (size_t k = 0; k < n; ++k) {
      const ShortMerge& m = scratch.short_words[k];
      uint32_t kept = 0;
      for (uint32_t alive = m.alive; alive != 0; alive &= alive - 1) {
        waiting[k]->ids[kept++] = static_cast<int32_t>(m.ids[std::countr_zero(alive)]);
      }
      waiting[k]->count = kept;
    }
  }
}

void MergeModel::add_unknown(std::string_view bytes, Tokens& out, bool& previous_unknown) const {
  const auto byte_id = [this](char c) { return options_.byte_ids[static_cast<unsigned char>(c)]; };
  const bool fallback =
      !options_.byte_symbols &&
      std::none_of(bytes.begin(), bytes.end(), [&](char c) { return byte_id(c) == kNone; });
  if (fallback) {
    for (const char c : bytes) out.add(byte_id(c), 1);
    previous_unknown = false;
    return;
  }
  const auto length = static_cast<uint32_t>(bytes.size());
  if (options_.unknown_id == kNone) {
    // Dropped; its bytes still count for the spans of what follows.
    if (out.with_lengths) out.add(kNone, length);
    return;
  }
  if (previous_unknown && options_.fuse_unknown) {
    if (out.with_lengths) out.lengths.back() += length;
    return;
  }
  out.add(options_.unknown_id, length);
  previous_unknown = true;
}

}  // namespace tokamak::text
