#include "text/regex.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

constexpr int kMaxDepth = 64;
constexpr int kMaxRepeat = 512;

using Kind = RegexNode::Kind;

class Parser {
 public:
  explicit Parser(std::string_view source) : source_(source) {}

  RegexNode parse() {
    RegexNode node = alternatives();
    if (!at_end()) fail("unbalanced ')'");
    return node;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::unsupported, "pattern " + std::string(source_) + ": " + what +
                                            " at byte " + std::to_string(at_));
  }
  bool at_end() const { return at_ >= source_.size(); }
  char peek() const { return at_end() ? '\0' : source_[at_]; }
  bool take(std::string_view s) {
    if (source_.substr(at_, s.size()) != s) return false;
    at_ += s.size();
    return true;
  }
  uint32_t code_point() {
    if (at_end()) fail("the pattern ends too early");
    const char* p = source_.data() + at_;
    const Character c = decode_utf8(p, source_.data() + source_.size());
    if (!c.valid) fail("invalid UTF-8");
    at_ += c.length;
    return c.code;
  }

  RegexNode alternatives() {
    if (++depth_ > kMaxDepth) fail("groups are nested too deeply");
    RegexNode alt;
    alt.kind = Kind::alt;
    do {
      alt.children.push_back(sequence());
    } while (take("|"));
    --depth_;
    return alt.children.size() == 1 ? std::move(alt.children[0]) : alt;
  }

  RegexNode sequence() {
    RegexNode cat;
    cat.kind = Kind::cat;
    const bool outer = ignore_case_;
    while (!at_end() && peek() != '|' && peek() != ')') {
      if (take("(?i)")) {
        ignore_case_ = true;
        continue;
      }
      append_repeated(cat, atom());
    }
    if (depth_ > 1) ignore_case_ = outer;
    return cat;
  }

  static RegexNode ahead(CodeSet set) {
    RegexNode node;
    node.kind = Kind::ahead;
    node.set = std::move(set);
    return node;
  }

  static RegexNode one(CodeSet set) {
    RegexNode node;
    node.kind = Kind::set;
    node.set = std::move(set);
    return node;
  }

  RegexNode atom() {
    if (take("(?:")) return group(ignore_case_);
    if (take("(?i:")) return group(true);
    if (take("(?-i:")) return group(false);
    if (take("(?!")) return ahead(next_characters().complement(true));
    if (take("(?=")) return ahead(next_characters());
    if (take("(?")) fail("a group of this kind is not supported");
    if (take("(")) return group(ignore_case_);
    if (take("[")) return one(folded(bracket()));
    if (take(".")) return one(CodeSet::of('\n', '\n').complement(false));
    if (take("$")) return ahead(CodeSet::of(kEndOfText, kEndOfText));
    if (peek() == '^') fail("'^' is not supported");
    if (peek() == '*' || peek() == '+' || peek() == '?') fail("nothing to repeat");
    if (take("\\")) return one(folded(escape()));
    const uint32_t c = code_point();
    return one(folded(CodeSet::of(c, c)));
  }

  RegexNode group(bool ignore_case) {
    const bool outer = ignore_case_;
    ignore_case_ = ignore_case;
    RegexNode node = alternatives();
    ignore_case_ = outer;
    if (!take(")")) fail("missing ')'");
    return node;
  }

  // Body of a lookahead: it must come down to one character or the end of the text.
  CodeSet next_characters() {
    const RegexNode node = group(ignore_case_);
    CodeSet set;
    if (!collect(node, set)) fail("a lookahead of more than one character is not supported");
    return set;
  }

  static bool collect(const RegexNode& node, CodeSet& set) {
    switch (node.kind) {
      case Kind::set:
      case Kind::ahead:
        set.add(node.set);
        return true;
      case Kind::alt:
        return std::all_of(node.children.begin(), node.children.end(),
                           [&set](const RegexNode& child) { return collect(child, set); });
      case Kind::cat:
        return node.children.size() == 1 && collect(node.children[0], set);
      case Kind::empty:
      case Kind::repeat:
        break;
    }
    return false;
  }

  // Simple case folding of ASCII letters, with the two signs that fold onto them.
  CodeSet folded(CodeSet set) const {
    if (!ignore_case_) return set;
    CodeSet more;
    for (uint32_t c = 'a'; c <= 'z'; ++c) {
      const uint32_t upper = c - 32;
      const uint32_t sign = c == 's' ? 0x17F : c == 'k' ? 0x212A : c;
      if (set.contains(c) || set.contains(upper) || set.contains(sign)) {
        more.add(c, c);
        more.add(upper, upper);
        more.add(sign, sign);
      }
    }
    for (const CodeSet::Range& r : set.ranges()) {
      if (r.first == r.last && r.first > 0x7F && r.first != 0x17F && r.first != 0x212A) {
        fail("(?i) on characters outside ASCII is not supported");
      }
    }
    set.add(more);
    return set;
  }

  uint32_t hexadecimal(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("a hexadecimal digit is missing");
      value = value << 4 | static_cast<uint32_t>(digit);
      ++at_;
    }
    if (value >= kEndOfText) fail("code point out of range");
    return value;
  }

  CodeSet named_class(bool negated) {
    if (!take("{")) {
      const size_t start = at_++;
      return property(source_.substr(start, 1), negated);
    }
    const size_t close = source_.find('}', at_);
    if (close == std::string_view::npos) fail("missing '}'");
    std::string_view name = source_.substr(at_, close - at_);
    at_ = close + 1;
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    return property(name, negated);
  }

  static CodeSet property(std::string_view name, bool negated) {
    CodeSet set = CodeSet::property(name);
    return negated ? set.complement(false) : set;
  }

  CodeSet escape() {
    const uint32_t c = code_point();
    switch (c) {
      case 'p':
        return named_class(false);
      case 'P':
        return named_class(true);
      case 's':
        return property("White_Space", false);
      case 'S':
        return property("White_Space", true);
      case 'd':
        return property("Nd", false);
      case 'D':
        return property("Nd", true);
      case 'w':
        return property("Word", false);
      case 'W':
        return property("Word", true);
      default:
        break;
    }
    const uint32_t literal = escaped_literal(c);
    return CodeSet::of(literal, literal);
  }

  uint32_t escaped_literal(uint32_t c) {
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'a':
        return 7;
      case 'e':
        return 27;
      case '0':
        return 0;
      case 'u':
        return hexadecimal(4);
      case 'x': {
        if (!take("{")) return hexadecimal(2);
        const size_t close = source_.find('}', at_);
        if (close == std::string_view::npos || close - at_ > 6) fail("malformed \\x{...}");
        const uint32_t value = hexadecimal(close - at_);
        ++at_;
        return value;
      }
      default:
        break;
    }
    const bool alphanumeric =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (alphanumeric)
      fail("escape \\" + std::string(1, static_cast<char>(c)) + " is not supported");
    return c;
  }

  CodeSet bracket() {
    const bool negated = take("^");
    CodeSet set;
    bool first = true;
    while (first || peek() != ']') {
      if (at_end()) fail("missing ']'");
      first = false;
      if (take("&&")) {
        set = set.intersect(rest_of_bracket());
        break;
      }
      bracket_item(set);
    }
    ++at_;
    return negated ? set.complement(false) : set;
  }

  CodeSet rest_of_bracket() {
    CodeSet set;
    while (!at_end() && peek() != ']') bracket_item(set);
    if (at_end()) fail("missing ']'");
    return set;
  }

  void bracket_item(CodeSet& set) {
    if (take("[:")) fail("POSIX classes are not supported");
    if (take("[")) {
      if (++depth_ > kMaxDepth) fail("classes are nested too deeply");
      set.add(bracket());
      --depth_;
      return;
    }
    CodeSet item = take("\\") ? escape() : literal();
    const bool single =
        item.ranges().size() == 1 && item.ranges()[0].first == item.ranges()[0].last;
    const bool range =
        single && peek() == '-' && at_ + 1 < source_.size() && source_[at_ + 1] != ']';
    if (range) {
      ++at_;
      const uint32_t first = item.ranges()[0].first;
      const CodeSet upper = take("\\") ? escape() : literal();
      const bool ok =
          upper.ranges().size() == 1 && upper.ranges()[0].first == upper.ranges()[0].last;
      if (!ok || upper.ranges()[0].first < first) fail("malformed range in a class");
      item = CodeSet::of(first, upper.ranges()[0].first);
    }
    set.add(item);
  }

  CodeSet literal() {
    const uint32_t c = code_point();
    return CodeSet::of(c, c);
  }

  bool braces(int& min, int& max) {
    size_t at = at_ + 1;
    const auto number = [&](int& value) {
      const size_t start = at;
      long sum = 0;
      while (at < source_.size() && source_[at] >= '0' && source_[at] <= '9') {
        sum = std::min(sum * 10 + (source_[at++] - '0'), 100000L);
      }
      value = static_cast<int>(sum);
      return at > start;
    };
    if (!number(min)) return false;
    max = min;
    if (at < source_.size() && source_[at] == ',') {
      ++at;
      if (!number(max)) max = -1;
    }
    if (at >= source_.size() || source_[at] != '}') return false;
    at_ = at + 1;
    if (min > kMaxRepeat || max > kMaxRepeat || (max >= 0 && max < min)) {
      fail("a repeat count is out of range");
    }
    return true;
  }

  void append_repeated(RegexNode& cat, RegexNode item) {
    int min = 1;
    int max = 1;
    if (take("*")) {
      min = 0;
      max = -1;
    } else if (take("+")) {
      max = -1;
    } else if (take("?")) {
      min = 0;
    } else if (peek() != '{' || !braces(min, max)) {
      cat.children.push_back(std::move(item));
      return;
    }
    RegexNode repeat;
    repeat.kind = Kind::repeat;
    repeat.min = min;
    repeat.max = max;
    const bool possessive = take("+");
    repeat.greedy = !take("?");
    const CodeSet set = item.set;
    if (possessive && item.kind != Kind::set)
      fail("a possessive repeat of a group is not supported");
    repeat.children.push_back(std::move(item));
    if (!possessive) {
      cat.children.push_back(std::move(repeat));
    } else {
      cat.children.push_back(possessive_repeat(repeat, set));
    }
  }

  // x{m,n}+ : as many as there are, so fewer than n only where no x follows.
  static RegexNode possessive_repeat(const RegexNode& repeat, const CodeSet& set) {
    RegexNode no_more = ahead(set.complement(true));
    RegexNode full;
    full.kind = Kind::cat;
    full.children.push_back(repeat);
    if (repeat.max < 0) {
      full.children.push_back(std::move(no_more));
      return full;
    }
    RegexNode alt;
    alt.kind = Kind::alt;
    for (int count = repeat.max; count >= repeat.min; --count) {
      RegexNode exact;
      exact.kind = Kind::cat;
      for (int i = 0; i < count; ++i) exact.children.push_back(repeat.children[0]);
      if (count < repeat.max) exact.children.push_back(no_more);
      alt.children.push_back(std::move(exact));
    }
    return alt;
  }

  std::string_view source_;
  size_t at_ = 0;
  int depth_ = 0;
  bool ignore_case_ = false;
};

}  // namespace

RegexNode parse_regex(std::string_view source) { return Parser(source).parse(); }

}  // namespace tokamak::text
