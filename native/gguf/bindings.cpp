// Python bindings of native/gguf: check arguments, release the GIL, call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/unique_ptr.h>

#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/mmap.h"
#include "gguf/parser.h"
#include "gguf/string_table.h"

namespace nb = nanobind;

namespace tokamak {

void bind_gguf(nb::module_& m);

namespace {

using gguf::Entry;
using gguf::Header;
using gguf::StringTable;
using gguf::ValueType;

// A mapped (or held) file with its parsed header. Arrays handed out keep it alive.
class GgufFile {
 public:
  explicit GgufFile(MappedFile file) : mapping_(std::move(file)), bytes_(mapping_.bytes()) {}
  explicit GgufFile(nb::bytes content)
      : content_(std::move(content)),
        bytes_(static_cast<const uint8_t*>(content_->data()), content_->size()) {}

  void parse() {
    header_ = gguf::parse(bytes_);
    for (size_t i = 0; i < header_.tensors.size(); ++i) index_[header_.tensors[i].name] = i;
  }

  const MappedFile& mapping() const { return mapping_; }
  std::span<const uint8_t> bytes() const { return bytes_; }
  const Header& header() const { return header_; }
  const gguf::Tensor& tensor(std::string_view name) const {
    const auto found = index_.find(name);
    if (found == index_.end()) {
      throw Error(ErrorKind::model_file, "has no tensor " + gguf::quoted(name));
    }
    return header_.tensors[found->second];
  }

  nb::dict metadata;

 private:
  MappedFile mapping_;
  std::optional<nb::bytes> content_;
  std::span<const uint8_t> bytes_;
  Header header_{};
  std::unordered_map<std::string_view, size_t> index_;
};

nb::str text(std::string_view bytes, const std::string& what) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "strict");
  if (decoded == nullptr) {
    PyErr_Clear();
    throw Error(ErrorKind::model_file, what + " is not valid UTF-8");
  }
  return nb::steal<nb::str>(decoded);
}

template <typename T>
nb::object array(const uint8_t* values, size_t count) {
  T* copy = new T[count];  // the values in the file need not be aligned
  nb::capsule owner(copy, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  if (count != 0) std::memcpy(copy, values, count * sizeof(T));
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(copy, {count}, owner));
}

StringTable string_table(const uint8_t* at, const Entry& entry) {
  StringTable table;
  table.reserve(entry.count, entry.nbytes - entry.count * sizeof(uint64_t));
  for (uint64_t i = 0; i < entry.count; ++i) {
    const auto length = static_cast<size_t>(gguf::load<uint64_t>(at));
    table.append({reinterpret_cast<const char*>(at) + sizeof(uint64_t), length});
    at += sizeof(uint64_t) + length;
  }
  return table;
}

nb::object array_value(const uint8_t* at, const Entry& entry) {
  const auto count = static_cast<size_t>(entry.count);
  switch (entry.element_type) {
    case ValueType::uint8:
      return array<uint8_t>(at, count);
    case ValueType::int8:
      return array<int8_t>(at, count);
    case ValueType::uint16:
      return array<uint16_t>(at, count);
    case ValueType::int16:
      return array<int16_t>(at, count);
    case ValueType::uint32:
      return array<uint32_t>(at, count);
    case ValueType::int32:
      return array<int32_t>(at, count);
    case ValueType::float32:
      return array<float>(at, count);
    case ValueType::boolean:
      return array<bool>(at, count);
    case ValueType::uint64:
      return array<uint64_t>(at, count);
    case ValueType::int64:
      return array<int64_t>(at, count);
    case ValueType::float64:
      return array<double>(at, count);
    case ValueType::string:
      return nb::cast(string_table(at, entry));
    case ValueType::array:
      break;
  }
  throw Error(ErrorKind::unsupported, "key " + gguf::quoted(entry.key) + " is an array of arrays");
}

nb::object value(std::span<const uint8_t> file, const Entry& entry) {
  const uint8_t* at = file.data() + entry.offset;
  switch (entry.type) {
    case ValueType::uint8:
      return nb::int_(gguf::load<uint8_t>(at));
    case ValueType::int8:
      return nb::int_(gguf::load<int8_t>(at));
    case ValueType::uint16:
      return nb::int_(gguf::load<uint16_t>(at));
    case ValueType::int16:
      return nb::int_(gguf::load<int16_t>(at));
    case ValueType::uint32:
      return nb::int_(gguf::load<uint32_t>(at));
    case ValueType::int32:
      return nb::int_(gguf::load<int32_t>(at));
    case ValueType::float32:
      return nb::float_(static_cast<double>(gguf::load<float>(at)));
    case ValueType::boolean:
      return nb::bool_(*at != 0);
    case ValueType::uint64:
      return nb::int_(gguf::load<uint64_t>(at));
    case ValueType::int64:
      return nb::int_(gguf::load<int64_t>(at));
    case ValueType::float64:
      return nb::float_(gguf::load<double>(at));
    case ValueType::string:
      return text({reinterpret_cast<const char*>(at), entry.nbytes},
                  "the value of key " + gguf::quoted(entry.key));
    case ValueType::array:
      break;
  }
  return array_value(at, entry);
}

nb::str key_text(const Entry& entry) {
  return text(entry.key, "metadata key " + gguf::quoted(entry.key));
}

nb::str tensor_text(const gguf::Tensor& tensor) {
  return text(tensor.name, "tensor name " + gguf::quoted(tensor.name));
}

void parse_and_fill(GgufFile& file) {
  {
    nb::gil_scoped_release unlocked;
    file.parse();
  }
  for (const auto& entry : file.header().entries) {
    file.metadata[key_text(entry)] = value(file.bytes(), entry);
  }
  for (const auto& tensor : file.header().tensors) tensor_text(tensor);
}

MappedFile map_unlocked(const std::string& path, bool prefault) {
  nb::gil_scoped_release unlocked;
  MappedFile file(path);
  if (prefault) file.prefault(0, file.bytes().size());
  return file;
}

nb::dict value_types(const GgufFile& file) {
  nb::dict types;
  for (const auto& entry : file.header().entries) {
    std::string name(gguf::value_type_name(entry.element_type));
    types[key_text(entry)] = entry.type == ValueType::array ? "array[" + name + "]" : name;
  }
  return types;
}

nb::tuple shape(const gguf::Tensor& tensor) {
  nb::list dims;
  for (const auto dim : tensor.dims) dims.append(nb::int_(dim));
  return nb::tuple(dims);
}

nb::list tensors(const GgufFile& file) {
  nb::list out;
  for (const auto& tensor : file.header().tensors) {
    out.append(nb::make_tuple(tensor_text(tensor), nb::int_(tensor.type->id), shape(tensor),
                              nb::int_(tensor.offset), nb::int_(tensor.nbytes)));
  }
  return out;
}

nb::list tensor_types() {
  nb::list out;
  for (const auto& type : gguf::tensor_types()) {
    const bool grouped = type.layout == gguf::Layout::grouped;
    out.append(nb::make_tuple(type.id, nb::str(type.name.data(), type.name.size()),
                              grouped ? type.block_size : 0, grouped ? type.type_size : 0));
  }
  return out;
}

nb::bytes to_bytes(std::string_view bytes) { return nb::bytes(bytes.data(), bytes.size()); }

std::string_view item(const StringTable& table, Py_ssize_t i) {
  const auto count = static_cast<Py_ssize_t>(table.size());
  if (i < 0) i += count;
  if (i < 0 || i >= count) throw nb::index_error("string table index out of range");
  return table[static_cast<size_t>(i)];
}

template <typename T>
nb::object view(nb::handle self, const std::vector<T>& values) {
  return nb::cast(
      nb::ndarray<nb::numpy, const T, nb::ndim<1>>(values.data(), {values.size()}, self),
      nb::rv_policy::reference);
}

void fill_table(StringTable* self, nb::handle items) {
  new (self) StringTable();
  for (nb::handle element : items) {
    const auto bytes = nb::cast<nb::bytes>(element);
    self->append({static_cast<const char*>(bytes.data()), bytes.size()});
  }
}

nb::list table_items(const StringTable& table) {
  nb::list items;
  for (size_t i = 0; i < table.size(); ++i) items.append(to_bytes(table[i]));
  return items;
}

void bind_string_table(nb::module_& m) {
  nb::class_<StringTable>(m, "StringTable",
                          "Byte strings as one blob and the offsets of each: string i is "
                          "blob[offsets[i]:offsets[i + 1]].")
      .def("__init__", &fill_table, nb::arg("items"),
           nb::sig("def __init__(self, items: collections.abc.Iterable[bytes]) -> None"))
      .def("__len__", &StringTable::size)
      .def("__getitem__",
           [](const StringTable& table, Py_ssize_t i) { return to_bytes(item(table, i)); })
      .def("__eq__", [](const StringTable& a, const StringTable& b) { return a == b; })
      .def("__eq__", [](const StringTable&, nb::handle) { return false; })
      .def(
          "__getstate__", [](const StringTable& t) { return nb::make_tuple(table_items(t)); },
          nb::sig("def __getstate__(self) -> tuple[list[bytes]]"))
      .def(
          "__setstate__", [](StringTable& t, const nb::tuple& state) { fill_table(&t, state[0]); },
          nb::sig("def __setstate__(self, state: tuple[list[bytes]]) -> None"))
      .def("tolist", &table_items, nb::sig("def tolist(self) -> list[bytes]"),
           "All strings as a list of bytes.")
      .def_prop_ro(
          "blob", [](nb::handle self) { return view(self, nb::cast<StringTable&>(self).blob()); },
          nb::for_getter(nb::sig("def blob(self) -> numpy.typing.NDArray[numpy.uint8]")),
          "u8[n], read-only")
      .def_prop_ro(
          "offsets",
          [](nb::handle self) { return view(self, nb::cast<StringTable&>(self).offsets()); },
          nb::for_getter(nb::sig("def offsets(self) -> numpy.typing.NDArray[numpy.int64]")),
          "i64[len + 1], read-only");
}

nb::object tensor_bytes(nb::handle self, std::string_view name) {
  const auto& file = nb::cast<const GgufFile&>(self);
  const auto& tensor = file.tensor(name);
  const uint8_t* start = file.bytes().data() + tensor.offset;
  return nb::cast(nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(start, {tensor.nbytes}, self),
                  nb::rv_policy::reference);
}

}  // namespace

void bind_gguf(nb::module_& m) {
  bind_string_table(m);
  m.def("gguf_tensor_types", &tensor_types,
        nb::sig("def gguf_tensor_types() -> list[tuple[int, str, int, int]]"),
        "Every known tensor type as (id, name, block_size, type_size); sizes are 0 where a "
        "tensor's size "
        "is not a number of groups.");
  nb::class_<GgufFile>(
      m, "GgufFile",
      "A GGUF file, mapped and checked. Arrays of `data` are views into the mapping and keep it "
      "alive; if another process truncates the file, reading them kills this one (SIGBUS).")
      .def(
          "__init__",
          [](GgufFile* self, const std::string& path, bool prefault) {
            new (self) GgufFile(map_unlocked(path, prefault));
            parse_and_fill(*self);
          },
          nb::arg("path"), nb::kw_only(), nb::arg("prefault") = false)
      .def_static(
          "from_bytes",
          [](nb::bytes content) {
            auto file = std::make_unique<GgufFile>(std::move(content));
            parse_and_fill(*file);
            return file;
          },
          nb::arg("content"), "The same from bytes in memory.")
      .def_prop_ro("version", [](const GgufFile& f) { return f.header().version; })
      .def_prop_ro("alignment", [](const GgufFile& f) { return f.header().alignment; })
      .def_prop_ro("data_offset", [](const GgufFile& f) { return f.header().data_offset; })
      .def_prop_ro("nbytes", [](const GgufFile& f) { return f.bytes().size(); })
      .def_prop_ro(
          "metadata", [](const GgufFile& f) { return f.metadata; },
          nb::for_getter(nb::sig("def metadata(self) -> dict[str, typing.Any]")),
          "dict: scalars as Python values, numeric arrays as NumPy arrays, string arrays as "
          "StringTable, in the order of the file.")
      .def_prop_ro("value_types", &value_types,
                   nb::for_getter(nb::sig("def value_types(self) -> dict[str, str]")),
                   "dict: the type of every metadata value, \"uint32\", \"array[string]\", ...")
      .def_prop_ro(
          "tensors", &tensors,
          nb::for_getter(
              nb::sig("def tensors(self) -> list[tuple[str, int, tuple[int, ...], int, int]]")),
          "list of (name, type id, shape outermost first, byte offset in the file, nbytes).")
      .def("data", &tensor_bytes, nb::arg("name"),
           nb::sig("def data(self, name: str) -> numpy.typing.NDArray[numpy.uint8]"),
           "Bytes of a tensor: u8[nbytes], read-only view.")
      .def(
          "release",
          [](const GgufFile& f, std::string_view name) {
            const auto& tensor = f.tensor(name);
            f.mapping().release(tensor.offset, tensor.nbytes);
          },
          nb::arg("name"),
          "Give the tensor's whole pages back to the system; reading them again still works.")
      .def(
          "prefault",
          [](const GgufFile& f, std::string_view name) {
            const auto& tensor = f.tensor(name);
            nb::gil_scoped_release unlocked;
            f.mapping().prefault(tensor.offset, tensor.nbytes);
          },
          nb::arg("name"), "Read the tensor's pages into memory now.");
}

}  // namespace tokamak
