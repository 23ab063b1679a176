// Running a graph: a plan for each set of shapes, an arena for each concurrent call.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <list>
#include <mutex>

#include "machine/arena.hpp"
#include "ops/map.hpp"
#include "ops/packed.hpp"
#include "program/call.hpp"
#include "program/choices.hpp"
#include "program/samples.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"
#include "striate/program.hpp"

namespace striate {
namespace {

constexpr std::ptrdiff_t kCacheBytes = std::ptrdiff_t{256} << 20;

// What a plan holds for: anything else may ask for other memory.
struct Conditions {
  std::vector<Extents> shapes;
  std::vector<Extents> strides;
  Isa isa = Isa::baseline;
  int n_threads = 1;
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;
  double budget = 0;
  bool is_batch_invariant = false;

  friend bool operator==(const Conditions&, const Conditions&) = default;
};

Conditions conditions_of(std::span<const Array> inputs) {
  Conditions now{.shapes = {},
                 .strides = {},
                 .isa = active_isa(),
                 .n_threads = thread_count(),
                 .algorithm = conv_algorithm(),
                 .budget = get_error_budget(),
                 .is_batch_invariant = is_batch_invariant()};
  for (const Array& x : inputs) {
    now.shapes.push_back(x.shape());
    now.strides.push_back(x.strides());
  }
  return now;
}

// A block of memory for one pass at a time, and the values of that pass.
struct Lane {
  std::vector<Array> values;                        // by ValueId; constants and states stay
  std::vector<std::vector<const Array*>> operands;  // of each node
  std::vector<Array> results;                       // of the node that runs
  std::shared_ptr<const ArenaPlan> memory;          // that the block is for
  void* block = nullptr;

  Lane() = default;
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  ~Lane() { drop(); }

  void prepare(const std::shared_ptr<const ArenaPlan>& plan) {
    if (memory != plan) {
      drop();
      block = plan->bytes > 0 ? allocate(plan->bytes) : nullptr;
      memory = plan;
    }
  }

 private:
  void drop() {
    if (block != nullptr) {
      release(block, memory->bytes);
      block = nullptr;
    }
    memory = nullptr;
  }
};

struct Plan {
  Conditions conditions;
  std::ptrdiff_t n_samples = 0;  // at a time, each part by a plan of its own; 0: all, by this one
  std::vector<Call> calls;       // of each node
  std::mutex mutex;              // of what follows
  bool is_tracing = false;
  std::shared_ptr<const ArenaPlan> memory;   // null until a pass was traced
  std::vector<std::unique_ptr<Lane>> lanes;  // idle ones
  int n_lanes = 0;                           // with those in use

  [[nodiscard]] std::ptrdiff_t bytes() const { return memory == nullptr ? 0 : memory->bytes * n_lanes; }
};

// Moves results whose memory is not theirs to keep into memory of the cache; those that shared memory share it again.
template <class Holds>
bool move_out(std::vector<Array>& results, Holds&& holds) {
  std::vector<std::pair<StorageRef, StorageRef>> moved;  // from, to
  for (Array& result : results) {
    const StorageRef& from = result.storage_ref();
    if (!holds(from->data())) {
      continue;
    }
    auto found = std::find_if(moved.begin(), moved.end(), [&](const auto& pair) { return pair.first.get() == from.get(); });
    if (found == moved.end()) {
      const KeptMemory memory;  // for this alone: what is moved goes back to where it is from
      const StorageRef to(Storage::create(from->bytes()));
      std::memcpy(to->data(), from->data(), static_cast<std::size_t>(from->bytes()));
      found = moved.insert(found, {from, to});
    }
    result = Array::view(found->second, result.dtype(), result.shape(), result.strides(), result.offset());
  }
  return !moved.empty();
}

void check_like(const Graph& graph, const char* what, std::span<const ValueId> ids, std::span<const Array> given) {
  check<std::invalid_argument>(given.size() == ids.size(), "program: expected ", ids.size(), " ", what, ", got ",
                               given.size(), "; pass what was recorded");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Value& value = graph.value(ids[i]);
    check<DTypeError>(given[i].dtype() == value.dtype, "program: expected ", dtype_name(value.dtype), " for '", value.name,
                      "', got ", dtype_name(given[i].dtype()), "; convert it with .to()");
    check(given[i].rank() == static_cast<int>(value.shape.size()), "program: expected '", value.name, "' of ",
          value.shape.size(), " axes as in ", value.shape, ", got ", given[i].shape(), "; pass what was recorded");
  }
}

}  // namespace

struct Program::Body {
  Graph graph;
  std::vector<std::vector<ValueId>> dead;  // values that no node after this one reads
  bool has_fixed_sizes = false;
  std::vector<Array> watched;
  std::uint64_t watched_version = 0;
  std::vector<PlanChoices> pinned;
  std::mutex mutex;                        // of what follows
  std::list<std::shared_ptr<Plan>> plans;  // the last used first
  std::ptrdiff_t cache_bytes = kCacheBytes;
  std::vector<Storage*> changed;  // sorted, of states; what is packed of them serves one pass only, and lies in the arena
  std::vector<Storage*> lasting;  // sorted, of constants and of other states
  std::atomic<bool> has_run{false};

  Body(Graph given, std::vector<Array> weights, std::vector<PlanChoices> choices)
      : graph(std::move(given)), watched(std::move(weights)), pinned(std::move(choices)) {
    std::string missing;
    for (const Node& node : graph.nodes()) {
      if (!has_call(node.op) && missing.find("'" + node.op + "'") == std::string::npos) {
        missing += text(missing.empty() ? "" : ", ", "'", node.op, "'");
      }
    }
    check<std::invalid_argument>(missing.empty(), "program: expected operators of the core, got ", missing,
                                 "; compute these outside of the program");
    has_fixed_sizes = !graph.fixed_ops().empty();
    graph.check_order();
    for (const PlanChoices& choice : pinned) {
      check_choices(graph, choice);
    }
    watched_version = version();
    find_dead();
    sort_weights();
  }

  [[nodiscard]] std::uint64_t version() const {
    std::uint64_t sum = 0;
    for (const Array& weight : watched) {
      sum += weight.storage().version();
    }
    return sum;
  }

  // A value dies after its last reader; results, inputs, constants and states do not.
  void find_dead() {
    const std::size_t n = graph.nodes().size();
    std::vector<std::size_t> last(graph.values().size(), n);
    for (std::size_t i = 0; i < n; ++i) {
      for (const ValueId id : graph.nodes()[i].outputs) {
        last[static_cast<std::size_t>(id)] = i;
      }
      for (const ValueId id : graph.nodes()[i].inputs) {
        if (id != kNoValue && graph.value(id).kind == ValueKind::result) {
          last[static_cast<std::size_t>(id)] = i;
        }
      }
    }
    for (const ValueId id : graph.results()) {
      last[static_cast<std::size_t>(id)] = n;
    }
    dead.resize(n);
    for (std::size_t id = 0; id < last.size(); ++id) {
      if (last[id] < n) {
        dead[last[id]].push_back(static_cast<ValueId>(id));
      }
    }
  }

  void sort_weights() {
    const auto sort = [](std::vector<Storage*>& storages) {
      std::sort(storages.begin(), storages.end());
      storages.erase(std::unique(storages.begin(), storages.end()), storages.end());
    };
    for (const Node& node : graph.nodes()) {
      for (std::size_t i = 0; i < graph.n_changed(node); ++i) {
        const Value& state = graph.value(graph.state_of(node.inputs[i]));
        if (state.kind == ValueKind::state) {
          changed.push_back(state.array.storage_ref().get());
        }
      }
    }
    sort(changed);
    for (const Value& value : graph.values()) {
      if (value.kind == ValueKind::constant || value.kind == ValueKind::state) {
        Storage* const storage = value.array.storage_ref().get();
        if (!std::binary_search(changed.begin(), changed.end(), storage)) {
          lasting.push_back(storage);
        }
      }
    }
    sort(lasting);
  }

  [[nodiscard]] const PlanChoices* find_pinned(std::span<const Extents> inputs) const {
    const auto found =
        std::find_if(pinned.begin(), pinned.end(), [&](const auto& choice) { return are_for(choice, inputs); });
    return found == pinned.end() ? nullptr : &*found;
  }

  [[nodiscard]] PlanChoices choices(std::span<const Extents> inputs) const {
    const PlanChoices* const found = find_pinned(inputs);
    return found == nullptr ? choose_plan(graph, inputs) : *found;
  }

  // Appends the choices for these shapes, and for the parts that a batch of them runs in.
  void add_choices(std::span<const Extents> inputs, std::vector<PlanChoices>& out) const {
    PlanChoices made = choices(inputs);
    const std::ptrdiff_t part = made.samples_at_a_time;
    if (std::find(out.begin(), out.end(), made) == out.end()) {
      out.push_back(std::move(made));
    }
    if (part > 0) {
      const std::ptrdiff_t last = inputs[0][0] - (inputs[0][0] - 1) / part * part;
      for (const std::ptrdiff_t n_samples : {part, last}) {
        std::vector<Extents> shapes(inputs.begin(), inputs.end());
        for (Extents& shape : shapes) {
          shape[0] = n_samples;
        }
        add_choices(shapes, out);
      }
    }
  }

  std::shared_ptr<Plan> make_plan(Conditions conditions) const {
    for (const Guard& guard : graph.guards()) {
      check<GuardError>(guard.holds(conditions.shapes), "program: expected inputs for which ", guard.str(),
                        ", as in the recorded pass; record again with these inputs");
    }
    for (std::size_t i = 0; has_fixed_sizes && i < conditions.shapes.size(); ++i) {
      const Value& value = graph.value(graph.inputs()[i]);
      check<GuardError>(conditions.shapes[i] == striate::values(value.shape), "program: expected '", value.name,
                        "' of shape ", striate::values(value.shape), ", as recorded, got ", conditions.shapes[i],
                        "; record again with these inputs");
    }
    auto plan = std::make_shared<Plan>();
    const PlanChoices* const kept = find_pinned(conditions.shapes);
    plan->n_samples = kept == nullptr ? samples_at_a_time(graph, conditions.shapes) : kept->samples_at_a_time;
    for (std::size_t i = 0; i < graph.nodes().size() && plan->n_samples == 0; ++i) {
      const Node& node = graph.nodes()[i];
      Attributes::Entries entries;
      for (const auto& [name, attribute] : node.attributes) {
        entries.emplace_back(name, with_numbers(attribute, conditions.shapes));
      }
      const ConvAlgorithm algorithm = kept == nullptr ? ConvAlgorithm::automatic : kept->algorithms[i];
      plan->calls.push_back(make_call(Attributes(node.op, entries, algorithm)));
    }
    plan->conditions = std::move(conditions);
    return plan;
  }

  std::shared_ptr<Plan> find_plan(std::span<const Array> inputs) {
    Conditions now = conditions_of(inputs);
    const std::lock_guard lock(mutex);
    const auto found = std::find_if(plans.begin(), plans.end(), [&](const auto& plan) { return plan->conditions == now; });
    if (found != plans.end()) {
      plans.splice(plans.begin(), plans, found);
      return plans.front();
    }
    plans.push_front(make_plan(std::move(now)));
    return plans.front();
  }

  // Forgets plans from the one used longest ago on, until the arenas of all but the last fit the cap.
  void shrink() {
    const std::lock_guard lock(mutex);
    std::ptrdiff_t bytes = 0;
    for (auto plan = plans.begin(); plan != plans.end();) {
      if (plan != plans.begin()) {
        const std::lock_guard plan_lock((*plan)->mutex);
        bytes += std::max<std::ptrdiff_t>((*plan)->bytes(), 4096);
      }
      plan = bytes > cache_bytes ? plans.erase(plan) : std::next(plan);
    }
  }

  std::unique_ptr<Lane> make_lane() const {
    auto lane = std::make_unique<Lane>();
    lane->values.resize(graph.values().size());
    std::size_t most = 0;
    for (std::size_t id = 0; id < graph.values().size(); ++id) {
      const Value& value = graph.values()[id];
      if (value.kind == ValueKind::state || value.kind == ValueKind::constant) {
        lane->values[id] = value.array;
      }
    }
    for (const Node& node : graph.nodes()) {
      auto& pointers = lane->operands.emplace_back();
      for (const ValueId id : node.inputs) {
        pointers.push_back(id == kNoValue ? nullptr : &lane->values[static_cast<std::size_t>(id)]);
      }
      most = std::max(most, node.outputs.size());
    }
    lane->results.resize(most);
    return lane;
  }

  std::vector<Array> execute(const Plan& plan, Lane& lane, std::span<const Array> inputs, std::span<const Array> scalars,
                             std::vector<double>* seconds) {
    const auto set = [&](ValueId id, const Array& array) { lane.values[static_cast<std::size_t>(id)] = array; };
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      set(graph.inputs()[i], inputs[i]);
    }
    for (std::size_t i = 0; i < scalars.size(); ++i) {
      set(graph.scalars()[i], scalars[i]);
    }
    for (std::size_t i = 0; i < plan.calls.size(); ++i) {
      const Node& node = graph.nodes()[i];
      const std::span<Array> results(lane.results.data(), node.outputs.size());
      if (seconds == nullptr) {
        plan.calls[i](lane.operands[i], results);
      } else {
        const auto begin = std::chrono::steady_clock::now();
        plan.calls[i](lane.operands[i], results);
        seconds->push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      }
      for (std::size_t k = 0; k < results.size(); ++k) {
        lane.values[static_cast<std::size_t>(node.outputs[k])] = std::move(results[k]);
      }
      for (const ValueId id : dead[i]) {
        set(id, {});
      }
    }
    std::vector<Array> results;
    results.reserve(graph.results().size());
    for (const ValueId id : graph.results()) {
      results.push_back(lane.values[static_cast<std::size_t>(id)]);
    }
    return results;
  }

  // Lets go of everything that one pass put into a lane.
  void clear(Lane& lane) const {
    for (std::size_t id = 0; id < graph.values().size(); ++id) {
      const ValueKind kind = graph.values()[id].kind;
      if (kind != ValueKind::state && kind != ValueKind::constant) {
        lane.values[id] = {};
      }
    }
    std::fill(lane.results.begin(), lane.results.end(), Array());
  }
};

Program::Program(Graph graph, std::vector<Array> watched, std::vector<PlanChoices> pinned)
    : body_(std::make_unique<Body>(std::move(graph), std::move(watched), std::move(pinned))) {}
Program::~Program() = default;

const Graph& Program::graph() const { return body_->graph; }
bool Program::is_stale() const { return body_->version() != body_->watched_version; }

std::vector<Array> Program::run(std::span<const Array> inputs, std::span<const Array> scalars) const {
  return run_once(inputs, scalars, nullptr);
}

std::vector<double> Program::profile(std::span<const Array> inputs, std::span<const Array> scalars) const {
  std::vector<double> seconds;
  static_cast<void>(run_once(inputs, scalars, &seconds));
  return seconds;
}

std::vector<Array> Program::run_once(std::span<const Array> inputs, std::span<const Array> scalars,
                                     std::vector<double>* seconds) const {
  Body& body = *body_;
  check_like(body.graph, "inputs", body.graph.inputs(), inputs);
  check_like(body.graph, "scalars", body.graph.scalars(), scalars);
  check<GuardError>(!is_stale(),
                    "program: expected the weights it was made of, got weights that changed since; record again");
  const std::shared_ptr<Plan> plan = body.find_plan(inputs);
  if (plan->n_samples > 0) {
    return run_parts(inputs, plan->n_samples, seconds);
  }
  std::unique_ptr<Lane> lane;
  std::shared_ptr<const ArenaPlan> memory;
  bool traces = false;
  {
    const std::lock_guard lock(plan->mutex);
    memory = plan->memory;
    traces = memory == nullptr && !plan->is_tracing;
    plan->is_tracing = plan->is_tracing || traces;
    if (!plan->lanes.empty()) {
      lane = std::move(plan->lanes.back());
      plan->lanes.pop_back();
    } else {
      plan->n_lanes += 1;
    }
  }
  if (lane == nullptr) {
    lane = body.make_lane();
  }
  // The lane is emptied while what served its memory still does, and goes back whatever happens.
  std::vector<Array> results;
  const auto pass = [&] {
    const PassWeights weights(body.lasting);
    for (Storage* const state : body.changed) {
      state->forget_derived();  // packed by others, for a content that ends with this pass
    }
    try {
      results = body.execute(*plan, *lane, inputs, scalars, seconds);
    } catch (...) {
      body.clear(*lane);
      throw;
    }
    body.clear(*lane);
  };
  bool has_diverged = false;
  std::exception_ptr error;
  std::shared_ptr<const ArenaPlan> traced;
  try {
    if (memory != nullptr) {
      lane->prepare(memory);
      Arena arena(*memory, lane->block);
      pass();
      // A result in the block was planned as scratch, for a pass with other lifetimes.
      const bool has_moved = move_out(results, [&](const void* data) { return arena.holds(data); });
      has_diverged = arena.has_diverged() || has_moved;
    } else {
      if (!body.has_run.exchange(true)) {
        empty_cache();  // of what recording left: the pass and its arena would lie beside it
      }
      ArenaTrace trace;
      pass();
      traced = std::make_shared<const ArenaPlan>(trace.plan());
      move_out(results, [&](const void* data) { return trace.holds(data); });
    }
  } catch (...) {
    error = std::current_exception();
  }
  {
    const std::lock_guard lock(plan->mutex);
    if (traces) {
      plan->is_tracing = false;
      plan->memory = traced;
    }
    if (has_diverged && plan->memory == memory) {
      plan->memory = nullptr;
    }
    plan->lanes.push_back(std::move(lane));
  }
  if (error != nullptr) {
    std::rethrow_exception(error);
  }
  if (traces) {
    body.shrink();
  }
  return results;
}

std::vector<Array> Program::run_parts(std::span<const Array> inputs, std::ptrdiff_t n_samples,
                                      std::vector<double>* seconds) const {
  const std::ptrdiff_t n = inputs[0].shape(0);
  const auto part_of = [](const Array& x, std::ptrdiff_t begin, std::ptrdiff_t size) {
    Extents shape = x.shape();
    shape[0] = size;
    return Array::view(x.storage_ref(), x.dtype(), shape, x.strides(), x.offset() + begin * x.stride(0));
  };
  std::vector<Array> results;
  std::vector<Array> part(inputs.size());
  for (std::ptrdiff_t begin = 0; begin < n; begin += n_samples) {
    const std::ptrdiff_t size = std::min(n_samples, n - begin);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      part[i] = part_of(inputs[i], begin, size);
    }
    std::vector<double> own;
    const std::vector<Array> made = run_once(part, {}, seconds == nullptr ? nullptr : &own);
    for (std::size_t i = 0; i < made.size(); ++i) {
      if (begin == 0) {
        Extents shape = made[i].shape();
        shape[0] = n;
        const bool is_image = made[i].rank() >= 3 && made[i].is_dense(Layout::channels_last);
        results.push_back(Array::empty(made[i].dtype(), shape, is_image ? Layout::channels_last : Layout::row_major));
      }
      copy_into(part_of(results[i], begin, size), made[i]);
    }
    if (seconds != nullptr) {
      seconds->resize(own.size());
      std::transform(own.begin(), own.end(), seconds->begin(), seconds->begin(), std::plus<>());
    }
  }
  return results;
}

PlanChoices Program::choices(std::span<const Extents> inputs) const { return body_->choices(inputs); }

std::vector<PlanChoices> Program::choices_to_pin() const {
  const Body& body = *body_;
  std::vector<std::vector<Extents>> met(1);
  for (const ValueId id : body.graph.inputs()) {
    met[0].push_back(values(body.graph.value(id).shape));
  }
  {
    const std::lock_guard lock(body_->mutex);
    for (const auto& plan : body.plans) {
      met.push_back(plan->conditions.shapes);
    }
  }
  std::vector<PlanChoices> found = body.pinned;
  for (const std::vector<Extents>& shapes : met) {
    body.add_choices(shapes, found);
  }
  const auto before = [](const auto& a, const auto& b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  };
  std::sort(found.begin(), found.end(), [&](const PlanChoices& a, const PlanChoices& b) {
    return a.kernels != b.kernels
               ? a.kernels < b.kernels
               : std::lexicographical_compare(a.inputs.begin(), a.inputs.end(), b.inputs.begin(), b.inputs.end(), before);
  });
  return found;
}

Program::Memory Program::memory() const {
  const std::lock_guard lock(body_->mutex);
  Memory memory;
  for (const auto& plan : body_->plans) {
    const std::lock_guard plan_lock(plan->mutex);
    if (memory.n_plans++ == 0) {
      memory.arena_bytes = plan->memory == nullptr ? 0 : plan->memory->bytes;
      memory.least_bytes = plan->memory == nullptr ? 0 : plan->memory->least_bytes;
    }
    memory.n_arenas += plan->n_lanes;
  }
  return memory;
}

void Program::set_cache_bytes(std::ptrdiff_t bytes) {
  check<std::invalid_argument>(bytes >= 0, "program: expected cache bytes of at least 0, got ", bytes, "; pass 0 for none");
  {
    const std::lock_guard lock(body_->mutex);
    body_->cache_bytes = bytes;
  }
  body_->shrink();
}

}  // namespace striate
