#include "cpu/topology.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string_view>

#include "base/error.h"

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tokamak::cpu {
namespace {

constexpr int kMaxNode = 1024;  // of the kernel's node masks

#if defined(__linux__)
// A mask for every processor number a kernel can be built for.
struct Mask {
  static constexpr int kCpus = 8192;
  static constexpr size_t kNbytes = CPU_ALLOC_SIZE(kCpus);
  alignas(cpu_set_t) unsigned char bytes[kNbytes] = {};

  cpu_set_t* set() { return reinterpret_cast<cpu_set_t*>(bytes); }

  std::vector<int> listed() {
    std::vector<int> cpus;
    for (int cpu = 0; cpu < kCpus; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), kNbytes, set())) cpus.push_back(cpu);
    }
    return cpus;
  }
};

bool set_mask(pthread_t thread, std::span<const int> cpus) {
  Mask mask;
  for (const int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), Mask::kNbytes, mask.set());
  return pthread_setaffinity_np(thread, Mask::kNbytes, mask.set()) == 0;
}

std::vector<int> mask_of(pthread_t thread) {
  Mask mask;
  if (pthread_getaffinity_np(thread, Mask::kNbytes, mask.set()) != 0) return {};
  return mask.listed();
}
#endif

int number(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

}  // namespace

std::vector<int> allowed_cpus() {
#if defined(__linux__)
  return mask_of(pthread_self());
#else
  return {};
#endif
}

void check_affinity(std::span<const int> cpus, int threads) {
  if (cpus.empty()) return;
  const std::vector<int> allowed = allowed_cpus();
  for (size_t i = 0; i < cpus.size(); ++i) {
    std::string name("affinity names CPU ");
    name += std::to_string(cpus[i]);
    if (std::find(allowed.begin(), allowed.end(), cpus[i]) == allowed.end()) {
      throw Error(ErrorKind::invalid_params, name += ", which this process may not use");
    }
    const auto* begin = cpus.data();
    if (std::find(begin, begin + i, cpus[i]) != begin + i) {
      throw Error(ErrorKind::invalid_params, name += " twice");
    }
  }
  if (static_cast<int>(cpus.size()) < threads) {
    throw Error(ErrorKind::invalid_params, "affinity names " + std::to_string(cpus.size()) +
                                               " CPUs for " + std::to_string(threads) + " threads");
  }
}

void bind_thread(std::thread::native_handle_type thread, int cpu) {
#if defined(__linux__)
  const std::vector<int> wanted{cpu};
  if (set_mask(thread, wanted) && mask_of(thread) == wanted) return;
#else
  static_cast<void>(thread);
#endif
  throw Error(ErrorKind::unavailable,
              "the system did not bind a thread to CPU " + std::to_string(cpu));
}

BoundCaller::BoundCaller(std::span<const int> cpus) {
#if defined(__linux__)
  if (cpus.empty()) return;
  before_ = mask_of(pthread_self());
  bind_thread(pthread_self(), cpus[0]);
#else
  static_cast<void>(cpus);
#endif
}

BoundCaller::~BoundCaller() {
#if defined(__linux__)
  if (!before_.empty()) set_mask(pthread_self(), before_);
#endif
}

std::vector<int> listed(std::string_view list) {
  while (!list.empty() && (list.back() == '\n' || list.back() == ' ')) list.remove_suffix(1);
  std::vector<int> all;
  while (!list.empty()) {
    const std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), item.size() + 1));
    const size_t dash = item.find('-');
    const int first = number(item.substr(0, dash));
    const int last = dash == std::string_view::npos ? first : number(item.substr(dash + 1));
    if (first < 0 || last < first || last >= kMaxNode) return {};
    for (int i = first; i <= last; ++i) all.push_back(i);
  }
  return all;
}

std::vector<int> memory_nodes() {
  std::ifstream file("/sys/devices/system/node/has_memory");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<int> nodes = listed(text);
  if (nodes.empty()) nodes.push_back(0);
  return nodes;
}

bool interleave(void* begin, size_t nbytes, std::span<const int> nodes) noexcept {
#if defined(__linux__) && defined(SYS_mbind)
  constexpr size_t kBits = 8 * sizeof(unsigned long);
  unsigned long mask[kMaxNode / kBits] = {};
  for (const int node : nodes) {
    if (node < 0 || node >= kMaxNode) return false;
    mask[static_cast<size_t>(node) / kBits] |= 1UL << (static_cast<size_t>(node) % kBits);
  }
  return syscall(SYS_mbind, begin, nbytes, MPOL_INTERLEAVE, mask, kMaxNode, 0) == 0;
#else
  static_cast<void>(begin);
  static_cast<void>(nbytes);
  static_cast<void>(nodes);
  return false;
#endif
}

}  // namespace tokamak::cpu
