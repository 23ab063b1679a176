// The limits that kernels are held against, measured in the same process.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/table.hpp"
#include "machine/memory.hpp"
#include "machine/threads.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class T>
double fma_rate(double (*chains)(std::ptrdiff_t, T*), double seconds) {
  const int n_threads = thread_count();
  std::vector<T> sink(static_cast<std::size_t>(n_threads) * 64, T(0));
  constexpr std::ptrdiff_t kSteps = 100000;  // about half a millisecond a stretch
  double best = 0;
  const double start = now();
  do {
    std::vector<double> done(static_cast<std::size_t>(n_threads), 0);
    const double begin = now();
    parallel_for(n_threads, [&](std::ptrdiff_t i) {
      done[static_cast<std::size_t>(i)] = chains(kSteps, &sink[static_cast<std::size_t>(i) * 64]);
    });
    const double elapsed = now() - begin;
    double total = 0;
    for (const double flops : done) {
      total += flops;
    }
    best = std::max(best, total / elapsed);
  } while (now() - start < seconds);
  return best;
}

}  // namespace

double measure_fma(DType dtype, double seconds) {
  const ProbeKernels& probe = kernels().probe;
  return dispatch_float("measure_fma", dtype, [&](auto zero) {
    if constexpr (sizeof(zero) == 4) {
      return fma_rate(probe.fma_f32, seconds);
    } else {
      return fma_rate(probe.fma_f64, seconds);
    }
  });
}

double measure_stream(Stream stream, std::ptrdiff_t bytes, int repeats) {
  const ProbeKernels& probe = kernels().probe;
  const auto run = stream == Stream::copy      ? probe.copy
                   : stream == Stream::copy_nt ? probe.copy_nt
                   : stream == Stream::triad   ? probe.triad
                                               : probe.read;
  const double arrays = stream == Stream::read ? 1 : stream == Stream::triad ? 3 : 2;
  const std::ptrdiff_t n = std::max<std::ptrdiff_t>(bytes / static_cast<std::ptrdiff_t>(sizeof(float)), 1024) / 1024 * 1024;
  const Buffer<float> x(n);
  const Buffer<float> y(n);
  const Buffer<float> z(n);
  const Partition parts(n, std::max<std::ptrdiff_t>(1024, n / thread_count() / 1024 * 1024));
  parallel_for(parts.n_parts, [&](std::ptrdiff_t i) {
    const auto size = static_cast<std::size_t>(parts.end(i) - parts.begin(i)) * sizeof(float);
    std::memset(x.data() + parts.begin(i), 0, size);
    std::memset(y.data() + parts.begin(i), 0, size);
    std::memset(z.data() + parts.begin(i), 0, size);
  });
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const double begin = now();
    parallel_for(parts.n_parts, [&](std::ptrdiff_t part) {
      const std::ptrdiff_t first = parts.begin(part);
      run(x.data() + first, z.data() + first, y.data() + first, parts.end(part) - first);
    });
    best = std::max(best, arrays * static_cast<double>(n) * sizeof(float) / (now() - begin));
  }
  return best;
}

}  // namespace striate
