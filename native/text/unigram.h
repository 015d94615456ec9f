// Unigram models: the cut of a text whose pieces have the highest sum of scores, by Viterbi.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "text/double_array.h"
#include "text/hash.h"
#include "text/model.h"

namespace tokamak::text {

enum class Arithmetic {
  double_sums,  // Hugging Face: sums are double
  float_sums,   // sentencepiece: sums are rounded to float after every piece, compared before
};

struct UnigramOptions {
  Arithmetic arithmetic = Arithmetic::double_sums;
  uint32_t unknown_id = kNone;
  bool byte_fallback = false;
  std::array<uint32_t, 256> byte_ids{};
};

class UnigramModel final : public Model {
 public:
  // pieces: what may be found in text, of `strings`; scores: per id. min_score over all pieces of
  // the file.
  UnigramModel(Arena strings, const std::vector<uint32_t>& pieces, std::vector<double> scores,
               double min_score, UnigramOptions options);

  explicit UnigramModel(UnigramOptions options)
      : options_(options) {}  // for an image: tables() fills it

  void encode(std::string_view word, Tokens& out, ModelScratch& scratch) const override;
  void tables(Archive& archive) override;
  // sentencepiece's sums depend on what stands before a word.
  bool cacheable() const override { return options_.arithmetic == Arithmetic::double_sums; }
  size_t nbytes() const override {
    return strings_.nbytes() + map_.nbytes() + trie_.nbytes() + scores_.nbytes();
  }

 private:
  template <typename Sum>
  void best_path(std::string_view word, std::vector<ViterbiNode>& nodes) const;
  void emit_unknown(std::string_view bytes, Tokens& out) const;

  Arena strings_;
  DoubleArray trie_;
  StringMap map_;
  Table<double> scores_;
  double unknown_score_ = 0;
  size_t longest_ = 4;  // bytes of the longest piece, or of an unknown character
  UnigramOptions options_;
};

}  // namespace tokamak::text
