// Python bindings of the CPU program: arrays and tuples in, checked; steps run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "cpu/bindings_batch.h"
#include "cpu/bindings_handle.h"
#include "cpu/builder.h"
#include "cpu/probe.h"
#include "cpu/topology.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tokamak {
namespace {

using cpu::Operand;
using Byte1 = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Byte2 = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Float1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
// (lead: 0 rows, 1 wanted, 2 result; offset, column, width, stride): see cpu::Operand
using OperandTuple = std::tuple<int, int64_t, int64_t, int64_t, int64_t>;

Operand operand(const OperandTuple& t) {
  const auto [lead, offset, column, width, stride] = t;
  if (lead < 0 || lead >= cpu::kLeads || offset < 0) {
    throw Error(ErrorKind::invalid_params, "an operand has no such arena");
  }
  return {static_cast<cpu::Lead>(lead), static_cast<size_t>(offset), column, width, stride};
}

std::vector<Operand> operands(const std::vector<OperandTuple>& tuples) {
  std::vector<Operand> all;
  for (const OperandTuple& t : tuples) all.push_back(operand(t));
  return all;
}

// Arrays of logits, given back when Python drops them, so that steps reuse the same memory.
class Results : public std::enable_shared_from_this<Results> {
 public:
  struct Array {
    std::unique_ptr<float[]> values;
    size_t capacity;
    std::shared_ptr<Results> home;  // while Python has it
  };

  Array* take(size_t size) {
    const std::lock_guard lock(mutex_);
    for (auto& kept : free_) {
      if (kept == nullptr || kept->capacity < size) continue;
      kept->home = shared_from_this();
      return kept.release();
    }
    return new Array{std::make_unique<float[]>(size), size, shared_from_this()};
  }

  static void give(void* array) noexcept {
    std::unique_ptr<Array> back(static_cast<Array*>(array));
    const std::shared_ptr<Results> home = std::move(back->home);
    const std::lock_guard lock(home->mutex_);
    for (auto& kept : home->free_) {  // a free place, or a smaller array to replace
      if (kept == nullptr || kept->capacity < back->capacity) {
        kept.swap(back);
        return;
      }
    }
  }

 private:
  std::mutex mutex_;
  std::unique_ptr<Array> free_[4];
};

using Matrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// What Python holds: the program, its builder, and the arrays it hands out.
struct Handle {
  cpu::Program program;
  cpu::Builder builder{program};
  std::shared_ptr<Results> results = std::make_shared<Results>();
  std::vector<nb::object> mapped;  // arrays of packed files that matrices lie in

  Handle(const cpu::ProgramLimits& limits, const std::string& isa) : program(limits, isa) {}
};

Matrix as_matrix(Results::Array* values, size_t rows, size_t cols) {
  nb::capsule owner(values, &Results::give);
  const size_t shape[] = {rows, cols};
  return Matrix(values->values.get(), 2, shape, owner);
}

Matrix run(Handle& self, nb::handle batch) {
  const BatchArrays arrays(batch);
  const cpu::BatchView view = arrays.view();
  const auto cols = static_cast<size_t>(self.program.limits().result_width);
  // Refused by `run` if there are too many rows; capped here so that a hostile count allocates
  // nothing.
  const size_t rows = std::min<size_t>(view.logit_rows.size(), view.token_ids.size());
  Results::Array* values = self.results->take(std::max<size_t>(rows * cols, 1));
  nb::capsule owner(values, &Results::give);
  {
    nb::gil_scoped_release release;
    self.program.run(view, values->values.get());
  }
  const size_t shape[] = {rows, cols};
  return Matrix(values->values.get(), 2, shape, owner);
}

// taps: (index of the instruction after which to copy, operand)
std::vector<Matrix> run_taps(Handle& self, nb::handle batch,
                             const std::vector<std::pair<int64_t, OperandTuple>>& wanted) {
  const BatchArrays arrays(batch);
  const cpu::BatchView view = arrays.view();
  std::vector<float> result(view.logit_rows.size() *
                            static_cast<size_t>(self.program.limits().result_width));
  std::vector<cpu::Tap> taps;
  std::vector<Matrix> copies;
  for (const auto& [instruction, tuple] : wanted) {
    const Operand value = self.builder.checked("tap", operand(tuple));
    const size_t rows = value.lead == cpu::Lead::rows      ? view.token_ids.size()
                        : value.lead == cpu::Lead::sources ? view.sources.token_ids.size()
                                                           : view.logit_rows.size();
    const auto width = static_cast<size_t>(value.width);
    auto* copy =
        new Results::Array{std::make_unique<float[]>(rows * width), rows * width, self.results};
    copies.push_back(as_matrix(copy, rows, width));
    taps.push_back({instruction, value, copy->values.get()});
  }
  nb::gil_scoped_release release;
  self.program.run(view, result.data(), taps);
  return copies;
}

std::span<const std::byte> bytes_of(const Byte2& rows) {
  return {reinterpret_cast<const std::byte*>(rows.data()), rows.size()};
}

quant::Format format_named(const std::string& name) {
  const quant::FormatRow* row = quant::find_format(std::string_view(name));
  if (row == nullptr) {
    throw Error(ErrorKind::unsupported,
                "format '" + name +
                    "' has no CPU kernel; convert the file to one "
                    "that has (q4_k, q5_k, q6_k, q8_0, q4_0, q5_0, tq2_0, f16, bf16, f32)");
  }
  return row->format;
}

size_t add_matrix(Handle& self, const std::string& format, nb::handle rows, int64_t cols,
                  float scale) {
  const auto bytes = array<Byte2>("rows", "uint8, two axes", rows);
  const quant::Format known = format_named(format);
  nb::gil_scoped_release release;
  const std::lock_guard lock(self.program.mutex());
  return self.program.weights().add_matrix(known, bytes_of(bytes),
                                           static_cast<int64_t>(bytes.shape(0)), cols, scale,
                                           self.program.pool());
}

size_t add_packed(Handle& self, const std::string& format, nb::handle panels, int64_t rows,
                  int64_t cols) {
  const auto bytes = array<Byte1>("panels", "uint8, one axis", panels);
  const size_t index = self.program.weights().add_packed(
      format_named(format), {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, rows,
      cols);
  self.mapped.push_back(nb::borrow(panels));
  return index;
}

size_t add_vector(Handle& self, nb::handle values) {
  const auto floats = array<Float1>("values", "float32, one axis", values);
  return self.program.weights().add_vector({floats.data(), floats.size()});
}

using Blocks = std::vector<int64_t>;
using Bytes = nb::ndarray<const uint8_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::object read_blocks(Handle& self, int64_t store, const Blocks& blocks) {
  const size_t nbytes = blocks.size() * self.program.store_nbytes(store);
  auto bytes = std::make_unique<std::vector<uint8_t>>(nbytes);
  {
    const nb::gil_scoped_release release;
    self.program.read_blocks(store, blocks, reinterpret_cast<std::byte*>(bytes->data()));
  }
  uint8_t* data = bytes->data();
  const nb::capsule owner(bytes.release(),
                          [](void* p) noexcept { delete static_cast<std::vector<uint8_t>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(data, {nbytes}, owner));
}

void write_blocks(Handle& self, int64_t store, const Blocks& blocks, const Bytes& bytes) {
  const auto given = std::as_bytes(std::span(bytes.data(), bytes.size()));
  const nb::gil_scoped_release release;
  self.program.write_blocks(store, blocks, given);
}

nb::list records(Handle& self) {
  nb::list all;
  for (const cpu::Record& r : self.program.records()) {
    all.append(nb::make_tuple(r.node, r.op, r.kernel, r.calls, r.nanoseconds, r.nbytes, r.macs));
  }
  return all;
}

nb::dict memory(Handle& self) {
  size_t huge = 0;
  {
    const nb::gil_scoped_release
        release;  // the kernel is asked about every page, which takes milliseconds
    huge = self.program.weights().huge_nbytes();
  }
  nb::dict sizes;
  sizes["weights"] = self.program.weights().nbytes();
  sizes["weights_mapped"] = self.program.weights().mapped_nbytes();
  sizes["weights_on_huge_pages"] = huge;
  sizes["weights_interleaved"] =
      self.program.weights().interleaved() ? nb::object(sizes["weights"]) : nb::object(nb::int_(0));
  sizes["cache"] = self.program.cache_nbytes();
  sizes["arena"] = self.program.arena_nbytes();
  return sizes;
}

// (chunk_nbytes, block_nbytes, spin_us): see cpu::Tuning
std::tuple<int64_t, int64_t, int64_t> default_tuning() {
  const cpu::Tuning tuning;
  return {tuning.chunk_nbytes, tuning.block_nbytes, tuning.spin_us};
}

void make(Handle* at, int64_t num_blocks, int64_t num_recent_blocks, int64_t max_rows,
          int64_t max_sequences, int threads, std::tuple<size_t, size_t, size_t> row_nbytes,
          int64_t result_width, const std::string& isa, int threads_batch,
          const std::vector<int>& affinity, const std::tuple<int64_t, int64_t, int64_t>& tuning) {
  const auto [chunk_nbytes, block_nbytes, spin_us] = tuning;
  new (at) Handle({num_blocks,
                   num_recent_blocks,
                   max_rows,
                   max_sequences,
                   threads,
                   std::get<0>(row_nbytes),
                   std::get<1>(row_nbytes),
                   result_width,
                   std::get<2>(row_nbytes),
                   threads_batch,
                   affinity,
                   {chunk_nbytes, block_nbytes, spin_us}},
                  isa);
}

void bind_instructions(nb::class_<Handle>& c) {
  using std::string;
  using Tuples = std::vector<OperandTuple>;
  using Ids = std::vector<int64_t>;
  c.def(
      "embed",
      [](Handle& h, const string& node, int64_t table, bool by_position, int64_t row,
         const OperandTuple& out) { h.builder.embed(node, table, by_position, row, operand(out)); },
      "node"_a, "table"_a, "by_position"_a, "row"_a, "out"_a);
  c.def(
      "linear",
      [](Handle& h, const string& node, const OperandTuple& x, const Ids& weights,
         const Ids& biases, const OperandTuple& out) {
        h.builder.linear(node, operand(x), weights, biases, operand(out));
      },
      "node"_a, "x"_a, "weights"_a, "biases"_a, "out"_a);
  c.def(
      "norm",
      [](Handle& h, const string& node, const OperandTuple& x, int64_t weight, int64_t bias,
         float eps, const Tuples& residual, const OperandTuple& out) {
        h.builder.norm(node, operand(x), weight, bias, eps, operands(residual), operand(out));
      },
      "node"_a, "x"_a, "weight"_a, "bias"_a, "eps"_a, "residual"_a, "out"_a);
  c.def(
      "binary",
      [](Handle& h, const string& node, const string& op, const OperandTuple& x,
         const OperandTuple& y, const OperandTuple& out) {
        h.builder.binary(node, op, operand(x), operand(y), operand(out));
      },
      "node"_a, "op"_a, "x"_a, "y"_a, "out"_a);
  c.def(
      "scaling",
      [](Handle& h, const string& node, const string& op, float by, const OperandTuple& x,
         const OperandTuple& out) { h.builder.scaling(node, op, by, operand(x), operand(out)); },
      "node"_a, "op"_a, "by"_a, "x"_a, "out"_a);
  c.def(
      "activate",
      [](Handle& h, const string& node, const string& act, bool gated, const OperandTuple& x,
         const OperandTuple& out) {
        h.builder.activate(node, act, gated, operand(x), operand(out));
      },
      "node"_a, "act"_a, "gated"_a, "x"_a, "out"_a);
  c.def(
      "rope_table",
      [](Handle& h, int64_t inv_freq, float mscale) {
        return h.builder.rope_table(inv_freq, mscale);
      },
      "inv_freq"_a, "mscale"_a);
  c.def(
      "rope",
      [](Handle& h, const string& node, int64_t table, int64_t head_dim, const OperandTuple& x,
         const OperandTuple& out) {
        h.builder.rope(node, table, head_dim, operand(x), operand(out));
      },
      "node"_a, "table"_a, "head_dim"_a, "x"_a, "out"_a);
  c.def(
      "attention",
      [](Handle& h, const string& node, int64_t cache, int64_t heads, float scale, int64_t window,
         float softcap, int64_t chunk, bool causal, int64_t slopes, int64_t sinks, int keys,
         int64_t buckets, const Ids& bucket_of, const Tuples& qkv, const OperandTuple& out) {
        if (keys < 0 || keys > 3) throw Error(ErrorKind::invalid_params, "keys is none of 0 .. 3");
        h.builder.attention(node, cache,
                            {heads, scale, window, softcap, chunk, causal, slopes, sinks,
                             static_cast<cpu::Keys>(keys), buckets, bucket_of},
                            operands(qkv), operand(out));
      },
      "node"_a, "cache"_a, "heads"_a, "scale"_a, "window"_a, "softcap"_a, "chunk"_a, "causal"_a,
      "slopes"_a, "sinks"_a, "keys"_a, "buckets"_a, "bucket_of"_a, "qkv"_a, "out"_a);
  c.def(
      "take_rows",
      [](Handle& h, const string& node, const OperandTuple& x, const OperandTuple& out) {
        h.builder.take_rows(node, operand(x), operand(out));
      },
      "node"_a, "x"_a, "out"_a);
}

void bind_mixed_instructions(nb::class_<Handle>& c) {
  using std::string;
  using Tuples = std::vector<OperandTuple>;
  using Ids = std::vector<int64_t>;
  c.def(
      "gate",
      [](Handle& h, const string& node, const std::vector<std::pair<int64_t, int64_t>>& groups,
         const OperandTuple& x,
         const OperandTuple& out) { h.builder.gate(node, groups, operand(x), operand(out)); },
      "node"_a, "groups"_a, "x"_a, "out"_a);
  c.def(
      "steer",
      [](Handle& h, const string& node, int64_t gate, int64_t direction, const OperandTuple& x,
         const OperandTuple& out) {
        h.builder.steer(node, gate, direction, operand(x), operand(out));
      },
      "node"_a, "gate"_a, "direction"_a, "x"_a, "out"_a);
  c.def(
      "replace_rows",
      [](Handle& h, const string& node, const OperandTuple& x, const OperandTuple& out) {
        h.builder.replace_rows(node, operand(x), operand(out));
      },
      "node"_a, "x"_a, "out"_a);
  c.def(
      "affine",
      [](Handle& h, const string& node, int64_t weight, int64_t bias, const OperandTuple& x,
         const OperandTuple& out) {
        h.builder.affine(node, weight, bias, operand(x), operand(out));
      },
      "node"_a, "weight"_a, "bias"_a, "x"_a, "out"_a);
  c.def(
      "join",
      [](Handle& h, const string& node, int64_t heads, int64_t y_heads, const OperandTuple& x,
         const OperandTuple& y, const OperandTuple& out) {
        h.builder.join(node, heads, y_heads, operand(x), operand(y), operand(out));
      },
      "node"_a, "heads"_a, "y_heads"_a, "x"_a, "y"_a, "out"_a);
  c.def(
      "route",
      [](Handle& h, const string& node, const string& score, int64_t bias, int64_t used,
         bool normed, float scaling, int64_t groups, int64_t top_groups, int64_t group_top,
         const OperandTuple& logits, const OperandTuple& out) {
        h.builder.route(node, {score, bias, used, normed, scaling, groups, top_groups, group_top},
                        operand(logits), operand(out));
      },
      "node"_a, "score"_a, "bias"_a, "used"_a, "normed"_a, "scaling"_a, "groups"_a, "top_groups"_a,
      "group_top"_a, "logits"_a, "out"_a);
  c.def(
      "experts",
      [](Handle& h, const string& node, const OperandTuple& x, const OperandTuple& weights,
         const Ids& gate, const Ids& up, const Ids& down, const Ids& biases, int64_t used,
         const string& act, bool weighs_input, const OperandTuple& out) {
        h.builder.experts(node, operand(x), operand(weights), {gate, up, down, biases}, used, act,
                          weighs_input, operand(out));
      },
      "node"_a, "x"_a, "weights"_a, "gate"_a, "up"_a, "down"_a, "biases"_a, "used"_a, "act"_a,
      "weighs_input"_a, "out"_a);
  c.def(
      "causal_conv",
      [](Handle& h, const string& node, int64_t state, int64_t weight, int64_t bias,
         const string& act, const OperandTuple& x, const OperandTuple& out) {
        h.builder.causal_conv(node, state, weight, bias, act, operand(x), operand(out));
      },
      "node"_a, "state"_a, "weight"_a, "bias"_a, "act"_a, "x"_a, "out"_a);
  c.def(
      "scan",
      [](Handle& h, const string& node, int64_t state, int64_t heads, int64_t groups,
         const Ids& vectors, const Tuples& inputs, const OperandTuple& out) {
        h.builder.scan(node, state, heads, groups, vectors, operands(inputs), operand(out));
      },
      "node"_a, "state"_a, "heads"_a, "groups"_a, "vectors"_a, "inputs"_a, "out"_a);
  c.def(
      "linear_attention",
      [](Handle& h, const string& node, int64_t state, const string& rule, int64_t heads,
         int64_t bonus, const Tuples& inputs, const OperandTuple& out) {
        h.builder.linear_attention(node, state, rule, heads, bonus, operands(inputs), operand(out));
      },
      "node"_a, "state"_a, "rule"_a, "heads"_a, "bonus"_a, "inputs"_a, "out"_a);
}

}  // namespace

cpu::Program& program_of(nb::handle program) { return nb::cast<Handle&>(program).program; }

void bind_program(nb::module_& m);

void bind_program(nb::module_& m) {
  m.def("allocation_count", &allocation_count,
        "How often native code has asked for memory so far.");
  m.def("memory_nodes", &cpu::memory_nodes,
        "Memory nodes that have memory, rising; [0] if unknown.");
  m.def(
      "cpu_list", [](const std::string& list) { return cpu::listed(list); }, "list"_a,
      "Numbers of a list as the system writes it, \"0-2,5\"; empty if it is none.");
  m.def("allowed_cpus", &cpu::allowed_cpus, "CPUs that this thread may run on, rising.");
  nb::class_<Handle> c(m, "CpuProgram",
                       "Instructions over arenas, with packed weights and a paged cache.");
  c.def("__init__", &make, "num_blocks"_a, "num_recent_blocks"_a, "max_rows"_a, "max_sequences"_a,
        "threads"_a, "row_nbytes"_a, "result_width"_a, "isa"_a = "", "threads_batch"_a = 0,
        "affinity"_a = std::vector<int>(), "tuning"_a = default_tuning());
  c.def_prop_ro("isa", [](Handle& h) { return std::string(h.program.kernels().isa); });
  c.def_prop_ro("num_instructions", [](Handle& h) { return h.program.num_instructions(); });
  c.def_prop_ro("allocations", [](Handle& h) { return h.program.allocations(); });
  c.def_prop_ro("steals", [](Handle& h) { return h.program.pool().steals(); });
  c.def(
      "packed_nbytes",
      [](Handle& h, const std::string& format, int64_t rows, int64_t cols) {
        return h.program.weights().packed_nbytes(format_named(format), rows, cols);
      },
      "format"_a, "rows"_a, "cols"_a);
  c.def(
      "reserve", [](Handle& h, size_t nbytes) { h.program.weights().reserve(nbytes); }, "nbytes"_a);
  c.def("add_matrix", &add_matrix, "format"_a, "rows"_a, "cols"_a, "scale"_a = 1.0f);
  c.def("add_packed", &add_packed, "format"_a, "panels"_a, "rows"_a, "cols"_a);
  c.def("add_vector", &add_vector, "values"_a);
  c.def(
      "add_cache",
      [](Handle& h, const std::string& kv_dtype, bool recent, int64_t kv_heads, int64_t head_dim,
         int64_t value_dim) {
        return h.program.add_cache(cpu::cache_type(kv_dtype), recent, kv_heads, head_dim,
                                   value_dim);
      },
      "kv_dtype"_a, "recent"_a, "kv_heads"_a, "head_dim"_a, "value_dim"_a);
  c.def(
      "add_state", [](Handle& h, int64_t width) { return h.program.add_state(width); }, "width"_a);
  bind_instructions(c);
  bind_mixed_instructions(c);
  c.def("seal", [](Handle& h) { h.program.seal(); });
  c.def("run", &run, "batch"_a,
        nb::sig("def run(self, batch: object) -> numpy.typing.NDArray[numpy.float32]"),
        "Logits f32[S, result_width] of one types.Batch.");
  c.def("run_taps", &run_taps, "batch"_a, "taps"_a,
        nb::sig("def run_taps(self, batch: object, taps: Sequence[tuple[int, tuple[int, int, int, "
                "int, int]]]) -> list[numpy.typing.NDArray[numpy.float32]]"));
  c.def("cancel", [](Handle& h) { h.program.cancel(); });
  c.def(
      "copy_blocks",
      [](Handle& h, const std::vector<std::pair<int64_t, int64_t>>& pairs, bool recent) {
        nb::gil_scoped_release release;
        h.program.copy_blocks(pairs, recent);
      },
      "pairs"_a, "recent"_a);
  c.def(
      "read_blocks", &read_blocks, "store"_a, "blocks"_a,
      nb::sig("def read_blocks(self, store: int, blocks: Sequence[int]) -> "
              "numpy.typing.NDArray[numpy.uint8]"),
      "Bytes of cache blocks of one layer, one after another, laid out as in native/cpu/cache.h.");
  c.def("write_blocks", &write_blocks, "store"_a, "blocks"_a, "bytes"_a);
  c.def("records", &records,
        nb::sig("def records(self) -> list[tuple[str, str, str, int, int, int, int]]"));
  c.def(
      "read_rates",
      [](Handle& h, int threads, int repeats) {
        nb::gil_scoped_release release;
        const auto arena = h.program.weights().arena();
        auto rates = cpu::read_seconds(arena, threads, repeats);
        for (double& r : rates) r = static_cast<double>(arena.size()) / r;
        return rates;
      },
      "threads"_a, "repeats"_a,
      "Bytes per second of reading the packed weights once, by pass; none if they lie in a file.");
  c.def("memory", &memory, nb::sig("def memory(self) -> dict[str, int]"));
}

}  // namespace tokamak
