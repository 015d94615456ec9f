#include "text/bytes.h"

#include <array>

#include "text/utf8.h"

namespace tokamak::text {

namespace {

struct Alphabet {
  std::array<int16_t, 0x144> bytes;
  std::array<uint32_t, 256> characters{};

  Alphabet() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      const uint32_t c = printable ? static_cast<uint32_t>(b) : next++;
      bytes[c] = static_cast<int16_t>(b);
      characters[static_cast<size_t>(b)] = c;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet a;
  return a;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

int byte_of_character(uint32_t code) {
  return code < alphabet().bytes.size() ? alphabet().bytes[code] : -1;
}

uint32_t character_of_byte(unsigned char byte) { return alphabet().characters[byte]; }

size_t bytes_of(std::string_view s, char* out) noexcept {
  const auto* p = reinterpret_cast<const unsigned char*>(s.data());
  const auto* end = p + s.size();
  const auto& bytes = alphabet().bytes;
  char* to = out;
  while (p < end) {
    uint32_t code = *p++;
    if (code >= 0x80) {  // U+0080 to U+0143 have two bytes
      if (code < 0xC2 || code > 0xC5 || p == end || (*p & 0xC0) != 0x80) return kNotBytes;
      code = (code & 0x1F) << 6 | (*p++ & 0x3Fu);
      if (code >= bytes.size()) return kNotBytes;
    }
    if (bytes[code] < 0) return kNotBytes;
    *to++ = static_cast<char>(bytes[code]);
  }
  return static_cast<size_t>(to - out);
}

bool bytes_of(std::string_view s, std::string& out) {
  out.resize(s.size());
  const size_t size = bytes_of(s, out.data());
  out.resize(size == kNotBytes ? 0 : size);
  return size != kNotBytes;
}

int byte_token(std::string_view s) {
  if (s.size() != 6 || s.substr(0, 3) != "<0x" || s[5] != '>') return -1;
  const int high = hex_digit(s[3]);
  const int low = hex_digit(s[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

}  // namespace tokamak::text
