// Executor on std::thread: for compilers without OpenMP and for ThreadSanitizer.
#include "machine/threads.hpp"
#include "striate/machine.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace striate {

const char* executor_name() { return "std::thread"; }

namespace {

// Workers 1..n wait for a new round; those numbered below n_workers take part. Never destroyed: at process exit its threads
// may still wait, and joining them from a static destructor deadlocks inside some embedders.
class Team {
 public:
  void run(int n_workers, void (*body)(void* ctx, int worker), void* ctx) {
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<int>(threads_.size()) < n_workers - 1) {
        const int worker = static_cast<int>(threads_.size()) + 1;
        threads_.emplace_back([this, worker, round = round_] { loop(worker, round); });
      }
      body_ = body;
      ctx_ = ctx;
      n_workers_ = n_workers;
      n_running_ = n_workers - 1;
      ++round_;
    }
    start_.notify_all();
    body(ctx, 0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return n_running_ == 0; });
  }

 private:
  void loop(int worker, unsigned long seen) {
    std::unique_lock lock(mutex_);
    for (;;) {
      start_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (worker >= n_workers_) {
        continue;
      }
      const auto body = body_;
      void* const ctx = ctx_;
      lock.unlock();
      body(ctx, worker);
      lock.lock();
      if (--n_running_ == 0) {
        done_.notify_one();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  std::vector<std::thread> threads_;
  void (*body_)(void* ctx, int worker) = nullptr;
  void* ctx_ = nullptr;
  int n_workers_ = 0;
  int n_running_ = 0;
  unsigned long round_ = 0;
};

}  // namespace

namespace detail {

void run_team(int n_workers, void (*body)(void* ctx, int worker), void* ctx) {
  static Team& team = *new Team;
  team.run(n_workers, body, ctx);
}

}  // namespace detail
}  // namespace striate
