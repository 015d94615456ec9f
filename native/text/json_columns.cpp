#include "text/json_columns.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>

#include "text/utf8.h"

namespace tokamak::text {

namespace {

constexpr uint32_t kMaxId = 4'000'000;
constexpr uint64_t kOnes = 0x0101010101010101;
constexpr uint64_t kHighs = 0x8080808080808080;

constexpr size_t kSlack = 8;  // that string() reads and writes past the end of what it copies

// The high bit of every byte of `v` that is zero, exact up to the first such byte.
uint64_t zeros(uint64_t v) { return (v - kOnes) & ~v & kHighs; }

// The same for quotes, backslashes and control characters.
uint64_t stops(uint64_t v) {
  return zeros(v ^ kOnes * '"') | zeros(v ^ kOnes * '\\') | ((v - kOnes * 0x20) & ~v & kHighs);
}

constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
                              1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};

}  // namespace

// Every method is false where the file is not for it.
class JsonScanner {
 public:
  JsonScanner(std::string_view file, JsonColumns& out)
      : begin_(file.data()), p_(file.data()), end_(file.data() + file.size()), out_(out) {}

  bool file() {
    bool found = false;
    const bool whole = object([&] {
      if (key_ != "model" || !at('{')) return skip();
      return !std::exchange(found, true) && model();
    });
    if (!whole || !has_vocab_) return false;
    out_.rest.append(copied_ == nullptr ? begin_ : copied_, end_);
    return true;
  }

 private:
  bool model() {
    return object([&] {
      const bool vocab = key_ == "vocab" && (at('{') || at('['));
      if (!vocab && key_ != "merges") return skip();
      if (!vocab && !at('[')) return false;
      if (std::exchange(vocab ? has_vocab_ : has_merges_, true)) return false;
      out_.rest.append(copied_ == nullptr ? begin_ : copied_, p_);
      out_.rest += at('{') ? "{}" : "[]";
      const bool read = !vocab ? merges() : at('{') ? vocabulary() : scored_vocabulary();
      copied_ = p_;
      return read;
    });
  }

  bool vocabulary() {
    OwnedStrings strings;
    std::vector<uint32_t> ids;
    strings.start(left() + kSlack);
    ids.reserve(left() / 8);
    const auto member = [&] {
      uint32_t id = 0;
      if (!string(strings) || !colon() || !number(id)) return false;
      strings.end();
      ids.push_back(id);
      return true;
    };
    return members(member, '{', '}') && is_utf8(strings) && by_id(std::move(strings), ids);
  }

  // Nothing to move where ids rise from 0, as they mostly do.
  bool by_id(OwnedStrings strings, const std::vector<uint32_t>& ids) {
    const uint32_t size = ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end()) + 1;
    out_.count_ = ids.size();
    out_.present.assign(size, 0);
    std::vector<uint32_t> places(size);
    bool rising = ids.size() == size;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (std::exchange(out_.present[ids[i]], uint8_t{1}) != 0) return false;
      places[ids[i]] = static_cast<uint32_t>(i);
      rising = rising && ids[i] == i;
    }
    if (rising) {
      out_.tokens = std::move(strings);
      return true;
    }
    OwnedStrings& sorted = out_.tokens;
    sorted.start(strings.nbytes);
    for (uint32_t id = 0; id < size; ++id) {
      const auto token = out_.present[id] != 0 ? strings[places[id]] : std::string_view("");
      std::memcpy(sorted.blob.get() + sorted.nbytes, token.data(), token.size());
      sorted.nbytes += token.size();
      sorted.end();
    }
    return true;
  }

  bool scored_vocabulary() {
    out_.has_scores = true;
    out_.tokens.start(left() + kSlack);
    const auto member = [&] {
      double score = 0;
      if (!take('[') || !string(out_.tokens) || !take(',') || !number(score)) return false;
      out_.tokens.end();
      out_.scores.push_back(score);
      return take(']');
    };
    const bool whole = members(member, '[', ']') && is_utf8(out_.tokens);
    out_.count_ = out_.scores.size();
    out_.present.assign(out_.count_, 1);
    return whole;
  }

  bool merges() {
    OwnedStrings& merges = out_.merges;
    merges.start(left() + kSlack);
    const auto member = [&] {
      const size_t start = merges.nbytes;
      space();
      if (at('[')) {
        ++p_;
        if (!string(merges)) return false;
        merges.blob[merges.nbytes++] = 0;
        if (!take(',') || !string(merges) || !take(']')) return false;
      } else if (!string(merges)) {
        return false;
      }
      constexpr std::string_view kVersion = "#version";
      const char* text = reinterpret_cast<const char*>(merges.blob.get()) + start;
      if (std::string_view(text, merges.nbytes - start).starts_with(kVersion)) {
        merges.nbytes = start;
      } else {
        merges.end();
      }
      return true;
    };
    return members(member, '[', ']') && is_utf8(merges);
  }

  // Of all strings together, none of which starts inside a character.
  static bool is_utf8(const OwnedStrings& strings) {
    const std::string_view all(reinterpret_cast<const char*>(strings.blob.get()), strings.nbytes);
    return valid_until(all, 0) == all.size();
  }

  // -- JSON

  size_t left() const { return static_cast<size_t>(end_ - p_); }
  bool at(char c) const { return p_ < end_ && *p_ == c; }
  void space() {
    if (p_ < end_ && static_cast<unsigned char>(*p_) > ' ') return;
    if (at('\n')) ++p_;  // then mostly spaces
    while (left() >= 8) {
      uint64_t eight;
      std::memcpy(&eight, p_, 8);
      eight ^= kOnes * ' ';
      p_ += eight == 0 ? 8 : std::countr_zero(eight) / 8;
      if (eight != 0) break;
    }
    while (p_ < end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
  }
  bool take(char c) {
    space();
    if (!at(c)) return false;
    ++p_;
    return true;
  }
  bool colon() {
    if (!take(':')) return false;
    space();
    return true;
  }

  template <typename Use>
  bool members(Use use, char open, char close) {
    if (!take(open)) return false;
    if (take(close)) return true;
    do {
      if (!use()) return false;
    } while (take(','));
    return take(close);
  }

  // use: reads a value; key_ is its name.
  template <typename Use>
  bool object(Use use) {
    const auto member = [&] {
      space();
      const char* start = p_ + 1;
      if (!skip_string()) return false;
      key_ = {start, static_cast<size_t>(p_ - 1 - start)};
      // A name with escapes could be any.
      return key_.find('\\') == std::string_view::npos && colon() && use();
    };
    return members(member, '{', '}');
  }

  bool skip_string() {
    if (!take('"')) return false;
    while (p_ < end_ && *p_ != '"') p_ += *p_ == '\\' ? 2 : 1;
    if (p_ >= end_) return false;
    ++p_;
    return true;
  }

  // Some value, that the reader of the rest checks.
  bool skip() {
    size_t depth = 0;
    for (; p_ < end_; ++p_) {
      if (*p_ == '"') {
        if (!skip_string()) return false;
        --p_;
      } else if (*p_ == '{' || *p_ == '[') {
        ++depth;
      } else if (depth == 0 && (*p_ == ',' || *p_ == '}' || *p_ == ']')) {
        return true;
      } else if (*p_ == '}' || *p_ == ']') {
        --depth;
      }
    }
    return false;
  }

  // Appends the text of a string; `out` has room for what was left of the file when it was started.
  // Whether it is UTF-8 is seen to by is_utf8().
  bool string(OwnedStrings& out) {
    if (!take('"')) return false;
    auto* to = reinterpret_cast<char*>(out.blob.get()) + out.nbytes;
    const char* start = to;
    while (end_ - p_ >= static_cast<std::ptrdiff_t>(kSlack)) {
      uint64_t eight;
      std::memcpy(&eight, p_, kSlack);
      std::memcpy(to, &eight, kSlack);
      const uint64_t found = stops(eight);
      const size_t run = found == 0 ? kSlack : static_cast<size_t>(std::countr_zero(found)) / 8;
      to += run;
      p_ += run;
      if (found == 0) continue;
      if (*p_ == '"') {
        ++p_;
        out.nbytes += static_cast<size_t>(to - start);
        return to == start || !is_continuation(static_cast<unsigned char>(*start));
      }
      if (*p_ != '\\' || !escape(to)) return false;
    }
    return false;  // more than 8 bytes follow any string that is a token or a merge
  }

  bool escape(char*& to) {
    if (end_ - p_ < 2) return false;
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    const char name = p_[1];
    p_ += 2;
    if (name != 'u') {
      const size_t which = kNames.find(name);
      if (which == std::string_view::npos) return false;
      *to++ = kValues[which];
      return true;
    }
    uint32_t code = 0;
    uint32_t low = 0;
    if (!hex(code) || (code >= 0xDC00 && code < 0xE000)) return false;
    if (code >= 0xD800 && code < 0xDC00) {
      if (end_ - p_ < 2 || p_[0] != '\\' || p_[1] != 'u') return false;
      p_ += 2;
      if (!hex(low) || low < 0xDC00 || low >= 0xE000) return false;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    utf8_.clear();
    append_utf8(utf8_, code);  // at most 4 bytes for the 6 or 12 of the escape
    std::memcpy(to, utf8_.data(), utf8_.size());
    to += utf8_.size();
    return true;
  }

  bool hex(uint32_t& code) {
    if (end_ - p_ < 4) return false;
    code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = *p_++;
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return false;
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    return true;
  }

  // Digits as one integer; false for none, or more than fit 64 bits for certain.
  bool digits(uint64_t& value, size_t& count) {
    for (; p_ < end_ && *p_ >= '0' && *p_ <= '9'; ++p_, ++count) {
      value = value * 10 + static_cast<uint64_t>(*p_ - '0');
    }
    return count <= 19;
  }
  bool number_ends() const {
    return p_ < end_ && (*p_ == ',' || *p_ == '}' || *p_ == ']' || *p_ == ' ' || *p_ == '\n' ||
                         *p_ == '\r' || *p_ == '\t');
  }

  bool number(uint32_t& id) {
    uint64_t value = 0;
    size_t count = 0;
    const bool zero = at('0');
    if (!digits(value, count) || count == 0 || (zero && count > 1)) return false;
    id = static_cast<uint32_t>(value);
    return value < kMaxId && number_ends();
  }

  // As `rust_float` of files/hf_json.py: all digits as one integer, rounded, then scaled.
  bool number(double& score) {
    space();
    const bool minus = at('-');
    p_ += minus ? 1 : 0;
    uint64_t value = 0;
    size_t count = 0;
    const bool zero = at('0');
    if (!digits(value, count) || count == 0 || (zero && count > 1)) return false;
    const size_t whole = count;
    if (at('.')) {
      ++p_;
      if (!digits(value, count) || count == whole) return false;
    }
    score = static_cast<double>(value) / kPowers[count - whole];
    if (minus && value != 0) score = -score;
    return number_ends();
  }

  const char* begin_;
  const char* p_;
  const char* end_;
  const char* copied_ = nullptr;  // up to where the file is in `rest`, or left out of it
  std::string_view key_;
  std::string utf8_;
  bool has_vocab_ = false;
  bool has_merges_ = false;
  JsonColumns& out_;
};

std::optional<JsonColumns> JsonColumns::scan(std::string_view file) {
  std::optional<JsonColumns> found(std::in_place);
  if (!JsonScanner(file, *found).file() || !found->index()) return std::nullopt;
  return found;
}

// False where a token is there twice.
bool JsonColumns::index() {
  const size_t size = present.size();
  arena_.reserve(size, tokens.nbytes);
  map_.reserve(count_);
  std::vector<uint32_t> ids(size);
  for (uint32_t id = 0; id < size; ++id) {
    arena_.add(tokens[id]);
    ids[id] = present[id] != 0 ? id : kNone;
  }
  return map_.insert_all(arena_, ids);
}

uint32_t JsonColumns::find(std::string_view token) const { return map_.find(arena_, token); }

}  // namespace tokamak::text
