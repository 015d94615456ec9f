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

int byte_token(std::string_view s) {
  if (s.size() != 6 || s.substr(0, 3) != "<0x" || s[5] != '>') return -1;
  const int high = hex_digit(s[3]);
  const int low = hex_digit(s[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

}  // namespace tokamak::text
