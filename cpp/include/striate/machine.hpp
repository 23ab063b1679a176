// What the computer is: instruction sets, caches, threads, memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace striate {

// Instruction sets a build may hold, worst first. `baseline` is SSE2 on x86-64 and NEON on aarch64.
enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2, generic512 = 3 };

[[nodiscard]] const char* isa_name(Isa isa);
[[nodiscard]] std::vector<Isa> available_isas();  // compiled in and supported by this CPU, worst first
[[nodiscard]] Isa best_isa();                     // the one chosen when nothing is forced
[[nodiscard]] Isa active_isa();
void set_isa(Isa isa);  // throws std::invalid_argument when not available

struct CacheSizes {
  std::ptrdiff_t l1_bytes;  // data, one core
  std::ptrdiff_t l2_bytes;  // one core
  std::ptrdiff_t l3_bytes;  // shared; 0 when there is none
};
[[nodiscard]] const CacheSizes& cache_sizes();
[[nodiscard]] std::string cpu_name();
[[nodiscard]] std::string build_description();  // compiler, executor, instruction sets

[[nodiscard]] int thread_count();
void set_thread_count(int n_threads);       // throws std::invalid_argument below 1
[[nodiscard]] int default_thread_count();   // min(affinity mask, cgroup quota)
[[nodiscard]] const char* executor_name();  // "openmp" or "std::thread"

struct MemoryStats {
  std::uint64_t in_use_bytes;          // handed out now, rounded up to size classes
  std::uint64_t cached_bytes;          // freed, kept for reuse
  std::uint64_t peak_bytes;            // highest in_use_bytes since the last reset
  std::uint64_t n_system_allocations;  // times memory was asked from the system
  std::uint64_t cap_bytes;             // most that is kept for reuse
};
[[nodiscard]] MemoryStats memory_stats();
void trim_memory();                        // gives cached memory back to the system
void set_memory_cap(std::uint64_t bytes);  // 0 chooses it from the peak
// Between the two, which nest, little is kept for reuse: a pass that is recorded runs once.
void begin_single_pass();
void end_single_pass();

// What ran since the last reset, for laws and for explain().
struct Counters {
  std::uint64_t n_relayouts;  // copies that changed the order of axes in memory
  std::uint64_t relayout_bytes;
};
[[nodiscard]] Counters counters();
void reset_counters();
void count_relayout(std::ptrdiff_t bytes);

}  // namespace striate
