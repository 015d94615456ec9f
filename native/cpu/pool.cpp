#include "cpu/pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <string>

#include "base/error.h"
#include "cpu/topology.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tokamak::cpu {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPausesPerLook = 32;  // reading the clock costs as much as a few pauses

std::atomic<uint32_t> forks{0};

uint32_t fork_generation() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  });
  return forks.load(std::memory_order_relaxed);
}

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr uint64_t run_of(uint64_t begin, uint64_t end) { return begin | end << 32; }
constexpr uint64_t begin_of(uint64_t range) { return range & 0xffffffff; }
constexpr uint64_t end_of(uint64_t range) { return range >> 32; }

void name_thread(std::thread& thread, int worker) {
#if defined(__linux__)
  const std::string name = "tokamak-cpu-" + std::to_string(worker);  // at most 15 characters
  pthread_setname_np(thread.native_handle(), name.substr(0, 15).c_str());
#else
  static_cast<void>(thread);
  static_cast<void>(worker);
#endif
}

}  // namespace

// Spins until ready() or for spin_; says whether it became ready.
template <class Ready>
bool Pool::spin_until(const Ready& ready) const {
  const auto end = Clock::now() + spin_;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return ready();
}

Pool::Pool(int threads, std::span<const int> cpus, std::chrono::microseconds spin)
    : runs_(static_cast<size_t>(std::clamp(threads, 1, kMaxThreads))),
      spin_(spin),
      forks_(fork_generation()) {
  if (threads < 1 || threads > kMaxThreads) {
    throw Error(ErrorKind::invalid_params, "threads is " + std::to_string(threads) +
                                               ", expected 1 .. " + std::to_string(kMaxThreads));
  }
  check_affinity(cpus, threads);
  workers_.reserve(static_cast<size_t>(threads - 1));
  active_.store(threads);
  try {
    for (int worker = 1; worker < threads; ++worker) {
      workers_.emplace_back([this, worker] { serve(worker); });
      name_thread(workers_.back(), worker);
      if (!cpus.empty()) {
        bind_thread(workers_.back().native_handle(), cpus[static_cast<size_t>(worker)]);
      }
    }
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() {
  if (forks_ != fork_generation()) {  // in a child: there are no threads to join
    for (auto& worker : workers_) worker.detach();
    return;
  }
  stop();
}

void Pool::stop() noexcept {
  stop_.store(true);
  signal_.fetch_add(1);
  signal_.notify_all();
  active_.store(kMaxThreads + 1);
  active_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Pool::use(int threads) noexcept {
  if (threads == active_.load(std::memory_order_relaxed)) return;
  active_.store(threads);
  active_.notify_all();
}

void Pool::check_process() const {
  if (forks_ == fork_generation()) return;
  throw Error(
      ErrorKind::unavailable,
      "this model was loaded before the process forked, and its threads stayed in the parent; "
      "load it in the child, or start the child with the 'spawn' method");
}

void Pool::share(const Job& job) {
  job_ = job;
  divide(job.chunks);
  region_ = (region_ + 1) & kLastRegion;
  gate_.store(region_ << kRegionBit | kOpen, std::memory_order_release);
  signal_.store(region_);
  if (sleepers_.load() > 0) signal_.notify_all();
  work(job, 0);
  uint32_t gate = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  const auto done = [&] {
    gate = gate_.load(std::memory_order_acquire);
    return (gate & kInside) == 0;
  };
  while (!done()) {
    if (!spin_until(done)) gate_.wait(gate, std::memory_order_acquire);
  }
}

void Pool::divide(int64_t chunks) {
  const auto total = static_cast<uint64_t>(chunks);
  const auto shares = static_cast<uint64_t>(threads());
  for (uint64_t i = 0; i < runs_.size(); ++i) {
    const uint64_t begin = i < shares ? total * i / shares : 0;
    const uint64_t end = i < shares ? total * (i + 1) / shares : 0;
    runs_[i].range.store(run_of(begin, end), std::memory_order_relaxed);
  }
}

void Pool::work(const Job& job, int worker) {
  std::atomic<uint64_t>& own = runs_[static_cast<size_t>(worker)].range;
  do {
    uint64_t range = own.load(std::memory_order_relaxed);
    while (begin_of(range) < end_of(range)) {
      if (own.compare_exchange_weak(range, range + 1, std::memory_order_relaxed)) {
        job.call(job.context, static_cast<int64_t>(begin_of(range)), worker);
        range = own.load(std::memory_order_relaxed);
      }
    }
  } while (steal(worker));
}

// Makes the rear half of the longest run that of the thief; false if there is nothing to take. A
// run on its way to another thief is not seen: that one works on it. The thief's own run is empty,
// so nobody else writes there.
bool Pool::steal(int thief) {
  for (;;) {
    std::atomic<uint64_t>* longest = nullptr;
    uint64_t range = 0;
    for (Run& run : runs_) {
      const uint64_t other = run.range.load(std::memory_order_relaxed);
      const bool longer = end_of(other) - begin_of(other) > end_of(range) - begin_of(range);
      if (begin_of(other) < end_of(other) && longer) longest = &run.range, range = other;
    }
    if (longest == nullptr) return false;
    const uint64_t middle = begin_of(range) + (end_of(range) - begin_of(range)) / 2;
    if (longest->compare_exchange_strong(range, run_of(begin_of(range), middle),
                                         std::memory_order_relaxed)) {
      runs_[static_cast<size_t>(thief)].range.store(run_of(middle, end_of(range)),
                                                    std::memory_order_relaxed);
      steals_.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
  }
}

bool Pool::enter(uint32_t& seen) {
  uint32_t gate = gate_.load(std::memory_order_acquire);
  while ((gate & kOpen) != 0 && gate >> kRegionBit != seen) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
      seen = gate >> kRegionBit;
      return true;
    }
  }
  return false;
}

void Pool::leave() {
  const uint32_t before = gate_.fetch_sub(1, std::memory_order_acq_rel);
  if ((before & kOpen) == 0 && (before & kInside) == 1) gate_.notify_one();
}

void Pool::sleep(uint32_t seen) {
  sleepers_.fetch_add(1);
  signal_.wait(seen);  // returns at once if a region was opened since
  sleepers_.fetch_sub(1);
}

void Pool::serve(int worker) {
  uint32_t entered = 0;  // region 0 is never opened before the first wrap
  while (!stop_.load(std::memory_order_relaxed)) {
    const int active = active_.load();
    if (worker >= active) {  // not needed: regions shall not wake it
      active_.wait(active);
      continue;
    }
    const uint32_t heard = signal_.load();
    if (spin_until([&] { return enter(entered); })) {
      work(job_, worker);
      leave();
    } else if (!stop_.load()) {
      sleep(heard);
    }
  }
}

}  // namespace tokamak::cpu
