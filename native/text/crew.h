// Threads for batches of texts: made when first needed, named tokamak-text-1 and so on, asleep
// between calls. One crew per process; a child of a fork makes its own.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>

namespace tokamak::text {

class Crew {
 public:
  static constexpr size_t kMaxThreads = 256;

  // Of this process. It is never taken down: threads that sleep end with the process.
  static Crew& current();

  // Calls `work` at once in up to `threads` threads, the caller's among them, and returns when all
  // calls have. Any number of callers at a time. `work` must not throw.
  void run(size_t threads, const std::function<void()>& work);

 private:
  struct Job {
    const std::function<void()>* work;
    size_t open;     // calls that a thread may still take up
    size_t running;  // ... that threads are in
  };

  void serve();
  void hire(size_t threads);

  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  std::deque<Job*> jobs_;  // with open calls
  size_t hired_ = 0;
};

}  // namespace tokamak::text
