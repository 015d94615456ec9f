// Python bindings of native/text: check arguments, release the GIL, call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <map>

#include "base/error.h"
#include "text/build.h"
#include "text/engine.h"
#include "text/inputs.h"
#include "text/normal_forms.h"
#include "text/unicode.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tokamak {

void bind_text(nb::module_& m);

namespace {

using text::Column;
using text::Encoding;
using text::Engine;
using text::IdsInput;
using text::Input;

// An array that owns its data, without a copy through Python objects.
template <typename T>
nb::object to_array(std::vector<T> values) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

Encoding encode(const Engine& engine, nb::handle text, bool add_special, bool parse_special,
                const std::vector<std::pair<size_t, size_t>>& plain, bool with_spans) {
  const Input input(text);
  std::vector<text::ByteRange> ranges;
  for (const auto& [start, end] : plain) ranges.push_back({start, end});
  Encoding out;
  const nb::gil_scoped_release release;
  engine.encode(input.view(), {add_special, parse_special, with_spans, input.is_str()}, ranges,
                out);
  return out;
}

// One Python int per id for the whole process, made when first needed and kept: making an int costs
// ten times as much as counting a reference. Under the GIL.
class SharedInts {
 public:
  // Puts the ints of ids into a new list of their number.
  void fill(PyObject* list, const std::vector<int32_t>& ids) {
    constexpr size_t kAhead = 16;
    const auto most = ids.empty() ? -1 : *std::max_element(ids.begin(), ids.end());
    const auto size = static_cast<size_t>(most + 1);
    if (ints_.size() < size) ints_.resize(std::max(size, ints_.size() * 2), nullptr);
    const size_t fetched = ids.size() - std::min(ids.size(), kAhead);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i < fetched) __builtin_prefetch(ints_[static_cast<size_t>(ids[i + kAhead])], 1);
      PyObject*& id = ints_[static_cast<size_t>(ids[i])];
      if (id == nullptr) id = PyLong_FromLong(ids[i]);
      if (id == nullptr) throw nb::python_error();
      Py_INCREF(id);
      PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), id);
    }
  }

 private:
  std::vector<PyObject*> ints_;
};

void fill_list(PyObject* list, const std::vector<int32_t>& ids) {
  static SharedInts ints;
  ints.fill(list, ids);
}

nb::object encode_list(const Engine& engine, nb::handle text, bool add_special,
                       bool parse_special) {
  const Encoding out = encode(engine, text, add_special, parse_special, {}, false);
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(out.ids.size())));
  if (!list.is_valid()) throw nb::python_error();
  fill_list(list.ptr(), out.ids);
  return list;
}

nb::object encode_array(const Engine& engine, nb::handle text, bool add_special, bool parse_special,
                        const nb::sequence& plain) {
  std::vector<std::pair<size_t, size_t>> ranges;
  for (const nb::handle range : plain) {
    ranges.emplace_back(nb::cast<size_t>(range[0]), nb::cast<size_t>(range[1]));
  }
  return to_array(encode(engine, text, add_special, parse_special, ranges, false).ids);
}

nb::tuple encode_spans(const Engine& engine, nb::handle text, bool add_special,
                       bool parse_special) {
  Encoding out = encode(engine, text, add_special, parse_special, {}, true);
  std::vector<int64_t> flat;
  flat.reserve(out.spans.size() * 2);
  for (const text::Span& s : out.spans) {
    flat.push_back(s.start);
    flat.push_back(s.end);
  }
  nb::list shown;
  for (const text::Shown& s : out.shown) {
    shown.append(nb::make_tuple(s.row, nb::bytes(s.text.data(), s.text.size())));
  }
  return nb::make_tuple(to_array(std::move(out.ids)), to_array(std::move(flat)),
                        to_array(std::move(out.words)), shown);
}

nb::list words(const Engine& engine, nb::handle text, bool parse_special) {
  const Input input(text);
  std::vector<text::Word> found;
  {
    const nb::gil_scoped_release release;
    found = engine.words(input.view(), parse_special);
  }
  nb::list out;
  for (const text::Word& word : found) {
    if (word.id < 0) {
      out.append(nb::bytes(word.text.data(), word.text.size()));
    } else {
      out.append(word.id);
    }
  }
  return out;
}

size_t count(const Engine& engine, nb::handle text, bool add_special, bool parse_special) {
  return encode(engine, text, add_special, parse_special, {}, false).ids.size();
}

nb::tuple encode_batch(const Engine& engine, const nb::sequence& texts, bool add_special,
                       bool parse_special, size_t threads) {
  std::vector<Input> inputs;
  std::vector<nb::object> alive;
  for (const nb::handle text : texts) {
    alive.push_back(nb::borrow(text));
    inputs.emplace_back(text);
  }
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets{0};
  {
    const nb::gil_scoped_release release;
    std::vector<std::string_view> views;
    for (const Input& input : inputs) views.push_back(input.view());
    const auto results = engine.encode_batch(views, {add_special, parse_special, false}, threads);
    for (const auto& r : results)
      offsets.push_back(offsets.back() + static_cast<int64_t>(r.size()));
    ids.reserve(static_cast<size_t>(offsets.back()));
    for (const auto& r : results) ids.insert(ids.end(), r.begin(), r.end());
  }
  return nb::make_tuple(to_array(std::move(ids)), to_array(std::move(offsets)));
}

text::ByteBuffer decode_any(const Engine& engine, nb::handle ids, bool skip_special,
                            bool strip_space, bool as_text) {
  const IdsInput input(ids);
  const nb::gil_scoped_release release;
  return engine.decode(input.data(), input.size(), skip_special, strip_space, as_text);
}

nb::bytes decode(const Engine& engine, nb::handle ids, bool skip_special, bool strip_space) {
  const auto out = decode_any(engine, ids, skip_special, strip_space, false);
  return nb::bytes(out.view().data(), out.size());
}

// What is not UTF-8 becomes U+FFFD, one for each longest start of a sequence.
nb::object decode_text(const Engine& engine, nb::handle ids, bool skip_special, bool strip_space) {
  const auto out = decode_any(engine, ids, skip_special, strip_space, true);
  const auto size = static_cast<Py_ssize_t>(out.size());
  if (size == 0) return nb::str("");
  if (!out.ascii()) {
    PyObject* text = PyUnicode_DecodeUTF8(out.view().data(), size, "replace");
    if (text == nullptr) throw nb::python_error();
    return nb::steal(text);
  }
  nb::object text = nb::steal(PyUnicode_New(size, 127));
  if (!text.is_valid()) throw nb::python_error();
  std::memcpy(PyUnicode_1BYTE_DATA(text.ptr()), out.view().data(), out.size());
  return text;
}

text::Step step_of(nb::handle t) {
  text::Step step;
  step.type = nb::cast<std::string>(t[0]);
  for (const nb::handle pair : nb::cast<nb::sequence>(t[1])) {
    const auto key = nb::cast<std::string>(pair[0]);
    nb::object value = pair[1];
    if (PyBool_Check(value.ptr())) {
      step.options[key] = nb::cast<bool>(value);
    } else if (PyLong_Check(value.ptr())) {
      step.options[key] = nb::cast<int64_t>(value);
    } else if (nb::isinstance<nb::bytes>(value)) {
      const auto bytes = nb::cast<nb::bytes>(value);
      step.options[key] = std::string(bytes.c_str(), bytes.size());
    } else {
      step.options[key] = nb::cast<std::string>(value);
    }
  }
  return step;
}

std::vector<text::Step> steps_of(const nb::dict& parts, const char* key) {
  std::vector<text::Step> steps;
  for (const nb::handle t : nb::cast<nb::sequence>(parts[key])) steps.push_back(step_of(t));
  return steps;
}

nb::list normalized_tokens(const Engine& engine) {
  nb::list found;
  for (const text::AddedToken& t : engine.normalized()) {
    found.append(nb::make_tuple(t.id, nb::bytes(t.content.data(), t.content.size())));
  }
  return found;
}

nb::bytes token_bytes(const Engine& engine, int64_t id) {
  if (id < 0 || id >= engine.vocab_size()) {
    throw Error(ErrorKind::invalid_params, "token id " + std::to_string(id) +
                                               " is outside the vocabulary of " +
                                               std::to_string(engine.vocab_size()));
  }
  const std::string_view s = engine.text_of(static_cast<uint32_t>(id));
  return nb::bytes(s.data(), s.size());
}

template <typename T>
std::span<const T> view_of(const nb::dict& parts, const char* key, std::vector<nb::object>& alive) {
  if (!parts.contains(key)) return {};
  nb::object object = parts[key];
  const auto array = nb::cast<Column<T>>(object);
  alive.push_back(object);
  return {array.data(), array.shape(0)};
}

text::AddedToken added_token(nb::handle t) {
  text::AddedToken token;
  const auto content = nb::cast<nb::bytes>(t[0]);
  token.content.assign(content.c_str(), content.size());
  token.id = nb::cast<uint32_t>(t[1]);
  token.special = nb::cast<bool>(t[2]);
  token.lstrip = nb::cast<bool>(t[3]);
  token.rstrip = nb::cast<bool>(t[4]);
  token.single_word = nb::cast<bool>(t[5]);
  token.verbatim = nb::cast<bool>(t[7]);
  return token;
}

// Keys as TokenizerParts and EngineOptions name them; arrays are read in place while building.
// tables: arrays of uint8 by name, as `tables` gave them, or empty.
std::unique_ptr<Engine> make_engine(const nb::dict& parts, const nb::dict& tables) {
  std::vector<nb::object> alive;
  const auto flag = [&parts](const char* key) {
    return parts.contains(key) && nb::cast<bool>(parts[key]);
  };
  text::TokenizerParts p;
  p.kind = nb::cast<std::string>(parts["kind"]);
  p.tokens = {view_of<uint8_t>(parts, "tokens_blob", alive),
              view_of<int64_t>(parts, "tokens_offsets", alive)};
  p.merges = {view_of<uint8_t>(parts, "merges_blob", alive),
              view_of<int64_t>(parts, "merges_offsets", alive)};
  p.roles = view_of<uint8_t>(parts, "roles", alive);
  p.scores = view_of<double>(parts, "scores", alive);
  p.ignore_merges = flag("ignore_merges");
  p.fuse_unknown = flag("fuse_unknown");
  p.byte_fallback = flag("byte_fallback");
  p.float_sums = flag("float_sums");
  p.byte_texts = flag("byte_texts");
  p.raw_added = flag("raw_added");
  p.space_texts = flag("space_texts");
  p.byte_runs = flag("byte_runs");
  p.join_with_space = flag("join_with_space");
  p.start = nb::cast<std::string>(parts["start_prefix"]);
  p.prefix = nb::cast<std::string>(parts["continuing_prefix"]);
  p.suffix = nb::cast<std::string>(parts["word_suffix"]);
  p.max_word = nb::cast<int64_t>(parts["max_word"]);
  p.unknown_id = nb::cast<int64_t>(parts["unknown_id"]);
  for (const nb::handle t : nb::cast<nb::sequence>(parts["added"])) {
    (nb::cast<bool>(t[6]) ? p.normalized : p.added).push_back(added_token(t));
  }
  p.normalizers = steps_of(parts, "normalizers");
  p.pre_tokenizers = steps_of(parts, "pre_tokenizers");
  p.decoders = steps_of(parts, "decoders");
  p.options.replace_invalid = flag("replace_invalid");
  p.options.strip_space = flag("strip_space");
  p.options.strip_each = flag("strip_each");
  p.unknown_text = nb::cast<std::string>(parts["unknown_text"]);
  p.options.prefix = nb::cast<std::vector<int32_t>>(parts["prefix"]);
  p.options.suffix = nb::cast<std::vector<int32_t>>(parts["suffix"]);
  if (parts.contains("cache_nbytes")) {
    p.options.cache_nbytes =
        std::max(text::WordCache::kMinBytes, nb::cast<size_t>(parts["cache_nbytes"]));
  }
  std::map<std::string, text::Archive::Bytes> arrays;
  for (const auto& [name, value] : tables) {
    const auto array = nb::cast<Column<uint8_t>>(value);
    arrays[nb::cast<std::string>(name)] = std::as_bytes(std::span(array.data(), array.shape(0)));
  }
  text::Archive image(std::move(arrays));
  p.options.classes = text::class_table(nb::cast<std::string>(parts["unicode"]));
  const nb::gil_scoped_release release;
  return text::build_engine(p, tables.size() == 0 ? nullptr : &image);
}

// Views of the engine's memory, for an image; the engine has to stay alive.
nb::dict tables_of(Engine& engine) {
  text::Archive archive;
  engine.tables(archive);
  nb::dict views;
  for (const auto& [name, bytes] : archive.arrays()) {
    views[name.c_str()] = nb::cast(nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(
        reinterpret_cast<const uint8_t*>(bytes.data()), {bytes.size()}, nb::find(engine)));
  }
  return views;
}

// Words that a pattern cuts a text into, as byte offsets [start, end, start, end, ...]; for the
// twin tests. fast: through the masks of the pattern, where it is one that has them.
std::vector<size_t> split_pattern(const std::string& pattern, nb::handle text, bool fast) {
  const Input input(text);
  const auto compiled = text::Pattern::compile(pattern);
  const std::string_view view = input.view();
  const char* end = view.data() + view.size();
  std::vector<size_t> spans;
  const text::Cutter* cutter = fast ? compiled->cutter() : nullptr;
  for (const char* p = view.data(); p < end;) {
    uint64_t starts = cutter != nullptr ? cutter->starts(p, end) : 1;
    const char* block = p;
    for (starts &= starts - 1; starts != 0; starts &= starts - 1) {
      spans.push_back(static_cast<size_t>(p - view.data()));
      p = block + std::countr_zero(starts);
      spans.push_back(static_cast<size_t>(p - view.data()));
    }
    if (p != block) continue;
    const char* stop = compiled->match(p, end);
    if (stop == nullptr || stop == p) {
      p += text::decode_utf8(p, end).length;
      continue;
    }
    spans.push_back(static_cast<size_t>(p - view.data()));
    spans.push_back(static_cast<size_t>(stop - view.data()));
    p = stop;
  }
  return spans;
}

std::vector<std::pair<uint32_t, uint32_t>> property_ranges(const std::string& name) {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  const text::CodeSet set = text::CodeSet::property(name);
  for (const auto& r : set.ranges()) ranges.emplace_back(r.first, r.last);
  return ranges;
}

}  // namespace

void bind_text(nb::module_& m) {
  nb::class_<Engine>(
      m, "TextEngine", nb::is_weak_referenceable(),
      "One tokenizer, built. `text` is a str without surrogates or a buffer of bytes; "
      "every call runs without the GIL.")
      .def("encode_list", &encode_list, "text"_a, "add_special"_a, "parse_special"_a,
           nb::sig("def encode_list(self, text: typing.Any, add_special: bool, "
                   "parse_special: bool) -> list[int]"))
      .def("encode_array", &encode_array, "text"_a, "add_special"_a, "parse_special"_a, "plain"_a,
           nb::sig("def encode_array(self, text: typing.Any, add_special: bool, "
                   "parse_special: bool, plain: typing.Any) -> "
                   "numpy.typing.NDArray[numpy.int32]"),
           "i32[n]. plain: (start, end) byte ranges, rising, in which special tokens are only "
           "text.")
      .def("encode_spans", &encode_spans, "text"_a, "add_special"_a, "parse_special"_a,
           nb::sig("def encode_spans(self, text: typing.Any, add_special: bool, "
                   "parse_special: bool) -> tuple[numpy.typing.NDArray[numpy.int32], "
                   "numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int32], "
                   "list[tuple[int, bytes]]]"),
           "i32[n] ids, i64[2 * n] byte spans, i32[n] pieces of pre-tokenizing, -1 outside; rows "
           "that are shown by their text, with it.")
      .def("words", &words, "text"_a, "parse_special"_a,
           nb::sig("def words(self, text: typing.Any, parse_special: bool) -> list[bytes | int]"),
           "What the model is asked, in order: words as bytes, added tokens as ids.")
      .def("encode_batch", &encode_batch, "texts"_a, "add_special"_a, "parse_special"_a,
           "threads"_a,
           nb::sig("def encode_batch(self, texts: typing.Any, add_special: bool, "
                   "parse_special: bool, threads: int) -> "
                   "tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int64]]"),
           "i32[n] ids of all texts, i64[len(texts) + 1] offsets.")
      .def("count", &count, "text"_a, "add_special"_a, "parse_special"_a,
           nb::sig("def count(self, text: typing.Any, add_special: bool, "
                   "parse_special: bool) -> int"))
      .def("decode", &decode, "ids"_a, "skip_special"_a, "strip_space"_a,
           nb::sig("def decode(self, ids: typing.Any, "
                   "skip_special: bool, strip_space: bool) -> bytes"))
      .def("decode_text", &decode_text, "ids"_a, "skip_special"_a, "strip_space"_a,
           nb::sig("def decode_text(self, ids: typing.Any, "
                   "skip_special: bool, strip_space: bool) -> str"))
      .def("token_bytes", &token_bytes, "id"_a)
      .def("normalized_tokens", &normalized_tokens,
           nb::sig("def normalized_tokens(self) -> list[tuple[int, bytes]]"))
      .def(
          "is_byte",
          [](const Engine& e, uint32_t id) { return id < e.vocab_size() && e.is_byte(id); }, "id"_a,
          "Whether a token stands for one byte of a character that has no token.")
      .def("tables", &tables_of,
           nb::sig("def tables(self) -> dict[str, numpy.typing.NDArray[numpy.uint8]]"),
           "Views of the arrays that took time to make; make_text_engine takes them again.")
      .def_prop_ro("cache_nbytes", &Engine::cache_nbytes, "Memory of the word caches.")
      .def_prop_ro("nbytes", &Engine::nbytes,
                   "Memory of its own, word caches included; what lies in an image is not.");
  m.def("make_text_engine", &make_engine, "parts"_a, "tables"_a = nb::dict(),
        nb::keep_alive<0, 2>(),
        nb::sig("def make_text_engine(parts: dict[str, typing.Any], tables: dict[str, "
                "typing.Any] = {}) -> TextEngine"));
  m.def(
      "load_normalization",
      [](const nb::bytes& lines, const std::string& name) {
        text::NormalizationTables::load(name, std::make_shared<text::NormalizationTables>(
                                                  std::string_view(lines.c_str(), lines.size())));
      },
      "lines"_a, "name"_a = "",
      "Add tables of normal forms; see tools/generate_unicode.py. name: as of load_classes.");
  m.def(
      "split_pattern", &split_pattern, "pattern"_a, "text"_a, "fast"_a = false,
      nb::sig("def split_pattern(pattern: str, text: typing.Any, fast: bool = False) -> list[int]"),
      "Matches of a pre-tokenizer pattern as [start, end, start, end, ...] in bytes. fast: by "
      "masks where the pattern has them, for tests.");
  m.def("unicode_property", &property_ranges, "name"_a,
        "Code points of a class as rising inclusive ranges.");
  m.attr("UNICODE_VERSION") = text::unicode_version();
  m.def("load_classes", &text::load_classes, "name"_a, "properties"_a, "runs"_a,
        "Add character classes for engines whose part \"unicode\" is that name; see "
        "tools/generate_unicode.py.");
}

}  // namespace tokamak
