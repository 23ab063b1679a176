#include "ops/strided_copy.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "machine/threads.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kGrainBytes = 64 * 1024;  // one task: well above the cost of handing it out
constexpr std::ptrdiff_t kTile = 32;               // side of a transposed tile: 32 cache lines of each side stay in L1

// One axis of the copy, strides in bytes.
struct Axis {
  std::ptrdiff_t n = 1;
  std::ptrdiff_t from = 0;
  std::ptrdiff_t to = 0;
};

// Axes from the slowest to the fastest of `to`, merged where both sides run on without a gap.
struct Plan {
  Axis axis[kMaxRank];
  int rank = 0;
  bool is_empty = false;

  Plan(const Array& from, const Array& to) {
    const std::ptrdiff_t item = item_bytes(to.dtype());
    for (int a = 0; a < to.rank(); ++a) {
      is_empty = is_empty || to.shape(a) == 0;
      if (to.shape(a) > 1) {
        axis[rank++] = {to.shape(a), from.stride(a) * item, to.stride(a) * item};
      }
    }
    std::stable_sort(axis, axis + rank, [](const Axis& a, const Axis& b) { return std::abs(a.to) > std::abs(b.to); });
    int last = 0;
    for (int a = 1; a < rank; ++a) {
      if (axis[last].to == axis[a].n * axis[a].to && axis[last].from == axis[a].n * axis[a].from) {
        axis[last] = {axis[last].n * axis[a].n, axis[a].from, axis[a].to};
      } else {
        axis[++last] = axis[a];
      }
    }
    rank = rank > 0 ? last + 1 : 0;
  }

  Axis take(int a) {
    const Axis taken = axis[a];
    std::copy(axis + a + 1, axis + rank, axis + a);
    --rank;
    return taken;
  }
};

// Calls f(from offset, to offset) for positions [begin, end) of the axes of `plan`, the last axis running fastest.
template <class F>
void for_each_position(const Plan& plan, std::ptrdiff_t begin, std::ptrdiff_t end, F&& f) {
  std::ptrdiff_t at[kMaxRank] = {};
  std::ptrdiff_t from = 0;
  std::ptrdiff_t to = 0;
  std::ptrdiff_t rest = begin;
  for (int a = plan.rank - 1; a >= 0; --a) {
    at[a] = rest % plan.axis[a].n;
    rest /= plan.axis[a].n;
    from += at[a] * plan.axis[a].from;
    to += at[a] * plan.axis[a].to;
  }
  for (std::ptrdiff_t position = begin; position < end; ++position) {
    f(from, to);
    for (int a = plan.rank - 1; a >= 0; --a) {
      from += plan.axis[a].from;
      to += plan.axis[a].to;
      if (++at[a] < plan.axis[a].n) {
        break;
      }
      from -= plan.axis[a].from * plan.axis[a].n;
      to -= plan.axis[a].to * plan.axis[a].n;
      at[a] = 0;
    }
  }
}

std::ptrdiff_t n_positions(const Plan& plan) {
  std::ptrdiff_t n = 1;
  for (int a = 0; a < plan.rank; ++a) {
    n *= plan.axis[a].n;
  }
  return n;
}

// Runs f(from offset, to offset) over all positions, in tasks of about kGrainBytes.
template <class F>
void parallel_positions(const Plan& plan, std::ptrdiff_t bytes_each, F&& f) {
  const Partition tasks(n_positions(plan),
                        std::max<std::ptrdiff_t>(kGrainBytes / std::max<std::ptrdiff_t>(bytes_each, 1), 1));
  parallel_for(tasks.n_parts, [&](std::ptrdiff_t task) { for_each_position(plan, tasks.begin(task), tasks.end(task), f); });
}

template <class T>
struct Copier {
  std::byte* to;
  const std::byte* from;

  // Rows that run on without gaps on both sides.
  void rows(Plan plan) const {
    Axis row = plan.take(plan.rank - 1);
    const std::ptrdiff_t chunk = kGrainBytes / static_cast<std::ptrdiff_t>(sizeof(T));
    if (row.n >= 2 * chunk && row.n % chunk == 0) {
      plan.axis[plan.rank++] = {row.n / chunk, row.from * chunk, row.to * chunk};
      row.n = chunk;
    } else if (row.n >= 2 * chunk) {  // one more pass for the tail of every row
      Plan tail = plan;
      const std::ptrdiff_t whole = row.n / chunk * chunk;
      tail.axis[tail.rank++] = {row.n - whole, row.from, row.to};
      Copier{to + whole * row.to, from + whole * row.from}.rows(tail);
      plan.axis[plan.rank++] = {whole / chunk, row.from * chunk, row.to * chunk};
      row.n = chunk;
    }
    const auto bytes = static_cast<std::size_t>(row.n) * sizeof(T);
    parallel_positions(plan, static_cast<std::ptrdiff_t>(bytes),
                       [&](std::ptrdiff_t f, std::ptrdiff_t t) { std::memcpy(to + t, from + f, bytes); });
  }

  // `row` is the fastest axis of `to`, `column` that of `from`: square tiles keep both sides' cache lines in use.
  void transposed(Plan plan, const Axis& row, const Axis& column) const {
    const Partition blocks(row.n, kTile);
    const Partition bands(column.n, kTile);
    const std::ptrdiff_t n_outer = n_positions(plan);
    const std::ptrdiff_t n_units = n_outer * bands.n_parts;
    const std::ptrdiff_t unit_bytes = row.n * std::min(column.n, kTile) * static_cast<std::ptrdiff_t>(sizeof(T));
    const Partition tasks(n_units, std::max<std::ptrdiff_t>(kGrainBytes / unit_bytes, 1));
    parallel_for(tasks.n_parts, [&](std::ptrdiff_t task) {
      for (std::ptrdiff_t unit = tasks.begin(task); unit < tasks.end(task); ++unit) {
        const std::ptrdiff_t outer = unit / bands.n_parts;
        const std::ptrdiff_t band = unit % bands.n_parts;
        for_each_position(plan, outer, outer + 1, [&](std::ptrdiff_t f, std::ptrdiff_t t) {
          for (std::ptrdiff_t block = 0; block < blocks.n_parts; ++block) {
            for (std::ptrdiff_t j = bands.begin(band); j < bands.end(band); ++j) {
              const std::ptrdiff_t i = blocks.begin(block);
              run(from + f + j * column.from + i * row.from, row.from, to + t + j * column.to + i * row.to, row.to,
                  blocks.end(block) - i);
            }
          }
        });
      }
    });
  }

  static void run(const std::byte* from, std::ptrdiff_t from_step, std::byte* to, std::ptrdiff_t to_step, std::ptrdiff_t n) {
    constexpr auto kItem = static_cast<std::ptrdiff_t>(sizeof(T));
    if (to_step == kItem) {
      T* out = reinterpret_cast<T*>(to);
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        out[i] = *reinterpret_cast<const T*>(from + i * from_step);
      }
    } else {
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        *reinterpret_cast<T*>(to + i * to_step) = *reinterpret_cast<const T*>(from + i * from_step);
      }
    }
  }

  void all(Plan plan) const {
    constexpr auto kItem = static_cast<std::ptrdiff_t>(sizeof(T));
    if (plan.rank == 0) {
      *reinterpret_cast<T*>(to) = *reinterpret_cast<const T*>(from);
      return;
    }
    if (plan.axis[plan.rank - 1].to == kItem && plan.axis[plan.rank - 1].from == kItem) {
      rows(plan);
      return;
    }
    const Axis row = plan.take(plan.rank - 1);
    int column = -1;
    for (int a = 0; a < plan.rank; ++a) {
      const std::ptrdiff_t best = std::abs(column < 0 ? row.from : plan.axis[column].from);
      if (plan.axis[a].from != 0 && std::abs(plan.axis[a].from) < best) {
        column = a;
      }
    }
    if (column >= 0) {
      const Axis taken = plan.take(column);
      transposed(plan, row, taken);
      return;
    }
    parallel_positions(plan, row.n * kItem,
                       [&](std::ptrdiff_t f, std::ptrdiff_t t) { run(from + f, row.from, to + t, row.to, row.n); });
  }
};

}  // namespace

void strided_copy(const Array& from, const Array& to) {
  const Plan plan(from, to);
  if (plan.is_empty) {
    return;
  }
  switch (item_bytes(to.dtype())) {
    case 1:
      return Copier<std::uint8_t>{to.bytes(), from.bytes()}.all(plan);
    case 2:
      return Copier<std::uint16_t>{to.bytes(), from.bytes()}.all(plan);
    case 4:
      return Copier<std::uint32_t>{to.bytes(), from.bytes()}.all(plan);
    default:
      return Copier<std::uint64_t>{to.bytes(), from.bytes()}.all(plan);
  }
}

void fill_zero(const Array& dense) {
  const Partition parts(dense.size() * item_bytes(dense.dtype()), kGrainBytes);
  std::byte* data = dense.bytes();
  parallel_for(parts.n_parts, [&](std::ptrdiff_t i) {
    std::memset(data + parts.begin(i), 0, static_cast<std::size_t>(parts.end(i) - parts.begin(i)));
  });
}

Layout layout_of(const Array& x) {
  if (x.rank() < 3 || x.rank() > 5) {
    return Layout::row_major;
  }
  if (x.is_dense(Layout::row_major)) {
    // Both at once (one channel, or one pixel): images are rank 4 and 5.
    return x.rank() > 3 && x.is_dense(Layout::channels_last) ? Layout::channels_last : Layout::row_major;
  }
  return x.is_dense(Layout::channels_last) || (x.shape(1) > 1 && x.stride(1) == 1) ? Layout::channels_last
                                                                                   : Layout::row_major;
}

}  // namespace striate
