// Replaces the global `operator new` of this library by one that counts, so that a test can show
// that a step allocates nothing. The count is one relaxed atomic increment.
#include <cstdlib>
#include <new>

#include "base/pages.h"

namespace {

void* counted(std::size_t nbytes) {
  tokamak::detail::count_allocation();
  void* p = std::malloc(nbytes == 0 ? 1 : nbytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(std::size_t nbytes) { return counted(nbytes); }
void* operator new[](std::size_t nbytes) { return counted(nbytes); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
