// A growing array of token ids that does not clear what it grows by.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

namespace tokamak::text {

class IdBuffer {
 public:
  size_t size() const { return size_; }
  int32_t* data() { return data_.get(); }
  const int32_t* data() const { return data_.get(); }
  int32_t& operator[](size_t i) { return data_[i]; }
  int32_t operator[](size_t i) const { return data_[i]; }
  void clear() { size_ = 0; }
  void shrink(size_t size) { size_ = size; }
  void add(size_t count) { size_ += count; }  // after writing to room()

  void push_back(int32_t id) { *room(1) = id, ++size_; }
  // Where the next `count` ids go.
  int32_t* room(size_t count) {
    if (capacity_ - size_ < count) grow(count);
    return data_.get() + size_;
  }

 private:
  void grow(size_t count) {
    const size_t capacity = capacity_ + capacity_ / 2 + count + 64;
    auto data = std::make_unique_for_overwrite<int32_t[]>(capacity);
    if (size_ != 0) std::memcpy(data.get(), data_.get(), size_ * sizeof(int32_t));
    data_ = std::move(data);
    capacity_ = capacity;
  }

  std::unique_ptr<int32_t[]> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace tokamak::text
