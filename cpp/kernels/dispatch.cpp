// Which kernel table runs: the best one that was compiled in and that this CPU has, or the one forced by STRIATE_ISA.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/table.hpp"
#include "striate/error.hpp"
#include "striate/machine.hpp"

// One line per *.isa.cpp file: what it adds to a table.
#define STRIATE_FOR_EACH_FILL(X) \
  X(fill_activation)             \
  X(fill_arithmetic)             \
  X(fill_copy)                   \
  X(fill_depthwise)              \
  X(fill_elementary)             \
  X(fill_gemm)                   \
  X(fill_grouped)                \
  X(fill_norm)                   \
  X(fill_optim)                  \
  X(fill_planar)                 \
  X(fill_pool)                   \
  X(fill_probe)                  \
  X(fill_random)                 \
  X(fill_reduce)                 \
  X(fill_resample)               \
  X(fill_softmax)                \
  X(fill_winograd)

#define STRIATE_DECLARE_FILL(fill) void fill(KernelTable& table);
#define STRIATE_CALL_FILL(fill) fill(table);
#define STRIATE_TABLE(target)                  \
  namespace striate::target {                  \
  STRIATE_FOR_EACH_FILL(STRIATE_DECLARE_FILL)  \
  static const KernelTable& filled_table() {   \
    static const KernelTable result = [] {     \
      KernelTable table{};                     \
      STRIATE_FOR_EACH_FILL(STRIATE_CALL_FILL) \
      return table;                            \
    }();                                       \
    return result;                             \
  }                                            \
  }

STRIATE_TABLE(baseline)
#if defined(STRIATE_HAS_AVX2)
STRIATE_TABLE(avx2)
#endif
#if defined(STRIATE_HAS_AVX512)
STRIATE_TABLE(avx512)
#endif
#if defined(STRIATE_HAS_GENERIC512)
STRIATE_TABLE(generic512)
#endif

namespace striate {
namespace {

struct Compiled {
  Isa isa;
  bool is_supported;
  const KernelTable& (*table)();
};

const std::vector<Compiled>& compiled() {
  static const std::vector<Compiled> list = [] {
    std::vector<Compiled> found{{Isa::baseline, true, baseline::filled_table}};
#if defined(STRIATE_HAS_AVX2)
    found.push_back({Isa::avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::filled_table});
#endif
#if defined(STRIATE_HAS_AVX512)
    found.push_back({Isa::avx512,
                     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"),
                     avx512::filled_table});
#endif
#if defined(STRIATE_HAS_GENERIC512)
    found.push_back({Isa::generic512, true, generic512::filled_table});
#endif
    return found;
  }();
  return list;
}

std::atomic<const Compiled*> active{nullptr};

const Compiled& find(Isa isa) {
  for (const Compiled& candidate : compiled()) {
    if (candidate.isa == isa && candidate.is_supported) {
      return candidate;
    }
  }
  std::string names;
  for (const Isa available : available_isas()) {
    names += (names.empty() ? "" : ", ") + std::string(isa_name(available));
  }
  throw std::invalid_argument(
      text("isa: expected one of ", names, ", got '", isa_name(isa), "'; this CPU or this build does not have it"));
}

const Compiled& initial() {
  if (const char* forced = std::getenv("STRIATE_ISA"); forced != nullptr && *forced != '\0') {
    for (const Compiled& candidate : compiled()) {
      if (candidate.is_supported && std::strcmp(isa_name(candidate.isa), forced) == 0) {
        if (candidate.isa < best_isa()) {
          std::fprintf(stderr, "striate: STRIATE_ISA=%s is below this CPU's %s; kernels run slower than they could\n",
                       forced, isa_name(best_isa()));
        }
        return candidate;
      }
    }
    std::fprintf(stderr,
                 "striate: expected STRIATE_ISA to name an instruction set of this CPU and build, got '%s'; using %s\n",
                 forced, isa_name(best_isa()));
  }
  return find(best_isa());
}

const Compiled& current() {
  const Compiled* chosen = active.load(std::memory_order_acquire);
  if (chosen == nullptr) {
    static const Compiled& first = initial();
    chosen = &first;
    active.store(chosen, std::memory_order_release);
  }
  return *chosen;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::generic512:
      return "generic512";
    default:
      return "baseline";
  }
}

std::vector<Isa> available_isas() {
  std::vector<Isa> found;
  for (const Compiled& candidate : compiled()) {
    if (candidate.is_supported) {
      found.push_back(candidate.isa);
    }
  }
  return found;
}

Isa best_isa() {
  Isa best = Isa::baseline;
  for (const Isa isa : available_isas()) {
    if (isa != Isa::generic512) {
      best = std::max(best, isa);
    }
  }
  return best;
}

Isa active_isa() { return current().isa; }

void set_isa(Isa isa) { active.store(&find(isa), std::memory_order_release); }

const KernelTable& kernels() { return current().table(); }

}  // namespace striate
