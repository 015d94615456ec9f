// The merge loop that byte-level BPE and SentencePiece BPE share.
//
//   while some adjacent pair has a merge: take the one of lowest rank, leftmost among equals, and
//   replace the pair by its merged symbol.
//
// Same as bpe.py, but short words keep one key per pair, place of the merge and position in one
// number, so that the least is the merge to do; long ones keep the candidates in a heap over a
// linked list: O(k log k) for any input.
#pragma once

#include <cstdint>
#include <vector>

#include "text/hash.h"

namespace tokamak::text {

struct Symbol {
  uint32_t id;      // kNone: unknown, merges with nothing
  uint32_t length;  // bytes of the word it covers
};

constexpr size_t kFewSymbols = 64;  // that one key per pair serves best
constexpr int32_t kNoKey = 0x7FFFFFFF;

// Key of the pair that starts at position `at`.
inline int32_t key_of_pair(uint32_t place, size_t at) {
  return place == kNone ? kNoKey : static_cast<int32_t>(place << 6 | static_cast<uint32_t>(at));
}

// Buffers that survive between words of one call.
struct MergeScratch {
  struct Link {
    int previous, next;
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | position: lowest first
    uint32_t left, right, merged;
  };
  alignas(32) int32_t keys[kFewSymbols];  // where `filled`: of every pair
  std::vector<Link> links;
  std::vector<Candidate> heap;
};

// A word of fewer than kShortSymbols symbols on its way.
constexpr size_t kShortSymbols = 32;
struct ShortMerge {
  struct Pair {
    uint32_t at, left, right;
  };
  alignas(32) int32_t keys[kShortSymbols];  // of every pair; kNoKey behind the last
  uint32_t padded;                          // number of keys, rounded up to a multiple of 8
  uint32_t alive;                           // bit i: symbol i is there
  Pair made[2];                             // pairs whose keys are yet to be looked up
  uint32_t ids[kShortSymbols];
};
// Merges `count` such words, all at once. Only for ordered pairs.
void merge_short(const PairMap& pairs, ShortMerge* words, size_t count);

// Merges `symbols` in place. filled: scratch.keys has the keys of the pairs already; only for at
// most kFewSymbols symbols and ordered pairs.
void merge_symbols(const PairMap& pairs, std::vector<Symbol>& symbols, MergeScratch& scratch,
                   bool filled = false);

}  // namespace tokamak::text
