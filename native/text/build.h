// From the arrays of a tokenizer file to an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/engine.h"
#include "text/step.h"

namespace tokamak::text {

// Strings as one blob: string i is blob[offsets[i], offsets[i + 1]).
struct StringColumn {
  std::span<const uint8_t> blob;
  std::span<const int64_t> offsets;

  // Throws TokenizerFileError unless offsets rise and stay inside the blob.
  void check(const char* what) const;
  size_t size() const { return offsets.empty() ? 0 : offsets.size() - 1; }
  std::string_view operator[](size_t i) const {
    return {reinterpret_cast<const char*>(blob.data()) + offsets[i],
            static_cast<size_t>(offsets[i + 1] - offsets[i])};
  }
};

// Roles of tokens, numbered as in GGUF files; absent: no token has this id.
enum class Role : uint8_t { absent, normal, unknown, control, user_defined, unused, byte };

struct TokenizerParts {
  // "bpe": merges over bytes; "characters": merges over characters, as Hugging Face; "spm":
  // SentencePiece BPE by scores; "unigram"; "wordpiece"; "words": whole words only.
  std::string kind;
  StringColumn tokens;
  std::span<const uint8_t> roles;  // Role per token
  StringColumn merges;             // "left right", or left and right around a NUL, in order of rank
  std::span<const double> scores;  // per token
  int64_t unknown_id = -1;
  bool ignore_merges = false;
  std::string unknown_text;  // what the unknown token decodes to, if not its own string
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool float_sums = false;   // unigram: add as sentencepiece does
  std::string start;         // of pieces that start a word, where these are marked
  std::string prefix;        // of pieces that do not start a word
  std::string suffix;        // of pieces that end a word
  int64_t max_word = 100;    // wordpiece: characters
  bool byte_texts = false;   // tokens decode through the byte alphabet
  bool raw_added = false;    // ... but added tokens decode as they are written
  bool space_texts = false;  // U+2581 decodes to a space, <0x41> to its byte
  std::vector<AddedToken> added;
  std::vector<AddedToken> normalized;
  std::vector<Step> normalizers, pre_tokenizers, decoders;
  bool join_with_space = false;
  bool byte_runs = false;
  EngineOptions options;
};

// image: where the tables lie that take time to make, if they are made; must outlive the engine.
std::unique_ptr<Engine> build_engine(const TokenizerParts& parts, Archive* image = nullptr);

}  // namespace tokamak::text
