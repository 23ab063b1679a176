#include <fstream>
#include <string>

#include <unistd.h>

#include "striate/machine.hpp"

namespace striate {
namespace {

std::ptrdiff_t configured([[maybe_unused]] int name, std::ptrdiff_t fallback) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<std::ptrdiff_t>(bytes) : fallback;
}

// Bytes of the L3 that the first core shares with its neighbours. (glibc's sysconf gives all of an AMD processor's together,
// ten times what a core has.)
std::ptrdiff_t shared_l3(std::ptrdiff_t fallback) {
  for (int i = 0; i < 8; ++i) {
    const std::string cache = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i);
    int level = 0;
    std::ptrdiff_t kilobytes = 0;
    if (std::ifstream(cache + "/level") >> level && level == 3 && std::ifstream(cache + "/size") >> kilobytes) {
      return kilobytes << 10;
    }
  }
  return fallback;
}

}  // namespace

const CacheSizes& cache_sizes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  static const CacheSizes sizes{.l1_bytes = configured(_SC_LEVEL1_DCACHE_SIZE, 32 << 10),
                                .l2_bytes = configured(_SC_LEVEL2_CACHE_SIZE, 512 << 10),
                                .l3_bytes = shared_l3(configured(_SC_LEVEL3_CACHE_SIZE, 0))};
#else
  static const CacheSizes sizes{.l1_bytes = 32 << 10, .l2_bytes = 512 << 10, .l3_bytes = 0};
#endif
  return sizes;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name") || line.starts_with("Model")) {
      const std::size_t colon = line.find(':');
      if (colon != std::string::npos && colon + 2 <= line.size()) {
        return line.substr(colon + 2);
      }
    }
  }
#if defined(__aarch64__)
  return "aarch64 processor";
#else
  return "x86-64 processor";
#endif
}

std::string build_description() {
#if defined(__clang__)
  std::string out = "Clang " __clang_version__;
#else
  std::string out = "GCC " __VERSION__;
#endif
  out += std::string("; ") + executor_name() + " threads; kernels for baseline";
#if defined(STRIATE_HAS_AVX2)
  out += " avx2";
#endif
#if defined(STRIATE_HAS_AVX512)
  out += " avx512";
#endif
  return out;
}

}  // namespace striate
