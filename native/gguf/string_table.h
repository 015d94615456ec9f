// An array of strings as one run of bytes and offsets into it: what 128 thousand tokens come as,
// without an object for each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tokamak::gguf {

class StringTable {
 public:
  StringTable() : offsets_(1, 0) {}

  void reserve(size_t count, size_t nbytes) {
    offsets_.reserve(count + 1);
    blob_.reserve(nbytes);
  }
  void append(std::string_view text) {
    blob_.insert(blob_.end(), text.begin(), text.end());
    offsets_.push_back(static_cast<int64_t>(blob_.size()));
  }

  size_t size() const noexcept { return offsets_.size() - 1; }
  // String i, 0 <= i < size().
  std::string_view operator[](size_t i) const noexcept {
    const auto start = static_cast<size_t>(offsets_[i]);
    return {reinterpret_cast<const char*>(blob_.data()) + start,
            static_cast<size_t>(offsets_[i + 1]) - start};
  }
  const std::vector<uint8_t>& blob() const noexcept { return blob_; }
  const std::vector<int64_t>& offsets() const noexcept { return offsets_; }
  bool operator==(const StringTable&) const = default;

 private:
  std::vector<uint8_t> blob_;
  std::vector<int64_t> offsets_;  // size() + 1 of them, rising, from 0 to blob_.size()
};

}  // namespace tokamak::gguf
