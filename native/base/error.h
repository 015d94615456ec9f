// The one way native code reports an error: a kind, which the bindings turn into the Python class
// of the same name in tokamak/errors.py, and a message that says what and where.
#pragma once

#include <stdexcept>
#include <string>

namespace tokamak {

enum class ErrorKind {
  model_file,      // ModelFileError
  tokenizer_file,  // TokenizerFileError
  unsupported,     // UnsupportedError
  unavailable,     // UnavailableError
  invalid_params,  // InvalidParams
  capacity,        // CapacityError
  cancelled,       // Cancelled
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace tokamak
