// Python binding of the scanner of tokenizer.json files.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <utility>

#include "text/json_columns.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tokamak {

void bind_text_columns(nb::module_& m);

namespace {

using text::JsonColumns;

// A view of memory of `owner`.
template <typename T>
nb::object view(nb::handle owner, const T* values, size_t count) {
  return nb::cast(nb::ndarray<nb::numpy, const T, nb::ndim<1>>(values, {count}, owner));
}

nb::tuple strings(nb::handle owner, const text::OwnedStrings& s) {
  return nb::make_tuple(view(owner, s.blob.get(), s.nbytes),
                        view(owner, s.offsets.data(), s.offsets.size()));
}

nb::object scan(const nb::bytes& file) {
  std::optional<JsonColumns> found;
  {
    const nb::gil_scoped_release release;
    found = JsonColumns::scan({file.c_str(), file.size()});
  }
  if (!found) return nb::none();
  return nb::cast(new JsonColumns(std::move(*found)), nb::rv_policy::take_ownership);
}

nb::object find(const JsonColumns& columns, const nb::bytes& token) {
  const uint32_t id = columns.find({token.c_str(), token.size()});
  return id == text::kNone ? nb::none() : nb::object(nb::int_(id));
}

}  // namespace

void bind_text_columns(nb::module_& m) {
  const auto self = [](nb::handle h) -> const JsonColumns& { return nb::cast<JsonColumns&>(h); };
  nb::class_<JsonColumns>(m, "JsonColumns",
                          "Vocabulary and merges of a tokenizer.json; arrays are views of it.")
      .def_prop_ro("rest",
                   [](const JsonColumns& c) { return nb::bytes(c.rest.data(), c.rest.size()); })
      .def("find", &find, "token"_a, nb::sig("def find(self, token: bytes) -> int | None"))
      .def("__len__", &JsonColumns::size)
      .def_prop_ro(
          "tokens", [self](nb::handle h) { return strings(h, self(h).tokens); },
          nb::sig("def tokens(self) -> tuple[numpy.typing.NDArray[numpy.uint8], "
                  "numpy.typing.NDArray[numpy.int64]]"),
          "Blob and offsets, by id.")
      .def_prop_ro(
          "present",
          [self](nb::handle h) { return view(h, self(h).present.data(), self(h).present.size()); },
          nb::sig("def present(self) -> numpy.typing.NDArray[numpy.uint8]"),
          "By id: 1 where there is a token.")
      .def_prop_ro(
          "scores",
          [self](nb::handle h) {
            if (!self(h).has_scores) return nb::object(nb::none());
            return view(h, self(h).scores.data(), self(h).scores.size());
          },
          nb::sig("def scores(self) -> numpy.typing.NDArray[numpy.float64] | None"))
      .def_prop_ro(
          "merges", [self](nb::handle h) { return strings(h, self(h).merges); },
          nb::sig("def merges(self) -> tuple[numpy.typing.NDArray[numpy.uint8], "
                  "numpy.typing.NDArray[numpy.int64]]"),
          "Blob and offsets, in order of rank.");
  m.def("scan_tokenizer_json", &scan, "file"_a,
        nb::sig("def scan_tokenizer_json(file: bytes) -> JsonColumns | None"),
        "None where the file has to be read as a whole.");
}

}  // namespace tokamak
