#include "text/merge.h"

#include <algorithm>

namespace tokamak::text {

namespace {

constexpr size_t kScanLimit = 32;  // symbols up to which scanning beats the heap

Merge merge_of(const PairMap& pairs, const Symbol& a, const Symbol& b) {
  if (a.id == kNone || b.id == kNone) return {kNone, kNone};
  return pairs.find(a.id, b.id);
}

void merge_by_scan(const PairMap& pairs, std::vector<Symbol>& symbols, MergeScratch& scratch,
                   bool filled) {
  size_t n = symbols.size();
  scratch.ranks.resize(n);
  scratch.merged.resize(n);
  uint32_t* ranks = scratch.ranks.data();
  uint32_t* merged = scratch.merged.data();
  const auto look = [&](size_t i) {
    const Merge m = i + 1 < n ? merge_of(pairs, symbols[i], symbols[i + 1]) : Merge{kNone, kNone};
    ranks[i] = m.rank;
    merged[i] = m.id;
  };
  for (size_t i = 0; i < n && !filled; ++i) look(i);
  while (true) {
    size_t best = 0;
    for (size_t i = 1; i < n; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNone) break;
    symbols[best] = {merged[best], symbols[best].length + symbols[best + 1].length};
    for (size_t i = best + 1; i + 1 < n; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    --n;
    look(best);
    if (best > 0) look(best - 1);
  }
  symbols.resize(n);
}

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
  if (symbols.size() < 2) return;
  if (symbols.size() <= kScanLimit) {
    merge_by_scan(pairs, symbols, scratch, filled);
  } else {
    HeapMerger(pairs, symbols, scratch).run();
  }
}

}  // namespace tokamak::text
