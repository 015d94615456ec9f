// Where the raw text may be cut so that each piece, normalized and pre-tokenized alone, gives its
// part of the ids of the whole: then a piece that comes again is looked up by its raw bytes, and
// nothing of the pipeline runs. Known for pipelines that separate words at white space; others run
// whole.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/cutter.h"
#include "text/normalize.h"
#include "text/step.h"

namespace tokamak::text {

class RawCut {
 public:
  // Null where no rule is known. splits_at_spaces: the model's words end before U+2581.
  static std::unique_ptr<const RawCut> of(const std::vector<Step>& normalizers,
                                          const std::vector<Step>& pre_tokenizers,
                                          bool splits_at_spaces);

  const Cutter& cutter() const { return *cutter_; }
  // Where the piece that starts at `from` ends, byte by byte: for long ones.
  size_t piece_end(std::string_view text, size_t from) const;
  // What normalizes a piece that does not start the text.
  const std::vector<std::unique_ptr<Normalizer>>& inner() const { return inner_; }

  // Whether the piece that starts the text is treated in another way than the same piece inside.
  bool first_is_special() const { return first_is_special_; }

  // For pieces of printable ASCII that the pipeline changes in known ways only.
  enum class Plain {
    none,
    words,         // white space goes, the rest is one word (or one punctuation character)
    folded_words,  // ... in lower case
    symbols,       // each space becomes U+2581
  };
  Plain plain() const { return plain_; }

 private:
  std::shared_ptr<const Cutter> cutter_;
  std::vector<std::unique_ptr<Normalizer>> inner_;
  Plain plain_ = Plain::none;
  bool first_is_special_ = true;
};

}  // namespace tokamak::text
