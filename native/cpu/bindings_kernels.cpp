// Python bindings of the matrix kernels: what tests and benchmarks call. Programs do not go through
// here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cpu/activations.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace nb = nanobind;

namespace tokamak {
namespace {

using cpu::Activation;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Free {
  void operator()(std::byte* p) const noexcept { ::operator delete(p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<std::byte, Free>;

Buffer allocate(size_t nbytes) {
  return Buffer(static_cast<std::byte*>(::operator new(nbytes, std::align_val_t{64})));
}

template <class T>
nb::object owned_array(std::vector<T>&& values, std::vector<size_t> shape) {
  auto* heap = new std::vector<T>(std::move(values));
  nb::capsule owner(heap, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, T>(heap->data(), shape.size(), shape.data(), owner));
}

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorKind::invalid_params, message);
}

// Activations of T rows, quantised back to back.
struct Quantised {
  Buffer bytes;
  size_t stride;
};

Quantised quantise(const cpu::KernelTable& table, Activation kind, const float* x, size_t tokens,
                   int64_t cols) {
  Quantised out{nullptr, table.activation_nbytes(kind, cols)};
  out.bytes = allocate(out.stride * tokens + 1);
  for (size_t t = 0; t < tokens; ++t) {
    table.quantize_row(kind, x + t * static_cast<size_t>(cols), cols,
                       out.bytes.get() + t * out.stride);
  }
  return out;
}

// Shortest time of `work` among the runs that fit into `budget_s` seconds, at least three.
template <class Work>
double shortest(double budget_s, Work work) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const Clock::time_point begin = Clock::now();
  double best = INFINITY;
  for (int run = 0; run < 3 || since(begin) < budget_s; ++run) {
    const Clock::time_point start = Clock::now();
    work();
    best = std::min(best, since(start));
  }
  return best;
}

// Dependent additions per second of this thread: on the machines of today one a cycle.
double clock_hertz() {
  constexpr int kAdditions = 100'000;
  nb::gil_scoped_release release;
  return kAdditions / shortest(0.05, [] {
           uint64_t x = 1;
           for (int i = 0; i < kAdditions; ++i) {
             x += 1;
             __asm__ volatile("" : "+r"(x));  // neither folded nor moved
           }
         });
}

// A packed matrix that owns its panels.
class PackedHolder {
 public:
  PackedHolder(const std::string& isa, const std::string& format, Bytes bytes, int64_t rows,
               int64_t cols, float scale)
      : table_(cpu::kernels_named(isa)) {
    const quant::FormatRow* row = quant::find_format(std::string_view(format));
    if (row == nullptr) refuse("format '" + format + "' has no kernel");
    if (rows <= 0 || cols <= 0 || cols % row->block_size != 0) {
      refuse("a " + format + " matrix needs rows > 0 and columns in multiples of " +
             std::to_string(row->block_size) + ", got " + std::to_string(rows) + " x " +
             std::to_string(cols));
    }
    const size_t row_nbytes = quant::row_nbytes(row->format, cols);
    if (bytes.size() / row_nbytes != static_cast<size_t>(rows) || bytes.size() % row_nbytes != 0) {
      refuse("a " + format + " matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
             " has " + std::to_string(bytes.size()) + " bytes, needs " + std::to_string(rows) +
             " * " + std::to_string(row_nbytes));
    }
    w_ = {row->format, rows, cols, table_.panel_nbytes(row->format, cols), nullptr, scale};
    bytes_ = allocate(w_.panel_nbytes * static_cast<size_t>(panels()));
    w_.bytes = bytes_.get();
    const auto* src = reinterpret_cast<const std::byte*>(bytes.data());
    nb::gil_scoped_release release;
    for (int64_t panel = 0; panel < panels(); ++panel) {
      const int64_t first = panel * table_.panel_rows;
      const int64_t count = std::min<int64_t>(rows - first, table_.panel_rows);
      table_.pack_panel(row->format, src + static_cast<size_t>(first) * row_nbytes, row_nbytes,
                        static_cast<int>(count), cols,
                        bytes_.get() + static_cast<size_t>(panel) * w_.panel_nbytes);
    }
  }

  int64_t panels() const { return (w_.rows + table_.panel_rows - 1) / table_.panel_rows; }
  size_t nbytes() const { return w_.panel_nbytes * static_cast<size_t>(panels()); }

  // x: f32[T, K]; bias: f32[N]; panels [begin, end) only (others stay NaN).
  nb::object matmul(Matrix x, std::optional<Vector> bias, int64_t begin,
                    std::optional<int64_t> end) const {
    if (static_cast<int64_t>(x.shape(1)) != w_.cols)
      refuse("matmul: x must be f32[T, " + std::to_string(w_.cols) + "]");
    if (bias && static_cast<int64_t>(bias->size()) != w_.rows)
      refuse("matmul: bias must have one value per row");
    const int64_t stop = end.value_or(panels());
    if (begin < 0 || begin > stop || stop > panels()) refuse("matmul: panels outside the matrix");
    const size_t tokens = x.shape(0);
    const auto rows = static_cast<size_t>(w_.rows);
    std::vector<float> out(tokens * rows, std::nanf(""));
    {
      nb::gil_scoped_release release;
      const Quantised acts =
          quantise(table_, cpu::activation_of(w_.format), x.data(), tokens, w_.cols);
      table_.matmul(w_, acts.bytes.get(), acts.stride, static_cast<int64_t>(tokens), begin, stop,
                    bias ? bias->data() : nullptr, out.data(), rows);
    }
    return owned_array(std::move(out), {tokens, rows});
  }

  // Shortest of the products with x that fit into `budget_s` seconds, at least three.
  double seconds(Matrix x, double budget_s) const {
    if (static_cast<int64_t>(x.shape(1)) != w_.cols)
      refuse("seconds: x must be f32[T, " + std::to_string(w_.cols) + "]");
    const size_t tokens = x.shape(0);
    std::vector<float> out(tokens * static_cast<size_t>(w_.rows));
    nb::gil_scoped_release release;
    const Quantised acts =
        quantise(table_, cpu::activation_of(w_.format), x.data(), tokens, w_.cols);
    return shortest(budget_s, [&] {
      table_.matmul(w_, acts.bytes.get(), acts.stride, static_cast<int64_t>(tokens), 0, panels(),
                    nullptr, out.data(), static_cast<size_t>(w_.rows));
    });
  }

  nb::object unpack_row(int64_t row) const {
    if (row < 0 || row >= w_.rows)
      refuse("unpack_row: row " + std::to_string(row) + " outside the matrix");
    std::vector<float> out(static_cast<size_t>(w_.cols));
    table_.unpack_row(w_, row, out.data());
    const size_t size = out.size();
    return owned_array(std::move(out), {size});
  }

 private:
  const cpu::KernelTable& table_;
  cpu::PackedMatrix w_{};
  Buffer bytes_;
};

// (q int8[K], d f32[1]) of one row.
nb::object quantize_whole(const cpu::KernelTable& table, const Vector& x) {
  if (x.size() % 64 != 0 || static_cast<int64_t>(x.size()) > cpu::kMaxRowColumns)
    refuse("quantize_activation: x must have a multiple of 64, at most " +
           std::to_string(cpu::kMaxRowColumns));
  const Quantised acts =
      quantise(table, Activation::q8_row, x.data(), 1, static_cast<int64_t>(x.size()));
  std::vector<int8_t> q(x.size());
  std::memcpy(q.data(), acts.bytes.get(), q.size());
  const auto& end = *reinterpret_cast<const cpu::Q8RowEnd*>(acts.bytes.get() + q.size());
  const size_t columns = q.size();
  return nb::make_tuple(owned_array(std::move(q), {columns}),
                        owned_array(std::vector<float>{end.d}, {1}));
}

// (q int8[K], d f32[K / group]) of one row; kind "q8_32", "q8_256" or "q8_row".
nb::object quantize_activation(const std::string& isa, const std::string& kind, Vector x) {
  const cpu::KernelTable& table = cpu::kernels_named(isa);
  if (kind == "q8_row") return quantize_whole(table, x);
  const bool wide = kind == "q8_256";
  if (!wide && kind != "q8_32")
    refuse("quantize_activation: kind is q8_32, q8_256 or q8_row, not '" + kind + "'");
  const size_t group = wide ? 256 : 32;
  if (x.size() % group != 0)
    refuse("quantize_activation: x must have a multiple of " + std::to_string(group));
  const Quantised acts = quantise(table, wide ? Activation::q8_256 : Activation::q8_32, x.data(), 1,
                                  static_cast<int64_t>(x.size()));
  std::vector<int8_t> q(x.size());
  std::vector<float> d(x.size() / group);
  for (size_t g = 0; g < d.size(); ++g) {
    if (wide) {
      const auto& src = reinterpret_cast<const cpu::Q8SuperGroup*>(acts.bytes.get())[g];
      std::memcpy(q.data() + g * group, src.q, group);
      d[g] = src.d;
    } else {
      const auto& src = reinterpret_cast<const cpu::Q8Group*>(acts.bytes.get())[g];
      std::memcpy(q.data() + g * group, src.q, group);
      d[g] = src.d;
    }
  }
  const size_t columns = q.size();
  const size_t groups = d.size();
  return nb::make_tuple(owned_array(std::move(q), {columns}), owned_array(std::move(d), {groups}));
}

std::vector<std::string> isas() {
  int count = 0;
  const cpu::KernelTable* const* tables = cpu::available_tables(&count);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(tables[i]->isa);
  return names;
}

}  // namespace

void bind_kernels(nb::module_& m);

void bind_kernels(nb::module_& m) {
  m.def("isas", &isas, nb::sig("def isas() -> list[str]"),
        "Instruction sets this processor can run, best first.");
  m.def(
      "isa", [] { return std::string(cpu::kernels().isa); }, nb::sig("def isa() -> str"),
      "The instruction set in use: the best, or what TOKAMAK_ISA names.");
  m.def("clock_hertz", &clock_hertz, nb::sig("def clock_hertz() -> float"),
        "Dependent additions per second of this thread, which is its clock.");
  m.def(
      "quantize_activation", &quantize_activation, nb::arg("isa"), nb::arg("kind"), nb::arg("x"),
      nb::sig(
          "def quantize_activation(isa: str, kind: str, x: numpy.typing.NDArray[numpy.float32]) -> "
          "tuple[numpy.typing.NDArray[numpy.int8], numpy.typing.NDArray[numpy.float32]]"),
      "One row f32[K] as int8[K] and scales: kind 'q8_32' (per 32 columns), 'q8_256' or 'q8_row' "
      "(one "
      "scale).");
  nb::class_<PackedHolder>(m, "PackedMatrix", "A weight matrix packed for one instruction set.")
      .def(nb::init<const std::string&, const std::string&, Bytes, int64_t, int64_t, float>(),
           nb::arg("isa"), nb::arg("format"), nb::arg("bytes"), nb::arg("rows"), nb::arg("cols"),
           nb::arg("scale") = 1.0f,
           nb::sig("def __init__(self, isa: str, format: str, bytes: "
                   "numpy.typing.NDArray[numpy.uint8], rows: int, "
                   "cols: int, scale: float = 1.0) -> None"))
      .def_prop_ro("nbytes", &PackedHolder::nbytes)
      .def_prop_ro("panels", &PackedHolder::panels)
      .def("matmul", &PackedHolder::matmul, nb::arg("x"), nb::arg("bias") = nb::none(),
           nb::arg("panel_begin") = 0, nb::arg("panel_end") = nb::none(),
           nb::sig("def matmul(self, x: numpy.typing.NDArray[numpy.float32], bias: "
                   "numpy.typing.NDArray[numpy.float32] | None = None, "
                   "panel_begin: int = 0, panel_end: int | None = None) -> "
                   "numpy.typing.NDArray[numpy.float32]"),
           "f32[T, K] -> f32[T, N] on this thread; rows of panels outside the range are NaN.")
      .def("seconds", &PackedHolder::seconds, nb::arg("x"), nb::arg("budget_s"),
           nb::sig("def seconds(self, x: numpy.typing.NDArray[numpy.float32], budget_s: float) -> "
                   "float"),
           "Shortest time of the product with x: f32[T, K], repeated for `budget_s` seconds.")
      .def("unpack_row", &PackedHolder::unpack_row, nb::arg("row"),
           nb::sig("def unpack_row(self, row: int) -> numpy.typing.NDArray[numpy.float32]"),
           "Row `row` as floats f32[K], exactly as the codec decodes it.");
}

}  // namespace tokamak
