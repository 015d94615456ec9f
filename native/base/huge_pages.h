// A zeroed table that is looked up at random: on huge pages where the system grants them.
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>

#include "base/pages.h"

namespace tokamak {

template <typename T>
class HugeArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  explicit HugeArray(size_t count) : pages_(count * sizeof(T)), count_(count) {}
  void clear() noexcept { std::memset(static_cast<void*>(data()), 0, nbytes()); }
  T& operator[](size_t i) noexcept { return data()[i]; }
  const T& operator[](size_t i) const noexcept { return data()[i]; }
  size_t size() const noexcept { return count_; }
  size_t nbytes() const noexcept { return count_ * sizeof(T); }

 private:
  T* data() const noexcept { return reinterpret_cast<T*>(pages_.data()); }
  Pages pages_;
  size_t count_;
};

}  // namespace tokamak
