// Threads that share one parallel region at a time.
//
// A region is a number of chunks, divided into one run of neighbours per thread, because a core
// reads memory fastest straight on. A thread takes chunks from the front of its run; one that has
// none left takes the rear half of the longest run of another. Who opens a region works in it too,
// and leaves as soon as every chunk is done: a worker that has not arrived by then (asleep, or its
// core taken away) is not waited for, its run is taken by the others. Workers spin for some
// microseconds after a region, because inside a step the next one follows at once, and sleep
// between steps. They are called tokamak-cpu-1 and so on in /proc/PID/task; thread 0 is whoever
// calls `run`.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

namespace tokamak::cpu {

class Pool {
 public:
  static constexpr int kMaxThreads = 1024;

  // The caller of `run` counts as one of `threads`. cpus: where threads are bound, thread i to
  // cpus[i] (the caller binds itself, see BoundCaller); empty: wherever the system puts them.
  // Throws Error: invalid_params for threads outside [1, kMaxThreads] or an affinity that cannot
  // be, unavailable if the system does not bind.
  explicit Pool(int threads, std::span<const int> cpus = {},
                std::chrono::microseconds spin = std::chrono::microseconds(50));
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Threads that there are, and those of them that work on regions. A worker's number is always
  // below `capacity`; for a moment after `use` it may still be beyond `threads`.
  int capacity() const noexcept { return static_cast<int>(workers_.size()) + 1; }
  int threads() const noexcept { return active_.load(std::memory_order_relaxed); }
  // Lets so many threads work from the next region on; the others sleep. Between regions only.
  void use(int threads) noexcept;

  // Runs that threads have taken from others since the pool was made.
  uint64_t steals() const noexcept { return steals_.load(std::memory_order_relaxed); }

  // Calls body(chunk, worker) once for every chunk in [0, chunks), worker in [0, capacity()). One
  // caller at a time. `body` must not throw.
  template <class Body>
  void run(int64_t chunks, const Body& body) {
    if (chunks <= 1 || threads() == 1 || chunks > kMaxShared) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk, 0);
      return;
    }
    share({[](const void* context, int64_t chunk, int worker) {
             (*static_cast<const Body*>(context))(chunk, worker);
           },
           &body, chunks});
  }

  // Throws Error(unavailable) in a child of the process that made this pool: its threads are not
  // there.
  void check_process() const;

 private:
  struct Job {
    void (*call)(const void* context, int64_t chunk, int worker);
    const void* context;
    int64_t chunks;
  };

  // The chunks [begin, end) that a thread has before it, in one word: begin below, end above.
  struct alignas(64) Run {
    std::atomic<uint64_t> range{0};
  };
  static constexpr int64_t kMaxShared = 0x7fffffff;

  void share(const Job& job);
  void divide(int64_t chunks);
  void work(const Job& job, int worker);
  bool steal(int thief);
  void serve(int worker);
  bool enter(uint32_t& seen);
  void leave();
  void sleep(uint32_t seen);
  void stop() noexcept;
  template <class Ready>
  bool spin_until(const Ready& ready) const;

  // Low bits: workers inside; then one: open; above: number of the region.
  static constexpr uint32_t kInside = 0xfff;
  static constexpr uint32_t kOpen = 0x1000;
  static constexpr int kRegionBit = 13;
  static constexpr uint32_t kLastRegion = 0x7ffff;

  alignas(64) std::atomic<uint32_t> gate_{0};
  std::vector<Run> runs_;
  alignas(64) std::atomic<uint32_t> signal_{0};  // region number again, for sleeping on
  std::atomic<int> sleepers_{0};
  std::atomic<uint64_t> steals_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> active_{1};
  std::chrono::microseconds spin_;
  Job job_{};
  uint32_t region_ = 0;
  uint32_t forks_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace tokamak::cpu
