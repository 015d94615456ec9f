// Decoders: token strings to text, as tokenizer.json files name the steps.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/step.h"

namespace tokamak::text {

class Decoder {
 public:
  Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  virtual ~Decoder() = default;
  // Rewrites the tokens in place; what is left is joined.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
  // Whether each token is rewritten by itself, and all but the first in the same way.
  virtual bool is_local() const { return false; }
};

// Throws UnsupportedError for a step that is not known.
std::unique_ptr<Decoder> make_decoder(const Step& step);

// UTF-8 with what is invalid replaced by U+FFFD, one for each longest start of a sequence (as
// Unicode recommends).
std::string replace_invalid(std::string_view bytes);

}  // namespace tokamak::text
