// Python bindings of the codecs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "quant/transcode.h"

namespace nb = nanobind;

namespace tokamak {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Target = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorKind::invalid_params, message);
}

const quant::CodecTable& table_named(const std::optional<std::string>& isa) {
  for (const quant::CodecTable* table : quant::codec_tables()) {
    if (!isa || *isa == table->isa) return *table;
  }
  throw Error(ErrorKind::unavailable, "there are no codecs for '" + *isa + "' here");
}

nb::object bytes_of(size_t nbytes, uint8_t** data) {
  *data = new uint8_t[nbytes];
  nb::capsule owner(*data, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, uint8_t>(*data, 1, &nbytes, owner));
}

nb::object transcode(const Bytes& rows, const std::string& source, const std::string& target,
                     int64_t columns, const std::optional<Vector>& importance, int threads,
                     const std::optional<std::string>& isa, const std::optional<Target>& into) {
  quant::Transcoding job{
      quant::codec_named(source), quant::codec_named(target), columns, {}, &table_named(isa)};
  const quant::CodecFormat& from = quant::codec_format(job.source);
  const quant::CodecFormat& to = quant::codec_format(job.target);
  if (columns < 1 || columns % from.block_size != 0 || columns % to.block_size != 0) {
    refuse("rows of " + std::to_string(columns) + " columns do not fit groups of " +
           std::to_string(from.block_size) + " and " + std::to_string(to.block_size));
  }
  const size_t row_nbytes =
      static_cast<size_t>(columns / from.block_size) * static_cast<size_t>(from.type_size);
  if (rows.size() % row_nbytes != 0) {
    refuse(std::to_string(rows.size()) + " bytes are no whole number of rows of " +
           std::to_string(row_nbytes));
  }
  if (threads < 1 || threads > 1024) refuse("threads must be 1 to 1024");
  if (importance) {
    if (static_cast<int64_t>(importance->size()) != columns) {
      refuse("importance must have one value per column");
    }
    job.importance = {importance->data(), importance->size()};
  }
  const size_t nbytes = rows.size() / row_nbytes * static_cast<size_t>(columns / to.block_size) *
                        static_cast<size_t>(to.type_size);
  if (into && into->size() != nbytes) {
    refuse("the result takes " + std::to_string(nbytes) + " bytes, `out` has " +
           std::to_string(into->size()));
  }
  uint8_t* data = into ? into->data() : nullptr;
  nb::object out = into ? nb::cast(*into) : bytes_of(nbytes, &data);
  {
    nb::gil_scoped_release release;
    quant::transcode(job, {rows.data(), rows.size()}, {data, nbytes}, threads);
  }
  return out;
}

std::vector<std::string> codec_formats() {
  std::vector<std::string> names;
  for (const quant::CodecFormat& format : quant::kCodecFormats) names.emplace_back(format.name);
  return names;
}

std::vector<std::string> codec_isas() {
  std::vector<std::string> names;
  for (const quant::CodecTable* table : quant::codec_tables()) names.emplace_back(table->isa);
  return names;
}

}  // namespace

void bind_quant(nb::module_& m) {
  m.def("transcode", transcode, nb::arg("rows"), nb::arg("source"), nb::arg("target"),
        nb::arg("columns"), nb::arg("importance").none() = nb::none(), nb::arg("threads") = 1,
        nb::arg("isa") = nb::none(), nb::arg("out").none() = nb::none(),
        nb::sig("def transcode(rows: numpy.typing.NDArray[numpy.uint8], source: str, target: str, "
                "columns: int, "
                "importance: numpy.typing.NDArray[numpy.float32] | None = None, threads: int = 1, "
                "isa: str | None = None, out: numpy.typing.NDArray[numpy.uint8] | None = None) -> "
                "numpy.typing.NDArray[numpy.uint8]"),
        "Whole rows of `columns` elements, back to back, from one weight format to another, "
        "without the GIL.\n\n"
        "importance: f32[columns], > 0. isa: a name of codec_isas(); all write the same bytes. "
        "out: where the result goes.\n"
        "Raises: UnsupportedError for a format without native codec; InvalidParams for rows that "
        "do not fit and for\n"
        "values that are not finite.");
  m.def("codec_formats", codec_formats, "Names of the formats that `transcode` reads and writes.");
  m.def("codec_isas", codec_isas,
        "Instruction sets that `transcode` can use here, the best first.");
}

}  // namespace tokamak
