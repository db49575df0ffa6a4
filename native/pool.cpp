// Workers sleep on a condition variable. After a job they first spin for kSpin, because the next parallel kernel of a
// program is mostly microseconds away and waking a sleeper costs more than that; an idle pool burns no core.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "arena.h"
#include "kernel.h"
#if defined(__linux__)
#include <sched.h>
#endif

namespace wl {
namespace {

constexpr auto kSpin = std::chrono::microseconds(30);

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

using Body = void (*)(void*, int64_t, int64_t);

thread_local int threadLimit = 1;
thread_local bool insideBody = false;

class Pool {
 public:
  // Never destroyed: workers may outlive static destruction.
  static Pool& instance() {
    static Pool& pool = *new Pool;
    return pool;
  }

  // False if another thread's job is being run; the caller then works alone.
  bool tryRun(int64_t count, int64_t grain, Body body, void* context, int threads) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    grow(threads - 1);
    count_ = count, grain_ = grain, body_ = body, context_ = context;
    error_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    seats_ = threads - 1;
    door_.store(kOpen, std::memory_order_release);
    {
      std::lock_guard<std::mutex> lock(sleep_);
      job_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work();
    door_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; door_.load(std::memory_order_acquire) != 0; ++spins)
      if (spins < 4096)
        relax();
      else
        std::this_thread::yield();
    if (error_) std::rethrow_exception(error_);
    return true;
  }

 private:
  static constexpr uint32_t kOpen = uint32_t(1) << 31;

  // Where the system refuses another thread, those there are do the work.
  void grow(int workers) {
    while (workers_ < workers && !full_) {
      try {
        std::thread(&Pool::serve, this, job_.load(std::memory_order_relaxed)).detach();
        ++workers_;
      } catch (const std::system_error&) {
        full_ = true;
      }
    }
  }

  void work() {
    insideBody = true;
    try {
      for (;;) {
        const int64_t piece = next_.fetch_add(1, std::memory_order_relaxed);
        const int64_t begin = piece * grain_;
        if (begin >= count_) break;
        const ScratchScope scope;
        body_(context_, begin, begin + grain_ < count_ ? begin + grain_ : count_);
      }
    } catch (...) {
      next_.store(count_, std::memory_order_relaxed);
      std::lock_guard<std::mutex> lock(sleep_);
      if (!error_) error_ = std::current_exception();
    }
    insideBody = false;
  }

  // A worker that wakes when the job is done, or has its number of workers, finds the door shut and is not waited for.
  bool enter() {
    uint32_t door = door_.load(std::memory_order_acquire);
    do {
      if (!(door & kOpen) || static_cast<int>(door & ~kOpen) >= seats_) return false;
    } while (!door_.compare_exchange_weak(door, door + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    return true;
  }

  void serve(uint64_t seen) {
    for (;;) {
      const auto limit = std::chrono::steady_clock::now() + kSpin;
      while (job_.load(std::memory_order_acquire) == seen) {
        for (int i = 0; i < 64 && job_.load(std::memory_order_acquire) == seen; ++i) relax();
        if (std::chrono::steady_clock::now() < limit) continue;
        std::unique_lock<std::mutex> lock(sleep_);
        wake_.wait(lock, [&] { return job_.load(std::memory_order_acquire) != seen; });
      }
      seen = job_.load(std::memory_order_acquire);
      if (!enter()) continue;
      work();
      door_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex owner_;
  std::mutex sleep_;
  std::condition_variable wake_;
  int workers_ = 0;
  bool full_ = false;
  // What follows is written by the owner while the door is shut.
  int64_t count_ = 0, grain_ = 1;
  Body body_ = nullptr;
  void* context_ = nullptr;
  std::atomic<int> seats_{0};
  std::exception_ptr error_;
  alignas(64) std::atomic<uint64_t> job_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  // kOpen while workers may join, plus the number of workers inside.
  alignas(64) std::atomic<uint32_t> door_{0};
};

}  // namespace

int availableThreads() {
  const unsigned processors = std::thread::hardware_concurrency();
  int count = processors ? static_cast<int>(processors) : 1;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) count = CPU_COUNT(&set);
  if (FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long quota = 0, period = 0;
    if (std::fscanf(file, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
      const long share = (quota + period - 1) / period;
      if (share < count) count = static_cast<int>(share);
    }
    std::fclose(file);
  }
#endif
  return count;
}

void setThreads(int count) { threadLimit = count < 1 ? 1 : count; }

void parallelFor(int64_t count, int64_t grain, Body body, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t pieces = (count - 1) / grain + 1;
  const int threads = pieces < threadLimit ? static_cast<int>(pieces) : threadLimit;
  if (threads > 1 && !insideBody && Pool::instance().tryRun(count, grain, body, context, threads)) return;
  for (int64_t begin = 0; begin < count; begin += grain) {
    const ScratchScope scope;
    body(context, begin, begin + grain < count ? begin + grain : count);
  }
}

}  // namespace wl
