// Pieces that white space separates, by masks and, as the twin, by single characters.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "text/cutter.h"
#include "text/unicode.h"

namespace tokamak::text {

namespace {

// Vertical tabs and form feeds are white space too, which normalizers take away.
bool is_tab_or_line(unsigned char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_ascii_punctuation(unsigned char c) {
  const bool alphanumeric = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  return c > ' ' && c < 0x7F && !alphanumeric;
}

// The character that ends at `at`, which is above 0.
uint32_t before(const char* begin, const char* at) {
  const char* start = at - 1;
  while (start > begin && at - start < 4 && is_continuation(static_cast<unsigned char>(*start))) {
    --start;
  }
  const Character c = decode_utf8(start, at);
  return start + c.length == at ? c.code : kReplacement;
}

// A space joins what is before it to one grapheme cluster after such.
bool prepends(uint32_t c) { return properties_of(c).is(Property::gcb_prepend); }
constexpr uint32_t kSpaceCode = 0x2581;

}  // namespace

struct SpaceRules {
  template <Cutter::Spaces kKind>
  static uint64_t starts(const Cutter& cutter, const char* p, const char* text_end) noexcept {
    const auto left = static_cast<size_t>(text_end - p);
    BlockMasks m;
    if (left >= Cutter::kBlock) {
      cutter.fill_(p, m);
    } else {
      char copy[Cutter::kBlock] = {};
      std::memcpy(copy, p, left);
      cutter.fill_(copy, m);
    }
    const uint64_t within = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    uint64_t found = 0;
    if constexpr (kKind == Cutter::Spaces::words) {
      const uint64_t white = m.space | m.tab | m.newline;
      found = check(p, white & ~(white << 1) & within, m.high, prepends);
    } else if constexpr (kKind == Cutter::Spaces::symbols) {
      const auto is_symbol = [](uint32_t c) { return c == kSpaceCode; };
      found = check(p, m.space & ~(m.space << 1) & within, m.high, is_symbol);
    } else if constexpr (kKind == Cutter::Spaces::symbols_after_ascii) {
      found = m.space & (m.visible << 1) & within;
    } else {
      found = around_punctuation(cutter, p, text_end, m) & within;
    }
    return found | 1;
  }

  // Takes away the starts after characters outside ASCII for which `joins` holds.
  template <typename Joins>
  static uint64_t check(const char* p, uint64_t found, uint64_t high, Joins joins) {
    for (uint64_t rest = found & (high << 1); rest != 0; rest &= rest - 1) {
      const char* at = p + std::countr_zero(rest);
      if (joins(before(p, at))) found &= ~(rest & (~rest + 1));
    }
    return found;
  }

  static uint64_t around_punctuation(const Cutter& cutter, const char* p, const char* text_end,
                                     const BlockMasks& m) {
    const uint64_t white = m.space | m.tab | m.newline;
    uint64_t alone = m.visible & ~(m.letter | m.digit);
    uint64_t leads = alone;
    for (uint64_t high = m.high; high != 0;) {
      const auto at = static_cast<unsigned>(std::countr_zero(high));
      const Character c = decode_utf8(p + at, text_end);
      const uint64_t bits = ((uint64_t{1} << c.length) - 1) << at;
      if (cutter.class_of(c.code) == Cutter::kLetter) {
        alone |= bits;
        leads |= uint64_t{1} << at;
      }
      high &= ~bits;
    }
    const uint64_t after_white = white << 1;
    return (white & ~after_white) | (leads & ~after_white) | (~(alone | white) & (alone << 1));
  }
};

bool Cutter::is_start(std::string_view text, size_t at) const {
  const auto c = static_cast<unsigned char>(text[at]);
  const auto b = static_cast<unsigned char>(text[at - 1]);
  const char* place = text.data() + at;
  const auto previous = [&] { return b < 0x80 ? b : before(text.data(), place); };
  switch (spaces_) {
    case Spaces::words:
      return is_tab_or_line(c) && !is_tab_or_line(b) && (b < 0x80 || !prepends(previous()));
    case Spaces::symbols:
      return c == ' ' && b != ' ' && previous() != kSpaceCode;
    case Spaces::symbols_after_ascii:
      return c == ' ' && b > ' ' && b < 0x7F;
    case Spaces::words_and_punctuation:
      break;
  }
  if (is_continuation(c) || (is_tab_or_line(b) && !is_tab_or_line(c))) return false;
  const auto alone = [this](uint32_t code) {
    return code < 0x80 ? is_ascii_punctuation(static_cast<unsigned char>(code))
                       : class_of(code) == kLetter;
  };
  if (is_tab_or_line(c)) return !is_tab_or_line(b);
  return alone(decode_utf8(place, text.data() + text.size()).code) || alone(previous());
}

std::shared_ptr<const Cutter> Cutter::of_spaces(Spaces kind) {
  static std::mutex mutex;
  static std::map<std::string, std::array<std::shared_ptr<const Cutter>, 4>> made;
  const std::lock_guard lock(mutex);
  std::shared_ptr<const Cutter>& slot = made[unicode_name()][static_cast<size_t>(kind)];
  if (slot) return slot;
  constexpr Starts kStarts[] = {
      &SpaceRules::starts<Spaces::words>, &SpaceRules::starts<Spaces::words_and_punctuation>,
      &SpaceRules::starts<Spaces::symbols>, &SpaceRules::starts<Spaces::symbols_after_ascii>};
  auto cutter = std::make_shared<Cutter>();
  cutter->spaces_ = kind;
  cutter->starts_ = kStarts[static_cast<size_t>(kind)];
  cutter->fill_ = block_masks();
  std::vector<uint8_t> classes(kEndOfText, kOther);
  for (uint32_t c = 0x80; c < kEndOfText; ++c) {
    if (properties_of(c).is(Property::chinese)) classes[c] = kLetter;
  }
  cutter->share_pages(classes);
  slot = cutter;
  return slot;
}

}  // namespace tokamak::text
