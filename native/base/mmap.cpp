#include "base/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace tokamak {

namespace {

size_t page_size() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// Closes the descriptor on every way out; the mapping does not need it.
struct Descriptor {
  int fd;
  explicit Descriptor(int f) : fd(f) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang; it means nothing for a regular
  // file.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) {
    throw Error(ErrorKind::model_file, std::string("cannot be opened: ") + std::strerror(errno));
  }
  struct stat status{};
  if (fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(ErrorKind::model_file, "is not a regular file");
  }
  if (status.st_size <= 0) throw Error(ErrorKind::model_file, "is empty");
  const size_t size = static_cast<size_t>(status.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) {
    throw Error(ErrorKind::capacity, std::string("cannot be mapped: ") + std::strerror(errno));
  }
  data_ = static_cast<const uint8_t*>(data);
  size_ = size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(size_t offset, size_t length) const noexcept {
  if (data_ == nullptr || offset > size_) return;
  const size_t page = page_size();
  const size_t end = offset + std::min(length, size_ - offset);
  const size_t first = (offset + page - 1) / page * page;
  // The last page of the file belongs to nobody else even when it is not full.
  const size_t last = end == size_ ? (end + page - 1) / page * page : end / page * page;
  if (first < last) madvise(const_cast<uint8_t*>(data_) + first, last - first, MADV_DONTNEED);
}

void MappedFile::prefault(size_t offset, size_t length) const noexcept {
  if (data_ == nullptr || offset >= size_) return;
  const size_t first = offset / page_size() * page_size();
  const size_t end = offset + std::min(length, size_ - offset);
  uint8_t* start = const_cast<uint8_t*>(data_) + first;
#ifdef MADV_POPULATE_READ
  if (madvise(start, end - first, MADV_POPULATE_READ) == 0) return;
#endif
  madvise(start, end - first, MADV_WILLNEED);  // a hint is all that older systems offer
}

}  // namespace tokamak
