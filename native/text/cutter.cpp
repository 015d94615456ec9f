#include "text/cutter.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>

#include "text/unicode.h"

namespace tokamak::text {

namespace {

// The patterns that are known, as published; see src/tokamak/tokenizers/patterns.py.
constexpr std::string_view kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kCl100k =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| "
    "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|"
    "\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s";
const std::string kFold = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const std::string kEnding = "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const std::string kOther = "| ?[^\\s\\p{L}\\p{N}]+";

std::string words_then(const std::string& numbers) {
  return kFold + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" + numbers + kOther + "[\\r\\n]*" + kEnding;
}

std::string cased_then(const std::string& after, const std::string& numbers) {
  const std::string start = "[^\\r\\n\\p{L}\\p{N}]?";
  const std::string upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
  const std::string lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
  return start + upper + "*" + lower + "+" + after + "|" + start + upper + "+" + lower + "*" +
         after + "|" + numbers + kOther + "[\\r\\n/]*" + kEnding;
}

constexpr uint64_t below(unsigned n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }
unsigned first_of(uint64_t mask) { return static_cast<unsigned>(std::countr_zero(mask)); }
// The start of the run of `mask` that ends just before bit n; n where bit n - 1 is not in it.
unsigned run_start(uint64_t mask, unsigned n) {
  return 64u - static_cast<unsigned>(std::countl_zero(~mask & below(n)));
}

// Bytes of a contraction after its quote, or 0: s t d m, ll ve re.
unsigned contraction(const char* p, bool fold) {
  const char bit = fold ? 0x20 : 0;
  const char a = static_cast<char>(p[0] | bit);
  if (a == 's' || a == 't' || a == 'd' || a == 'm') return 1;
  const char b = static_cast<char>(p[1] | bit);
  return (a == 'l' && b == 'l') || ((a == 'v' || a == 'r') && b == 'e') ? 2 : 0;
}

enum class Contractions { none, leading, trailing };

struct Rules {
  bool joins_any;  // any character but a newline may stand before letters; else only a space
  bool cased;      // a capital after a small letter starts a word
  int digits;      // per word; 0: any number
  Contractions contractions;
};

constexpr Rules kGpt2Rules{false, false, 0, Contractions::leading};
constexpr Rules kThreeDigits{true, false, 3, Contractions::leading};
constexpr Rules kOneDigit{true, false, 1, Contractions::leading};
constexpr Rules kCasedRules{true, true, 3, Contractions::trailing};
constexpr Rules kPlainCasedRules{true, true, 1, Contractions::none};

}  // namespace

// One block on its way from bytes to starts.
struct CutterRules {
  const char* p;
  BlockMasks m;
  uint64_t masks[Cutter::kClasses]{};  // of characters that are not ASCII
  uint64_t continuation = 0;
  unsigned end;  // bits from here on are not settled

  void load(const Cutter& cutter, const char* text, const char* text_end) {
    p = text;
    const auto left = static_cast<size_t>(text_end - text);
    end = static_cast<unsigned>(std::min(left, Cutter::kBlock));
    if (left >= Cutter::kBlock) return cutter.fill_(text, m);
    char copy[Cutter::kBlock] = {};
    std::memcpy(copy, text, left);
    cutter.fill_(copy, m);
  }

  void add_high(const Cutter& cutter, const char* text_end) {
    uint64_t high = m.high;
    while (high != 0) {
      const unsigned at = first_of(high);
      const Character c = decode_utf8(p + at, text_end);
      const uint8_t cls = cutter.class_of(c.code);
      if (at + c.length > end || cls == Cutter::kHard) {
        end = std::min(end, at);
        break;
      }
      const uint64_t bits = below(c.length) << at;
      masks[cls] |= bits;
      continuation |= bits & (bits << 1);
      high &= ~bits;
    }
  }

  template <Rules kRules>
  static uint64_t starts(const Cutter& cutter, const char* text, const char* text_end) noexcept {
    CutterRules b;
    b.load(cutter, text, text_end);
    if (b.m.high != 0) b.add_high(cutter, text_end);
    return b.solve<kRules>();
  }

  template <Rules kRules>
  uint64_t solve() {
    const uint64_t letter =
        m.letter | masks[Cutter::kLetter] | masks[Cutter::kUpper] | masks[Cutter::kLower];
    const uint64_t newline = m.newline;
    const uint64_t space = m.space | m.blank;  // without newlines
    const uint64_t white = space | newline;
    const uint64_t other = ~(letter | m.digit | white);
    const uint64_t other_first = other & ~(other << 1);
    const uint64_t free_first = other_first & ~(m.space << 1);  // no space before it
    uint64_t found = 1;
    uint64_t loose = white;  // white space that no word before it takes
    if constexpr (kRules.joins_any) {
      const uint64_t seed = newline & (other << 1);
      const uint64_t taken = newline & ~(newline + seed);
      loose = white & ~taken;
      if constexpr (kRules.cased) stop_at((taken << 1) & m.slash);
      found |= space & (newline << 1);
      for (uint64_t ends = newline & (space << 1); ends != 0; ends &= ends - 1) {
        const unsigned c = run_start(space, first_of(ends));
        if (c != 0 && (loose >> (c - 1) & 1) != 0) found &= ~(uint64_t{1} << c);
      }
    }
    found |= loose & ~(loose << 1);
    found |= (kRules.joins_any ? space : white) & ~(white >> 1);
    found |= free_first;
    uint64_t letters = letter & ~(letter << 1);
    if constexpr (kRules.joins_any) {
      letters &= ~(space << 1);
      letters &= ~(((free_first << 1) + continuation) & ~continuation);
      if constexpr (kRules.cased) letters |= capitals(letter);
    } else {
      letters &= ~(m.space << 1);
    }
    found |= letters;
    found |= number_starts<kRules.digits>();
    if constexpr (kRules.contractions != Contractions::none)
      contract<kRules>(letter, free_first, found);
    if (end == 0) return 1;
    if ((white >> (end - 1) & 1) != 0) end = run_start(white, end);
    return (found & below(end)) | 1;
  }

  void stop_at(uint64_t mask) {
    if (mask != 0) end = std::min(end, first_of(mask));
  }

  // Where a capital follows a small letter. Letters without case go with both, in ways that the
  // masks do not say: a block that has such and capitals ends where the second kind comes.
  uint64_t capitals(uint64_t letter) {
    const uint64_t upper = m.upper | masks[Cutter::kUpper];
    const uint64_t both = masks[Cutter::kLetter];
    if (both != 0 && upper != 0) end = std::min(end, std::max(first_of(both), first_of(upper)));
    return upper & ((letter & ~upper) << 1);
  }

  template <int kDigits>
  uint64_t number_starts() const {
    const uint64_t digit = m.digit;
    if constexpr (kDigits == 1) return digit;
    uint64_t found = digit & ~(digit << 1);
    if constexpr (kDigits == 0) return found & ~(m.space << 1);
    const uint64_t fourth = digit & (digit << 1) & (digit << 2) & (digit << 3);
    for (uint64_t next = (found << 3) & fourth; next != 0; next = (next << 3) & fourth)
      found |= next;
    return found;
  }

  template <Rules kRules>
  void contract(uint64_t letter, uint64_t free_first, uint64_t& found) {
    constexpr bool trailing = kRules.contractions == Contractions::trailing;
    uint64_t quotes = m.quote & free_first;
    if (trailing) quotes &= letter << 1;
    unsigned previous = 64;  // where the last contraction ended
    for (; quotes != 0; quotes &= quotes - 1) {
      const unsigned at = first_of(quotes);
      if (at + 3 >= end || (m.high >> (at + 1) & 1) != 0) return stop_at(uint64_t{1} << at);
      if (trailing && at == previous) continue;
      const unsigned size = contraction(p + at + 1, kRules.joins_any);
      if (size == 0) continue;
      previous = at + 1 + size;
      found &= ~(below(size + (trailing ? 1 : 0)) << (at + (trailing ? 0 : 1)));
      found |= uint64_t{1} << previous;
    }
  }
};

void Cutter::classify(bool cased, bool marks_are_letters) {
  std::vector<uint8_t> classes(kEndOfText, kOther);
  const auto mark = [&classes](const char* name, uint8_t cls) {
    const CodeSet set = CodeSet::property(name);
    for (const auto& r : set.ranges()) {
      std::fill(classes.begin() + r.first, classes.begin() + std::min(r.last + 1, kEndOfText), cls);
    }
  };
  mark("L", kLetter);
  mark("N", kHard);
  mark("White_Space", kHard);
  if (cased) {
    for (const char* name : {"Lu", "Lt"}) mark(name, kUpper);
    mark("Ll", kLower);
    mark("M", kHard);
  }
  if (marks_are_letters) mark("M", kLetter);
  share_pages(classes);
}

void Cutter::share_pages(const std::vector<uint8_t>& classes) {
  std::map<std::array<uint8_t, 128>, uint16_t> known;
  for (uint32_t page = 0; page < page_of_.size(); ++page) {
    std::array<uint8_t, 128> one;
    std::copy_n(classes.begin() + page * 128, 128, one.begin());
    const auto [it, fresh] = known.emplace(one, static_cast<uint16_t>(pages_.size()));
    if (fresh) pages_.push_back(one);
    page_of_[page] = it->second;
  }
}

std::shared_ptr<const Cutter> Cutter::of_pattern(const std::string& source) {
  static const std::map<std::string, std::pair<Starts, int>> known = [] {
    const std::string marks =
        kFold +
        "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+"
        "[\\r\\n]*" +
        kEnding;
    std::map<std::string, std::pair<Starts, int>> m;
    m[std::string(kGpt2)] = {&CutterRules::starts<kGpt2Rules>, 0};
    m[std::string(kCl100k)] = {&CutterRules::starts<kThreeDigits>, 0};
    m[words_then("\\p{N}{1,3}")] = {&CutterRules::starts<kThreeDigits>, 0};
    m[words_then("\\p{N}")] = {&CutterRules::starts<kOneDigit>, 0};
    m[marks] = {&CutterRules::starts<kOneDigit>, 2};
    m[cased_then(kFold + "?", "\\p{N}{1,3}")] = {&CutterRules::starts<kCasedRules>, 1};
    m[cased_then("", "\\p{N}")] = {&CutterRules::starts<kPlainCasedRules>, 1};
    return m;
  }();
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const Cutter>> made;
  const auto it = known.find(source);
  if (it == known.end()) return nullptr;
  const std::lock_guard lock(mutex);
  std::shared_ptr<const Cutter>& slot = made[unicode_name() + ':' + source];
  if (!slot) {
    auto cutter = std::make_shared<Cutter>();
    cutter->starts_ = it->second.first;
    cutter->fill_ = block_masks();
    cutter->classify(it->second.second == 1, it->second.second == 2);
    slot = cutter;
  }
  return slot;
}

}  // namespace tokamak::text
