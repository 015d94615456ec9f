// Where words start, 64 bytes at a time: the patterns of the byte-level vocabularies as algebra on
// bit masks.
//
// Same words as the table automaton of pattern.h makes of the same pattern, which stays the
// authority: it does whatever the masks do not settle (a word longer than a block, the end of the
// text, characters whose rules are rare). Bit i of a mask is byte i of the block; every byte of a
// character carries the character's class.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/utf8.h"

namespace tokamak::text {

// What the ASCII bytes of a block are; bytes of other characters are in `high` only.
struct BlockMasks {
  uint64_t high, letter, upper, digit, space, newline, blank, quote, slash, tab, visible;
};

// Both fill the masks of 64 readable bytes; equal on every input.
void block_masks_plain(const char* p, BlockMasks& out) noexcept;
void block_masks_avx2(const char* p, BlockMasks& out) noexcept;
// Whether AVX2 is to be used: the processor has it and TOKAMAK_ISA is not "scalar".
bool wide_bytes();
using BlockMasksFunction = void (*)(const char*, BlockMasks&) noexcept;
BlockMasksFunction block_masks();

class Cutter {
 public:
  static constexpr size_t kBlock = 64;

  // The cutter of a pattern, or null where none is known. Compared by text: nothing is guessed.
  static std::shared_ptr<const Cutter> of_pattern(const std::string& source);

  // Pieces that white space separates, each with the white space before it.
  enum class Spaces : uint8_t {
    words,                  // ASCII white space starts a piece, but VT and FF: some normalizers
                            // take VT away
    words_and_punctuation,  // ... and so does an ASCII punctuation or Chinese character, and what
                            // follows it
    symbols,                // a run of spaces starts a piece, but not after U+2581
    symbols_after_ascii,    // ... but only after a visible ASCII character
  };
  static std::shared_ptr<const Cutter> of_spaces(Spaces kind);
  // Whether a piece starts at `at` > 0, from one character before it: the twin of the masks.
  bool is_start(std::string_view text, size_t at) const;
  bool starts_at_spaces() const {  // U+0020, and nothing else
    return spaces_ == Spaces::symbols || spaces_ == Spaces::symbols_after_ascii;
  }

  // Starts of words in the block at p, itself the start of a word: bit 0, then every start up to a
  // word that is not yet settled. Only bit 0: the automaton has to say. p < end.
  uint64_t starts(const char* p, const char* end) const noexcept { return starts_(*this, p, end); }

 private:
  friend struct CutterRules;
  friend struct SpaceRules;
  enum Class : uint8_t { kOther, kLetter, kUpper, kLower, kHard, kClasses };
  using Starts = uint64_t (*)(const Cutter&, const char*, const char*) noexcept;
  uint8_t class_of(uint32_t c) const noexcept { return pages_[page_of_[c >> 7]][c & 127]; }
  void classify(bool cased, bool marks_are_letters);
  void share_pages(const std::vector<uint8_t>& classes);

  Spaces spaces_ = Spaces::words;
  Starts starts_ = nullptr;
  BlockMasksFunction fill_ = nullptr;
  std::array<uint16_t, (kEndOfText >> 7)> page_of_{};
  std::vector<std::array<uint8_t, 128>> pages_;
};

}  // namespace tokamak::text
