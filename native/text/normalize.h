// Normalizers: text to text, before anything is cut. One class per name in tokenizer files.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/buffer.h"
#include "text/step.h"

namespace tokamak::text {

class Normalizer {
 public:
  Normalizer() = default;
  Normalizer(const Normalizer&) = delete;
  Normalizer& operator=(const Normalizer&) = delete;
  virtual ~Normalizer() = default;
  virtual void apply(Buffer& buffer) const = 0;
  // True only if `text` certainly stays as it is; saves the copy.
  virtual bool keeps(std::string_view text) const {
    (void)text;
    return false;
  }
};

// Throws UnsupportedError for a step that is not known.
std::unique_ptr<Normalizer> make_normalizer(const Step& step);

// Bytes that are not UTF-8 become U+FFFD each; surrogates stay and C0 80 is NUL, as the byte-level
// engines have it.
std::unique_ptr<Normalizer> make_replace_invalid();

}  // namespace tokamak::text
