// UTF-8 one character at a time. Never reads past `end`; every byte that is not part of a valid
// sequence counts as one invalid character of one byte, as sentencepiece does.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace tokamak::text {

constexpr uint32_t kReplacement = 0xFFFD;
constexpr uint32_t kEndOfText = 0x110000;  // one past the last code point: "nothing follows"

struct Character {
  uint32_t code;    // code point; kReplacement where invalid
  uint32_t length;  // bytes consumed, at least 1
  bool valid;
};

inline bool is_continuation(unsigned char b) { return (b & 0xC0) == 0x80; }

// p < end.
inline Character decode_utf8(const char* p, const char* end) noexcept {
  const auto* s = reinterpret_cast<const unsigned char*>(p);
  const auto left = end - p;
  const unsigned char b = s[0];
  if (b < 0x80) return {b, 1, true};
  if (b >= 0xC2 && b < 0xE0 && left >= 2 && is_continuation(s[1])) {
    return {static_cast<uint32_t>(b & 0x1F) << 6 | (s[1] & 0x3Fu), 2, true};
  }
  if (b >= 0xE0 && b < 0xF0 && left >= 3 && is_continuation(s[1]) && is_continuation(s[2])) {
    const uint32_t c = static_cast<uint32_t>(b & 0x0F) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
    if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) return {c, 3, true};
  }
  if (b >= 0xF0 && b < 0xF5 && left >= 4 && is_continuation(s[1]) && is_continuation(s[2]) &&
      is_continuation(s[3])) {
    const uint32_t c = static_cast<uint32_t>(b & 0x07) << 18 | (s[1] & 0x3Fu) << 12 |
                       (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
    if (c >= 0x10000 && c < 0x110000) return {c, 4, true};
  }
  return {kReplacement, 1, false};
}

// Where the first byte at or after `at` lies that is not UTF-8; the size where there is none.
inline size_t valid_until(std::string_view text, size_t at) noexcept {
  const char* end = text.data() + text.size();
  const char* p = text.data() + at;
  while (p < end) {
    uint64_t eight;
    if (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080) == 0)) {
      p += 8;
      continue;
    }
    const Character c = decode_utf8(p, end);
    if (!c.valid) break;
    p += c.length;
  }
  return static_cast<size_t>(p - text.data());
}

// Bytes of the longest start of a valid sequence at the front of `s`, which is invalid there; at
// least 1.
inline size_t invalid_length(std::string_view s) noexcept {
  const auto byte = [s](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const unsigned b = byte(0);
  const unsigned c = byte(1);
  const size_t length = b >= 0xC2 && b < 0xE0   ? 2
                        : b >= 0xE0 && b < 0xF0 ? 3
                        : b >= 0xF0 && b < 0xF5 ? 4
                                                : 1;
  const bool second = (c & 0xC0) == 0x80 && !(b == 0xE0 && c < 0xA0) && !(b == 0xED && c > 0x9F) &&
                      !(b == 0xF0 && c < 0x90) && !(b == 0xF4 && c > 0x8F);
  if (length < 3 || !second) return 1;
  return length == 4 && (byte(2) & 0xC0) == 0x80 ? 3 : 2;
}

inline void append_utf8(std::string& out, uint32_t c) {
  const auto put = [&out](uint32_t b) { out.push_back(static_cast<char>(b)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

}  // namespace tokamak::text
