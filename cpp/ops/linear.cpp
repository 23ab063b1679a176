// Matrix products on the register tiles of the indirect GEMM: one tap, rows a stride apart.
#include <algorithm>

#include "ops/indirect.hpp"
#include "ops/packed.hpp"
#include "striate/ops.hpp"

namespace striate {
namespace {

// A matrix as the kernels see it.
template <class T>
struct Matrix {
  const T* data;
  std::ptrdiff_t rows;
  std::ptrdiff_t columns;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t column_stride;
};

template <class T>
Gather<T> rows_of(const Matrix<T>& a) {
  return {.x = a.data,
          .stride_n = 0,
          .stride = {0, 0, a.row_stride},
          .in = {1, 1, a.rows},
          .n = 1,
          .grid = {1, 1, a.rows},
          .step = {1, 1, 1},
          .taps = {{0, 0, 0}}};
}

// y (M, N) row-major = a (M, K) · b (K, N).
//
// `weight`, where given, is the array that b[0] lies in, which may keep b packed.
template <class T>
void multiply(const std::vector<Matrix<T>>& a, const std::vector<Matrix<T>>& b, const std::vector<T*>& y,
              const GemmTail& tail, const Array* weight = nullptr) {
  const bool rows_are_dense = a[0].column_stride == 1 || a[0].columns == 1;
  const bool lanes_are_dense = b[0].column_stride == 1 || b[0].columns == 1;
  const bool has_tail = tail.bias != nullptr || tail.clamps;
  if (!rows_are_dense && a[0].row_stride == 1 && lanes_are_dense && !has_tail) {
    // aᵀ lies row by row in memory: a sum of outer products reads both as they are.
    std::vector<OuterProduct<T>> products;
    for (std::size_t i = 0; i < a.size(); ++i) {
      Gather<T> gather = rows_of<T>({.data = a[i].data,
                                     .rows = a[i].columns,
                                     .columns = a[i].rows,
                                     .row_stride = a[i].column_stride,
                                     .column_stride = 1});
      products.push_back({.a = std::move(gather),
                          .m = a[i].rows,
                          .b = b[i].data,
                          .b_stride_n = 0,
                          .b_stride = {0, 0, b[i].row_stride},
                          .n = b[i].columns,
                          .y = y[i],
                          .stride_t = 0,
                          .ld = b[i].columns});
    }
    outer_product(std::move(products));
    return;
  }
  const auto pack_one = [&](const Matrix<T>& m) {
    return pack<T>(m.data, {0}, m.rows, m.row_stride, m.columns, m.column_stride);
  };
  std::vector<Gemm<T>> products;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (weight != nullptr) {
      constexpr std::uint64_t kLinear = 300;
      const std::uint64_t key = derived_key(kLinear, b[i].rows, b[i].columns, b[i].row_stride, b[i].column_stride);
      const auto packed = cached<T>(*weight, key, [&] { return PackedList<T>{pack_one(b[i])}; });
      products.push_back({.a = rows_of(a[i]),
                          .b = (*packed)[0],
                          .y = {.y = y[i], .stride_n = 0, .stride = {0, 0, b[i].columns}},
                          .tail = tail});
      continue;
    }
    const bool is_shared = i > 0 && b[i].data == b[0].data;
    products.push_back({.a = rows_of(a[i]),
                        .b = is_shared ? products[0].b : pack_one(b[i]),
                        .y = {.y = y[i], .stride_n = 0, .stride = {0, 0, b[i].columns}},
                        .tail = tail});
  }
  indirect_gemm(std::move(products));
}

template <class T>
Matrix<T> matrix_at(const Array& x, std::ptrdiff_t offset) {
  const int rank = x.rank();
  return {.data = x.data<T>() + offset,
          .rows = x.shape(rank - 2),
          .columns = x.shape(rank - 1),
          .row_stride = x.stride(rank - 2),
          .column_stride = x.stride(rank - 1)};
}

bool is_matrix_friendly(const Array& x) {
  const int rank = x.rank();
  return x.stride(rank - 1) == 1 || x.stride(rank - 2) == 1 || x.shape(rank - 1) <= 1 || x.shape(rank - 2) <= 1;
}

}  // namespace

Array linear(const Array& x, const Array& weight, const Fused& fused) {
  check<DTypeError>(x.dtype() == weight.dtype(), "linear: expected tensors of one dtype, got ", dtype_name(x.dtype()),
                    " and ", dtype_name(weight.dtype()), "; convert one with .to()");
  check(weight.rank() == 2, "linear: expected weight of shape (out_features, in_features), got ", weight.shape(),
        "; it has two axes");
  check(x.rank() >= 1 && x.shape(x.rank() - 1) == weight.shape(1), "linear: expected x with in_features = ", weight.shape(1),
        " as its last axis, got ", x.shape(), " with weight.shape ", weight.shape(), "; flatten or transpose x");
  if (fused.bias != nullptr) {
    check<DTypeError>(fused.bias->dtype() == x.dtype(), "linear: expected bias of dtype ", dtype_name(x.dtype()), ", got ",
                      dtype_name(fused.bias->dtype()), "; convert it with .to()");
    check(fused.bias->rank() == 1 && fused.bias->shape(0) == weight.shape(0), "linear: expected bias of shape (",
          weight.shape(0), ",), got ", fused.bias->shape(), "; one value per output feature");
  }
  Extents y_shape = x.shape();
  y_shape[x.rank() - 1] = weight.shape(0);
  const Array y = Array::empty(x.dtype(), y_shape);
  const std::ptrdiff_t k = weight.shape(1);
  const std::ptrdiff_t m = y.size() / std::max<std::ptrdiff_t>(1, weight.shape(0));
  Array rows;
  if (!x.try_reshape({m, k}, rows) || (rows.stride(1) != 1 && k > 1)) {
    check(relayout(x, Layout::row_major).try_reshape({m, k}, rows), "linear: expected a dense copy");
  }
  if (y.size() == 0) {
    return y;
  }
  dispatch_float("linear", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Array bias = fused.bias == nullptr                     ? Array()
                       : fused.bias->is_dense(Layout::row_major) ? *fused.bias
                                                                 : relayout(*fused.bias, Layout::row_major);
    const Matrix<T> b{.data = weight.data<T>(),
                      .rows = k,
                      .columns = weight.shape(0),
                      .row_stride = weight.stride(1),
                      .column_stride = weight.stride(0)};
    multiply<T>({matrix_at<T>(rows, 0)}, {b}, {y.data<T>()},
                {.bias = fused.bias == nullptr ? nullptr : static_cast<const void*>(bias.bytes()),
                 .clamps = fused.clamps,
                 .lo = fused.lo,
                 .hi = fused.hi},
                &weight);
  });
  Finish(fused, y, {}, false).run(y);
  return y;
}

Array matmul(const Array& a, const Array& b) {
  check<DTypeError>(a.dtype() == b.dtype(), "matmul: expected tensors of one dtype, got ", dtype_name(a.dtype()), " and ",
                    dtype_name(b.dtype()), "; convert one with .to()");
  check(a.rank() >= 1 && b.rank() >= 1, "matmul: expected operands with at least one axis, got ", a.shape(), " and ",
        b.shape(), "; use mul for single numbers");
  // A vector is a row on the left and a column on the right; the axis it gains is dropped from the result.
  Array left = a;
  Array right = b;
  if (a.rank() == 1) {
    left = Array::view(a.storage_ref(), a.dtype(), {1, a.shape(0)}, {0, a.stride(0)}, a.offset());
  }
  if (b.rank() == 1) {
    right = Array::view(b.storage_ref(), b.dtype(), {b.shape(0), 1}, {b.stride(0), 0}, b.offset());
  }
  const std::ptrdiff_t k = left.shape(left.rank() - 1);
  check(right.shape(right.rank() - 2) == k, "matmul: expected the last axis of a to match the second to last of b, got ",
        a.shape(), " and ", b.shape(), "; transpose one of them");
  // Leading axes broadcast.
  Extents batch;
  const int batch_rank = std::max(left.rank(), right.rank()) - 2;
  for (int axis = 0; axis < batch_rank; ++axis) {
    const int i = axis - (batch_rank - (left.rank() - 2));
    const int j = axis - (batch_rank - (right.rank() - 2));
    const std::ptrdiff_t p = i < 0 ? 1 : left.shape(i);
    const std::ptrdiff_t q = j < 0 ? 1 : right.shape(j);
    check(p == q || p == 1 || q == 1, "matmul: expected leading axes that broadcast, got ", a.shape(), " and ", b.shape(),
          "; sizes must be equal or 1");
    batch.push_back(p == 1 ? q : p);
  }
  const std::ptrdiff_t m = left.shape(left.rank() - 2);
  const std::ptrdiff_t n = right.shape(right.rank() - 1);
  const auto with = [&](std::ptrdiff_t rows, std::ptrdiff_t columns) {
    Extents shape = batch;
    shape.push_back(rows);
    shape.push_back(columns);
    return shape;
  };
  if (!is_matrix_friendly(left)) {
    left = relayout(left, Layout::row_major);
  }
  left = left.broadcast_to(with(m, k));
  right = right.broadcast_to(with(k, n));
  Extents y_shape = batch;
  if (a.rank() > 1) {
    y_shape.push_back(m);
  }
  if (b.rank() > 1) {
    y_shape.push_back(n);
  }
  const Array y = Array::empty(a.dtype(), y_shape);
  if (y.size() == 0) {
    return y;
  }
  dispatch_float("matmul", a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    std::vector<Matrix<T>> as;
    std::vector<Matrix<T>> bs;
    std::vector<T*> ys;
    for (std::ptrdiff_t i = 0; i < batch.product(); ++i) {
      std::ptrdiff_t rest = i;
      std::ptrdiff_t at_a = 0;
      std::ptrdiff_t at_b = 0;
      for (int axis = batch.rank() - 1; axis >= 0; --axis) {
        at_a += rest % batch[axis] * left.stride(axis);
        at_b += rest % batch[axis] * right.stride(axis);
        rest /= batch[axis];
      }
      as.push_back(matrix_at<T>(left, at_a));
      bs.push_back(matrix_at<T>(right, at_b));
      // The stride of an axis of size 1 is free: choose the one that makes the other axis the outer one.
      if (as.back().column_stride != 1 && as.back().row_stride != 1) {
        (k == 1 ? as.back().column_stride : as.back().row_stride) = 1;
      }
      ys.push_back(y.data<T>() + i * m * n);
    }
    // A left operand that lies column by column needs outer products, whose right operand lies row by row.
    const bool left_is_rows = as[0].column_stride == 1 || k == 1;
    const bool right_is_rows = bs[0].column_stride == 1 || n == 1;
    Array dense;  // lives until the product is done
    if (!left_is_rows && !right_is_rows) {
      dense = relayout(left, Layout::row_major);
      for (std::ptrdiff_t i = 0; i < batch.product(); ++i) {
        as[static_cast<std::size_t>(i)] = {
            .data = dense.data<T>() + i * m * k, .rows = m, .columns = k, .row_stride = k, .column_stride = 1};
      }
    }
    multiply<T>(as, bs, ys, {});
  });
  return y;
}

}  // namespace striate
