// Python bindings for packed files: one matrix packed into an array, and checksums of bytes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>

#include "base/checksum.h"
#include "base/error.h"
#include "cpu/dispatch.h"
#include "cpu/weights.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tokamak {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;

std::span<const std::byte> bytes_of(const Bytes& array) {
  return {reinterpret_cast<const std::byte*>(array.data()), array.size()};
}

const quant::FormatRow& with_kernel(const std::string& format) {
  const quant::FormatRow* known = quant::find_format(std::string_view(format));
  if (known == nullptr) {
    throw Error(ErrorKind::unsupported, "format '" + format + "' has no CPU kernel");
  }
  return *known;
}

// The arena of a program's weights holding this one matrix, as an array that keeps it alive.
Array pack_matrix(const std::string& isa, const std::string& format, const Bytes& rows,
                  int64_t num_rows, int64_t cols, int threads, float scale) {
  const quant::Format known = with_kernel(format).format;
  auto weights = std::make_unique<cpu::Weights>(cpu::kernels_named(isa));
  size_t nbytes = 0;
  {
    nb::gil_scoped_release release;
    cpu::Pool pool(threads);
    nbytes = weights->packed_nbytes(known, num_rows, cols);
    weights->reserve(nbytes);
    weights->add_matrix(known, bytes_of(rows), num_rows, cols, scale, pool);
  }
  auto* data = const_cast<std::byte*>(weights->matrix(0).bytes);
  nb::capsule owner(weights.release(),
                    [](void* p) noexcept { delete static_cast<cpu::Weights*>(p); });
  const size_t shape[] = {nbytes};
  return Array(reinterpret_cast<uint8_t*>(data), 1, shape, owner);
}

size_t packed_nbytes(const std::string& isa, const std::string& format, int64_t rows,
                     int64_t cols) {
  return cpu::Weights(cpu::kernels_named(isa))
      .packed_nbytes(with_kernel(format).format, rows, cols);
}

std::vector<uint64_t> sums(const Bytes& bytes, size_t piece, int threads) {
  if (piece < 64 || piece % 64 != 0 || threads < 1) {
    throw Error(ErrorKind::invalid_params, "a piece is a multiple of 64 bytes, threads at least 1");
  }
  nb::gil_scoped_release release;
  return checksums(bytes_of(bytes), piece, threads);
}

}  // namespace

void bind_packing(nb::module_& m);

void bind_packing(nb::module_& m) {
  m.def("pack_matrix", &pack_matrix, "isa"_a, "format"_a, "rows"_a, "num_rows"_a, "cols"_a,
        "threads"_a = 1, "scale"_a = 1.0f,
        nb::sig("def pack_matrix(isa: str, format: str, rows: numpy.typing.NDArray[numpy.uint8], "
                "num_rows: int, cols: int, threads: int = 1, scale: float = 1.0) -> "
                "numpy.typing.NDArray[numpy.uint8]"),
        "The panels of a matrix as the kernels of `isa` read them: u8[nbytes].");
  m.def("packed_nbytes", &packed_nbytes, "isa"_a, "format"_a, "rows"_a, "cols"_a,
        "Bytes of such a matrix when packed.");
  m.def("checksums", &sums, "bytes"_a, "piece"_a, "threads"_a = 1,
        nb::sig("def checksums(bytes: numpy.typing.NDArray[numpy.uint8], piece: int, threads: int "
                "= 1) -> list[int]"),
        "A sum of 64 bits for every `piece` bytes.");
}

}  // namespace tokamak
