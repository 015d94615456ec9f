#include "text/merge.h"

#include <algorithm>
#include <bit>

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
  const Merge* merges = pairs.merges();
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
    symbols[i] = {merges[best >> 6].id, symbols[i].length + symbols[j].length};
    keys[j] = keys[i] = kNoKey;
    if (after != 0) look(i, static_cast<unsigned>(std::countr_zero(after)));
    const uint64_t before = alive & ((uint64_t{1} << i) - 1);
    if (before != 0) look(63u - static_cast<unsigned>(std::countl_zero(before)), i);
  }
  size_t kept = 0;
  for (; alive != 0; alive &= alive - 1) symbols[kept++] = symbols[std::countr_zero(alive)];
  return kept;
}

using MergeFew = size_t (*)(const PairMap&, Symbol*, size_t, int32_t*);
size_t merge_few_plain(const PairMap& pairs, Symbol* symbols, size_t n, int32_t* keys) {
  return merge_few(pairs, symbols, n, keys);
}
#if defined(__x86_64__)
// The compiler turns the search for the least key into vector code.
__attribute__((target("avx2"))) size_t merge_few_avx2(const PairMap& pairs, Symbol* symbols,
                                                      size_t n, int32_t* keys) {
  return merge_few(pairs, symbols, n, keys);
}
const MergeFew merge_few_here = wide_bytes() ? merge_few_avx2 : merge_few_plain;
#else
const MergeFew merge_few_here = merge_few_plain;
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
