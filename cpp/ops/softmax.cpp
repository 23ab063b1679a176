// Ops along one axis of rows: softmax, losses over classes, argmax. The axis is made the fastest in memory first; for
// channels-last images that is where the channels are.
#include <stdexcept>

#include "ops/map.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

int axis_of(const char* op, const Array& x, int dim) {
  const int axis = dim < 0 ? dim + x.rank() : dim;
  check(axis >= 0 && axis < x.rank(), op, ": expected dim from ", -x.rank(), " to ", x.rank() - 1, " for shape ", x.shape(),
        ", got ", dim, "; name an existing axis");
  return axis;
}

// Dense strides for x's shape with `axis` the fastest, the others in x's order of memory.
Extents rows_strides(const Array& x, int axis) {
  Extents strides(x.rank(), 1);
  std::vector<int> order;
  for (int i = 0; i < x.rank(); ++i) {
    if (i != axis) {
      auto at = order.end();
      while (at != order.begin() && x.stride(*(at - 1)) < x.stride(i)) {
        --at;
      }
      order.insert(at, i);
    }
  }
  std::ptrdiff_t step = x.shape(axis);
  for (std::size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = step;
    step *= x.shape(order[i]);
  }
  return strides;
}

// x, or a copy, with the given strides.
Array with_strides(const Array& x, const Extents& strides) {
  bool is_same = true;
  for (int i = 0; i < x.rank(); ++i) {
    is_same = is_same && (x.shape(i) <= 1 || x.stride(i) == strides[i]);
  }
  if (is_same) {
    return x;
  }
  const Array y = Array::view(Array::empty(x.dtype(), x.shape()).storage_ref(), x.dtype(), x.shape(), strides, 0);
  copy_into(y, x);
  count_relayout(y.size() * item_bytes(y.dtype()));
  return y;
}

constexpr const char* kRowsNames[] = {"softmax", "log_softmax", "softmax_grad", "log_softmax_grad"};

}  // namespace

Array rows_op(int op, const Array& x, const Array* y, int dim) {
  const char* const name = kRowsNames[op];
  dispatch_float(name, x.dtype(), [](auto) {});
  const int axis = axis_of(name, x, dim);
  // The order of y, when there is one, is already right.
  const Extents strides = rows_strides(y != nullptr ? *y : x, axis);
  const Array a = with_strides(x, strides);
  const Array b = y != nullptr ? with_strides(*y, strides) : Array();
  Array out = Array::view(Array::empty(x.dtype(), x.shape()).storage_ref(), x.dtype(), x.shape(), strides, 0);
  const std::ptrdiff_t n = x.shape(axis);
  if (x.size() > 0) {
    const RowsFn fn = kernels().rows.rows[op][x.dtype() == DType::float32 ? 0 : 1];
    const Partition parts(x.size() / n, std::max<std::ptrdiff_t>(1, kGrain / 16 / n));
    const std::ptrdiff_t item = item_bytes(x.dtype());
    parallel_for(parts.n_parts, [&](std::ptrdiff_t tile) {
      const std::ptrdiff_t at = parts.begin(tile) * n * item;
      fn(parts.end(tile) - parts.begin(tile), n, a.bytes() + at, y != nullptr ? b.bytes() + at : nullptr, out.bytes() + at);
    });
  }
  if (axis != 1 && !out.is_dense(Layout::row_major)) {  // only the channel axis may change the layout
    Array back = clone(x);
    copy_into(back, out);
    return back;
  }
  return out;
}

ClassLoss class_loss(const char* op, const Array& x, const Array& target, const Array* weight,
                     const ClassLossParams& params) {
  check(x.rank() >= 2 && target.rank() == x.rank() - 1, op, ": expected x (N, C, ...) and a target (N, ...), got ",
        x.shape(), " and ", target.shape(), "; targets are class numbers, without the class axis");
  for (int axis = 0; axis < target.rank(); ++axis) {
    check(target.shape(axis) == x.shape(axis == 0 ? 0 : axis + 1), op,
          ": expected a target of the shape of x without its "
          "class axis, got ",
          target.shape(), " for x ", x.shape(), "; check the batch");
  }
  check<DTypeError>(!is_floating(target.dtype()) && target.dtype() != DType::boolean, op, ": expected integer targets, got ",
                    dtype_name(target.dtype()), "; pass class numbers as int64");
  if (weight != nullptr) {
    check(weight->rank() == 1 && weight->shape(0) == x.shape(1), op, ": expected one weight a class, got ", weight->shape(),
          " for x ", x.shape(), "; pass a tensor of shape (C,)");
    check<DTypeError>(weight->dtype() == x.dtype(), op, ": expected weights of the dtype of x, got ",
                      dtype_name(weight->dtype()), "; convert with .to(...)");
  }

  return dispatch_float(op, x.dtype(), [&]<class T>(T) {
    const std::ptrdiff_t n = x.shape(1);
    const std::ptrdiff_t rows = target.size();
    const Array logits = relayout(x, Layout::channels_last);
    Array labels = target.dtype() == DType::int64 ? target : convert(target, DType::int64);
    if (!labels.is_dense(Layout::row_major)) {
      labels = relayout(labels, Layout::row_major);
    }
    const Array weights =
        weight == nullptr || weight->is_dense(Layout::row_major) ? (weight == nullptr ? Array() : *weight) : clone(*weight);
    const auto* const label = labels.data<std::int64_t>();
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      check<std::invalid_argument>(label[r] == params.ignore_index || (label[r] >= 0 && label[r] < n), op,
                                   ": expected targets from 0 to ", n - 1, ", got ", label[r],
                                   "; check the labels or set ignore_index");
    }
    ClassLoss out;
    out.loss = Array::empty(x.dtype(), target.shape());
    out.log_sum = Array::empty(x.dtype(), target.shape());
    Array totals = Array::empty(x.dtype(), target.shape());
    const Partition parts(rows, std::max<std::ptrdiff_t>(1, kGrain / 16 / std::max<std::ptrdiff_t>(n, 1)));
    const auto fn = kernels().rows.classes<T>(false);
    parallel_for(parts.n_parts, [&](std::ptrdiff_t tile) {
      const std::ptrdiff_t at = parts.begin(tile);
      ClassRows<T> run{};
      run.rows = parts.end(tile) - at;
      run.n = n;
      run.x = logits.data<T>() + at * n;
      run.target = label + at;
      run.weight = weight == nullptr ? nullptr : weights.data<T>();
      run.smoothing = params.smoothing;
      run.ignore_index = params.ignore_index;
      run.is_logits = params.is_logits;
      run.loss = out.loss.data<T>() + at;
      run.total = totals.data<T>() + at;
      run.log_sum = out.log_sum.data<T>() + at;
      fn(run);
    });
    out.total = reduce(0, totals, {}, false);
    if (params.reduction != Reduction::none) {
      out.loss = reduce(0, out.loss, {}, false);
      if (params.reduction == Reduction::mean) {
        *out.loss.data<T>() /= *out.total.data<T>();
      }
    }
    return out;
  });
}

Array class_loss_grad(const char* op, const Array& grad_y, const Array& x, const Array& target, const Array* weight,
                      const Array& log_sum, const Array& total, const ClassLossParams& params) {
  return dispatch_float(op, x.dtype(), [&]<class T>(T) {
    const std::ptrdiff_t n = x.shape(1);
    const std::ptrdiff_t rows = target.size();
    const Array logits = relayout(x, Layout::channels_last);
    Array labels = target.dtype() == DType::int64 ? target : convert(target, DType::int64);
    labels = relayout(labels, Layout::row_major);
    const Array weights = weight == nullptr ? Array() : relayout(*weight, Layout::row_major);
    Array scale = relayout(grad_y, Layout::row_major);
    if (params.reduction == Reduction::mean) {
      const Array one = Array::empty(x.dtype(), {});
      *one.data<T>() = *scale.data<T>() / *total.data<T>();
      scale = one;
    }
    const Array grad_x = Array::empty(x.dtype(), x.shape(), Layout::channels_last);
    const Partition parts(rows, std::max<std::ptrdiff_t>(1, kGrain / 16 / std::max<std::ptrdiff_t>(n, 1)));
    const auto fn = kernels().rows.classes<T>(true);
    const std::ptrdiff_t scale_step = params.reduction == Reduction::none ? 1 : 0;
    parallel_for(parts.n_parts, [&](std::ptrdiff_t tile) {
      const std::ptrdiff_t at = parts.begin(tile);
      ClassRows<T> run{};
      run.rows = parts.end(tile) - at;
      run.n = n;
      run.x = logits.data<T>() + at * n;
      run.target = labels.data<std::int64_t>() + at;
      run.weight = weight == nullptr ? nullptr : weights.data<T>();
      run.smoothing = params.smoothing;
      run.ignore_index = params.ignore_index;
      run.is_logits = params.is_logits;
      run.log_sum = log_sum.data<T>() + at;
      run.scale = scale.data<T>() + at * scale_step;
      run.scale_step = scale_step;
      run.grad_x = grad_x.data<T>() + at * n;
      fn(run);
    });
    return grad_x;
  });
}

Array argument(const char* op, bool is_max, const Array& given, int dim, bool is_flat, bool keepdim) {
  check<DTypeError>(given.dtype() != DType::float16 && given.dtype() != DType::bfloat16, op,
                    ": expected float32, float64, an integer type or bool, got ", dtype_name(given.dtype()),
                    "; convert with .to(float32)");
  const Array x = is_floating(given.dtype()) ? given : convert(given, DType::int64);
  if (x.rank() == 0) {
    Array zero = Array::empty(DType::int64, {});
    *zero.data<std::int64_t>() = 0;
    return zero;
  }
  Array rows = x;
  int axis = 0;
  Extents strides(x.rank(), 1);
  if (is_flat) {
    Array all = relayout(x, Layout::row_major);
    rows = Array::view(all.storage_ref(), all.dtype(), {1, all.size()}, {all.size(), 1}, all.offset());
    axis = 1;
  } else {
    axis = axis_of(op, x, dim);
    strides = rows_strides(x, axis);
    rows = with_strides(x, strides);
  }
  const std::ptrdiff_t n = rows.shape(axis);
  check(n > 0, op, ": expected at least one element over its axis, got shape ", x.shape(), "; nothing has no ", op);
  const std::ptrdiff_t n_rows = rows.size() / n;
  const Array found = Array::empty(DType::int64, {n_rows});
  const auto search = [&]<class T>(T) {
    const int type = sizeof(T) == 4 ? 0 : is_floating(x.dtype()) ? 1 : 2;
    const ReduceFn best_of = kernels().reductions.reduce[static_cast<int>(is_max ? ReduceOp::max : ReduceOp::min)][type];
    const Partition parts(n_rows, std::max<std::ptrdiff_t>(1, kGrain / n));
    parallel_for(parts.n_parts, [&](std::ptrdiff_t tile) {
      for (std::ptrdiff_t r = parts.begin(tile); r < parts.end(tile); ++r) {
        const T* const row = rows.data<T>() + r * n;
        T best;
        best_of(ReduceRun{.p = 1, .r = n, .q = 1, .x = row, .x_p = 0, .x_r = 1, .y = &best, .y_p = 0});
        std::ptrdiff_t i = 0;
        while (i + 1 < n && !(row[i] == best || (best != best && row[i] != row[i]))) {
          ++i;
        }
        found.data<std::int64_t>()[r] = i;
      }
    });
  };
  if (x.dtype() == DType::float32) {
    search(float{});
  } else if (x.dtype() == DType::float64) {
    search(double{});
  } else {
    search(std::int64_t{});
  }

  Extents shape;
  Extents result_strides;
  for (int i = 0; i < x.rank(); ++i) {
    if (is_flat || i == axis) {
      if (keepdim) {
        shape.push_back(1);
        result_strides.push_back(1);
      }
    } else {
      shape.push_back(x.shape(i));
      result_strides.push_back(strides[i] / n);
    }
  }
  const Array y = Array::view(found.storage_ref(), DType::int64, shape, result_strides, 0);
  if (y.rank() <= 2 && !y.is_dense(Layout::row_major)) {
    Array row_major = Array::empty(DType::int64, shape);
    copy_into(row_major, y);
    return row_major;
  }
  return y;
}

}  // namespace striate
