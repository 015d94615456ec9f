// Bindings of the native draws: check arguments.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "cpu/bindings_handle.h"
#include "sampling/chain.h"
#include "sampling/penalties.h"
#include "sampling/weigh.h"

namespace nb = nanobind;
using namespace nb::literals;  // NOLINT: the argument names of nanobind

namespace tokamak {
namespace {

using Row = nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<int32_t, nb::numpy, nb::ndim<1>>;
using Floats = nb::ndarray<float, nb::numpy, nb::ndim<1>>;

template <typename T>
nb::ndarray<T, nb::numpy, nb::ndim<1>> array_of(const std::vector<T>& values) {
  auto* copy = new std::vector<T>(values);
  nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<T, nb::numpy, nb::ndim<1>>(copy->data(), {copy->size()}, owner);
}

std::span<const float> span_of(const Row& logits) { return {logits.data(), logits.size()}; }

void check(const Row& logits, double coin, double aim) {
  if (logits.size() == 0 || logits.size() > 0x7FFFFFFF || !(coin >= 0.0 && coin < 1.0) ||
      std::isnan(aim)) {
    throw Error(ErrorKind::invalid_params, "draw: an argument is outside its range");
  }
}

using Shared = std::shared_ptr<const sampling::Chain>;

struct FilterChain {
  Shared chain;

  FilterChain(const std::vector<std::tuple<std::string, double, double, double, int32_t>>& named,
              bool adaptive) {
    std::vector<sampling::Stage> stages;
    for (const auto& [name, a, b, c, min_keep] : named) {
      stages.push_back(sampling::stage_of(name, a, b, c, min_keep));
    }
    chain = std::make_shared<sampling::Chain>(std::move(stages), adaptive);
  }

  std::tuple<Ids, Floats, bool> filtered(const Row& logits, bool with_xtc) const {
    check(logits, 0.0, 0.0);
    std::vector<int32_t> ids;
    std::vector<float> kept;
    sampling::Candidates& candidates = sampling::candidates_of_thread();
    if (std::isfinite(sampling::largest_of(span_of(logits)))) {
      chain->run({0.0, with_xtc, 0.0}, span_of(logits), candidates);
      for (const int32_t i : candidates.in_order()) {
        ids.push_back(candidates.id(i));
        kept.push_back(candidates.logit(i));
      }
    }
    return {array_of(ids), array_of(kept), candidates.by_logit()};
  }
};

// Calls body(i) for i in [0, count) without the GIL, on the threads of a CpuProgram if there is
// one; raises what the last that failed threw.
template <class Body>
void for_rows(size_t count, nb::handle workers, const Body& body) {
  cpu::Program* program = workers.is_none() ? nullptr : &program_of(workers);
  nb::gil_scoped_release release;
  std::exception_ptr failed;
  std::mutex failing;
  const auto guarded = [&](int64_t i, int) noexcept {
    try {
      body(static_cast<size_t>(i));
    } catch (...) {  // nothing may leave a thread of the pool
      const std::lock_guard lock(failing);
      failed = std::current_exception();
    }
  };
  if (program != nullptr && count > 1) {
    const std::lock_guard lock(program->mutex());
    program->pool().check_process();
    program->pool().run(static_cast<int64_t>(count), guarded);
  } else {
    for (size_t i = 0; i < count; ++i) guarded(static_cast<int64_t>(i), 0);
  }
  if (failed) std::rethrow_exception(failed);
}

using Draw = std::tuple<FilterChain, Row, double, bool, double>;

std::vector<std::pair<int32_t, double>> draw_rows(const std::vector<Draw>& rows,
                                                  nb::handle workers) {
  for (const auto& [chain, logits, coin, with_xtc, aim] : rows) check(logits, coin, aim);
  std::vector<std::pair<int32_t, double>> drawn(rows.size());
  for_rows(rows.size(), workers, [&](size_t i) {
    const auto& [chain, logits, coin, with_xtc, aim] = rows[i];
    const auto found = chain.chain->draw({coin, with_xtc, aim}, span_of(logits));
    drawn[i] = {found.id, found.probability};
  });
  return drawn;
}

using LogRow = std::tuple<Row, int32_t, int32_t>;
using LogFound = std::tuple<double, int64_t, std::vector<int32_t>>;

std::vector<LogFound> log_rows(const std::vector<LogRow>& rows, nb::handle workers) {
  for (const auto& [logits, id, num_top] : rows) {
    check(logits, 0.0, 0.0);
    if (id < 0 || static_cast<size_t>(id) >= logits.size() || num_top < 0 ||
        num_top > sampling::max_top_k) {
      throw Error(ErrorKind::invalid_params, "log_rows: an argument is outside its range");
    }
  }
  std::vector<LogFound> found(rows.size());
  for_rows(rows.size(), workers, [&](size_t i) {
    const auto& [logits, id, num_top] = rows[i];
    auto& [total, rank, top] = found[i];
    total = sampling::log_total(span_of(logits));
    rank = sampling::rank_of(span_of(logits), id);
    if (num_top > 0) top = sampling::likeliest(span_of(logits), num_top);
  });
  return found;
}

}  // namespace

void bind_sampling(nb::module_& m) {
  m.def(
      "suffix_matches",
      [](const Tokens& tokens, int32_t limit) {
        return array_of(sampling::suffix_matches({tokens.data(), tokens.size()}, limit));
      },
      "tokens"_a, "limit"_a,
      nb::sig("def suffix_matches(tokens: numpy.typing.NDArray[numpy.int32], limit: int) -> "
              "numpy.typing.NDArray[numpy.int32]"),
      "i32[n]: how many tokens ending at i equal those at the end of tokens i32[n], at most "
      "limit.");
  nb::class_<FilterChain>(
      m, "FilterChain", "Filters as (name, a, b, c, min_keep), then a draw; see sampling/chain.py.")
      .def(nb::init<const std::vector<std::tuple<std::string, double, double, double, int32_t>>&,
                    bool>(),
           "stages"_a, "adaptive"_a = false)
      .def("filtered", &FilterChain::filtered, "logits"_a, "with_xtc"_a,
           nb::sig("def filtered(self, logits: numpy.typing.NDArray[numpy.float32], with_xtc: "
                   "bool) -> tuple[numpy.typing.NDArray[numpy.int32], "
                   "numpy.typing.NDArray[numpy.float32], bool]"),
           "(ids, logits, whether they are ordered by logit) left; none if they are not numbers.");
  m.def("draw_rows", &draw_rows, "rows"_a, "workers"_a.none() = nb::none(),
        nb::sig("def draw_rows(rows: Sequence[tuple[FilterChain, "
                "numpy.typing.NDArray[numpy.float32], float, bool, float]], workers: CpuProgram | "
                "None = None) -> list[tuple[int, float]]"),
        "(token, its probability among those left) of each row (chain, logits f32[V], coin, "
        "with_xtc, aim); token -1 if they are not numbers. aim: mu of mirostat, or that of "
        "adaptive-p. workers: whose threads share the rows. The GIL is released.");
  m.def(
      "log_rows", &log_rows, "rows"_a, "workers"_a.none() = nb::none(),
      nb::sig("def log_rows(rows: Sequence[tuple[numpy.typing.NDArray[numpy.float32], int, int]], "
              "workers: CpuProgram | None = None) -> list[tuple[float, int, list[int]]]"),
      "(ln of the sum of e^l, rank of the token from 1, the likeliest ids) of each row (logits "
      "f32[V], token, how many); ties by id.");
}

}  // namespace tokamak
