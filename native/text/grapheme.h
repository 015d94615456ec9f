// Extended grapheme clusters (Unicode annex 29): what people see as one character.
#pragma once

#include <cstddef>
#include <string_view>

namespace tokamak::text {

// Bytes of the cluster that text starts with; text is not empty.
size_t grapheme_length(std::string_view text);

}  // namespace tokamak::text
