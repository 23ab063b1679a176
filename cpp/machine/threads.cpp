#include "machine/threads.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include <pthread.h>
#include <sched.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "striate/error.hpp"
#include "striate/machine.hpp"

namespace striate {
namespace {

// Denormals cost a hundred cycles each on x86 (PyTorch #23862, #67797): flush them inside our threads only.
class FlushToZero {
 public:
#if defined(__x86_64__)
  FlushToZero() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }
  ~FlushToZero() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushToZero() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (1UL << 24)));
  }
  ~FlushToZero() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long saved_;
#else
  FlushToZero() {}
#endif
 public:
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;
};

std::atomic<bool> team_is_busy{false};
std::atomic<bool> is_forked_child{false};

constexpr int kMostRanges = 64;

// Each worker claims the tiles of its own range first, then helps with the others': calls of one geometry, and ops that
// follow one another, find their data in the cache of the core that wrote it.
struct Job {
  struct alignas(64) Range {
    std::atomic<std::ptrdiff_t> claimed{0};
  };

  std::ptrdiff_t n_tiles;
  TileFn fn;
  void* ctx;
  int n_ranges = 1;
  Range ranges[kMostRanges];
};

void work(void* ctx, int worker) {
  const FlushToZero guard;
  Job& job = *static_cast<Job*>(ctx);
  for (int i = 0; i < job.n_ranges; ++i) {
    const int range = (worker + i) % job.n_ranges;
    const std::ptrdiff_t begin = range * job.n_tiles / job.n_ranges;
    const std::ptrdiff_t end = (range + 1) * job.n_tiles / job.n_ranges;
    for (;;) {
      const std::ptrdiff_t tile = begin + job.ranges[range].claimed.fetch_add(1, std::memory_order_relaxed);
      if (tile >= end) {
        break;
      }
      job.fn(job.ctx, tile, worker);
    }
  }
}

// Cores that the cgroup's quota pays for, or 0 when there is no quota. Reads cgroup v2, then v1.
int cgroup_cores() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) {
    return static_cast<int>(std::stod(quota) / period + 0.999);
  }
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double amount = 0;
  if (v1_quota >> amount && v1_period >> period && amount > 0 && period > 0) {
    return static_cast<int>(amount / period + 0.999);
  }
  return 0;
}

int affinity_cores() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return CPU_COUNT(&set);
  }
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

int initial_thread_count() {
  if (const char* forced = std::getenv("STRIATE_NUM_THREADS")) {
    const int n = std::atoi(forced);
    if (n >= 1) {
      return n;
    }
    std::fprintf(stderr, "striate: expected STRIATE_NUM_THREADS to be a number of at least 1, got '%s'; ignored\n", forced);
  }
  return default_thread_count();
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> n_threads = [] {
    pthread_atfork(nullptr, nullptr, [] { is_forked_child.store(true); });
    return initial_thread_count();
  }();
  return n_threads;
}

}  // namespace

int default_thread_count() {
  const int affinity = affinity_cores();
  const int quota = cgroup_cores();
  const int n = quota > 0 && quota < affinity ? quota : affinity;
  return n < 1 ? 1 : n;
}

int thread_count() { return thread_setting().load(std::memory_order_relaxed); }

void set_thread_count(int n_threads) {
  check<std::invalid_argument>(n_threads >= 1, "threads: expected a number of at least 1, got ", n_threads,
                               "; pass 1 for serial work");
  thread_setting().store(n_threads, std::memory_order_relaxed);
}

void parallel_for(std::ptrdiff_t n_tiles, TileFn fn, void* ctx, int most_workers) {
  if (n_tiles <= 0) {
    return;
  }
  Job job{.n_tiles = n_tiles, .fn = fn, .ctx = ctx, .ranges = {}};
  const int limit = std::min(thread_count(), most_workers);
  const int n_workers = n_tiles < limit ? static_cast<int>(n_tiles) : limit;
  if (n_workers == 1 || is_forked_child.load(std::memory_order_relaxed) ||
      team_is_busy.exchange(true, std::memory_order_acquire)) {
    work(&job, 0);
    return;
  }
  job.n_ranges = std::min(n_workers, kMostRanges);
  detail::run_team(n_workers, work, &job);
  team_is_busy.store(false, std::memory_order_release);
}

}  // namespace striate
