// The merge loop that byte-level BPE and SentencePiece BPE share.
//
//   while some adjacent pair has a merge: take the one of lowest rank, leftmost among equals, and
//   replace the pair by its merged symbol.
//
// Same as bpe.py, but short words scan a small array of ranks and long ones keep the candidates in
// a heap over a linked list: O(k log k) for any input.
#pragma once

#include <cstdint>
#include <vector>

#include "text/hash.h"

namespace tokamak::text {

struct Symbol {
  uint32_t id;      // kNone: unknown, merges with nothing
  uint32_t length;  // bytes of the word it covers
};

// Buffers that survive between words of one call.
struct MergeScratch {
  struct Link {
    int previous, next;
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | position: lowest first
    uint32_t left, right, merged;
  };
  std::vector<uint32_t> ranks;  // of the pairs at the start, where `filled`; with `merged`
  std::vector<uint32_t> merged;
  std::vector<Link> links;
  std::vector<Candidate> heap;
};

// Merges `symbols` in place. filled: scratch.ranks and .merged hold the merges of the pairs
// already.
void merge_symbols(const PairMap& pairs, std::vector<Symbol>& symbols, MergeScratch& scratch,
                   bool filled = false);

}  // namespace tokamak::text
