#include "text/added.h"

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

// The character that ends at `at`; at > 0.
Character before(std::string_view text, size_t at) {
  size_t start = at - 1;
  while (start > 0 && at - start < 4 && is_continuation(static_cast<unsigned char>(text[start]))) {
    --start;
  }
  const Character c = decode_utf8(text.data() + start, text.data() + at);
  return c.length == at - start ? c : Character{kReplacement, 1, false};
}

Character after(std::string_view text, size_t at) {
  return decode_utf8(text.data() + at, text.data() + text.size());
}

bool overlaps(const std::vector<ByteRange>& ranges, size_t start, size_t end) {
  const auto it = std::partition_point(ranges.begin(), ranges.end(),
                                       [start](const ByteRange& r) { return r.end <= start; });
  return it != ranges.end() && it->start < end;
}

// \w of Rust's regex, which Hugging Face uses here: unlike that of its patterns it has the joiners,
// and no superscripts and fractions of Latin-1.
bool is_rust_word(uint32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  const bool latin_number = c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE);
  return !latin_number && is_word(c);
}

bool is_single_word(std::string_view text, size_t start, size_t end) {
  return (start == 0 || !is_rust_word(before(text, start).code)) &&
         (end == text.size() || !is_rust_word(after(text, end).code));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) continue;
    uint32_t node = 0;
    for (const char c : content) {
      const auto [it, fresh] = nodes_[node].next.emplace(static_cast<unsigned char>(c),
                                                         static_cast<uint32_t>(nodes_.size()));
      node = it->second;
      if (fresh) nodes_.emplace_back();
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int>(i);
    const auto first = static_cast<unsigned char>(content[0]);
    starts_special_[first] = any_ = true;
    if (!tokens_[i].special) starts_always_[first] = any_always_ = true;
  }
}

bool AddedTokens::longest_at(std::string_view text, size_t at, bool parse_special,
                             const std::vector<ByteRange>& plain, AddedMatch& match) const {
  bool found = false;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto it = nodes_[node].next.find(static_cast<unsigned char>(text[i]));
    if (it == nodes_[node].next.end()) break;
    node = it->second;
    const int token = nodes_[node].token;
    if (token < 0) continue;
    const AddedToken& added = tokens_[static_cast<size_t>(token)];
    if (added.special && (!parse_special || overlaps(plain, at, i + 1))) continue;
    match = {at, i + 1, i + 1, static_cast<uint32_t>(token)};
    found = true;
  }
  return found;
}

bool AddedTokens::find(std::string_view text, size_t at, size_t floor, bool parse_special,
                       const std::vector<ByteRange>& plain, AddedMatch& match) const {
  if (!(parse_special ? any_ : any_always_)) return false;
  const std::array<bool, 256>& starts = parse_special ? starts_special_ : starts_always_;
  while (at < text.size()) {
    if (!starts[static_cast<unsigned char>(text[at])] ||
        !longest_at(text, at, parse_special, plain, match)) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.id];
    if (token.single_word && !is_single_word(text, match.start, match.end)) {
      at = match.end;
      continue;
    }
    if (token.lstrip) {
      while (match.start > floor && is_white_space(before(text, match.start).code)) {
        match.start -= before(text, match.start).length;
      }
    }
    // One that lies in what the match before took is found all the same, unless it strips to the
    // left: then nothing is left of it.
    if (token.lstrip) match.start = std::max(match.start, floor);
    if (token.rstrip) {
      while (match.end < text.size() && is_white_space(after(text, match.end).code)) {
        match.end += after(text, match.end).length;
      }
    }
    if (match.start >= match.end) {
      at = match.resume;
      continue;
    }
    match.id = token.id;
    return true;
  }
  return false;
}

}  // namespace tokamak::text
