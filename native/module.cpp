// The extension module: registers the error translation and the groups of bindings.
#include <nanobind/nanobind.h>

#include "base/error.h"

namespace nb = nanobind;

namespace tokamak {
void bind_gguf(nb::module_& m);
void bind_text(nb::module_& m);
void bind_text_columns(nb::module_& m);
void bind_cpu(nb::module_& m);
void bind_probe(nb::module_& m);
void bind_packing(nb::module_& m);
void bind_sampling(nb::module_& m);
void bind_quant(nb::module_& m);
}  // namespace tokamak

namespace {

const char* python_class(tokamak::ErrorKind kind) {
  using tokamak::ErrorKind;
  switch (kind) {
    case ErrorKind::model_file:
      return "ModelFileError";
    case ErrorKind::tokenizer_file:
      return "TokenizerFileError";
    case ErrorKind::unsupported:
      return "UnsupportedError";
    case ErrorKind::unavailable:
      return "UnavailableError";
    case ErrorKind::invalid_params:
      return "InvalidParams";
    case ErrorKind::capacity:
      return "CapacityError";
    case ErrorKind::cancelled:
      return "Cancelled";
  }
  return "TokamakError";
}

}  // namespace

NB_MODULE(_native, m) {
  // Objects that live in module globals at exit are no defect worth a report on a user's terminal.
  nb::set_leak_warnings(false);
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const tokamak::Error& e) {
      nb::object cls = nb::module_::import_("tokamak.errors").attr(python_class(e.kind()));
      PyErr_SetString(cls.ptr(), e.what());
    }
  });
  tokamak::bind_gguf(m);
  tokamak::bind_text(m);
  tokamak::bind_text_columns(m);
  tokamak::bind_cpu(m);
  tokamak::bind_probe(m);
  tokamak::bind_packing(m);
  tokamak::bind_sampling(m);
  tokamak::bind_quant(m);
}
