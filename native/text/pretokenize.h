// Pre-tokenizers: how normalized text is cut into the words that a model sees. One class per name
// in tokenizer files; what they do to the text itself (Metaspace, a space in front) happens here
// too.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/buffer.h"
#include "text/pattern.h"
#include "text/step.h"

namespace tokamak::text {

struct Piece {
  size_t start, end;  // bytes of the buffer, start < end
};

// A stretch of text on its way: the pieces are in order and do not overlap.
struct Pieces {
  Buffer& buffer;
  std::vector<Piece> list;
  bool at_start;  // the buffer begins where the input begins

  // The piece begins where the input does; known where places are kept, else taken from the buffer.
  bool is_first(const Piece& p) const {
    if (!at_start) return false;
    return buffer.tracked ? buffer.origin[p.start].start == 0 : p.start == 0;
  }
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
  // What it does depends on whether a piece is the first of the input.
  virtual bool marks_first() const { return false; }
  // The pattern, if all that happens is: every match is a word, and so is all that lies between.
  virtual std::shared_ptr<const Pattern> isolated_pattern() const { return nullptr; }
};

// Throws UnsupportedError for a step that is not known.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Step& step);

}  // namespace tokamak::text
