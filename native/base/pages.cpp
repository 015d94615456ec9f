#include "base/pages.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "base/error.h"

namespace tokamak {
namespace {

std::atomic<uint64_t> allocations{0};

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

void detail::count_allocation() noexcept { allocations.fetch_add(1, std::memory_order_relaxed); }

uint64_t allocation_count() noexcept { return allocations.load(std::memory_order_relaxed); }

Pages::Pages(size_t nbytes) : size_(nbytes) {
  if (nbytes == 0) return;
  detail::count_allocation();
  const bool huge = nbytes >= kHuge;
  reserved_ = huge ? round_up(nbytes, kHuge) : round_up(nbytes, 4096);
  const size_t asked = huge ? reserved_ + kHuge : reserved_;
  void* got = asked < nbytes ? MAP_FAILED
                             : mmap(nullptr, asked, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) {
    throw Error(ErrorKind::capacity, "the system refused " + std::to_string(nbytes) +
                                         " bytes of memory; use a smaller context or model");
  }
  auto* begin = static_cast<std::byte*>(got);
  if (huge) {  // give back what lies before and after the aligned part
    const auto address = reinterpret_cast<uintptr_t>(begin);
    const size_t before = round_up(address, kHuge) - address;
    if (before > 0) munmap(begin, before);
    begin += before;
    if (before < kHuge) munmap(begin + reserved_, kHuge - before);
#ifdef MADV_HUGEPAGE
    madvise(begin, reserved_, MADV_HUGEPAGE);  // a wish: without it everything works on small pages
#endif
  }
  data_ = begin;
}

Pages::~Pages() {
  if (data_ != nullptr) munmap(data_, reserved_);
}

Pages::Pages(Pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      reserved_(std::exchange(other.reserved_, 0)) {}

Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(reserved_, other.reserved_);
  return *this;
}

size_t Pages::huge_nbytes() const {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/self/smaps", "r"),
                                                             &std::fclose);
  if (file == nullptr || data_ == nullptr) return 0;
  const auto low = reinterpret_cast<uintptr_t>(data_);
  const uintptr_t high = low + reserved_;
  char line[512];
  bool inside = false;
  size_t total = 0;
  while (std::fgets(line, sizeof line, file.get()) != nullptr) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long kib = 0;
    if (std::sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
      inside = begin < high && end > low;
    } else if (inside && std::sscanf(line, "AnonHugePages: %lu kB", &kib) == 1) {
      total += kib * 1024;
    }
  }
  return total < reserved_ ? total
                           : reserved_;  // the kernel may have merged a neighbour into the range
}

}  // namespace tokamak
