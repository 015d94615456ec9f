#include "text/normal_forms.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "base/error.h"
#include "text/unicode.h"

namespace tokamak::text {

namespace {

// Hangul syllables are arithmetic (Unicode, section 3.12).
constexpr uint32_t kSBase = 0xAC00, kLBase = 0x1100, kVBase = 0x1161, kTBase = 0x11A7;
constexpr uint32_t kLCount = 19, kVCount = 21, kTCount = 28;
constexpr uint32_t kSCount = kLCount * kVCount * kTCount;

bool is_syllable(uint32_t c) { return c - kSBase < kSCount; }

std::mutex loaded_mutex;
std::map<std::string, std::shared_ptr<const NormalizationTables>> loaded;

std::u32string decode_all(std::string_view s) {
  std::u32string out;
  for (const char* p = s.data(); p < s.data() + s.size();) {
    const Character c = decode_utf8(p, s.data() + s.size());
    out.push_back(static_cast<char32_t>(c.code));
    p += c.length;
  }
  return out;
}

}  // namespace

NormalizationTables::NormalizationTables(std::string_view lines) : pages_(1) {
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    const std::u32string line = decode_all(lines.substr(0, end));
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line.size() < 2)
      throw Error(ErrorKind::tokenizer_file, "normalization tables are malformed");
    const uint32_t c = line[1];
    const std::u32string rest = line.substr(2);
    switch (line[0]) {
      case 'd':
        canonical_[c] = rest;
        set_flag(c, kCanonical | kCompatible);
        break;
      case 'k':
        compatible_[c] = rest;
        set_flag(c, kCompatible);
        break;
      case 'l':
        lower_[c] = rest;
        set_flag(c, kCased);
        break;
      case 'c': {
        uint32_t value = 0;
        for (const char32_t digit : rest) value = value * 10 + (digit - U'0');
        combining_[c] = static_cast<uint8_t>(value);
        set_flag(c, kMark);
        break;
      }
      case 'p':
        pairs_[static_cast<uint64_t>(c) << 32 | rest[0]] = rest[1];
        set_flag(rest[0], kSecond);
        break;
      default:
        throw Error(ErrorKind::tokenizer_file, "normalization tables are malformed");
    }
  }
  for (uint32_t c = kSBase; c < kSBase + kSCount; ++c) set_flag(c, kCanonical | kCompatible);
  for (uint32_t v = 0; v < kVCount; ++v) set_flag(kVBase + v, kSecond);
  for (uint32_t t = 1; t < kTCount; ++t) set_flag(kTBase + t, kSecond);
}

std::shared_ptr<const NormalizationTables> NormalizationTables::current() {
  const std::lock_guard lock(loaded_mutex);
  const auto it = loaded.find(unicode_name());
  if (it == loaded.end()) {
    throw Error(ErrorKind::unavailable, "normalization tables were not loaded before their use");
  }
  return it->second;
}

void NormalizationTables::load(const std::string& name,
                               std::shared_ptr<const NormalizationTables> tables) {
  const std::lock_guard lock(loaded_mutex);
  loaded[name] = std::move(tables);
}

void NormalizationTables::set_flag(uint32_t code, uint8_t flag) {
  if (code >= kEndOfText) throw Error(ErrorKind::tokenizer_file, "code point out of range");
  uint16_t& page = page_of_[code >> 7];
  if (page == 0) {
    page = static_cast<uint16_t>(pages_.size());
    pages_.emplace_back();
  }
  pages_[page][code & 127] |= flag;
}

uint8_t NormalizationTables::combining_class(uint32_t code) const {
  return (flags(code) & kMark) != 0 ? combining_.at(code) : uint8_t{0};
}

void NormalizationTables::decompose(uint32_t code, bool compatible, std::vector<Item>& out) const {
  int64_t taken = 0;
  const auto put = [&](uint32_t c) {
    out.push_back({c, combining_class(c), taken});
    taken = 1;
  };
  if (is_syllable(code)) {
    const uint32_t s = code - kSBase;
    put(kLBase + s / (kVCount * kTCount));
    put(kVBase + s % (kVCount * kTCount) / kTCount);
    if (s % kTCount != 0) put(kTBase + s % kTCount);
    return;
  }
  const uint8_t f = flags(code);
  if (compatible && (f & kCompatible) != 0) {
    auto it = compatible_.find(code);
    if (it == compatible_.end()) it = canonical_.find(code);
    for (const char32_t c : it->second) put(c);
  } else if (!compatible && (f & kCanonical) != 0) {
    for (const char32_t c : canonical_.at(code)) put(c);
  } else {
    put(code);
  }
}

uint32_t NormalizationTables::compose(uint32_t first, uint32_t second) const {
  if (first - kLBase < kLCount && second - kVBase < kVCount) {
    return kSBase + ((first - kLBase) * kVCount + (second - kVBase)) * kTCount;
  }
  if (is_syllable(first) && (first - kSBase) % kTCount == 0 && second - kTBase - 1 < kTCount - 1) {
    return first + (second - kTBase);
  }
  const auto it = pairs_.find(static_cast<uint64_t>(first) << 32 | second);
  return it == pairs_.end() ? 0 : it->second;
}

// Canonical composition over items in canonical order.
void NormalizationTables::compose_all(std::vector<Item>& items) const {
  size_t starter = items.size();  // none yet
  int last_class = -1;            // of the last item kept after the starter
  size_t kept = 0;
  for (const Item item : items) {
    if (starter < kept && last_class < static_cast<int>(item.combining)) {
      const uint32_t whole = compose(items[starter].code, item.code);
      if (whole != 0) {
        items[starter].code = whole;
        items[starter].taken += item.taken - 1;
        continue;
      }
    }
    if (item.combining == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = item.combining;
    }
    items[kept++] = item;
  }
  items.resize(kept);
}

void NormalizationTables::apply(Form form, Buffer& buffer) const {
  const bool compatible = form == Form::nfkc || form == Form::nfkd;
  const bool composing = form == Form::nfc || form == Form::nfkc;
  const uint8_t active = static_cast<uint8_t>((compatible ? kCompatible : kCanonical) | kMark |
                                              (composing ? kSecond : 0));
  const std::string& text = buffer.text;
  const char* begin = text.data();
  const char* end = begin + text.size();
  Rewriter out(buffer);
  std::vector<Item> items;
  size_t copied = 0;    // everything before is written
  size_t previous = 0;  // start of the character before p
  bool changed = false;
  const auto offset = [begin](const char* p) { return static_cast<size_t>(p - begin); };
  for (const char* p = begin; p < end;) {
    const Character c = decode_utf8(p, end);
    if (c.code < 0x80 || !c.valid || (flags(c.code) & active) == 0) {
      previous = offset(p) + (c.valid ? 0 : c.length);
      p += c.length;
      continue;
    }
    // From the inert character before (it may compose) to the next inert one.
    const size_t start = std::max(copied, previous);
    items.clear();
    for (p = begin + start; p < end;) {
      const Character d = decode_utf8(p, end);
      const bool inert = !d.valid || (flags(d.code) & active) == 0;
      if (inert && offset(p) != start) break;
      if (!d.valid) break;
      decompose(d.code, compatible, items);
      p += d.length;
    }
    for (size_t i = 0; i < items.size();) {
      size_t j = i;
      while (j < items.size() && items[j].combining != 0) ++j;
      std::stable_sort(items.begin() + static_cast<std::ptrdiff_t>(i),
                       items.begin() + static_cast<std::ptrdiff_t>(j),
                       [](const Item& a, const Item& b) { return a.combining < b.combining; });
      i = std::max(j, i + 1);
    }
    if (composing) compose_all(items);
    out.copy(copied, start);
    for (const Item& item : items) out.change(item.code, item.taken);
    copied = offset(p);
    previous = copied;
    changed = true;
  }
  if (!changed) return;
  out.copy(copied, text.size());
  out.finish();
}

void NormalizationTables::lowercase(Buffer& buffer) const {
  const char* begin = buffer.text.data();
  const char* end = begin + buffer.text.size();
  Rewriter out(buffer);
  for (const char* p = begin; p < end;) {
    const Character c = decode_utf8(p, end);
    const auto at = static_cast<size_t>(p - begin);
    if (c.code < 0x80) {
      out.put_code(c.code >= 'A' && c.code <= 'Z' ? c.code + 32 : c.code, at, at + 1);
    } else if (c.valid && (flags(c.code) & kCased) != 0) {
      for (const char32_t l : lower_.at(c.code)) out.put_code(l, at, at + c.length);
    } else {
      out.copy(at, at + c.length);
    }
    p += c.length;
  }
  out.finish();
}

}  // namespace tokamak::text
