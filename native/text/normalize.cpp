#include "text/normalize.h"

#include <algorithm>

#include "text/bytes.h"
#include "text/charsmap.h"
#include "text/grapheme.h"
#include "text/model.h"
#include "text/normal_forms.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace tokamak::text {

namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// Calls use(character, start) for each character of the text.
template <typename Use>
void each_character(std::string_view text, Use use) {
  const char* begin = text.data();
  const char* end = begin + text.size();
  for (const char* p = begin; p < end;) {
    const Character c = decode_utf8(p, end);
    use(c, static_cast<size_t>(p - begin));
    p += c.length;
  }
}

class NormalForm final : public Normalizer {
 public:
  explicit NormalForm(Form form) : form_(form), tables_(NormalizationTables::current()) {}
  void apply(Buffer& buffer) const override { tables_->apply(form_, buffer); }
  bool keeps(std::string_view text) const override { return is_ascii(text); }

 private:
  Form form_;
  std::shared_ptr<const NormalizationTables> tables_;
};

class Lowercase final : public Normalizer {
 public:
  Lowercase() : tables_(NormalizationTables::current()) {}
  void apply(Buffer& buffer) const override { tables_->lowercase(buffer); }

 private:
  std::shared_ptr<const NormalizationTables> tables_;
};

// Removes characters with one property; turns those with another into a space.
class Filter final : public Normalizer {
 public:
  Filter(Property removed, Property spaced, bool spaces)
      : removed_(removed), spaced_(spaced), spaces_(spaces) {}
  void apply(Buffer& buffer) const override {
    Rewriter out(buffer);
    each_character(buffer.text, [&](const Character& c, size_t at) {
      const Properties p = properties_of(c.code);
      if (p.is(removed_)) return;
      if (spaces_ && p.is(spaced_)) {
        out.put(" ", at, at + c.length);
      } else {
        out.copy(at, at + c.length);
      }
    });
    out.finish();
  }

 private:
  Property removed_, spaced_;
  bool spaces_;
};

class SpaceChinese final : public Normalizer {
 public:
  void apply(Buffer& buffer) const override {
    Rewriter out(buffer);
    each_character(buffer.text, [&](const Character& c, size_t at) {
      const bool chinese = c.code >= 0x80 && properties_of(c.code).is(Property::chinese);
      if (chinese) out.put(" ", at, at + c.length);
      out.copy(at, at + c.length);
      if (chinese) out.put(" ", at, at + c.length);
    });
    out.finish();
  }
  bool keeps(std::string_view text) const override { return is_ascii(text); }
};

class Chain final : public Normalizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void apply(Buffer& buffer) const override {
    for (const auto& step : steps_) {
      if (!step->keeps(buffer.text)) step->apply(buffer);
    }
  }
  bool keeps(std::string_view text) const override {
    return std::all_of(steps_.begin(), steps_.end(),
                       [text](const auto& s) { return s->keeps(text); });
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

std::unique_ptr<Normalizer> make_clean_and_fold(const Step& step) {
  std::vector<std::unique_ptr<Normalizer>> steps;
  if (step.flag("clean_text", true)) {
    steps.push_back(std::make_unique<Filter>(Property::clean_removed, Property::clean_space, true));
  }
  if (step.flag("handle_chinese_chars", true)) steps.push_back(std::make_unique<SpaceChinese>());
  const bool lowercase = step.flag("lowercase", true);
  if (step.flag("strip_accents", lowercase)) {
    steps.push_back(std::make_unique<NormalForm>(Form::nfd));
    steps.push_back(std::make_unique<Filter>(Property::nonspacing, Property::nonspacing, false));
  }
  if (lowercase) steps.push_back(std::make_unique<Lowercase>());
  return std::make_unique<Chain>(std::move(steps));
}

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(Buffer& buffer) const override {
    size_t first = buffer.text.size();
    size_t last = 0;
    each_character(buffer.text, [&](const Character& c, size_t at) {
      if (properties_of(c.code).is(Property::rust_space)) return;
      first = std::min(first, at);
      last = at + c.length;
    });
    Rewriter out(buffer);
    const size_t end = right_ ? last : buffer.text.size();
    const size_t start = left_ ? std::min(first, end) : 0;
    if (start < end) out.copy(start, end);
    out.finish();
  }

 private:
  bool left_, right_;
};

class ReplaceText final : public Normalizer {
 public:
  ReplaceText(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(Buffer& buffer) const override {
    Rewriter out(buffer);
    size_t at = 0;
    for (size_t found = buffer.text.find(pattern_); found != std::string::npos;
         found = buffer.text.find(pattern_, at)) {
      out.copy(at, found);
      at = found + pattern_.size();
      out.replace(content_, at);
    }
    out.copy(at, buffer.text.size());
    out.finish();
  }
  bool keeps(std::string_view text) const override {
    return text.find(pattern_) == std::string_view::npos;
  }

 private:
  std::string pattern_, content_;
};

class ReplacePattern final : public Normalizer {
 public:
  ReplacePattern(const std::string& pattern, std::string content)
      : pattern_(Pattern::compile(pattern)), content_(std::move(content)) {}
  void apply(Buffer& buffer) const override {
    Rewriter out(buffer);
    size_t copied = 0;
    pattern_->each_match(buffer.text, [&](size_t start, size_t stop) {
      out.copy(copied, start);
      copied = stop;
      out.replace(content_, stop);
    });
    out.copy(copied, buffer.text.size());
    out.finish();
  }

 private:
  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
};

class Around final : public Normalizer {
 public:
  Around(std::string before, std::string after)
      : before_(std::move(before)), after_(std::move(after)) {}
  void apply(Buffer& buffer) const override {
    const size_t size = buffer.text.size();
    if (size == 0) return;
    Rewriter out(buffer);
    out.put_before(before_, 0);
    out.copy(0, size);
    out.put(after_, size, size);
    out.finish();
  }

 private:
  std::string before_, after_;
};

class ByteCharacters final : public Normalizer {
 public:
  void apply(Buffer& buffer) const override {
    Rewriter out(buffer);
    each_character(buffer.text, [&](const Character& c, size_t at) {
      for (size_t i = at; i < at + c.length; ++i) {
        const auto byte = static_cast<unsigned char>(buffer.text[i]);
        out.put_code(character_of_byte(byte), at, at + c.length);
      }
    });
    out.finish();
  }
};

// Hugging Face looks up whole grapheme clusters of less than 6 bytes, else single characters, and
// takes the shortest key that the lookup meets.
class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(const std::string& blob) : map_(blob) {}
  void apply(Buffer& buffer) const override {
    Rewriter out(buffer);
    if (buffer.tracked) {
      Changes changes;
      each_part(buffer.text, [&changes](std::string_view old, std::string_view replacement) {
        changes.put(old, replacement);
      });
      for (const auto& [code, taken] : changes.list) out.change(code, taken);
    } else {
      each_part(buffer.text, [&out](std::string_view, std::string_view replacement) {
        out.put(replacement, 0, 0);
      });
    }
    out.finish();
  }

 private:
  // What Rewriter::change takes, for the whole text. Characters that become nothing are taken by
  // the one before, by none at the start of the text: all places after are then one too low, in the
  // original too.
  struct Changes {
    std::vector<std::pair<uint32_t, int64_t>> list;

    void put(std::string_view old, std::string_view replacement) {
      int64_t left = 0;
      each_character(old, [&left](const Character&, size_t) { ++left; });
      each_character(replacement, [&](const Character& c, size_t) {
        list.emplace_back(c.code, left > 0 ? 0 : 1);
        --left;
      });
      if (left > 0 && !list.empty()) list.back().second -= left;
    }
  };

  // Calls use(old, replacement) for the parts of the text in order; they are one where nothing
  // changes.
  template <typename Use>
  void each_part(std::string_view text, Use use) const {
    const auto part = [&](std::string_view old) {
      const CharsMap::Match match = map_.shortest(old);
      if (match.length != 0) use(old, match.replacement);
      return match.length != 0;
    };
    for (size_t at = 0; at < text.size();) {
      const size_t end = at + grapheme_length(text.substr(at));
      if (end - at < 6 && part(text.substr(at, end - at))) at = end;
      while (at < end) {
        const size_t length = decode_utf8(text.data() + at, text.data() + text.size()).length;
        const std::string_view old = text.substr(at, length);
        if (!part(old)) use(old, old);
        at += length;
      }
    }
  }
  CharsMap map_;
};

// What SentencePiece does to text: the character map by longest keys, spaces to U+2581, one put in
// front, runs of them collapsed.
class SentencePiece final : public Normalizer {
 public:
  explicit SentencePiece(const Step& step)
      : prefix_(step.flag("add_dummy_prefix")),
        collapse_(step.flag("remove_extra_whitespaces")),
        escape_(step.flag("escape_whitespaces", true)),
        suffix_(step.flag("treat_whitespace_as_suffix")),
        keep_invalid_(step.flag("keep_invalid")) {
    const std::string blob = step.text("charsmap");
    if (!blob.empty()) map_ = std::make_unique<CharsMap>(blob);
    std::string symbols = step.text("symbols");  // user-defined ones, each ending in NUL
    for (size_t at = 0; at < symbols.size();) {
      const size_t end = symbols.find('\0', at);
      if (end > at) symbols_.push_back(symbols.substr(at, end - at));
      at = end + 1;
    }
    std::sort(symbols_.begin(), symbols_.end(),
              [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
    for (const std::string& s : symbols_) starts_[static_cast<unsigned char>(s[0])] = true;
  }

  void apply(Buffer& buffer) const override {
    const std::string_view text = buffer.text;
    const std::string_view space = escape_ ? kSpaceSymbol : std::string_view(" ");
    Rewriter out(buffer);
    size_t at = 0;
    while (collapse_ && at < text.size()) {
      const Next step = next(text, at);
      if (step.text != " ") break;
      at += step.length;
    }
    if (at == text.size()) return out.finish();
    if (prefix_ && !suffix_) out.put(space, at, at);
    const bool plain = !map_ && symbols_.empty() && !collapse_;
    if (plain && (keep_invalid_ || valid_until(text, 0) == text.size())) {
      mark_spaces(text, space, out);
    } else {
      map_text(text, at, space, out);
    }
    if (collapse_) out.trim(space);
    if (prefix_ && suffix_) out.put(space, text.size(), text.size());
    out.finish();
  }

 private:
  struct Next {
    std::string_view text;
    size_t length;  // bytes of the input it stands for
  };

  // Nothing but spaces changes.
  static void mark_spaces(std::string_view text, std::string_view space, Rewriter& out) {
    for (size_t at = 0; at < text.size();) {
      const size_t found = std::min(text.find(' ', at), text.size());
      out.copy(at, found);
      if (found == text.size()) return;
      out.put(space, found, found + 1);
      at = found + 1;
    }
  }

  void map_text(std::string_view text, size_t at, std::string_view space, Rewriter& out) const {
    bool after_space = collapse_;
    while (at < text.size()) {
      const Next step = next(text, at);
      std::string_view rest = step.text;
      while (after_space && !rest.empty() && rest[0] == ' ') rest.remove_prefix(1);
      for (const char& c : rest) {
        out.put(c == ' ' ? space : std::string_view(&c, 1), at, at + step.length);
      }
      after_space = collapse_ && (rest.empty() ? after_space : rest.back() == ' ');
      at += step.length;
    }
  }

  Next next(std::string_view text, size_t at) const {
    const std::string_view rest = text.substr(at);
    if (starts_[static_cast<unsigned char>(rest[0])]) {
      for (const std::string& s : symbols_) {
        if (rest.substr(0, s.size()) == s) return {rest.substr(0, s.size()), s.size()};
      }
    }
    if (map_) {
      const CharsMap::Match match = map_->longest(rest);
      if (match.length != 0) return {match.replacement, match.length};
    }
    const Character c = decode_utf8(rest.data(), rest.data() + rest.size());
    if (!c.valid && !keep_invalid_) return {"\xEF\xBF\xBD", 1};
    return {rest.substr(0, c.length), c.length};
  }

  bool prefix_, collapse_, escape_, suffix_, keep_invalid_;
  std::unique_ptr<CharsMap> map_;
  std::vector<std::string> symbols_;
  std::array<bool, 256> starts_{};
};

class ReplaceInvalid final : public Normalizer {
 public:
  bool keeps(std::string_view text) const override { return valid_until(text, 0) == text.size(); }
  void apply(Buffer& buffer) const override {
    const std::string_view text = buffer.text;
    Rewriter out(buffer);
    for (size_t at = 0; at < text.size();) {
      const size_t until = valid_until(text, at);
      out.copy(at, until);
      at = until;
      if (at == text.size()) break;
      const auto byte = [&](size_t i) {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
      };
      if (byte(0) == 0xC0 && byte(1) == 0x80) {
        out.put({"\0", 1}, at, at + 2);
        at += 2;
      } else if (byte(0) == 0xED && byte(1) >= 0xA0 && byte(1) < 0xC0 && (byte(2) & 0xC0) == 0x80) {
        out.copy(at, at + 3);
        at += 3;
      } else {
        out.put("\xEF\xBF\xBD", at, at + 1);
        at += 1;
      }
    }
    out.finish();
  }
};

std::unique_ptr<Normalizer> make_replace(const Step& step) {
  if (!step.text("regex").empty()) {
    return std::make_unique<ReplacePattern>(step.text("regex"), step.text("content"));
  }
  if (step.text("string").empty()) {
    throw Error(ErrorKind::unsupported, "a Replace of nothing is not supported");
  }
  return std::make_unique<ReplaceText>(step.text("string"), step.text("content"));
}

}  // namespace

std::unique_ptr<Normalizer> make_replace_invalid() { return std::make_unique<ReplaceInvalid>(); }

std::unique_ptr<Normalizer> make_normalizer(const Step& step) {
  const std::string& type = step.type;
  if (type == "NFC") return std::make_unique<NormalForm>(Form::nfc);
  if (type == "NFD") return std::make_unique<NormalForm>(Form::nfd);
  if (type == "NFKC") return std::make_unique<NormalForm>(Form::nfkc);
  if (type == "NFKD") return std::make_unique<NormalForm>(Form::nfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") {
    return std::make_unique<Filter>(Property::accent, Property::accent, false);
  }
  if (type == "Nmt")
    return std::make_unique<Filter>(Property::nmt_removed, Property::nmt_space, true);
  if (type == "BertNormalizer") return make_clean_and_fold(step);
  if (type == "Strip") {
    return std::make_unique<Strip>(step.flag("strip_left", true), step.flag("strip_right", true));
  }
  if (type == "Replace") return make_replace(step);
  if (type == "Prepend") return std::make_unique<Around>(step.text("prepend"), "");
  if (type == "Append") return std::make_unique<Around>("", step.text("append"));
  if (type == "ByteLevel") return std::make_unique<ByteCharacters>();
  if (type == "Precompiled") return std::make_unique<Precompiled>(step.text("charsmap"));
  if (type == "SentencePiece") return std::make_unique<SentencePiece>(step);
  throw Error(ErrorKind::unsupported, "normalizer " + type + " is not supported");
}

}  // namespace tokamak::text
