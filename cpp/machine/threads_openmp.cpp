// Executor on OpenMP: the only file with an OpenMP pragma.
#include "machine/threads.hpp"
#include "striate/machine.hpp"

#include <omp.h>

namespace striate {

const char* executor_name() { return "openmp"; }

namespace detail {

void run_team(int n_workers, void (*body)(void* ctx, int worker), void* ctx) {
#pragma omp parallel num_threads(n_workers)
  body(ctx, omp_get_thread_num());
}

}  // namespace detail
}  // namespace striate
