// Zeroed memory straight from the system, on huge pages where the kernel grants them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokamak {

// An anonymous private mapping, aligned to 2 MiB when it is that large. Pages become resident when
// first touched, so reserving more than is used costs address space only.
class Pages {
 public:
  static constexpr size_t kHuge = size_t{2} << 20;

  Pages() = default;
  // Throws Error(capacity) if the system refuses.
  explicit Pages(size_t nbytes);
  ~Pages();
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  // Bytes of this mapping that are on huge pages now, from /proc/self/smaps; 0 where that does not
  // exist.
  size_t huge_nbytes() const;

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;      // bytes asked for
  size_t reserved_ = 0;  // bytes mapped
};

// How often native code has asked for memory so far: mappings and `operator new` alike. A step that
// does not move it has allocated nothing.
uint64_t allocation_count() noexcept;

namespace detail {
void count_allocation() noexcept;
}  // namespace detail

}  // namespace tokamak
