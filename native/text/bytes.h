// The byte alphabet of GPT-2: printable Latin-1 bytes are written as themselves, the others as
// U+0100 and up, so that any bytes make a readable token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tokamak::text {

// The byte that a character stands for, or -1.
int byte_of_character(uint32_t code);
uint32_t character_of_byte(unsigned char byte);
// Bytes of a string in the alphabet; false where some character is outside it.
bool bytes_of(std::string_view s, std::string& out);
// The same to out[0, s.size()); the number of bytes, or kNotBytes.
constexpr size_t kNotBytes = ~size_t{0};
size_t bytes_of(std::string_view s, char* out) noexcept;
// Value of a "<0x41>" token, or -1.
int byte_token(std::string_view s);

}  // namespace tokamak::text
