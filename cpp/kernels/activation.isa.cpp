// Activations and their gradients: y = f(x), grad_x = grad_y · f′ from the input x or the output y, one pass each. Formulas
// are evaluated in double and rounded once; those of a few exact or rounded steps stay in T, and so do those of float
// that are one exponential and one division.
#include "kernels/map_loop.hpp"
#include "kernels/math.hpp"

namespace striate::STRIATE_TARGET {
namespace {

using P = Parameters;

inline constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
inline constexpr double kSeluScale = 1.0507009873554804934193349852946;
inline constexpr double kRootTwoOverPi = 0.79788456080286535588;
inline constexpr double kCubic = 0.044715;

template <class T>
struct Formulas {
  using M = Math<T>;
  static STRIATE_INLINE double sigmoid(double x) { return 1.0 / (1.0 + M::exp(-x)); }
  // tanh(ln(1 + eˣ)) = n/(n + 2), n = eˣ(eˣ + 2): no cancellation. Beyond 40 it is 1.
  static STRIATE_INLINE double tanh_softplus(double x) {
    const double e = M::exp(x > 40.0 ? 40.0 : x);
    const double n = e * (e + 2.0);
    return n / (n + 2.0);
  }
  // ½(1 + tanh t) = sigmoid(2t), t = √(2/π)(x + 0.044715 x³)
  static STRIATE_INLINE double gelu_gate(double x) { return sigmoid(2.0 * kRootTwoOverPi * (x + kCubic * (x * x * x))); }
};

// Formulas of one exponential and one division, which float evaluates in its own lanes (mish lost: up to 4.1 ulp).
template <class T>
struct Smooth {
  using M = Math<T>;
  using F = Formulas<T>;
  static constexpr T kSmallest = T(-800);  // σ(x) is 0: no −∞·0
  static STRIATE_INLINE T sigmoid(T x) { return static_cast<T>(F::sigmoid(x)); }
  static STRIATE_INLINE T silu(T x) {
    const double z = x < kSmallest ? kSmallest : x;
    return static_cast<T>(z * F::sigmoid(z));
  }
  static STRIATE_INLINE T silu_grad(T g, T x) {
    const double z = x < kSmallest ? kSmallest : x;
    const double s = F::sigmoid(z);
    return static_cast<T>(static_cast<double>(g) * (s * (1.0 + z * (1.0 - s))));
  }
  static STRIATE_INLINE T expm1_down(T x) { return static_cast<T>(M::expm1(x)); }
  static STRIATE_INLINE T exp_down(T x) { return static_cast<T>(M::exp(x)); }
};

// Where eˣ is below the range of float, x·eˣ is not yet: factors of 2^±16 come off at the end. Beyond kOne the formulas give
// any number, and the last choice drops it: of two clamps around x the compiler makes five blends (SiLU: 5.5 → 4.2 ns a
// vector).
template <>
struct Smooth<float> {
  static constexpr float kSmallest = -95.0f;  // x·eˣ is below the normal numbers
  static constexpr float kOne = 20.0f;        // from here on σ(x) rounds to 1

  static STRIATE_INLINE float at_least(float x, float low) { return x < low ? low : x; }

  static STRIATE_INLINE float sigmoid(float x) {
    const float y = 1.0f / (1.0f + exp_of(-at_least(x, -88.0f)));
    return x > kOne ? 1.0f : y;
  }
  static STRIATE_INLINE float silu(float x) {
    const float z = at_least(x, kSmallest);
    const float y = z / (0x1p-16f + exp_of<-16>(-z)) * 0x1p-16f;
    return x > kOne ? x : y;
  }
  // σ(1 + x(1 − σ)), 1 − σ = e^−x σ without cancellation
  static STRIATE_INLINE float silu_grad(float g, float x) {
    const float z = at_least(x, kSmallest);
    const float e = exp_of<-16>(-z);
    const float inverse = 1.0f / (0x1p-16f + e);
    const float slope = inverse * madd(z, e * inverse, 1.0f) * 0x1p-16f;
    return g * (x > kOne ? 1.0f : slope);
  }
  // For x ≤ 0; beyond, any number.
  static STRIATE_INLINE float expm1_down(float x) {
    const LaneExponent<float> e = split_exp_of(at_least(x, -88.0f));
    return madd(e.scale, e.p, e.scale - 1.0f);
  }
  static STRIATE_INLINE float exp_down(float x) { return exp_of(at_least(x, -88.0f)); }
};

template <class T>
void fill_piecewise(MapKernels& table) {
  set1<T>(table, MapOp::relu6, [](T x, P) -> T { return x < T(0) ? T(0) : x > T(6) ? T(6) : x; });
  set2<T>(table, MapOp::relu6_grad, [](T g, T x, P) -> T { return x <= T(0) || x >= T(6) ? T(0) : g; });
  set1<T>(table, MapOp::leaky_relu, [](T x, P p) -> T { return x > T(0) ? x : x * static_cast<T>(p.a); });
  set2<T>(table, MapOp::leaky_relu_grad, [](T g, T x, P p) -> T { return x > T(0) ? g : g * static_cast<T>(p.a); });
  set2<T>(table, MapOp::prelu, [](T x, T w, P) -> T { return x > T(0) ? x : x * w; });
  set3<T>(table, MapOp::prelu_grad, [](T g, T x, T w, P) -> T { return x > T(0) ? g : g * w; });
  set2<T>(table, MapOp::prelu_grad_weight, [](T g, T x, P) -> T { return x > T(0) ? T(0) : g * x; });
  set1<T>(table, MapOp::hardswish, [](T x, P) -> T {
    const T z = x + T(3);  // exact where the sum cancels: three roundings in all, and none from 3 on
    const T y = x * (z < T(0) ? T(0) : z) / T(6);
    return x >= T(3) ? x : y;
  });
  set2<T>(table, MapOp::hardswish_grad, [](T g, T x, P) -> T {
    const double slope = static_cast<double>(x) / 3.0 + 0.5;
    return static_cast<T>(static_cast<double>(g) * (x <= T(-3) ? 0.0 : x >= T(3) ? 1.0 : slope));
  });
  set1<T>(table, MapOp::hardsigmoid, [](T x, P) -> T {
    const T z = x + T(3);
    return (z < T(0) ? T(0) : z > T(6) ? T(6) : z) / T(6);
  });
  set2<T>(table, MapOp::hardsigmoid_grad,
          [](T g, T x, P) -> T { return x <= T(-3) || x >= T(3) ? T(0) : static_cast<T>(static_cast<double>(g) / 6.0); });
}

template <class T>
void fill_smooth(MapKernels& table) {
  using M = Math<T>;
  using F = Formulas<T>;
  using S = Smooth<T>;
  set1<T>(table, MapOp::elu, [](T x, P p) -> T { return x > T(0) ? x : static_cast<T>(p.a) * S::expm1_down(x); });
  set2<T>(table, MapOp::elu_grad,
          [](T g, T x, P p) -> T { return x > T(0) ? g : g * (static_cast<T>(p.a) * S::exp_down(x)); });
  set1<T>(table, MapOp::selu, [](T x, P) -> T {
    return x > T(0) ? static_cast<T>(kSeluScale) * x : static_cast<T>(kSeluScale * kSeluAlpha) * S::expm1_down(x);
  });
  set2<T>(table, MapOp::selu_grad, [](T g, T x, P) -> T {
    return g * (x > T(0) ? static_cast<T>(kSeluScale) : static_cast<T>(kSeluScale * kSeluAlpha) * S::exp_down(x));
  });
  set1<T>(table, MapOp::gelu, [](T x, P) -> T { return static_cast<T>(static_cast<double>(x) * M::normal_cdf(x)); });
  set2<T>(table, MapOp::gelu_grad, [](T g, T x, P) -> T {
    const double z = x;
    const double density = 0.5 * kRootTwoOverPi * M::exp(-0.5 * z * z);
    return static_cast<T>(static_cast<double>(g) * (M::normal_cdf(z) + z * density));
  });
  set1<T>(table, MapOp::gelu_tanh, [](T x, P) -> T { return static_cast<T>(static_cast<double>(x) * F::gelu_gate(x)); });
  set2<T>(table, MapOp::gelu_tanh_grad, [](T g, T x, P) -> T {
    const double z = x;
    const double gate = F::gelu_gate(z);
    const double slope = 2.0 * kRootTwoOverPi * (1.0 + 3.0 * kCubic * z * z);
    return static_cast<T>(static_cast<double>(g) * (gate + z * slope * gate * (1.0 - gate)));
  });
  set1<T>(table, MapOp::silu, [](T x, P) -> T { return S::silu(x); });
  set2<T>(table, MapOp::silu_grad, [](T g, T x, P) -> T { return S::silu_grad(g, x); });
  set1<T>(table, MapOp::mish, [](T x, P) -> T { return static_cast<T>(static_cast<double>(x) * F::tanh_softplus(x)); });
  set2<T>(table, MapOp::mish_grad, [](T g, T x, P) -> T {
    const double t = F::tanh_softplus(x);
    return static_cast<T>(static_cast<double>(g) * (t + static_cast<double>(x) * F::sigmoid(x) * (1.0 - t * t)));
  });
  set1<T>(table, MapOp::sigmoid, [](T x, P) -> T { return S::sigmoid(x); });
  set2<T>(table, MapOp::sigmoid_grad, [](T g, T y, P) -> T { return g * (y * (T(1) - y)); });
  set2<T>(table, MapOp::tanh_grad, [](T g, T y, P) -> T { return g * (T(1) - y * y); });
  set1<T>(table, MapOp::softplus, [](T x, P p) -> T {
    const double z = p.a * static_cast<double>(x);
    const double soft = (z > 0.0 ? z : 0.0) + M::log1p(M::exp(-(z < 0.0 ? -z : z)));
    return z > p.b ? x : static_cast<T>(soft / p.a);
  });
  set2<T>(table, MapOp::softplus_grad, [](T g, T x, P p) -> T {
    const double z = p.a * static_cast<double>(x);
    return z > p.b ? g : static_cast<T>(static_cast<double>(g) * F::sigmoid(z));
  });
}

// ½x² within ±δ, else δ(|x| − ½δ); ln(1 + e^−|x|) is what both logit losses share.
template <class T>
void fill_loss(MapKernels& table) {
  using M = Math<T>;
  using F = Formulas<T>;
  set1<T>(table, MapOp::huber, [](T x, P p) -> T {
    const double a = x < T(0) ? -static_cast<double>(x) : static_cast<double>(x);
    return static_cast<T>(a <= p.a ? 0.5 * a * a : p.a * (a - 0.5 * p.a));
  });
  set2<T>(table, MapOp::huber_grad, [](T g, T x, P p) -> T {
    const double z = x;
    return static_cast<T>(static_cast<double>(g) * (z < -p.a ? -p.a : z > p.a ? p.a : z));
  });
  // (x, t, w): −(w·t·ln σ(x) + (1 − t)·ln(1 − σ(x))) = (1 − t)x + (1 + (w − 1)t)·(ln(1 + e^−|x|) + max(−x, 0))
  set3<T>(table, MapOp::bce_logits, [](T x, T t, T w, P) -> T {
    const double z = x;
    const double target = t;
    const double soft = M::log1p(M::exp(-(z < 0.0 ? -z : z))) + (z < 0.0 ? -z : 0.0);
    return static_cast<T>((1.0 - target) * z + (1.0 + (static_cast<double>(w) - 1.0) * target) * soft);
  });
  table.map[static_cast<int>(MapOp::bce_logits_grad)][kMapTypeOf<T>] =
      map4<T, decltype([](T g, T x, T t, T w, P) -> T {
             const double target = t;
             const double slope =
                 (1.0 - target) - (1.0 + (static_cast<double>(w) - 1.0) * target) * F::sigmoid(-static_cast<double>(x));
             return static_cast<T>(static_cast<double>(g) * slope);
           })>;
}

}  // namespace

void fill_activation(KernelTable& table) {
  fill_piecewise<float>(table.maps);
  fill_piecewise<double>(table.maps);
  fill_loss<float>(table.maps);
  fill_loss<double>(table.maps);
  fill_smooth<float>(table.maps);
  fill_smooth<double>(table.maps);
}

}  // namespace striate::STRIATE_TARGET
