// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11, §3.3).
//
// Block b of draw `call` is philox(counter = (b, call), key = seed), both 64 bits: four words of 32 bits. An element of one
// word (float32, a truth value) takes word e mod 4 of block e / 4; one of two words takes half of block e / 2. Normal
// numbers come in pairs by Box-Muller from two such values. So bits depend on (seed, call, element) and on nothing else.
#include "kernels/math.hpp"
#include "kernels/table.hpp"

namespace striate::STRIATE_TARGET {
namespace {

inline constexpr std::ptrdiff_t kBlocks = 64;  // blocks computed side by side

struct Words {
  std::uint32_t word[4][kBlocks];
};

void philox(std::uint64_t first_block, std::uint64_t call, std::uint64_t seed, Words& out) {
  std::uint32_t* __restrict c0 = out.word[0];
  std::uint32_t* __restrict c1 = out.word[1];
  std::uint32_t* __restrict c2 = out.word[2];
  std::uint32_t* __restrict c3 = out.word[3];
  for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(j);
    c0[j] = static_cast<std::uint32_t>(block);
    c1[j] = static_cast<std::uint32_t>(block >> 32U);
    c2[j] = static_cast<std::uint32_t>(call);
    c3[j] = static_cast<std::uint32_t>(call >> 32U);
  }
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32U);
  for (int round = 0; round < 10; ++round) {
    for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0[j];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2[j];
      const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32U) ^ c1[j] ^ k0;
      const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32U) ^ c3[j] ^ k1;
      c1[j] = static_cast<std::uint32_t>(p1);
      c3[j] = static_cast<std::uint32_t>(p0);
      c0[j] = n0;
      c2[j] = n2;
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
}

STRIATE_INLINE std::uint64_t pair_of(std::uint32_t low, std::uint32_t high) {
  return std::uint64_t{low} | std::uint64_t{high} << 32U;
}
STRIATE_INLINE double unit53(std::uint64_t bits) {
  return static_cast<double>(static_cast<std::int64_t>(bits >> 11U)) * 0x1p-53;
}
STRIATE_INLINE double unit24(std::uint32_t bits) {
  return static_cast<double>(static_cast<std::int32_t>(bits >> 8U)) * 0x1p-24;
}
STRIATE_INLINE std::uint64_t high_product(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t a0 = a & 0xffffffffU;
  const std::uint64_t a1 = a >> 32U;
  const std::uint64_t b0 = b & 0xffffffffU;
  const std::uint64_t b1 = b >> 32U;
  const std::uint64_t middle = a1 * b0 + ((a0 * b0) >> 32U);
  return a1 * b1 + (middle >> 32U) + (((middle & 0xffffffffU) + a0 * b1) >> 32U);
}

inline constexpr double kTwoPi = 6.28318530717958647693;

// (r cos θ, r sin θ), r = √(−2 ln(1 − u)), θ = 2πv: u in [0, 1) keeps the logarithm finite.
STRIATE_INLINE void normal_pair(double u, double v, double& z0, double& z1) {
  const double radius = __builtin_sqrt(-2.0 * Math<float>::log(1.0 - u));
  z0 = radius * Math<float>::sin_of(kTwoPi * v, 1);
  z1 = radius * Math<float>::sin_of(kTwoPi * v, 0);
}

// Fills out[word or half][block] with the values of 64 blocks, then stores them in the order of elements.
template <class Y, int kPerBlock, class F>
STRIATE_INLINE void draw(const RandomRun& run, const F& convert) {
  Y* const y = static_cast<Y*>(run.y);
  std::ptrdiff_t done = 0;
  while (done < run.n) {
    Words words;
    philox(static_cast<std::uint64_t>((run.first + done) / kPerBlock), run.call, run.seed, words);
    Y values[kPerBlock][kBlocks];
    convert(words, values);
    const std::ptrdiff_t n = run.n - done < kPerBlock * kBlocks ? run.n - done : kPerBlock * kBlocks;
    if (n == kPerBlock * kBlocks) {
      for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
        for (std::ptrdiff_t k = 0; k < kPerBlock; ++k) {
          y[done + j * kPerBlock + k] = values[k][j];
        }
      }
    } else {
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        y[done + i] = values[i % kPerBlock][i / kPerBlock];
      }
    }
    done += n;
  }
}

void random(RandomKind kind, const RandomRun& run) {
  switch (kind) {
    case RandomKind::uniform_f32:
      draw<float, 4>(run, [](const Words& w, float(&out)[4][kBlocks]) {
        for (int k = 0; k < 4; ++k) {
          for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
            out[k][j] = static_cast<float>(unit24(w.word[k][j]));
          }
        }
      });
      break;
    case RandomKind::uniform_f64:
      draw<double, 2>(run, [](const Words& w, double(&out)[2][kBlocks]) {
        for (int k = 0; k < 2; ++k) {
          for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
            out[k][j] = unit53(pair_of(w.word[2 * k][j], w.word[2 * k + 1][j]));
          }
        }
      });
      break;
    case RandomKind::normal_f32:
      draw<float, 4>(run, [](const Words& w, float(&out)[4][kBlocks]) {
        for (int k = 0; k < 4; k += 2) {
          for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
            double z0;
            double z1;
            normal_pair(unit24(w.word[k][j]), unit24(w.word[k + 1][j]), z0, z1);
            out[k][j] = static_cast<float>(z0);
            out[k + 1][j] = static_cast<float>(z1);
          }
        }
      });
      break;
    case RandomKind::normal_f64:
      draw<double, 2>(run, [](const Words& w, double(&out)[2][kBlocks]) {
        for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
          const double u = unit53(pair_of(w.word[0][j], w.word[1][j]));
          const double v = unit53(pair_of(w.word[2][j], w.word[3][j]));
          normal_pair(u, v, out[0][j], out[1][j]);
        }
      });
      break;
    case RandomKind::integer:
      draw<std::int64_t, 2>(run, [&](const Words& w, std::int64_t(&out)[2][kBlocks]) {
        for (int k = 0; k < 2; ++k) {
          for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
            const std::uint64_t bits = pair_of(w.word[2 * k][j], w.word[2 * k + 1][j]);
            out[k][j] = run.low + static_cast<std::int64_t>(high_product(bits, run.range));
          }
        }
      });
      break;
    case RandomKind::bernoulli:
      draw<std::uint8_t, 4>(run, [&](const Words& w, std::uint8_t(&out)[4][kBlocks]) {
        for (int k = 0; k < 4; ++k) {
          for (std::ptrdiff_t j = 0; j < kBlocks; ++j) {
            out[k][j] = w.word[k][j] >= run.range;
          }
        }
      });
      break;
  }
}

}  // namespace

void fill_random(KernelTable& table) { table.rows.random = random; }

}  // namespace striate::STRIATE_TARGET
