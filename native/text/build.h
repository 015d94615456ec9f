// From the arrays of a tokenizer file to an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/engine.h"

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

// Roles of tokens, numbered as in GGUF files.
enum class Role : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

struct TokenizerParts {
  std::string
      kind;  // "bpe": merges, words start as bytes; "spm": scores, words start as characters
  StringColumn tokens;
  std::span<const uint8_t> roles;  // Role per token
  StringColumn merges;             // "left right" each, in order of rank
  std::span<const float> scores;   // per token
  bool byte_level = false;         // tokens and merges are written in the GPT-2 byte alphabet
  bool ignore_merges = false;
  bool fuse_unknown = false;
  int64_t unknown_id = -1;
  std::vector<AddedToken> added;
  std::vector<std::string> patterns;
  EngineOptions options;
};

std::unique_ptr<Engine> build_engine(const TokenizerParts& parts);

// The byte that a character of the GPT-2 byte alphabet stands for, or -1.
int byte_of_character(uint32_t code);

}  // namespace tokamak::text
