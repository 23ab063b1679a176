// Element-wise operators: promote, broadcast, choose the layout, run the kernel; operands that are not unit-stride runs of
// the computing type are gathered strip by strip into the L1 cache on the way.
#include "ops/map.hpp"

#include <algorithm>
#include <string_view>

#include "machine/memory.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

struct Row {
  const char* name;
  int inputs;
  MapRule rule;
  int cost;
  const char* a;
  const char* b;
};

constexpr Row kRows[] = {
#define STRIATE_ROW(name, inputs, rule, cost, a, b) {#name, inputs, MapRule::rule, cost, a, b},
    STRIATE_MAP_OPS(STRIATE_ROW)
#undef STRIATE_ROW
};

constexpr std::ptrdiff_t kLeastStreamedRun = 2048;  // bytes
constexpr std::ptrdiff_t kStrip = 512;              // items of a gathered strip: all strips of an op stay in the L1 cache

MapType computing_type(const char* op, DType dtype) {
  switch (dtype) {
    case DType::float32:
      return MapType::f32;
    case DType::float64:
      return MapType::f64;
    case DType::float16:
    case DType::bfloat16:
      throw DTypeError(text(op, ": expected float32, float64, an integer type or bool, got ", dtype_name(dtype),
                            "; convert with .to(float32)"));
    default:
      return MapType::i64;
  }
}

constexpr DType kDTypeOf[kMapTypes] = {DType::float32, DType::float64, DType::int64, DType::boolean};

// bool, integer, float: a dtype of a higher category wins over any of a lower one.
int category(DType dtype) { return dtype == DType::boolean ? 0 : is_floating(dtype) ? 2 : 1; }

DType promote(const char* op, DType a, DType b) {
  if (a == b) {
    return a;
  }
  if (category(a) != category(b)) {
    return category(a) > category(b) ? a : b;
  }
  const auto either = [&](DType x, DType y) { return (a == x && b == y) || (a == y && b == x); };
  check<DTypeError>(!either(DType::uint8, DType::int8) && a != DType::float16 && a != DType::bfloat16 &&
                        b != DType::float16 && b != DType::bfloat16,
                    op, ": expected dtypes with a common one, got ", dtype_name(a), " and ", dtype_name(b),
                    "; convert one with .to(...)");
  return item_bytes(a) > item_bytes(b) ? a : b;
}

// As `fn(run)`, with the result stored past the caches: computed strip by strip into one that stays in L1.
void run_streaming(MapFn fn, const MapRun& run, int n_inputs, const std::ptrdiff_t* x_item, std::ptrdiff_t y_item) {
  constexpr std::ptrdiff_t kBytes = 8192;
  alignas(kAlignment) std::byte strip[kBytes];
  const std::ptrdiff_t n_strip = kBytes / y_item;
  for (std::ptrdiff_t r = 0; r < run.rows; ++r) {
    for (std::ptrdiff_t first = 0; first < run.n; first += n_strip) {
      MapRun part = run;
      part.rows = 1;
      part.n = std::min(n_strip, run.n - first);
      part.y = strip;
      for (int k = 0; k < n_inputs; ++k) {
        part.x[k] = static_cast<const std::byte*>(run.x[k]) + (r * run.x_row[k] + first * run.x_step[k]) * x_item[k];
      }
      fn(part);
      stream(strip, static_cast<std::byte*>(run.y) + (r * run.y_row + first) * y_item, part.n * y_item);
    }
  }
}

}  // namespace

DType result_type(const char* op, std::span<const Array* const> operands) {
  // Among operands of the highest category present, those with axes decide; single numbers only count among themselves
  // (PyTorch's rule). An operand of a higher category raises the result even when it is a single number.
  bool has_result[2] = {false, false};
  DType result[2] = {DType::boolean, DType::boolean};
  for (const Array* x : operands) {
    const int kind = x->rank() > 0 ? 0 : 1;
    result[kind] = has_result[kind] ? promote(op, result[kind], x->dtype()) : x->dtype();
    has_result[kind] = true;
  }
  if (!has_result[0] || !has_result[1]) {
    return result[has_result[0] ? 0 : 1];
  }
  return category(result[1]) > category(result[0]) ? result[1] : result[0];
}

int n_map_ops() { return kMapOps; }
MapInfo map_info(int op) {
  const Row& row = kRows[op];
  return {row.name, row.inputs, {row.a, row.b}};
}
int find_map_op(const char* name) {
  for (int op = 0; op < kMapOps; ++op) {
    if (std::string_view(kRows[op].name) == name) {
      return op;
    }
  }
  throw std::invalid_argument(text("map: expected the name of an element-wise operator, got '", name, "'"));
}

Array map(int op, std::span<const Array* const> inputs, double a, double b) {
  const Row& row = kRows[op];
  const int n_inputs = row.inputs;
  const bool is_choice = row.rule == MapRule::chooses;
  const Extents shape = broadcast_shape(row.name, inputs);
  DType dtype = result_type(row.name, is_choice ? inputs.subspan(1) : inputs);
  if (row.rule == MapRule::floating && !is_floating(dtype)) {
    dtype = DType::float32;
  }
  check<DTypeError>(dtype != DType::boolean || (op != static_cast<int>(MapOp::sub) && op != static_cast<int>(MapOp::neg)),
                    row.name, ": expected numbers, got bool; use logical_xor or logical_not");
  const MapType type = row.rule == MapRule::logical       ? MapType::b8
                       : is_choice && !is_floating(dtype) ? MapType::i64
                                                          : computing_type(row.name, dtype);
  const bool is_predicate = row.rule == MapRule::logical || row.rule == MapRule::compares;
  const MapFn fn = kernels().maps.map[op][static_cast<int>(type)];
  check<DTypeError>(fn != nullptr, row.name, ": expected floating-point tensors, got ", dtype_name(dtype),
                    "; convert with .to(float32)");
  const DType result_dtype = is_predicate ? DType::boolean : dtype;
  const DType kernel_result = is_predicate ? DType::boolean : kDTypeOf[static_cast<int>(type)];

  const Array y = empty_for(result_dtype, shape, inputs);
  Array x[kMapInputs];
  const Array* operands[kMapInputs + 1] = {&y};
  for (int k = 0; k < n_inputs; ++k) {
    x[k] = inputs[static_cast<std::size_t>(k)]->shape() == shape ? *inputs[static_cast<std::size_t>(k)]
                                                                 : inputs[static_cast<std::size_t>(k)]->broadcast_to(shape);
    operands[k + 1] = &x[k];
  }
  const StridedLoop loop = make_loop(std::span(operands, static_cast<std::size_t>(n_inputs + 1)));

  DType wanted[kMapInputs];
  CopyFn gather[kMapInputs] = {};  // null: the kernel reads the operand in place
  bool is_direct = kernel_result == result_dtype;
  for (int k = 0; k < n_inputs; ++k) {
    wanted[k] = is_choice && k == 0 ? DType::boolean : kDTypeOf[static_cast<int>(type)];
    const std::ptrdiff_t step = loop.step(k + 1);
    if (x[k].dtype() != wanted[k] || (step != 1 && !(step == 0 && n_inputs == 2 && !is_choice))) {
      gather[k] = kernels().maps.copy[static_cast<int>(x[k].dtype())][static_cast<int>(wanted[k])];
      is_direct = false;
    }
  }
  std::ptrdiff_t x_item[kMapInputs] = {};
  for (int k = 0; k < n_inputs; ++k) {
    x_item[k] = item_bytes(wanted[k]);
  }
  const std::ptrdiff_t y_item = item_bytes(result_dtype);
  const bool streams = y.size() * y_item > kStreamBytes && loop.n() * y_item >= kLeastStreamedRun;
  const CopyFn scatter = kernels().maps.copy[static_cast<int>(kernel_result)][static_cast<int>(result_dtype)];

  for_each_run(loop, std::max<std::ptrdiff_t>(1024, kGrain / row.cost),
               [&](const std::ptrdiff_t* offset, std::ptrdiff_t rows, std::ptrdiff_t n) {
                 MapRun run{};
                 run.a = a;
                 run.b = b;
                 if (is_direct) {
                   run.rows = rows;
                   run.n = n;
                   run.y = y.bytes() + offset[0] * y_item;
                   run.y_row = loop.row(0);
                   for (int k = 0; k < n_inputs; ++k) {
                     run.x[k] = x[k].bytes() + offset[k + 1] * x_item[k];
                     run.x_row[k] = loop.row(k + 1);
                     run.x_step[k] = loop.step(k + 1);
                   }
                   if (streams) {
                     run_streaming(fn, run, n_inputs, x_item, y_item);
                   } else {
                     fn(run);
                   }
                   return;
                 }
                 alignas(64) std::byte strips[kMapInputs + 1][kStrip * 8];
                 run.rows = 1;
                 for (std::ptrdiff_t r = 0; r < rows; ++r) {
                   for (std::ptrdiff_t first = 0; first < n; first += kStrip) {
                     run.n = std::min(kStrip, n - first);
                     for (int k = 0; k < n_inputs; ++k) {
                       const std::ptrdiff_t step = loop.step(k + 1);
                       const std::byte* const from =
                           x[k].bytes() + (offset[k + 1] + r * loop.row(k + 1) + first * step) * item_bytes(x[k].dtype());
                       run.x[k] = from;
                       run.x_step[k] = step;
                       if (gather[k] != nullptr) {
                         gather[k](1, run.n, from, 0, step, strips[k], 0, 1);
                         run.x[k] = strips[k];
                         run.x_step[k] = 1;
                       }
                     }
                     std::byte* const to = y.bytes() + (offset[0] + r * loop.row(0) + first) * item_bytes(result_dtype);
                     run.y = kernel_result == result_dtype ? to : strips[kMapInputs];
                     fn(run);
                     if (run.y != to) {
                       scatter(1, run.n, run.y, 0, 1, to, 0, 1);
                     }
                   }
                 }
               });
  return y;
}

}  // namespace striate
