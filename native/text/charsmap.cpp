#include "text/charsmap.h"

#include <cstring>

#include "base/error.h"

namespace tokamak::text {

CharsMap::CharsMap(std::string_view blob) {
  uint32_t size = 0;
  if (blob.size() >= 4) std::memcpy(&size, blob.data(), 4);
  if (size < 4 || size % 4 != 0 || size > blob.size() - 4) {
    throw Error(ErrorKind::tokenizer_file, "precompiled_charsmap is malformed");
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), blob.data() + 4, size);
  strings_.assign(blob.substr(4 + size));
}

std::string_view CharsMap::string_at(uint32_t offset) const {
  if (offset >= strings_.size()) {
    throw Error(ErrorKind::tokenizer_file, "precompiled_charsmap points outside itself");
  }
  const std::string_view rest = std::string_view(strings_).substr(offset);
  return rest.substr(0, std::min(rest.find('\0'), rest.size()));
}

// Units of Darts-clone: label in the low byte, bit 8 says a value follows, the rest is the offset.
CharsMap::Match CharsMap::find(std::string_view text, bool longest) const {
  const auto offset_of = [](uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); };
  Match best;
  size_t node = offset_of(units_[0]);
  uint32_t value = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size()) break;
    const uint32_t unit = units_[node];
    if ((unit & 0x800000FF) != byte) break;
    node ^= offset_of(unit);
    if ((unit & 0x100) == 0) continue;
    if (node >= units_.size()) break;
    value = units_[node] & 0x7FFFFFFF;
    best.length = i + 1;
    if (!longest) break;
  }
  if (best.length != 0) best.replacement = string_at(value);
  return best;
}

}  // namespace tokamak::text
