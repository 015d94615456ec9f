#include "text/build.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::tokenizer_file, what); }

// Printable Latin-1 bytes stand for themselves, the others for U+0100 and up, in order.
std::array<int16_t, 0x144> make_byte_alphabet() {
  std::array<int16_t, 0x144> bytes;
  bytes.fill(-1);
  size_t next = 0x100;
  for (int16_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    bytes[printable ? static_cast<size_t>(b) : next++] = b;
  }
  return bytes;
}

// Bytes of a string in the byte alphabet; false where some character is outside it.
bool bytes_of(std::string_view s, std::string& out) {
  out.clear();
  for (const char* p = s.data(); p < s.data() + s.size();) {
    const Character c = decode_utf8(p, s.data() + s.size());
    const int b = c.valid ? byte_of_character(c.code) : -1;
    if (b < 0) return false;
    out.push_back(static_cast<char>(b));
    p += c.length;
  }
  return true;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// Value of a "<0x41>" token, or -1.
int byte_token(std::string_view s) {
  if (s.size() != 6 || s.substr(0, 3) != "<0x" || s[5] != '>') return -1;
  const int high = hex_digit(s[3]);
  const int low = hex_digit(s[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

std::string spaces_for_symbols(std::string_view s) {
  std::string out;
  for (size_t at = 0; at < s.size();) {
    const bool symbol = s.substr(at, 3) == "\xE2\x96\x81";
    out.push_back(symbol ? ' ' : s[at]);
    at += symbol ? 3 : 1;
  }
  return out;
}

class Builder {
 public:
  explicit Builder(const TokenizerParts& parts) : parts_(parts), raw_(parts.tokens.size()) {}

  std::unique_ptr<Engine> build() {
    check();
    for (const AddedToken& t : parts_.added) raw_[t.id] = true;
    std::unique_ptr<const Model> model;
    if (parts_.kind == "bpe") {
      model = byte_level_model();
    } else if (parts_.kind == "spm") {
      model = sentencepiece_model();
    } else {
      throw Error(ErrorKind::unsupported, "tokenizer model " + parts_.kind + " is not supported");
    }
    std::vector<std::shared_ptr<const Pattern>> patterns;
    for (const std::string& source : parts_.patterns) patterns.push_back(Pattern::compile(source));
    std::vector<bool> special(parts_.tokens.size());
    for (const AddedToken& t : parts_.added) special[t.id] = special[t.id] || t.special;
    return std::make_unique<Engine>(std::move(model), std::move(patterns),
                                    AddedTokens(parts_.added), std::move(texts_),
                                    std::move(special), parts_.options);
  }

 private:
  void check() const {
    parts_.tokens.check("tokens");
    parts_.merges.check("merges");
    const size_t n = parts_.tokens.size();
    if (n == 0) refuse("the vocabulary is empty");
    if (n > 2'000'000) refuse("the vocabulary has more than 2,000,000 tokens");
    if (parts_.roles.size() != n) refuse("token types and tokens differ in number");
    const auto inside = [n](int64_t id) { return id >= 0 && static_cast<size_t>(id) < n; };
    for (const AddedToken& t : parts_.added) {
      if (t.id >= n) refuse("an added token lies outside the vocabulary");
    }
    for (const int32_t id : parts_.options.prefix) {
      if (!inside(id)) refuse("the bos token lies outside the vocabulary");
    }
    for (const int32_t id : parts_.options.suffix) {
      if (!inside(id)) refuse("the eos token lies outside the vocabulary");
    }
  }

  std::unique_ptr<const Model> byte_level_model() {
    MergeOptions options;
    options.whole_words = parts_.ignore_merges;
    options.byte_ids.fill(kNone);
    Arena pieces;
    std::vector<uint32_t> lookup;
    std::vector<uint32_t> second;  // added tokens are found by their string after all others
    std::string bytes;
    const size_t n = parts_.tokens.size();
    pieces.reserve(n, parts_.tokens.blob.size());
    texts_.reserve(n, parts_.tokens.blob.size());
    for (uint32_t id = 0; id < n; ++id) {
      const std::string_view written = parts_.tokens[id];
      const bool mapped = bytes_of(written, bytes);
      texts_.add(mapped && !raw_[id] ? std::string_view(bytes) : written);
      pieces.add(mapped ? std::string_view(bytes) : std::string_view());
      (raw_[id] ? second : lookup).push_back(id);
      if (mapped && bytes.size() == 1 && !raw_[id]) {
        uint32_t& slot = options.byte_ids[static_cast<unsigned char>(bytes[0])];
        if (slot == kNone) slot = id;
      }
    }
    lookup.insert(lookup.end(), second.begin(), second.end());
    auto model = std::make_unique<MergeModel>(std::move(pieces), lookup, options);
    add_merges(*model);
    return model;
  }

  void add_merges(MergeModel& model) const {
    model.reserve_merges(parts_.merges.size());
    std::string left;
    std::string right;
    for (size_t i = 0; i < parts_.merges.size(); ++i) {
      const std::string_view merge = parts_.merges[i];
      const size_t space = merge.find(' ', 1);
      if (space == std::string_view::npos || !bytes_of(merge.substr(0, space), left) ||
          !bytes_of(merge.substr(space + 1), right)) {
        refuse("merge " + std::to_string(i) + " is malformed: " + std::string(merge));
      }
      const uint32_t a = model.find(left);
      const uint32_t b = model.find(right);
      const uint32_t c = model.find(left + right);
      if (a == kNone || b == kNone || c == kNone) {
        refuse("merge " + std::to_string(i) +
               " names a token that the vocabulary lacks: " + std::string(merge));
      }
      model.add_merge(a, b, {static_cast<uint32_t>(i), c});
    }
  }

  std::unique_ptr<const Model> sentencepiece_model() {
    const size_t n = parts_.tokens.size();
    if (parts_.scores.size() != n) refuse("scores and tokens differ in number");
    MergeOptions options;
    options.byte_symbols = false;
    options.fuse_unknown = parts_.fuse_unknown;
    options.byte_ids.fill(kNone);
    if (parts_.unknown_id >= 0 && static_cast<size_t>(parts_.unknown_id) < n) {
      options.unknown_id = static_cast<uint32_t>(parts_.unknown_id);
    }
    Arena pieces;
    pieces.reserve(n, parts_.tokens.blob.size());
    texts_.reserve(n, parts_.tokens.blob.size());
    std::vector<uint32_t> mergeable;
    for (uint32_t id = 0; id < n; ++id) {
      const std::string_view piece = parts_.tokens[id];
      pieces.add(piece);
      const auto role = static_cast<Role>(parts_.roles[id]);
      const int byte = role == Role::byte ? byte_token(piece) : -1;
      if (byte >= 0) {
        const char b = static_cast<char>(byte);
        texts_.add({&b, 1});
        options.byte_ids[static_cast<size_t>(byte)] = id;
        continue;
      }
      texts_.add(role == Role::control || role == Role::unknown ? std::string(piece)
                                                                : spaces_for_symbols(piece));
      const bool found = role == Role::normal || role == Role::user_defined || role == Role::unused;
      if (found && !piece.empty()) mergeable.push_back(id);
    }
    auto model = std::make_unique<MergeModel>(std::move(pieces), mergeable, options);
    model->add_merges_by_score(mergeable, {parts_.scores.begin(), parts_.scores.end()});
    return model;
  }

  const TokenizerParts& parts_;
  std::vector<bool> raw_;  // the file writes the token as plain text
  Arena texts_;
};

}  // namespace

int byte_of_character(uint32_t code) {
  static const std::array<int16_t, 0x144> bytes = make_byte_alphabet();
  return code < bytes.size() ? bytes[code] : -1;
}

void StringColumn::check(const char* what) const {
  if (offsets.empty()) return;
  int64_t previous = 0;
  for (const int64_t at : offsets) {
    if (at < previous || at > static_cast<int64_t>(blob.size())) {
      refuse(std::string("offsets of ") + what + " are malformed");
    }
    previous = at;
  }
}

std::unique_ptr<Engine> build_engine(const TokenizerParts& parts) { return Builder(parts).build(); }

}  // namespace tokamak::text
