#include "text/raw_cut.h"

#include <algorithm>
#include <string>

#include "text/model.h"
#include "text/unicode.h"

namespace tokamak::text {

namespace {

constexpr char kWhite[] = {' ', '\t', '\n', '\r'};  // what pieces start with

bool is_one_of(const std::string& type, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* n) { return type == n; });
}

// How far a normalizer's work at one place depends on the text around it.
enum class Reach {
  unknown,
  bytes,   // each space or other literal by itself
  words,   // characters between two spaces; printable ASCII stays, or becomes other such
  trims,   // takes spaces at the ends of the text
  starts,  // puts something in front of the text
};

Reach reach_of(const Step& step) {
  const std::string& type = step.type;
  if (type == "Replace") {
    const std::string literal = step.text("string");
    if (literal == " ") return step.text("content") == kSpaceSymbol ? Reach::bytes : Reach::unknown;
    if (step.text("regex") == " {2,}") return Reach::words;
    const bool safe = !literal.empty() && literal.find(' ') == std::string::npos &&
                      step.text("content").find(' ') == std::string::npos;
    return safe ? Reach::words : Reach::unknown;
  }
  if (type == "Prepend")
    return step.text("prepend") == kSpaceSymbol ? Reach::starts : Reach::unknown;
  if (is_one_of(type, {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt",
                       "Precompiled", "BertNormalizer"})) {
    return Reach::words;
  }
  if (type == "Strip") return Reach::trims;
  if (type == "SentencePiece") {
    const bool plain = step.text("charsmap").empty() && step.text("symbols").empty() &&
                       !step.flag("remove_extra_whitespaces") &&
                       !step.flag("treat_whitespace_as_suffix") &&
                       step.flag("escape_whitespaces", true);
    return plain ? Reach::bytes : Reach::unknown;
  }
  return Reach::unknown;
}

Step without_prefix(Step step) {
  if (step.type == "SentencePiece") step.options["add_dummy_prefix"] = false;
  return step;
}

// White space still parts the words around it when they were normalized; a character map may take
// it away.
bool keep_white(const std::vector<std::unique_ptr<Normalizer>>& normalizers) {
  return std::all_of(std::begin(kWhite), std::end(kWhite), [&](char white) {
    Buffer buffer;
    buffer.assign(std::string{'a', white, 'b'}, 0);
    for (const auto& n : normalizers) n->apply(buffer);
    const char* p = buffer.text.data() + std::min<size_t>(1, buffer.text.size());
    const char* end = p + buffer.text.size() - std::min<size_t>(1, buffer.text.size());
    return p < end && properties_of(decode_utf8(p, end).code).is(Property::rust_space);
  });
}

}  // namespace

std::unique_ptr<const RawCut> RawCut::of(const std::vector<Step>& normalizers,
                                         const std::vector<Step>& pre_tokenizers,
                                         bool splits_at_spaces) {
  auto cut = std::make_unique<RawCut>();
  const std::string first = pre_tokenizers.empty() ? "" : pre_tokenizers[0].type;
  const bool apart = first == "BertPreTokenizer" && pre_tokenizers.size() == 1;
  const bool drops = is_one_of(first, {"BertPreTokenizer", "WhitespaceSplit"});
  const bool marks = first == "Metaspace" && pre_tokenizers.size() == 1 &&
                     pre_tokenizers[0].text("replacement") == kSpaceSymbol &&
                     (splits_at_spaces || pre_tokenizers[0].flag("split", true));
  if (!drops && !marks && !(pre_tokenizers.empty() && splits_at_spaces)) return nullptr;
  bool only_folds = true;
  bool spaces_chinese = false;
  bool only_bytes = true;
  bool marked = marks;
  for (const Step& step : normalizers) {
    const Reach reach = reach_of(step);
    if (reach == Reach::unknown || (reach == Reach::trims && !drops)) return nullptr;
    if (reach == Reach::bytes && drops) return nullptr;  // no white space would be left to drop
    if (reach == Reach::starts && drops) return nullptr;
    only_folds = only_folds && step.type == "BertNormalizer";
    spaces_chinese = spaces_chinese || (only_folds && step.flag("handle_chinese_chars", true));
    only_bytes = only_bytes && (reach == Reach::bytes || reach == Reach::starts);
    marked = marked || reach == Reach::bytes;
    if (reach != Reach::starts) cut->inner_.push_back(make_normalizer(without_prefix(step)));
  }
  if (!drops && !marked) return nullptr;
  if (drops && !keep_white(cut->inner_)) return nullptr;
  const bool singles = apart && only_folds && spaces_chinese;
  using Spaces = Cutter::Spaces;
  cut->cutter_ = Cutter::of_spaces(singles      ? Spaces::words_and_punctuation
                                   : drops      ? Spaces::words
                                   : only_bytes ? Spaces::symbols
                                                : Spaces::symbols_after_ascii);
  cut->first_is_special_ =
      !drops || std::any_of(pre_tokenizers.begin(), pre_tokenizers.end(),
                            [](const Step& s) { return s.text("prepend_scheme") == "first"; });
  if (singles) {
    const bool folds = std::any_of(normalizers.begin(), normalizers.end(),
                                   [](const Step& s) { return s.flag("lowercase", true); });
    cut->plain_ = folds ? Plain::folded_words : Plain::words;
  } else if (!drops && only_bytes) {
    cut->plain_ = Plain::symbols;
  }
  return cut;
}

size_t RawCut::piece_end(std::string_view text, size_t from) const {
  size_t at = from + 1;
  if (cutter_->starts_at_spaces()) {  // only there: the others are passed over at once
    for (at = text.find(' ', at); at < text.size(); at = text.find(' ', at + 1)) {
      if (cutter_->is_start(text, at)) return at;
    }
    return text.size();
  }
  while (at < text.size() && !cutter_->is_start(text, at)) ++at;
  return at;
}

}  // namespace tokamak::text
