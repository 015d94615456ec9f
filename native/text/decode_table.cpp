#include "text/decode_table.h"

#include <algorithm>

namespace tokamak::text {

void ByteBuffer::append(std::string_view s) {
  if (s.empty()) return;
  std::memcpy(room(s.size()), s.data(), s.size());
  uint64_t high = 0;
  for (const char c : s) high |= static_cast<unsigned char>(c);
  add(s.size(), high);
}

void ByteBuffer::grow(size_t most) {
  const size_t capacity = capacity_ + capacity_ / 2 + most + 64;
  auto bytes = std::make_unique_for_overwrite<char[]>(capacity);
  if (size_ != 0) std::memcpy(bytes.get(), bytes_.get(), size_);
  bytes_ = std::move(bytes);
  capacity_ = capacity;
}

void DecodeTable::fill() {
  slots_.resize(texts_->size());
  for (uint32_t id = 0; id < slots_.size(); ++id) {
    const std::string_view text = (*texts_)[id];
    Slot& slot = slots_[id];
    slot.size = text.size() <= kMost ? static_cast<uint8_t>(text.size()) : kLong;
    if (slot.size != kLong) std::copy(text.begin(), text.end(), slot.bytes);
  }
}

void DecodeTable::append(const int32_t* ids, size_t count, ByteBuffer& out) const {
  constexpr size_t kAhead = 16;
  constexpr size_t kStretch = 1024;
  for (size_t first = 0; first < count; first += kStretch) {
    const size_t stop = std::min(count, first + kStretch);
    const size_t fetched = std::min(stop, count - std::min(count, kAhead));
    char* at = out.room((stop - first) * sizeof(Slot));
    const char* start = at;
    uint64_t high = 0;
    for (size_t i = first; i < stop; ++i) {
      if (i < fetched) __builtin_prefetch(&slots_[static_cast<uint32_t>(ids[i + kAhead])]);
      const Slot& slot = slots_[static_cast<uint32_t>(ids[i])];
      if (slot.size == kLong) {
        out.add(static_cast<size_t>(at - start), high);
        out.append((*texts_)[static_cast<uint32_t>(ids[i])]);
        start = at = out.room((stop - i) * sizeof(Slot));
        continue;
      }
      uint64_t halves[2];  // the size, in the last byte, is below 0x80
      std::memcpy(halves, &slot, sizeof(Slot));
      std::memcpy(at, halves, sizeof(Slot));
      high |= halves[0] | halves[1];
      at += slot.size;
    }
    out.add(static_cast<size_t>(at - start), high);
  }
}

}  // namespace tokamak::text
