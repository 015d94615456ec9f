#include "text/pattern.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "text/regex.h"
#include "text/unicode.h"

namespace tokamak::text {

namespace {

constexpr size_t kMaxInstructions = 20000;
constexpr size_t kMaxStates = 4096;
constexpr size_t kMaxClasses = 255;
constexpr size_t kMaxShared = 256;
constexpr size_t kMinRun = 8;  // characters of a run that are worth a vector

struct Instruction {
  enum class Op { character, ahead, split, jump, match };
  Op op = Op::match;
  size_t set = 0;   // index into the sets: what is consumed (character) or may follow (ahead)
  int first = -1;   // next instruction; split: the preferred one
  int second = -1;  // split only
};

}  // namespace

// Tree -> instructions with priorities -> states that are ordered lists of instructions.
class PatternCompiler {
 public:
  explicit PatternCompiler(const std::string& source) : source_(source) {}

  std::shared_ptr<const Pattern> compile() {
    const RegexNode tree = parse_regex(source_);
    emit(tree);
    push(Instruction::Op::match);
    auto pattern = std::make_shared<Pattern>();
    partition(*pattern);
    determinize(*pattern);
    pattern->find_runs();
    for (size_t c = 0; c < pattern->num_classes_; ++c) {
      pattern->matches_empty_ |= (pattern->table_[pattern->start_ + c] & 1) != 0;
    }
    pattern->cutter_ = Cutter::of_pattern(source_);
    return pattern;
  }

 private:
  using Op = Instruction::Op;
  using States = std::vector<int>;

  [[noreturn]] void too_large() const {
    throw Error(ErrorKind::unsupported, "pattern " + source_ + " is too large");
  }

  int push(Op op, size_t set = 0) {
    if (program_.size() >= kMaxInstructions) too_large();
    const int at = static_cast<int>(program_.size());
    program_.push_back({op, set, at + 1, -1});
    return at;
  }

  size_t index_of(const CodeSet& set) {
    const auto it = std::find(sets_.begin(), sets_.end(), set);
    if (it != sets_.end()) return static_cast<size_t>(it - sets_.begin());
    sets_.push_back(set);
    return sets_.size() - 1;
  }

  int here() const { return static_cast<int>(program_.size()); }
  Instruction& at(int i) { return program_[static_cast<size_t>(i)]; }

  void emit(const RegexNode& node) {
    switch (node.kind) {
      case RegexNode::Kind::empty:
        return;
      case RegexNode::Kind::set:
        push(Op::character, index_of(node.set));
        return;
      case RegexNode::Kind::ahead:
        push(Op::ahead, index_of(node.set));
        return;
      case RegexNode::Kind::cat:
        for (const RegexNode& child : node.children) emit(child);
        return;
      case RegexNode::Kind::alt:
        emit_alternatives(node);
        return;
      case RegexNode::Kind::repeat:
        emit_repeat(node);
        return;
    }
  }

  void emit_alternatives(const RegexNode& node) {
    std::vector<int> exits;
    for (size_t i = 0; i + 1 < node.children.size(); ++i) {
      const int split = push(Op::split);
      emit(node.children[i]);
      exits.push_back(push(Op::jump));
      at(split).second = here();
    }
    emit(node.children.back());
    for (const int exit : exits) at(exit).first = here();
  }

  void set_branches(int split, int body, int past, bool greedy) {
    at(split).first = greedy ? body : past;
    at(split).second = greedy ? past : body;
  }

  void emit_repeat(const RegexNode& node) {
    const RegexNode& body = node.children[0];
    for (int i = 0; i < node.min; ++i) emit(body);
    if (node.max < 0) {
      const int split = push(Op::split);
      emit(body);
      at(push(Op::jump)).first = split;
      set_branches(split, split + 1, here(), node.greedy);
      return;
    }
    std::vector<int> splits;
    for (int i = node.min; i < node.max; ++i) {
      splits.push_back(push(Op::split));
      emit(body);
    }
    for (const int split : splits) set_branches(split, split + 1, here(), node.greedy);
  }

  // Code points that no set tells apart share a class; "end of text" is a class of its own.
  void partition(Pattern& pattern) {
    std::set<uint32_t> borders{0, kEndOfText, kEndOfText + 1};
    for (const CodeSet& set : sets_) {
      for (const CodeSet::Range& r : set.ranges()) {
        borders.insert(r.first);
        borders.insert(r.last + 1);
      }
    }
    std::map<std::vector<bool>, uint8_t> known;
    std::vector<uint8_t> classes(kEndOfText);
    for (auto it = borders.begin(); *it <= kEndOfText; ++it) {
      std::vector<bool> signature(sets_.size() + 1);
      for (size_t i = 0; i < sets_.size(); ++i) signature[i] = sets_[i].contains(*it);
      signature.back() = *it == kEndOfText;
      const auto [found, fresh] = known.emplace(signature, static_cast<uint8_t>(known.size()));
      if (fresh) signatures_.push_back(signature);
      if (known.size() > kMaxClasses) too_large();
      if (*it == kEndOfText) {
        pattern.end_class_ = found->second;
        break;
      }
      std::memset(classes.data() + *it, found->second, *std::next(it) - *it);
    }
    pattern.num_classes_ = static_cast<uint32_t>(signatures_.size());
    std::copy_n(classes.begin(), pattern.ascii_.size(), pattern.ascii_.begin());
    share_pages(classes, pattern);
  }

  static void share_pages(const std::vector<uint8_t>& classes, Pattern& pattern) {
    std::unordered_map<std::string, uint16_t> known;
    for (size_t page = 0; page < pattern.page_of_.size(); ++page) {
      const uint8_t* start = classes.data() + page * 128;
      const auto [it, fresh] = known.emplace(std::string(start, start + 128),
                                             static_cast<uint16_t>(pattern.pages_.size()));
      if (fresh) {
        pattern.pages_.emplace_back();
        std::copy_n(start, 128, pattern.pages_.back().begin());
      }
      pattern.page_of_[page] = it->second;
    }
  }

  // Follow instructions that consume nothing, in order of priority, knowing the class that comes
  // next. Returns true at a match, which cuts off everything of lower priority.
  bool follow(int start, size_t cls, std::vector<bool>& seen, States& next,
              std::vector<bool>& added) {
    std::vector<int> stack{start};
    while (!stack.empty()) {
      const int i = stack.back();
      stack.pop_back();
      if (seen[static_cast<size_t>(i)]) continue;
      seen[static_cast<size_t>(i)] = true;
      const Instruction& in = at(i);
      switch (in.op) {
        case Op::match:
          return true;
        case Op::jump:
          stack.push_back(in.first);
          break;
        case Op::split:
          stack.push_back(in.second);
          stack.push_back(in.first);
          break;
        case Op::ahead:
          if (signatures_[cls][in.set]) stack.push_back(in.first);
          break;
        case Op::character:
          if (signatures_[cls][in.set] && !added[static_cast<size_t>(in.first)]) {
            added[static_cast<size_t>(in.first)] = true;
            next.push_back(in.first);
          }
          break;
      }
    }
    return false;
  }

  void determinize(Pattern& pattern) {
    std::map<States, uint32_t> known{{{}, 0}, {{0}, 1}};
    std::vector<States> states{{}, {0}};
    const uint32_t width = pattern.num_classes_;
    for (size_t s = 0; s < states.size(); ++s) {
      if (states.size() > kMaxStates) too_large();
      for (uint32_t cls = 0; cls < width; ++cls) {
        States next;
        std::vector<bool> seen(program_.size());
        std::vector<bool> added(program_.size() + 1);
        bool matched = false;
        for (const int start : States(states[s])) {
          if ((matched = follow(start, cls, seen, next, added))) break;
        }
        if (cls == pattern.end_class_) next.clear();
        const auto [it, fresh] = known.emplace(next, static_cast<uint32_t>(states.size()));
        if (fresh) states.push_back(next);
        pattern.table_.push_back(it->second * width << 1 | (matched ? 1u : 0u));
      }
    }
    pattern.start_ = width;
  }

  std::string source_;
  std::vector<Instruction> program_;
  std::vector<CodeSet> sets_;
  std::vector<std::vector<bool>> signatures_;  // per class: which sets contain it
};

void Pattern::find_runs() {
  run_at_.assign(table_.size() + 1, 0);
#if defined(__x86_64__)
  __builtin_cpu_init();
  wide_ = __builtin_cpu_supports("ssse3") != 0;
#endif
  for (uint32_t state = num_classes_; wide_ && state < table_.size(); state += num_classes_) {
    Run runs[2];
    size_t sizes[2] = {0, 0};
    for (size_t c = 0; c < 128; ++c) {
      const uint32_t step = table_[state + ascii_[c]];
      if (step >> 1 != state) continue;
      runs[step & 1].low[c & 15] |= static_cast<uint8_t>(1u << (c >> 4));
      ++sizes[step & 1];
    }
    const size_t matched = sizes[1] >= sizes[0] ? 1 : 0;
    if (sizes[matched] < kMinRun || runs_.size() >= 254) continue;
    runs[matched].matched = matched == 1;
    runs_.push_back(runs[matched]);
    run_at_[state] = static_cast<uint8_t>(runs_.size());
  }
}

const char* Pattern::match_plain(const char* p, const char* end) const noexcept {
  const char* found = nullptr;
  uint32_t state = start_;
  const uint32_t* table = table_.data();
  while (p < end) {
    const auto b = static_cast<unsigned char>(*p);
    uint32_t cls = 0;
    uint32_t length = 1;
    if (b < 0x80) {
      cls = ascii_[b];
    } else {
      const Character c = decode_utf8(p, end);
      cls = class_of(c.code);
      length = c.length;
    }
    const uint32_t step = table[state + cls];
    if ((step & 1) != 0) found = p;
    state = step >> 1;
    if (state == 0) return found;
    p += length;
  }
  if ((table[state + end_class_] & 1) != 0) found = p;
  return found;
}

#if defined(__x86_64__)
__attribute__((target("ssse3")))
const char* Pattern::match_wide(const char* p, const char* end) const noexcept {
  const char* found = nullptr;
  uint32_t state = start_;
  const uint32_t* table = table_.data();
  const __m128i nibble = _mm_set1_epi8(15);
  while (p < end) {
    const auto b = static_cast<unsigned char>(*p);
    uint32_t step = 0;
    if (b < 0x80) {
      step = table[state + ascii_[b]];
      if ((step & 1) != 0) found = p;
      ++p;
    } else {
      const Character c = decode_utf8(p, end);
      step = table[state + class_of(c.code)];
      if ((step & 1) != 0) found = p;
      p += c.length;
    }
    state = step >> 1;
    if (state == 0) return found;
    const uint8_t run = run_at_[state];
    if (run == 0) continue;
    const Run& r = runs_[run - 1u];
    const char* start = p;
    while (end - p >= 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      const __m128i low =
          _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(r.low.data())),
                           _mm_and_si128(bytes, nibble));
      const __m128i high =
          _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(r.high.data())),
                           _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
      const __m128i outside = _mm_cmpeq_epi8(_mm_and_si128(low, high), _mm_setzero_si128());
      const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(outside));
      p += mask == 0 ? 16 : std::countr_zero(mask);
      if (mask != 0) break;
    }
    if (r.matched && p > start) found = p - 1;
  }
  if ((table[state + end_class_] & 1) != 0) found = p;
  return found;
}
#else
const char* Pattern::match_wide(const char* p, const char* end) const noexcept {
  return match_plain(p, end);
}
#endif

std::shared_ptr<const Pattern> Pattern::compile(const std::string& source) {
  static std::mutex mutex;
  static std::unordered_map<std::string, std::shared_ptr<const Pattern>> compiled;
  const std::lock_guard lock(mutex);
  if (compiled.size() > kMaxShared) compiled.clear();  // files from strangers may bring many
  std::shared_ptr<const Pattern>& slot = compiled[unicode_name() + ':' + source];
  if (!slot) slot = PatternCompiler(source).compile();
  return slot;
}

}  // namespace tokamak::text
