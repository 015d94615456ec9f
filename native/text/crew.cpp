#include "text/crew.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <pthread.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace tokamak::text {

namespace {

int64_t process_id() {
#if defined(_WIN32)
  return 0;  // no forks
#else
  return getpid();
#endif
}

void name_thread(std::thread& thread, size_t number) {
#if defined(__linux__)
  pthread_setname_np(thread.native_handle(), ("tokamak-text-" + std::to_string(number)).c_str());
#else
  static_cast<void>(thread);
  static_cast<void>(number);
#endif
}

}  // namespace

Crew& Crew::current() {
  static std::mutex mutex;
  static int64_t owner = -1;
  static Crew* crew = nullptr;
  const std::lock_guard lock(mutex);
  if (owner !=
      process_id()) {  // what a child has of its parent's has no threads and maybe a held lock
    owner = process_id();
    crew = new Crew;
  }
  return *crew;
}

void Crew::hire(size_t threads) {
  while (hired_ < std::min(threads, kMaxThreads)) {
    try {
      std::thread thread([this] { serve(); });
      name_thread(thread, ++hired_);
      thread.detach();
    } catch (const std::system_error&) {
      return;  // the caller does what is left
    }
  }
}

void Crew::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [this] { return !jobs_.empty(); });
    Job* job = jobs_.front();
    if (--job->open == 0) jobs_.pop_front();
    ++job->running;
    lock.unlock();
    (*job->work)();
    lock.lock();
    if (--job->running == 0) done_.notify_all();
  }
}

void Crew::run(size_t threads, const std::function<void()>& work) {
  if (threads <= 1) return work();
  Job job{&work, std::min(threads - 1, kMaxThreads), 0};
  {
    const std::lock_guard lock(mutex_);
    hire(job.open);
    jobs_.push_back(&job);
  }
  wanted_.notify_all();
  work();
  std::unique_lock lock(mutex_);
  std::erase(jobs_, &job);
  done_.wait(lock, [&job] { return job.running == 0; });
}

}  // namespace tokamak::text
