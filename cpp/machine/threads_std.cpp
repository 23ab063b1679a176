// Executor on std::thread: nothing waits for a thread that has not started, so that a busy machine costs a share of its time
// and not a time slice a call.
#include "machine/threads.hpp"
#include "striate/machine.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace striate {

const char* executor_name() { return "std::thread"; }

namespace {

constexpr auto kSpin = std::chrono::microseconds(20);    // then the core is offered to others between looks
constexpr auto kYield = std::chrono::microseconds(500);  // then sleep; waking costs 5 to 50 µs

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until done(value of gate) and returns that value: spins, yields, sleeps.
template <class Done>
std::uint32_t wait_for(std::atomic<std::uint32_t>& gate, Done&& done) {
  using Clock = std::chrono::steady_clock;
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
    // Nobody is inside a closed gate, so the caller alone writes it here.
    gate_.store(((gate_.load(std::memory_order_relaxed) & kRound) + kNextRound) | kOpen);
    gate_.notify_all();
    body(ctx, 0);
    gate_.fetch_and(~kOpen);
    wait_for(gate_, [](std::uint32_t gate) { return (gate & kInside) == 0; });
  }

 private:
  // The gate: how many are inside, whether it is open, and the number of the call. It is written in sequential consistency:
  // notify_all() looks for sleepers after the write, and a sleeper looks at the gate after it said that it sleeps.
  static constexpr std::uint32_t kInside = 0xFFF;
  static constexpr std::uint32_t kOpen = 0x1000;
  static constexpr std::uint32_t kNextRound = 0x2000;
  static constexpr std::uint32_t kRound = ~(kInside | kOpen);

  // Where the system gives no more threads, the work is done by fewer.
  void grow(int n_helpers) {
    while (static_cast<int>(threads_.size()) < std::min(n_helpers, static_cast<int>(kInside))) {
      const int worker = static_cast<int>(threads_.size()) + 1;
      try {
        threads_.emplace_back([this, worker] { help(worker); });
      } catch (const std::system_error&) {
        return;
      }
    }
  }

  void help(int worker) {
    std::uint32_t done_round = 1;  // no round has this number
    for (;;) {
      std::uint32_t gate =
          wait_for(gate_, [&](std::uint32_t now) { return (now & kOpen) != 0 && (now & kRound) != done_round; });
      const std::uint32_t round = gate & kRound;
      done_round = round;
      if (worker >= n_workers_.load(std::memory_order_relaxed)) {
        continue;
      }
      // A number of workers that belongs to a later round goes with a gate of that round, and entry fails.
      while ((gate & kOpen) != 0 && (gate & kRound) == round) {
        if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
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
  alignas(64) std::vector<std::thread> threads_;
  void (*body_)(void* ctx, int worker) = nullptr;
  void* ctx_ = nullptr;
  std::atomic<int> n_workers_{0};
};

}  // namespace

namespace detail {

void run_team(int n_workers, void (*body)(void* ctx, int worker), void* ctx) {
  static Team& team = *new Team;
  team.run(n_workers, body, ctx);
}

}  // namespace detail
}  // namespace striate
