// Bindings of the native draws: check arguments. The GIL stays held: a draw is too short to give it
// away.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/chain.h"
#include "sampling/draw.h"
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

int64_t draw_token(const Row& logits, int32_t top_k, double top_p, double min_p, float temperature,
                   int32_t min_keep, double coin) {
  const bool ranges =
      top_k >= 1 && min_keep >= 1 && std::max(top_k, min_keep) <= sampling::max_top_k;
  if (logits.size() == 0 || !ranges || !(temperature > 0.0F)) {
    throw Error(ErrorKind::invalid_params, "draw_token: an argument is outside its range");
  }
  const sampling::Chain chain{top_k, top_p, min_p, temperature, min_keep};
  return sampling::draw({logits.data(), logits.size()}, chain, coin);
}

template <typename T>
nb::ndarray<T, nb::numpy, nb::ndim<1>> array_of(const std::vector<T>& values) {
  auto* copy = new std::vector<T>(values);
  nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<T, nb::numpy, nb::ndim<1>>(copy->data(), {copy->size()}, owner);
}

class FilterChain {
 public:
  FilterChain(const std::vector<std::tuple<std::string, double, double, double, int32_t>>& stages,
              bool adaptive)
      : adaptive_(adaptive) {
    for (const auto& [name, a, b, c, min_keep] : stages) {
      stages_.push_back(sampling::stage_of(name, a, b, c, min_keep));
    }
  }

  std::pair<int32_t, double> draw(const Row& logits, double coin, bool with_xtc, double aim) {
    check(logits, coin, aim);
    const auto drawn =
        sampling::draw(stages_, adaptive_, {coin, with_xtc, aim}, span_of(logits), left());
    return {drawn.id, drawn.probability};
  }

  std::tuple<Ids, Floats, bool> filtered(const Row& logits, bool with_xtc) {
    check(logits, 0.0, 0.0);
    std::vector<int32_t> ids;
    std::vector<float> kept;
    sampling::Candidates& candidates = left();
    if (std::isfinite(sampling::largest_of(span_of(logits)))) {
      sampling::run(stages_, {0.0, with_xtc, 0.0}, span_of(logits), candidates);
      for (const int32_t i : candidates.in_order()) {
        ids.push_back(candidates.id(i));
        kept.push_back(candidates.logit(i));
      }
    }
    return {array_of(ids), array_of(kept), candidates.by_logit()};
  }

 private:
  static std::span<const float> span_of(const Row& logits) {
    return {logits.data(), logits.size()};
  }
  static void check(const Row& logits, double coin, double aim) {
    if (logits.size() == 0 || logits.size() > 0x7FFFFFFF || !(coin >= 0.0 && coin < 1.0) ||
        std::isnan(aim)) {
      throw Error(ErrorKind::invalid_params, "draw: an argument is outside its range");
    }
  }
  static sampling::Candidates& left() {
    thread_local sampling::Candidates candidates;
    return candidates;
  }

  std::vector<sampling::Stage> stages_;
  bool adaptive_;
};

}  // namespace

void bind_sampling(nb::module_& m) {
  m.attr("MAX_TOP_K") = sampling::max_top_k;
  m.def("draw_token", &draw_token, nb::arg("logits"), nb::arg("top_k"), nb::arg("top_p"),
        nb::arg("min_p"), nb::arg("temperature"), nb::arg("min_keep"), nb::arg("coin"),
        "Token drawn after top-k, top-p, min-p and temperature from logits f32[V]; -1 if they are "
        "not numbers.");
  m.def(
      "log_total",
      [](const Row& logits) {
        const std::span<const float> row{logits.data(), logits.size()};
        return sampling::log_total(row);
      },
      "logits"_a, "ln of the sum of e^l over logits f32[V]; not a number if one of them is none.");
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
      .def("draw", &FilterChain::draw, "logits"_a, "coin"_a, "with_xtc"_a, "aim"_a,
           "(token, its probability among those left) drawn from logits f32[V]; -1 if they are not "
           "numbers. aim: mu of mirostat, or that of adaptive-p.")
      .def("filtered", &FilterChain::filtered, "logits"_a, "with_xtc"_a,
           nb::sig("def filtered(self, logits: numpy.typing.NDArray[numpy.float32], with_xtc: "
                   "bool) -> tuple[numpy.typing.NDArray[numpy.int32], "
                   "numpy.typing.NDArray[numpy.float32], bool]"),
           "(ids, logits, whether they are ordered by logit) left; none if they are not numbers.");
}

}  // namespace tokamak
