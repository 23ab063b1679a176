// The one seam through which work reaches threads.
//
// A partition into tiles is a function of geometry only; threads decide who computes a tile, never what a tile is.
// That is why results are equal to the bit for any number of threads.
#pragma once

#include <cstddef>
#include <type_traits>

namespace striate {

// fn(ctx, tile, worker): tile in [0, n_tiles), each exactly once; worker in [0, most_workers), for scratch memory.
using TileFn = void (*)(void* ctx, std::ptrdiff_t tile, int worker);

inline constexpr int kAllThreads = 1 << 20;

// Runs all tiles and returns when they are done; the caller works too. Each worker takes the tiles of a range of
// its own in turn, then helps with the others'.
// Flush-to-zero is on inside and restored after. fn must not throw. A call made inside a tile, in a forked child or while
// another thread's call is under way runs serially on the calling thread. A caller with scratch memory per worker reads
// thread_count() once and passes it as `most_workers`.
void parallel_for(std::ptrdiff_t n_tiles, TileFn fn, void* ctx, int most_workers = kAllThreads);

template <class F>
void parallel_for(std::ptrdiff_t n_tiles, F&& f, int most_workers = kAllThreads) {
  using Fn = std::remove_reference_t<F>;
  parallel_for(
      n_tiles,
      [](void* ctx, std::ptrdiff_t tile, int worker) {
        if constexpr (std::is_invocable_v<Fn&, std::ptrdiff_t, int>) {
          (*static_cast<Fn*>(ctx))(tile, worker);
        } else {
          (*static_cast<Fn*>(ctx))(tile);
        }
      },
      const_cast<void*>(static_cast<const void*>(&f)), most_workers);
}

// Splits n items into equal parts of about `grain` items: a function of geometry only.
struct Partition {
  std::ptrdiff_t n_items;
  std::ptrdiff_t part;  // items in each part but the last
  std::ptrdiff_t n_parts;

  Partition(std::ptrdiff_t n, std::ptrdiff_t grain)
      : n_items(n), part(grain < 1 ? 1 : grain), n_parts((n + part - 1) / part) {}
  [[nodiscard]] std::ptrdiff_t begin(std::ptrdiff_t i) const { return i * part; }
  [[nodiscard]] std::ptrdiff_t end(std::ptrdiff_t i) const { return (i + 1) * part < n_items ? (i + 1) * part : n_items; }
};

namespace detail {

// What an executor (threads_std.cpp or threads_openmp.cpp) provides: run `body(ctx, worker)` on the calling thread as worker
// 0 and on up to n_workers − 1 others, each number once, and return when all that started have returned. A thread that has
// not started when worker 0 returns need not start: no tile is left then.
void run_team(int n_workers, void (*body)(void* ctx, int worker), void* ctx);

}  // namespace detail
}  // namespace striate
