// What each id decodes to where a text is its tokens' texts one after the other: 16 bytes per id,
// so that most tokens are one load and one store.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "text/hash.h"

namespace tokamak::text {

// Bytes that grow, without being cleared first.
class ByteBuffer {
 public:
  std::string_view view() const { return {bytes_.get(), size_}; }
  size_t size() const { return size_; }
  bool ascii() const { return (high_ & 0x8080808080808080) == 0; }
  // Where the next `most` bytes go; after writing them, add().
  char* room(size_t most) {
    if (capacity_ - size_ < most) grow(most);
    return bytes_.get() + size_;
  }
  // high: or of the bytes, of all or more.
  void add(size_t count, uint64_t high) {
    size_ += count;
    high_ |= high;
  }
  void append(std::string_view s);
  void shrink(size_t size) { size_ = size; }

 private:
  void grow(size_t most);

  std::unique_ptr<char[]> bytes_;
  size_t size_ = 0;
  size_t capacity_ = 0;
  uint64_t high_ = 0;
};

class DecodeTable {
 public:
  // texts: by id; kept.
  explicit DecodeTable(Arena texts) : own_(std::move(texts)), texts_(&own_) { fill(); }
  // texts: has to stay.
  explicit DecodeTable(const Arena* texts) : texts_(texts) { fill(); }
  DecodeTable(const DecodeTable&) = delete;
  DecodeTable& operator=(const DecodeTable&) = delete;

  // The texts of ids of the vocabulary, one after the other.
  void append(const int32_t* ids, size_t count, ByteBuffer& out) const;
  size_t nbytes() const { return slots_.capacity() * sizeof(Slot) + own_.nbytes(); }

 private:
  static constexpr size_t kMost = 15;
  static constexpr uint8_t kLong = 0x7F;  // the text is in texts_
  struct alignas(16) Slot {
    char bytes[kMost] = {};  // zeros after the text
    uint8_t size = 0;
  };
  void fill();

  Arena own_;
  const Arena* texts_;
  std::vector<Slot> slots_;
};

}  // namespace tokamak::text
