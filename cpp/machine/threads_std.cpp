// Executor on std::thread: nothing waits for a thread that has not started, so that a busy machine costs a share of its time
// and not a time slice a call.
#include "machine/threads.hpp"
#include "striate/machine.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace striate {

const char* executor_name() { return "std::thread"; }

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(20);    // then the core is offered to others between looks
constexpr auto kYield = std::chrono::microseconds(500);  // then sleep; waking costs 5 to 50 µs
constexpr auto kLate = std::chrono::microseconds(50);  // a helper that missed so long a call may wait for the caller's core
constexpr auto kBetweenMoves = std::chrono::milliseconds(1);

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Threads as the system knows them. Linux puts a thread that wakes up, or that yields, on the core that woke it and leaves
// it there for milliseconds, while another core is idle; so helpers are moved off the caller's core.
#if defined(__linux__)
using ThreadId = pid_t;
ThreadId this_thread() { return gettid(); }
int current_core() { return sched_getcpu(); }
// Moves a thread to another core than `core`, if it may run on another. Its affinity is what it was afterwards.
void move_off(ThreadId thread, int core) {
  cpu_set_t allowed;
  if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(thread, sizeof(allowed), &allowed) != 0 ||
      CPU_COUNT(&allowed) < 2) {
    return;
  }
  cpu_set_t others = allowed;
  CPU_CLR(static_cast<std::size_t>(core), &others);
  if (sched_setaffinity(thread, sizeof(others), &others) == 0) {
    sched_setaffinity(thread, sizeof(allowed), &allowed);
  }
}
#else
using ThreadId = int;
ThreadId this_thread() { return 0; }
int current_core() { return -1; }
void move_off(ThreadId /*thread*/, int /*core*/) {}
#endif

// Waits until done(value of gate) and returns that value: spins, yields, sleeps.
template <class Done>
std::uint32_t wait_for(std::atomic<std::uint32_t>& gate, Done&& done) {
  std::uint32_t seen = gate.load(std::memory_order_acquire);
  const auto start = Clock::now();
  auto waited = Clock::duration::zero();
  while (!done(seen)) {
    if (waited < kSpin) {
      for (int i = 0; i < 32; ++i) {
        pause_briefly();
      }
    } else if (waited < kYield) {
      std::this_thread::yield();
    } else {
      gate.wait(seen, std::memory_order_acquire);
    }
    waited = Clock::now() - start;
    seen = gate.load(std::memory_order_acquire);
  }
  return seen;
}

// Helpers 1, 2, … wait at a gate that the caller opens for a call. Those that come while it is open work; when the caller
// finds no tile left it closes the gate and waits for those inside. A helper that comes late finds it closed and has
// nothing to do: all tiles are claimed by then. Never destroyed: at process exit its threads may still wait, and joining
// them from a static destructor deadlocks inside some embedders.
class Team {
 public:
  void run(int n_workers, void (*body)(void* ctx, int worker), void* ctx) {
    grow(n_workers - 1);
    body_ = body;
    ctx_ = ctx;
    n_workers_.store(n_workers, std::memory_order_relaxed);
    caller_core_.store(current_core(), std::memory_order_relaxed);
    // Nobody is inside a closed gate, so the caller alone writes it here.
    const std::uint32_t round = (gate_.load(std::memory_order_relaxed) & kRound) + kNextRound;
    gate_.store(round | kOpen);
    gate_.notify_all();
    const auto start = Clock::now();
    body(ctx, 0);
    gate_.fetch_and(~kOpen);
    wait_for(gate_, [](std::uint32_t gate) { return (gate & kInside) == 0; });
    const auto now = Clock::now();
    if (now - start > kLate && now - last_move_ > kBetweenMoves) {
      move_late(n_workers - 1, round, now);
    }
  }

 private:
  // The gate: how many are inside, whether it is open, and the number of the call. It is written in sequential consistency:
  // notify_all() looks for sleepers after the write, and a sleeper looks at the gate after it said that it sleeps.
  static constexpr std::uint32_t kInside = 0xFFF;
  static constexpr std::uint32_t kOpen = 0x1000;
  static constexpr std::uint32_t kNextRound = 0x2000;
  static constexpr std::uint32_t kRound = ~(kInside | kOpen);

  struct Helper {
    std::atomic<ThreadId> thread{0};
    std::atomic<std::uint32_t> round{1};  // that it last worked in
  };

  // Where the system gives no more threads, the work is done by fewer.
  void grow(int n_helpers) {
    while (static_cast<int>(helpers_.size()) < std::min(n_helpers, static_cast<int>(kInside))) {
      const int worker = static_cast<int>(helpers_.size()) + 1;
      Helper& helper = helpers_.emplace_back();
      try {
        std::thread([this, worker, &helper] { help(worker, helper); }).detach();
      } catch (const std::system_error&) {
        helpers_.pop_back();
        return;
      }
    }
  }

  // Helpers that took no part in a call may wait for the caller's core.
  void move_late(int n_helpers, std::uint32_t round, Clock::time_point now) {
    const int core = current_core();
    for (Helper& helper : helpers_) {
      if (n_helpers-- <= 0) {
        break;
      }
      const ThreadId thread = helper.thread.load(std::memory_order_relaxed);
      if (thread != 0 && helper.round.load(std::memory_order_relaxed) != round) {
        move_off(thread, core);
        last_move_ = now;
      }
    }
  }

  void help(int worker, Helper& helper) {
    helper.thread.store(this_thread(), std::memory_order_relaxed);
    std::uint32_t done_round = 1;  // no round has this number
    for (;;) {
      bool moved = false;
      std::uint32_t gate = wait_for(gate_, [&](std::uint32_t now) {
        if ((now & kOpen) != 0 && (now & kRound) != done_round) {
          return true;
        }
        if (const int core = current_core(); !moved && core == caller_core_.load(std::memory_order_relaxed)) {
          move_off(this_thread(), core);
          moved = true;
        }
        return false;
      });
      const std::uint32_t round = gate & kRound;
      done_round = round;
      if (worker >= n_workers_.load(std::memory_order_relaxed)) {
        continue;
      }
      // A number of workers that belongs to a later round goes with a gate of that round, and entry fails.
      while ((gate & kOpen) != 0 && (gate & kRound) == round) {
        if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
          helper.round.store(round, std::memory_order_relaxed);
          body_(ctx_, worker);
          gate = gate_.fetch_sub(1) - 1;
          if ((gate & (kInside | kOpen)) == 0) {
            gate_.notify_all();
          }
          break;
        }
      }
    }
  }

  alignas(64) std::atomic<std::uint32_t> gate_{0};
  alignas(64) std::deque<Helper> helpers_;
  Clock::time_point last_move_;
  void (*body_)(void* ctx, int worker) = nullptr;
  void* ctx_ = nullptr;
  std::atomic<int> n_workers_{0};
  std::atomic<int> caller_core_{-1};
};

}  // namespace

namespace detail {

void run_team(int n_workers, void (*body)(void* ctx, int worker), void* ctx) {
  static Team& team = *new Team;
  team.run(n_workers, body, ctx);
}

}  // namespace detail
}  // namespace striate
