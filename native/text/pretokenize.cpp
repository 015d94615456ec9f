#include "text/pretokenize.h"

#include <algorithm>

#include "text/bytes.h"
#include "text/unicode.h"

namespace tokamak::text {

namespace {

// The pattern of GPT-2, which ByteLevel has built in.
constexpr char kGpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const std::string& name) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  throw Error(ErrorKind::unsupported, "split behavior " + name + " is not supported");
}

struct Cut {
  size_t start, end;
  bool match;
};

// Cuts of a text that cover it, matches and what lies between, to pieces. Same as
// SplitDelimiterBehavior of Hugging Face, its treatment of neighbouring matches included.
void collect(const std::vector<Cut>& cuts, Behavior behavior, std::vector<Piece>& out) {
  const size_t first = out.size();
  bool previous = false;
  const auto put = [&out](const Cut& c) { out.push_back({c.start, c.end}); };
  switch (behavior) {
    case Behavior::removed:
      for (const Cut& c : cuts) {
        if (!c.match) put(c);
      }
      return;
    case Behavior::isolated:
      for (const Cut& c : cuts) put(c);
      return;
    case Behavior::contiguous:
      for (const Cut& c : cuts) {
        if (c.match == previous && out.size() > first) {
          out.back().end = c.end;
        } else {
          put(c);
        }
        previous = c.match;
      }
      return;
    case Behavior::merged_with_previous:
      for (const Cut& c : cuts) {
        if (c.match && !previous && out.size() > first) {
          out.back().end = c.end;
        } else {
          put(c);
        }
        previous = c.match;
      }
      return;
    case Behavior::merged_with_next:
      for (auto c = cuts.rbegin(); c != cuts.rend(); ++c) {
        if (c->match && !previous && out.size() > first) {
          out.back().start = c->start;
        } else {
          put(*c);
        }
        previous = c->match;
      }
      std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
      return;
  }
}

// Cuts every piece where `find` says. find(text, cuts) appends cuts in order that cover the text.
template <typename Find>
void cut_pieces(Pieces& pieces, Behavior behavior, Find find) {
  std::vector<Piece> out;
  std::vector<Cut> cuts;
  const std::string_view text = pieces.buffer.text;
  for (const Piece& p : pieces.list) {
    cuts.clear();
    find(text.substr(p.start, p.end - p.start), cuts);
    for (Cut& c : cuts) {
      c.start += p.start;
      c.end += p.start;
    }
    collect(cuts, behavior, out);
  }
  std::erase_if(out, [](const Piece& p) { return p.start == p.end; });  // of empty matches
  pieces.list = std::move(out);
}

// Characters for which `is` holds are matches of one character each.
template <typename Is>
void find_characters(std::string_view text, std::vector<Cut>& cuts, Is is) {
  size_t gap = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = decode_utf8(text.data() + at, text.data() + text.size());
    if (is(c.code)) {
      if (gap < at) cuts.push_back({gap, at, false});
      cuts.push_back({at, at + c.length, true});
      gap = at + c.length;
    }
    at += c.length;
  }
  if (gap < text.size()) cuts.push_back({gap, text.size(), false});
}

void find_pattern(const Pattern& pattern, std::string_view text, std::vector<Cut>& cuts) {
  size_t gap = 0;
  pattern.each_match(text, [&](size_t start, size_t stop) {
    if (gap < start) cuts.push_back({gap, start, false});
    gap = stop;
    cuts.push_back({start, stop, true});
  });
  if (gap < text.size()) cuts.push_back({gap, text.size(), false});
}

void find_literal(std::string_view literal, std::string_view text, std::vector<Cut>& cuts) {
  size_t gap = 0;
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, gap)) {
    if (gap < at) cuts.push_back({gap, at, false});
    gap = at + literal.size();
    cuts.push_back({at, gap, true});
  }
  if (gap < text.size()) cuts.push_back({gap, text.size(), false});
}

class Split final : public PreTokenizer {
 public:
  explicit Split(const Step& step)
      : literal_(step.text("string")),
        behavior_(behavior_of(step.text("behavior"))),
        invert_(step.flag("invert")) {
    if (!step.text("regex").empty()) {
      pattern_ = Pattern::compile(step.text("regex"));
    } else if (literal_.empty()) {
      throw Error(ErrorKind::unsupported, "a Split at nothing is not supported");
    }
  }
  void apply(Pieces& pieces) const override {
    cut_pieces(pieces, behavior_, [this](std::string_view text, std::vector<Cut>& cuts) {
      if (pattern_) {
        find_pattern(*pattern_, text, cuts);
      } else {
        find_literal(literal_, text, cuts);
      }
      for (Cut& c : cuts) c.match = c.match != invert_;
    });
  }
  std::shared_ptr<const Pattern> isolated_pattern() const override {
    const bool plain = behavior_ == Behavior::isolated && pattern_ && !pattern_->matches_empty();
    return plain ? pattern_ : nullptr;
  }

 private:
  std::string literal_;
  std::shared_ptr<const Pattern> pattern_;
  Behavior behavior_;
  bool invert_;
};

class Characters final : public PreTokenizer {
 public:
  Characters(Property property, Behavior behavior) : property_(property), behavior_(behavior) {}
  void apply(Pieces& pieces) const override {
    cut_pieces(pieces, behavior_, [this](std::string_view text, std::vector<Cut>& cuts) {
      find_characters(text, cuts, [this](uint32_t c) { return properties_of(c).is(property_); });
    });
  }

 private:
  Property property_;
  Behavior behavior_;
};

class Delimiter final : public PreTokenizer {
 public:
  explicit Delimiter(const std::string& literal) : literal_(literal) {
    if (literal.empty())
      throw Error(ErrorKind::tokenizer_file, "CharDelimiterSplit has no delimiter");
  }
  void apply(Pieces& pieces) const override {
    cut_pieces(pieces, Behavior::removed, [this](std::string_view text, std::vector<Cut>& cuts) {
      find_literal(literal_, text, cuts);
    });
  }

 private:
  std::string literal_;
};

class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(int64_t length) : length_(length) {
    if (length < 1) throw Error(ErrorKind::tokenizer_file, "FixedLength.length is below 1");
  }
  void apply(Pieces& pieces) const override {
    cut_pieces(pieces, Behavior::isolated, [this](std::string_view text, std::vector<Cut>& cuts) {
      size_t start = 0;
      int64_t count = 0;
      for (size_t at = 0; at < text.size();) {
        at += decode_utf8(text.data() + at, text.data() + text.size()).length;
        if (++count % length_ == 0 || at == text.size()) {
          cuts.push_back({start, at, true});
          start = at;
        }
      }
    });
  }

 private:
  int64_t length_;
};

// Runs of decimal digits in groups of three, counted from the right, as thousands are written. With
// `word_end` only runs that end a word; with `inner` what stands before a run is cut off only where
// the run is a multiple of three, as a pattern that matches nothing between groups does.
class DigitGroups final : public PreTokenizer {
 public:
  explicit DigitGroups(const Step& step)
      : digits_(CodeSet::property("Nd")),
        word_end_(step.flag("word_end")),
        inner_(step.flag("inner")) {}
  void apply(Pieces& pieces) const override {
    cut_pieces(pieces, Behavior::isolated, [this](std::string_view text, std::vector<Cut>& cuts) {
      size_t gap = 0;
      std::vector<size_t> places;  // of the digits of a run, and its end
      for (size_t at = 0; at < text.size();) {
        places.clear();
        Character c = decode_utf8(text.data() + at, text.data() + text.size());
        for (; at < text.size() && is_digit(c.code);
             c = decode_utf8(text.data() + at, text.data() + text.size())) {
          places.push_back(at);
          at += c.length;
        }
        if (!places.empty() && !(word_end_ && at < text.size() && is_word(c.code))) {
          add_groups(places, at, gap, cuts);
        }
        if (at < text.size()) at += c.length;
      }
      if (gap < text.size()) cuts.push_back({gap, text.size(), false});
    });
  }

 private:
  bool is_digit(uint32_t c) const { return c < 128 ? c >= '0' && c <= '9' : digits_.contains(c); }
  void add_groups(const std::vector<size_t>& places, size_t end, size_t& gap,
                  std::vector<Cut>& cuts) const {
    for (size_t i = 0; i < places.size(); ++i) {
      const bool starts = (places.size() - i) % 3 == 0 || (i == 0 && !inner_);
      if (!starts || gap == places[i]) continue;
      cuts.push_back({gap, places[i], false});
      gap = places[i];
    }
    if (inner_) return;
    cuts.push_back({gap, end, true});
    gap = end;
  }

  CodeSet digits_;
  bool word_end_, inner_;
};

class ByteLevel final : public PreTokenizer {
 public:
  explicit ByteLevel(const Step& step)
      : prefix_(step.flag("add_prefix_space", true)), mapped_(step.flag("map_bytes")) {
    if (step.flag("use_regex", true)) pattern_ = Pattern::compile(kGpt2);
  }
  void apply(Pieces& pieces) const override {
    if (prefix_) add_prefix(pieces);
    if (pattern_) {
      cut_pieces(pieces, Behavior::isolated, [this](std::string_view text, std::vector<Cut>& cuts) {
        find_pattern(*pattern_, text, cuts);
      });
    }
    if (mapped_) map_bytes(pieces);
  }
  std::shared_ptr<const Pattern> isolated_pattern() const override {
    return prefix_ || mapped_ ? nullptr : pattern_;
  }

 private:
  static void add_prefix(Pieces& pieces) {
    Rewriter out(pieces.buffer);
    size_t size = 0;
    for (Piece& p : pieces.list) {
      const size_t start = size;
      if (pieces.buffer.text[p.start] != ' ') {
        out.put_before(" ", p.start);
        ++size;
      }
      out.copy(p.start, p.end);
      size += p.end - p.start;
      p = {start, size};
    }
    out.finish();
  }
  static void map_bytes(Pieces& pieces) {
    Rewriter out(pieces.buffer);
    size_t size = 0;
    for (Piece& p : pieces.list) {
      const size_t start = size;
      for (size_t i = p.start; i < p.end; ++i) {
        const uint32_t code = character_of_byte(static_cast<unsigned char>(pieces.buffer.text[i]));
        out.put_code(code, i, i + 1);
        size += code < 0x80 ? 1 : 2;
      }
      p = {start, size};
    }
    out.finish();
  }

  bool prefix_, mapped_;
  std::shared_ptr<const Pattern> pattern_;
};

class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(const Step& step)
      : symbol_(step.text("replacement")),
        scheme_(step.text("prepend_scheme")),
        split_(step.flag("split", true)) {
    if (symbol_.empty()) throw Error(ErrorKind::tokenizer_file, "Metaspace has no replacement");
    if (scheme_ != "always" && scheme_ != "first" && scheme_ != "never") {
      throw Error(ErrorKind::unsupported,
                  "Metaspace.prepend_scheme " + scheme_ + " is not supported");
    }
  }
  bool marks_first() const override { return scheme_ == "first"; }
  void apply(Pieces& pieces) const override {
    Rewriter out(pieces.buffer);
    size_t size = 0;
    const std::string_view text = pieces.buffer.text;
    for (Piece& p : pieces.list) {
      const size_t start = size;
      const bool has_symbol = text[p.start] == ' ' || text.substr(p.start).starts_with(symbol_);
      const bool wanted = scheme_ == "always" || (scheme_ == "first" && pieces.is_first(p));
      if (!has_symbol && wanted) {
        out.put_before(symbol_, p.start);
        size += symbol_.size();
      }
      size += mark(text, p, out);
      p = {start, size};
    }
    out.finish();
    if (!split_) return;
    cut_pieces(
        pieces, Behavior::merged_with_next,
        [this](std::string_view s, std::vector<Cut>& cuts) { find_literal(symbol_, s, cuts); });
  }

 private:
  // Returns the number of bytes written.
  size_t mark(std::string_view text, const Piece& p, Rewriter& out) const {
    size_t size = 0;
    for (size_t at = p.start; at < p.end;) {
      const size_t space = std::min(text.find(' ', at), p.end);
      out.copy(at, space);
      size += space - at;
      at = space;
      if (at == p.end) break;
      out.put(symbol_, at, at + 1);
      size += symbol_.size();
      ++at;
    }
    return size;
  }

  std::string symbol_, scheme_;
  bool split_;
};

// Where the script changes, as Hugging Face sees scripts: kana is Han; characters of no script of
// their own go with what is before them, and are left out where nothing is.
class UnicodeScripts final : public PreTokenizer {
 public:
  explicit UnicodeScripts(const Step& step) {
    const std::string table = step.text("runs");
    for (size_t at = 0; at + 4 <= table.size(); at += 4) {
      const auto byte = [&](size_t i) {
        return static_cast<uint32_t>(static_cast<unsigned char>(table[at + i])) << (8 * i);
      };
      runs_.push_back(byte(0) | byte(1) | byte(2) | byte(3));
    }
    if (runs_.empty() || runs_[0] >> 8 != 0 || !std::is_sorted(runs_.begin(), runs_.end())) {
      throw Error(ErrorKind::tokenizer_file, "the table of UnicodeScripts is malformed");
    }
  }
  void apply(Pieces& pieces) const override {
    cut_pieces(pieces, Behavior::isolated, [this](std::string_view text, std::vector<Cut>& cuts) {
      size_t start = text.size();
      uint32_t last = 0;
      for (size_t at = 0; at < text.size();) {
        const Character c = decode_utf8(text.data() + at, text.data() + text.size());
        const uint32_t script = script_of(c.code);
        if (script != 0 && script != last) {
          if (last != 0) cuts.push_back({start, at, true});
          start = at;
          last = script;
        }
        at += c.length;
      }
      if (last != 0) cuts.push_back({start, text.size(), true});
    });
  }

 private:
  uint32_t script_of(uint32_t code) const {
    const auto after = std::upper_bound(runs_.begin(), runs_.end(), code << 8 | 0xFF);
    return *(after - 1) & 0xFF;
  }

  std::vector<uint32_t> runs_;  // first code point << 8 | script
};

class Chain final : public PreTokenizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void apply(Pieces& pieces) const override {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

std::unique_ptr<PreTokenizer> make_spaces_and_punctuation() {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(std::make_unique<Characters>(Property::rust_space, Behavior::removed));
  steps.push_back(std::make_unique<Characters>(Property::punctuation, Behavior::isolated));
  return std::make_unique<Chain>(std::move(steps));
}

// "\w+|[^\w\s]+" by the \w of Rust's regex, see is_rust_word in added.cpp.
constexpr std::string_view kRustWords =
    "[\\w\\x{200C}\\x{200D}&&[^\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}]]+|"
    "(?:[^\\w\\s\\x{200C}\\x{200D}]|[\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}])+";

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Step& step) {
  const std::string& type = step.type;
  if (type == "Split") return std::make_unique<Split>(step);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(step);
  if (type == "Metaspace") return std::make_unique<Metaspace>(step);
  if (type == "BertPreTokenizer") return make_spaces_and_punctuation();
  if (type == "WhitespaceSplit") {
    return std::make_unique<Characters>(Property::rust_space, Behavior::removed);
  }
  if (type == "Whitespace") {
    return std::make_unique<Split>(Step{"Split",
                                        {{"regex", std::string(kRustWords)},
                                         {"behavior", std::string("Removed")},
                                         {"invert", true}}});
  }
  if (type == "Digits") {
    return std::make_unique<Characters>(Property::numeric, step.flag("individual_digits")
                                                               ? Behavior::isolated
                                                               : Behavior::contiguous);
  }
  if (type == "Punctuation") {
    return std::make_unique<Characters>(Property::punctuation,
                                        behavior_of(step.get<std::string>("behavior", "Isolated")));
  }
  if (type == "UnicodeScripts") return std::make_unique<UnicodeScripts>(step);
  if (type == "DigitGroups") return std::make_unique<DigitGroups>(step);
  if (type == "CharDelimiterSplit") return std::make_unique<Delimiter>(step.text("delimiter"));
  if (type == "FixedLength") return std::make_unique<FixedLength>(step.get<int64_t>("length", 5));
  throw Error(ErrorKind::unsupported, "pre-tokenizer " + type + " is not supported");
}

}  // namespace tokamak::text
