#include "striate/optim.hpp"

#include <cmath>
#include <vector>

#include "ops/map.hpp"

namespace striate {
namespace {

constexpr int kMaxStates = 3;

// One parameter with what goes with it, as flat runs.
struct Slot {
  Array param;
  Array grad;
  Array state[kMaxStates];
  std::ptrdiff_t size;
};

bool is_flat(std::span<const Array* const> operands) {
  const StridedLoop loop = make_loop(operands);
  if (loop.rank > 1) {
    return false;
  }
  for (int k = 0; k < loop.n_operands; ++k) {
    if (loop.size > 1 && loop.step(k) != 1) {
      return false;
    }
  }
  return true;
}

std::vector<Slot> make_slots(const char* op, Tensors params, Tensors grads, std::span<const Tensors> states) {
  check<std::invalid_argument>(grads.size() == params.size(), op, ": expected ", params.size(), " gradients, got ",
                               grads.size(), "; pass one per parameter");
  std::vector<Slot> slots;
  slots.reserve(params.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    Slot slot{.param = params[i], .grad = grads[i], .state = {}, .size = params[i].size()};
    const auto match = [&](const Array& x, const char* what) {
      check<DTypeError>(x.dtype() == slot.param.dtype(), op, ": expected a ", what, " of dtype ",
                        dtype_name(slot.param.dtype()), ", got ", dtype_name(x.dtype()), "; convert it");
      check(x.shape() == slot.param.shape(), op, ": expected a ", what, " of shape ", slot.param.shape(), ", got ",
            x.shape(), "; it must match its parameter");
    };
    const auto is_writable = [&](const Array& x, const char* what) {
      check<std::invalid_argument>(!x.storage().is_read_only(), op, ": expected a ", what,
                                   " that may be written, got read-only memory; clone it first");
    };
    match(slot.grad, "gradient");
    is_writable(slot.param, "parameter");
    const Array* kept[kMaxStates + 1] = {&slot.param};
    std::size_t n_kept = 1;
    for (std::size_t k = 0; k < states.size(); ++k) {
      check<std::invalid_argument>(states[k].size() == params.size(), op, ": expected ", params.size(), " states, got ",
                                   states[k].size(), "; pass one per parameter");
      slot.state[k] = states[k][i];
      match(slot.state[k], "state");
      is_writable(slot.state[k], "state");
      kept[n_kept++] = &slot.state[k];
    }
    check<std::invalid_argument>(is_flat(std::span(kept, n_kept)), op,
                                 ": expected a dense parameter and states in its order of axes, got shape ",
                                 slot.param.shape(), " with gaps or another order; make states with zeros_like");
    const Array* const pair[] = {&slot.param, &slot.grad};
    if (!is_flat(pair)) {
      Array same = Array::empty_like(slot.param.dtype(), slot.param);
      copy_into(same, slot.grad);
      slot.grad = same;
    }
    slots.push_back(std::move(slot));
  }
  return slots;
}

void run(const char* op, OptimOp which, Tensors params, Tensors grads, std::span<const Tensors> states,
         const OptimStep& step) {
  const std::vector<Slot> slots = make_slots(op, params, grads, states);
  // Pieces of at most a grain, gathered into tiles of about a grain: many small parameters share a tile.
  struct Piece {
    const Slot* slot;
    std::ptrdiff_t first;
    std::ptrdiff_t n;
  };
  std::vector<Piece> pieces;
  std::vector<std::size_t> tile_begin;
  std::ptrdiff_t filled = kGrain;
  for (const Slot& slot : slots) {
    const Partition parts(slot.size, kGrain);
    for (std::ptrdiff_t part = 0; part < parts.n_parts; ++part) {
      if (filled >= kGrain) {
        tile_begin.push_back(pieces.size());
        filled = 0;
      }
      pieces.push_back({&slot, parts.begin(part), parts.end(part) - parts.begin(part)});
      filled += pieces.back().n;
    }
  }
  tile_begin.push_back(pieces.size());
  for (const Slot& slot : slots) {
    dispatch_float(op, slot.param.dtype(), [](auto) {});
  }
  const KernelTable& table = kernels();
  parallel_for(static_cast<std::ptrdiff_t>(tile_begin.size()) - 1, [&](std::ptrdiff_t tile) {
    const auto t = static_cast<std::size_t>(tile);
    for (std::size_t i = tile_begin[t]; i < tile_begin[t + 1]; ++i) {
      const Piece& piece = pieces[i];
      const auto update = [&]<class T>(const OptimKernels<T>& kernels_of_type) {
        T* state[kMaxStates] = {};
        for (std::size_t k = 0; k < states.size(); ++k) {
          state[k] = piece.slot->state[k].template data<T>() + piece.first;
        }
        kernels_of_type.update[static_cast<int>(which)](piece.n, piece.slot->param.template data<T>() + piece.first,
                                                        piece.slot->grad.template data<T>() + piece.first, state, step);
      };
      if (piece.slot->param.dtype() == DType::float32) {
        update(table.optim_f32);
      } else {
        update(table.optim_f64);
      }
    }
  });
  for (const Slot& slot : slots) {
    slot.param.storage().raise_version();
    for (std::size_t k = 0; k < states.size(); ++k) {
      slot.state[k].storage().raise_version();
    }
  }
}

}  // namespace

void sgd(Tensors params, Tensors grads, Tensors moments, const SgdParams& step) {
  const bool has_momentum = step.momentum != 0;
  run("sgd", has_momentum ? OptimOp::sgd_momentum : OptimOp::sgd, params, grads, std::span(&moments, has_momentum ? 1 : 0),
      OptimStep{.lr = step.lr,
                .sign = step.maximizes ? -1.0 : 1.0,
                .weight_decay = step.weight_decay,
                .momentum = step.momentum,
                .dampening = step.dampening,
                .is_nesterov = step.is_nesterov,
                .is_first = step.is_first});
}

void adam(Tensors params, Tensors grads, Tensors means, Tensors squares, Tensors largest, const AdamParams& step) {
  const Tensors states[] = {means, squares, largest};
  const bool has_largest = !largest.empty();
  run(step.is_decoupled ? "adamw" : "adam", OptimOp::adam, params, grads, std::span(states, has_largest ? 3 : 2),
      OptimStep{.lr = step.lr,
                .sign = step.maximizes ? -1.0 : 1.0,
                .weight_decay = step.weight_decay,
                .beta1 = step.beta1,
                .beta2 = step.beta2,
                .eps = step.eps,
                .correction1 = 1.0 - std::pow(step.beta1, step.n_steps),
                .correction2 = std::sqrt(1.0 - std::pow(step.beta2, step.n_steps)),
                .is_decoupled = step.is_decoupled,
                .has_extra = has_largest});
}

void rmsprop(Tensors params, Tensors grads, Tensors squares, Tensors means, Tensors moments, const RmspropParams& step) {
  std::vector<Tensors> states{squares};
  if (!means.empty()) {
    states.push_back(means);
  }
  const bool has_momentum = step.momentum != 0;
  if (has_momentum) {
    states.push_back(moments);
  }
  run("rmsprop", has_momentum ? OptimOp::rmsprop_momentum : OptimOp::rmsprop, params, grads, states,
      OptimStep{.lr = step.lr,
                .sign = step.maximizes ? -1.0 : 1.0,
                .weight_decay = step.weight_decay,
                .momentum = step.momentum,
                .beta1 = step.alpha,
                .eps = step.eps,
                .has_extra = !means.empty()});
}

}  // namespace striate
