// What Python callers pass as text and as token ids, read where it lies.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace tokamak::text {

namespace nb = nanobind;

template <typename T>
using Column = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = Column<int32_t>;

// UTF-8 of a str, or the bytes of anything that has a buffer. Keeps the object alive.
class Input {
 public:
  explicit Input(nb::handle object) {
    if (PyUnicode_Check(object.ptr())) {
      Py_ssize_t size = 0;
      const char* data = PyUnicode_AsUTF8AndSize(object.ptr(), &size);
      if (data == nullptr) {
        joined_ = join_surrogates(object);
        data = PyUnicode_AsUTF8AndSize(joined_.ptr(), &size);
      }
      if (data == nullptr) throw nb::python_error();
      view_ = {data, static_cast<size_t>(size)};
      return;
    }
    if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_SIMPLE) != 0) throw nb::python_error();
    has_buffer_ = true;
    view_ = {static_cast<const char*>(buffer_.buf), static_cast<size_t>(buffer_.len)};
  }
  Input(Input&& other) noexcept
      : view_(other.view_),
        joined_(std::move(other.joined_)),
        buffer_(other.buffer_),
        has_buffer_(other.has_buffer_) {
    other.has_buffer_ = false;
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;
  Input& operator=(Input&&) = delete;
  ~Input() {
    if (has_buffer_) PyBuffer_Release(&buffer_);
  }
  std::string_view view() const { return view_; }
  bool is_str() const { return !has_buffer_; }  // then it is UTF-8

 private:
  // A str that UTF-8 cannot hold: pairs of surrogates joined, lone ones U+FFFD.
  static nb::object join_surrogates(nb::handle text) {
    PyErr_Clear();
    const nb::object bytes =
        nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-16", "surrogatepass"));
    if (!bytes.is_valid()) throw nb::python_error();
    nb::object joined = nb::steal(PyUnicode_Decode(
        PyBytes_AS_STRING(bytes.ptr()), PyBytes_GET_SIZE(bytes.ptr()), "utf-16", "replace"));
    if (!joined.is_valid()) throw nb::python_error();
    return joined;
  }

  std::string_view view_;
  nb::object joined_;  // what is read instead of a str with surrogates
  Py_buffer buffer_{};
  bool has_buffer_ = false;
};

// Token ids of an int32 array, read in place, or of a list or tuple of ints.
class IdsInput {
 public:
  explicit IdsInput(nb::handle object) {
    if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr())) {
      const Py_ssize_t count = PySequence_Fast_GET_SIZE(object.ptr());
      PyObject** items = PySequence_Fast_ITEMS(object.ptr());
      values_ = std::make_unique_for_overwrite<int32_t[]>(static_cast<size_t>(count));
      constexpr Py_ssize_t kAhead = 16;
      for (Py_ssize_t i = 0; i < count; ++i) {
        if (i + kAhead < count) __builtin_prefetch(items[i + kAhead]);
        values_[static_cast<size_t>(i)] = one(items[i], i);
      }
      data_ = values_.get();
      size_ = static_cast<size_t>(count);
      return;
    }
    const auto array = nb::cast<Ids>(object);
    data_ = array.data();
    size_ = array.shape(0);
    alive_ = nb::borrow(object);
  }
  const int32_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  static int32_t one(PyObject* item, Py_ssize_t i) {
#if PY_VERSION_HEX < 0x030C0000 && !defined(Py_LIMITED_API)
    if (PyLong_CheckExact(item) && Py_SIZE(item) == 1) {  // one digit of 30 bits
      return static_cast<int32_t>(reinterpret_cast<PyLongObject*>(item)->ob_digit[0]);
    }
#elif !defined(Py_LIMITED_API)
    if (PyLong_CheckExact(item) &&
        PyUnstable_Long_IsCompact(reinterpret_cast<PyLongObject*>(item))) {
      return static_cast<int32_t>(
          PyUnstable_Long_CompactValue(reinterpret_cast<PyLongObject*>(item)));
    }
#endif
    int overflow = 0;
    const long value = PyLong_Check(item) ? PyLong_AsLongAndOverflow(item, &overflow) : 0;
    if (!PyLong_Check(item)) {
      const nb::object index = nb::steal(PyNumber_Index(item));  // NumPy's integers
      if (!index.is_valid()) {
        PyErr_Clear();
        throw Error(ErrorKind::invalid_params,
                    "token id at index " + std::to_string(i) + " is not an integer");
      }
      return one(index.ptr(), i);
    }
    if (overflow != 0 || value < INT32_MIN || value > INT32_MAX) {
      throw Error(ErrorKind::invalid_params,
                  "token id " + nb::cast<std::string>(nb::str(nb::handle(item))) + " at index " +
                      std::to_string(i) + " is outside every vocabulary");
    }
    return static_cast<int32_t>(value);
  }

  std::unique_ptr<int32_t[]> values_;
  nb::object alive_;
  const int32_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tokamak::text
