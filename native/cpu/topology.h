// Which processors this process may use, how threads are bound to them, and memory nodes.
//
// Nothing is bound unless a caller asks: the scheduler moves threads off busy processors, which is
// worth more than warm caches on a shared machine.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace tokamak::cpu {

// Processors in this thread's affinity mask, rising; empty where the system does not tell.
std::vector<int> allowed_cpus();

// Throws Error(invalid_params) unless `cpus` is empty or names at least `threads` different
// processors, all of which this process may use.
void check_affinity(std::span<const int> cpus, int threads);

// Binds a thread to one processor and reads the mask back. Throws Error(unavailable) if the system
// did not do it.
void bind_thread(std::thread::native_handle_type thread, int cpu);

// Binds the calling thread for as long as this lives; it gets its mask back afterwards.
class BoundCaller {
 public:
  explicit BoundCaller(std::span<const int> cpus);  // empty: does nothing; else binds to cpus[0]
  ~BoundCaller();
  BoundCaller(const BoundCaller&) = delete;
  BoundCaller& operator=(const BoundCaller&) = delete;

 private:
  std::vector<int> before_;
};

// Memory nodes that are online, rising: {0} on most machines and where the system does not tell.
// list: in the form of /sys/devices/system/node/online, "0-1,4".
std::vector<int> memory_nodes();
std::vector<int> listed(std::string_view list);

// Spreads pages of a mapping that are not touched yet over `nodes`, page by page in turn. Says
// whether the system did it.
bool interleave(void* begin, size_t nbytes, std::span<const int> nodes) noexcept;

}  // namespace tokamak::cpu
