// A read-only mapping of a whole file.
//
// The mapping shares the page cache, so several processes hold one copy. A file that another
// process truncates afterwards takes its pages away: reading them raises SIGBUS, as with every
// mapping. Replace a model in use by renaming a new file over it, never by writing into it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tokamak {

class MappedFile {
 public:
  MappedFile() = default;
  // Maps `path`. Throws Error(model_file) if it cannot be opened, is no regular file or is empty.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const noexcept { return {data_, size_}; }

  // Tells the system that the pages wholly inside [offset, offset + length) are not needed soon.
  // Their contents stay in the file; the next read brings them back. Pages shared with a neighbour
  // are kept.
  void release(size_t offset, size_t length) const noexcept;

  // Brings the pages of [offset, offset + length) into memory now, so that later reads do not
  // fault.
  void prefault(size_t offset, size_t length) const noexcept;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tokamak
