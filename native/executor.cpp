#include "executor.h"

#include "pool.h"

namespace wl {

Executor::~Executor() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

int64_t Executor::submit(std::shared_ptr<Program> program, int32_t begin, int32_t end, const double* bases,
                         int32_t threads) {
  Job job{std::move(program), begin, end, threads, {}};
  job.bases.assign(bases, bases + job.program->slots());
  std::lock_guard<std::mutex> lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread(&Executor::serve, this);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
  return ++submitted_;
}

int64_t Executor::done() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return done_;
}

bool Executor::busy() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return done_ < submitted_;
}

void Executor::wait(int64_t job) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= job || done_ == submitted_; });
}

std::vector<Executor::Failure> Executor::takeFailures() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::move(failures_);
}

void Executor::serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    setThreads(job.threads);
    const bool failed = job.program->run(job.begin, job.end, job.bases.data()) >= 0;
    lock.lock();
    if (failed) failures_.push_back({done_ + 1, job.program->error()});
    ++done_;
    lock.unlock();
    changed_.notify_all();
    settled_();
    lock.lock();
  }
}

}  // namespace wl
