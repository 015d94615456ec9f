// Binding of the native draw: checks arguments. The GIL stays held: a draw takes microseconds.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "base/error.h"
#include "sampling/draw.h"

namespace nb = nanobind;

namespace tokamak {
namespace {

using Row = nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

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

}  // namespace

void bind_sampling(nb::module_& m) {
  m.attr("MAX_TOP_K") = sampling::max_top_k;
  m.def("draw_token", &draw_token, nb::arg("logits"), nb::arg("top_k"), nb::arg("top_p"),
        nb::arg("min_p"), nb::arg("temperature"), nb::arg("min_keep"), nb::arg("coin"),
        "Token drawn after top-k, top-p, min-p and temperature from logits f32[V]; -1 if they are "
        "not numbers.");
}

}  // namespace tokamak
