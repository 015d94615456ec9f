#include "text/grapheme.h"

#include "text/unicode.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

using P = Property;

bool breaks(Properties a, Properties b, bool after_picture, size_t regional_before) {
  if (a.is(P::gcb_control) || b.is(P::gcb_control)) return true;  // GB4, GB5
  if (a.is(P::gcb_l) && (b.is(P::gcb_l) || b.is(P::gcb_v) || b.is(P::gcb_lv) || b.is(P::gcb_lvt))) {
    return false;  // GB6
  }
  if ((a.is(P::gcb_lv) || a.is(P::gcb_v)) && (b.is(P::gcb_v) || b.is(P::gcb_t)))
    return false;                                                                     // GB7
  if ((a.is(P::gcb_lvt) || a.is(P::gcb_t)) && b.is(P::gcb_t)) return false;           // GB8
  if (b.is(P::gcb_extend) || b.is(P::gcb_zwj) || b.is(P::gcb_spacing)) return false;  // GB9, GB9a
  if (a.is(P::gcb_prepend)) return false;                                             // GB9b
  if (after_picture && a.is(P::gcb_zwj) && b.is(P::pictographic)) return false;       // GB11
  if (a.is(P::gcb_regional) && b.is(P::gcb_regional))
    return regional_before % 2 == 0;  // GB12, GB13
  return true;
}

}  // namespace

size_t grapheme_length(std::string_view text) {
  const char* end = text.data() + text.size();
  const char* p = text.data();
  Character c = decode_utf8(p, end);
  p += c.length;
  if (c.code == '\r') return p < end && *p == '\n' ? 2 : 1;  // GB3
  if (c.code == '\n') return 1;
  Properties a = properties_of(c.code);
  bool after_picture = a.is(P::pictographic);  // extended picture, then only Extend and ZWJ
  size_t regional = a.is(P::gcb_regional) ? 1 : 0;
  while (p < end) {
    c = decode_utf8(p, end);
    if (c.code == '\r' || c.code == '\n') break;
    const Properties b = properties_of(c.code);
    if (breaks(a, b, after_picture, regional + 1)) break;
    p += c.length;
    if (b.is(P::pictographic)) {
      after_picture = true;
    } else if (!b.is(P::gcb_extend) && !b.is(P::gcb_zwj)) {
      after_picture = false;
    }
    regional = b.is(P::gcb_regional) ? regional + 1 : 0;
    a = b;
  }
  return static_cast<size_t>(p - text.data());
}

}  // namespace tokamak::text
