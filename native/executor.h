// One thread that runs calls of programs in the order they were given, beside the thread that gave them.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "program.h"

namespace wl {

class Executor {
 public:
  struct Failure {
    int64_t job;
    std::string why;
  };

  // `settled` is called on the executor's thread after each job.
  explicit Executor(std::function<void()> settled) : settled_(std::move(settled)) {}
  // Drops the jobs that have not begun and waits for the one that has.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Appends calls [begin, end) on memory at `bases`, copied here; what is there must live until the job is done.
  // Returns the job's number: 1, 2, ... A job that fails does not keep later ones from running.
  int64_t submit(std::shared_ptr<Program> program, int32_t begin, int32_t end, const double* bases, int32_t threads);
  // The number of the last job that is done.
  int64_t done() const;
  bool busy() const;
  // Returns when that job, or without a number every one, is done.
  void wait(int64_t job = INT64_MAX);
  // The jobs that have failed since this was last asked.
  std::vector<Failure> takeFailures();

 private:
  struct Job {
    std::shared_ptr<Program> program;
    int32_t begin, end, threads;
    std::vector<double> bases;
  };

  void serve();

  const std::function<void()> settled_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::vector<Failure> failures_;
  int64_t submitted_ = 0, done_ = 0;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace wl
