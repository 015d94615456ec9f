#include "text/merge.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "text/cutter.h"

namespace tokamak::text {

namespace {

Merge merge_of(const PairMap& pairs, const Symbol& a, const Symbol& b) {
  if (a.id == kNone || b.id == kNone) return {kNone, kNone};
  return pairs.find(a.id, b.id);
}

// At most kFewSymbols. Dead symbols leave holes, which `alive` skips; nothing moves until the end.
[[gnu::always_inline]] inline size_t merge_few(const PairMap& pairs, Symbol* symbols, size_t n,
                                               int32_t* keys) {
  const size_t padded = (n + 7) / 8 * 8;
  for (size_t i = n - 1; i < padded; ++i) keys[i] = kNoKey;
  const auto look = [&](unsigned i, unsigned j) {
    keys[i] = key_of_pair(pairs.place(symbols[i].id, symbols[j].id), i);
  };
  uint64_t alive = n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  while (true) {
    int32_t best = kNoKey;
    for (size_t i = 0; i < padded; ++i) best = keys[i] < best ? keys[i] : best;
    if (best == kNoKey) break;
    const unsigned i = static_cast<unsigned>(best) & 63u;
    uint64_t after = alive & (~uint64_t{0} << 1 << i);
    const auto j = static_cast<unsigned>(std::countr_zero(after));
    alive &= ~(uint64_t{1} << j);
    after &= after - 1;
    symbols[i] = {pairs.result(static_cast<uint32_t>(best) >> 6),
                  symbols[i].length + symbols[j].length};
    keys[j] = keys[i] = kNoKey;
    if (after != 0) look(i, static_cast<unsigned>(std::countr_zero(after)));
    const uint64_t before = alive & ((uint64_t{1} << i) - 1);
    if (before != 0) look(63u - static_cast<unsigned>(std::countl_zero(before)), i);
  }
  size_t kept = 0;
  for (; alive != 0; alive &= alive - 1) symbols[kept++] = symbols[std::countr_zero(alive)];
  return kept;
}

typedef int32_t Eight __attribute__((vector_size(32)));

[[gnu::always_inline]] inline int32_t least_key(const ShortMerge& m) {
  Eight least;
  std::memcpy(&least, m.keys, sizeof least);
  for (size_t i = 8; i < m.padded; i += 8) {
    Eight more;
    std::memcpy(&more, m.keys + i, sizeof more);
    least = more < least ? more : least;
  }
  const auto a = least;
  const auto b = __builtin_shuffle(a, Eight{4, 5, 6, 7, 0, 1, 2, 3});
  least = b < a ? b : a;
  const auto c = __builtin_shuffle(least, Eight{2, 3, 0, 1, 2, 3, 0, 1});
  least = c < least ? c : least;
  return least[0] < least[1] ? least[0] : least[1];
}

// One merge of a short word; false where there is none left. The pairs that it makes are looked up
// when its turn comes again; their keys do not pass through memory, where eight are read at once.
[[gnu::always_inline]] inline bool merge_step(const PairMap& pairs, ShortMerge& m) {
  int32_t best = least_key(m);
  for (const ShortMerge::Pair& made : m.made) {
    const int32_t key = key_of_pair(pairs.place(made.left, made.right), made.at);
    m.keys[made.at] = key;
    best = std::min(best, key);
  }
  if (best == kNoKey) return false;
  const unsigned i = static_cast<unsigned>(best) & 63u;
  uint32_t after = m.alive & (~uint32_t{0} << 1 << i);
  const auto j = static_cast<unsigned>(std::countr_zero(after));
  after &= after - 1;
  m.alive &= ~(uint32_t{1} << j);
  const uint32_t id = m.ids[i] = pairs.result(static_cast<uint32_t>(best) >> 6);
  m.keys[j] = m.keys[i] = kNoKey;
  // At the ends of the word a pair that nobody has stands for the one that is not there.
  const uint32_t before = m.alive & ((uint32_t{1} << i) - 1);
  const unsigned h = before == 0 ? i : 31u - static_cast<unsigned>(std::countl_zero(before));
  const unsigned next = after == 0 ? i : static_cast<unsigned>(std::countr_zero(after));
  const auto make = [&](bool is, unsigned at, uint32_t left, uint32_t right) {
    left = is ? left : PairMap::kMask;
    right = is ? right : PairMap::kMask;
    pairs.prefetch(left, right);
    return ShortMerge::Pair{at, left, right};
  };
  m.made[0] = make(before != 0, h, m.ids[h], id);
  m.made[1] = make(after != 0, i, id, m.ids[next]);
  m.keys[h] = kNoKey;
  return true;
}

// Words take turns: while one waits for memory, the others go on.
[[gnu::always_inline]] inline void merge_in_turns(const PairMap& pairs, ShortMerge* words,
                                                  size_t count) {
  constexpr size_t kTurns = 16;
  ShortMerge* lanes[kTurns];
  size_t active = 0, next = 0;
  while (active < kTurns && next < count) lanes[active++] = &words[next++];
  while (active > 0) {
    for (size_t lane = 0; lane < active; ++lane) {
      if (merge_step(pairs, *lanes[lane])) continue;
      if (next < count) {
        lanes[lane] = &words[next++];
      } else {
        lanes[lane] = lanes[--active];
      }
    }
  }
}

using MergeFew = size_t (*)(const PairMap&, Symbol*, size_t, int32_t*);
size_t merge_few_plain(const PairMap& pairs, Symbol* symbols, size_t n, int32_t* keys) {
  return merge_few(pairs, symbols, n, keys);
}
using MergeShort = void (*)(const PairMap&, ShortMerge*, size_t);
void merge_short_plain(const PairMap& pairs, ShortMerge* words, size_t count) {
  merge_in_turns(pairs, words, count);
}
#if defined(__x86_64__)
// The compiler turns the search for the least key into vector code.
__attribute__((target("avx2"))) size_t merge_few_avx2(const PairMap& pairs, Symbol* symbols,
                                                      size_t n, int32_t* keys) {
  return merge_few(pairs, symbols, n, keys);
}
__attribute__((target("avx2"))) void merge_short_avx2(const PairMap& pairs, ShortMerge* words,
                                                      size_t count) {
  merge_in_turns(pairs, words, count);
}
const MergeFew merge_few_here = wide_bytes() ? merge_few_avx2 : merge_few_plain;
const MergeShort merge_short_here = wide_bytes() ? merge_short_avx2 : merge_short_plain;
#else
const MergeFew merge_few_here = merge_few_plain;
const MergeShort merge_short_here = merge_short_plain;
#endif

class HeapMerger {
 public:
  HeapMerger(const PairMap& pairs, std::vector<Symbol>& symbols, MergeScratch& scratch)
      : pairs_(pairs), symbols_(symbols), links_(scratch.links), heap_(scratch.heap) {}

  void run() {
    const int n = static_cast<int>(symbols_.size());
    links_.resize(symbols_.size());
    heap_.clear();
    for (int i = 0; i < n; ++i) links_[index(i)] = {i - 1, i + 1 < n ? i + 1 : -1};
    for (int i = 0; i + 1 < n; ++i) offer(i);
    std::make_heap(heap_.begin(), heap_.end(), later);
    heaped_ = true;
    while (!heap_.empty()) {
      const Candidate best = heap_.front();
      std::pop_heap(heap_.begin(), heap_.end(), later);
      heap_.pop_back();
      apply(best);
    }
    compact();
  }

 private:
  using Candidate = MergeScratch::Candidate;
  static bool later(const Candidate& a, const Candidate& b) { return a.order > b.order; }
  static size_t index(int i) { return static_cast<size_t>(i); }

  void offer(int left) {
    const int right = links_[index(left)].next;
    const Symbol& a = symbols_[index(left)];
    const Symbol& b = symbols_[index(right)];
    const Merge m = merge_of(pairs_, a, b);
    if (m.rank == kNone) return;
    heap_.push_back({static_cast<uint64_t>(m.rank) << 32 | index(left), a.id, b.id, m.id});
    if (heaped_) std::push_heap(heap_.begin(), heap_.end(), later);
  }

  // A candidate whose symbols changed since it was offered is stale. Equal symbols at the same
  // place make the same merge, however they came there.
  void apply(const Candidate& best) {
    const int left = static_cast<int>(best.order & 0xFFFFFFFF);
    Symbol& a = symbols_[index(left)];
    const int right = links_[index(left)].next;
    if (a.length == 0 || a.id != best.left || right < 0) return;
    Symbol& b = symbols_[index(right)];
    if (b.id != best.right) return;
    a = {best.merged, a.length + b.length};
    b.length = 0;
    const int next = links_[index(right)].next;
    links_[index(left)].next = next;
    if (next >= 0) links_[index(next)].previous = left;
    if (next >= 0) offer(left);
    if (links_[index(left)].previous >= 0) offer(links_[index(left)].previous);
  }

  void compact() {
    size_t kept = 0;
    for (const Symbol& s : symbols_) {
      if (s.length != 0) symbols_[kept++] = s;
    }
    symbols_.resize(kept);
  }

  const PairMap& pairs_;
  std::vector<Symbol>& symbols_;
  std::vector<MergeScratch::Link>& links_;
  std::vector<Candidate>& heap_;
  bool heaped_ = false;
};

}  // namespace

void merge_short(const PairMap& pairs, ShortMerge* words, size_t count) {
  merge_short_here(pairs, words, count);
}

void merge_symbols(const PairMap& pairs, std::vector<Symbol>& symbols, MergeScratch& scratch,
                   bool filled) {
  const size_t n = symbols.size();
  if (n < 2) return;
  if (n > kFewSymbols || !pairs.ordered()) return HeapMerger(pairs, symbols, scratch).run();
  for (size_t i = 0; i + 1 < n && !filled; ++i) {
    scratch.keys[i] = key_of_pair(pairs.place(symbols[i].id, symbols[i + 1].id), i);
  }
  symbols.resize(merge_few_here(pairs, symbols.data(), n, scratch.keys));
}

}  // namespace tokamak::text
