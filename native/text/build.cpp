#include "text/build.h"

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "text/bytes.h"
#include "text/unigram.h"
#include "text/utf8.h"
#include "text/words.h"

namespace tokamak::text {

namespace {

constexpr size_t kMaxTokens = 2'000'000;

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::tokenizer_file, what); }

std::string spaces_for_symbols(std::string_view s) {
  std::string out;
  for (size_t at = 0; at < s.size();) {
    const bool symbol = s.substr(at, 3) == kSpaceSymbol;
    out.push_back(symbol ? ' ' : s[at]);
    at += symbol ? 3 : 1;
  }
  return out;
}

class Builder {
 public:
  Builder(const TokenizerParts& parts, Archive* image) : parts_(parts), image_(image) {}

  std::unique_ptr<Engine> build() {
    check();
    EngineParts engine;
    for (const Step& s : parts_.normalizers) engine.normalizers.push_back(make_normalizer(s));
    engine.normalized = AddedTokens(normalized_tokens(engine.normalizers));
    if (image_ == nullptr) {
      engine.model = make_model();
      engine.texts = texts(engine.normalized.tokens());
    } else {
      engine.model = empty_model();
      engine.tables(*image_);
      if (engine.texts.size() != size()) refuse("the image is of another vocabulary");
    }
    for (const Step& s : parts_.pre_tokenizers) add_pre_tokenizer(s, engine);
    for (const Step& s : parts_.decoders) engine.decoders.push_back(make_decoder(s));
    engine.raw_cut =
        RawCut::of(parts_.normalizers, parts_.pre_tokenizers, engine.model->splits_at_spaces());
    engine.join_with_space = parts_.join_with_space;
    engine.byte_runs = parts_.byte_runs;
    engine.is_special.resize(size());
    engine.is_absent.resize(size());
    engine.is_byte.resize(size());
    for (uint32_t id = 0; id < size(); ++id) {
      if (role(id) == Role::absent) engine.is_absent[id] = true;
      if (parts_.space_texts && byte_token(parts_.tokens[id]) >= 0) engine.is_byte[id] = true;
    }
    for (const auto* tokens : {&parts_.added, &parts_.normalized}) {
      for (const AddedToken& t : *tokens)
        engine.is_special[t.id] = engine.is_special[t.id] || t.special;
    }
    if (!parts_.raw_added) rename_specials(engine);
    if (parts_.kind == "unigram") engine.shown_id = unknown_id();
    if (!parts_.unknown_text.empty() && unknown_id() != kNone) {
      engine.surface_id = unknown_id();
      engine.is_special[unknown_id()] = false;
    }
    engine.added = AddedTokens(parts_.added);
    engine.options = parts_.options;
    return std::make_unique<Engine>(std::move(engine));
  }

 private:
  size_t size() const { return parts_.tokens.size(); }
  Role role(uint32_t id) const { return static_cast<Role>(parts_.roles[id]); }
  uint32_t unknown_id() const {
    const bool there = parts_.unknown_id >= 0 && static_cast<size_t>(parts_.unknown_id) < size();
    return there ? static_cast<uint32_t>(parts_.unknown_id) : kNone;
  }

  void check() const {
    parts_.tokens.check("tokens");
    if (image_ == nullptr) parts_.merges.check("merges");
    if (size() == 0) refuse("the vocabulary is empty");
    if (size() > kMaxTokens) refuse("the vocabulary has more than 2,000,000 tokens");
    if (parts_.merges.size() > kMaxTokens) refuse("there are more than 2,000,000 merges");
    if (parts_.roles.size() != size()) refuse("token types and tokens differ in number");
    for (const auto* tokens : {&parts_.added, &parts_.normalized}) {
      for (const AddedToken& t : *tokens) {
        if (t.id >= size()) refuse("an added token lies outside the vocabulary");
      }
    }
    for (const auto* ids : {&parts_.options.prefix, &parts_.options.suffix}) {
      for (const int32_t id : *ids) {
        if (id < 0 || static_cast<size_t>(id) >= size())
          refuse("a special token lies outside the vocabulary");
      }
    }
  }

  // Hugging Face leaves out by name: an added token is special if its normalized form is the
  // content of a special one.
  void rename_specials(EngineParts& engine) const {
    std::unordered_set<std::string_view> names;
    for (const auto* tokens : {&parts_.added, &parts_.normalized}) {
      for (const AddedToken& t : *tokens) {
        if (t.special) names.insert(t.content);
      }
    }
    for (const AddedToken& t : engine.normalized.tokens()) {
      engine.is_special[t.id] = names.contains(t.content);
    }
  }

  static void add_pre_tokenizer(const Step& step, EngineParts& engine) {
    const bool nothing = step.type == "ByteLevel" && !step.flag("use_regex", true) &&
                         !step.flag("add_prefix_space", true) && !step.flag("map_bytes");
    if (!nothing) engine.pre_tokenizers.push_back(make_pre_tokenizer(step));
  }

  // Hugging Face finds them in normalized text by their own normalized form.
  std::vector<AddedToken> normalized_tokens(
      const std::vector<std::unique_ptr<Normalizer>>& normalizers) const {
    std::vector<AddedToken> tokens;
    for (AddedToken t : parts_.normalized) {
      Buffer buffer;
      buffer.assign(t.content, 0);
      for (const auto& n : normalizers) n->apply(buffer);
      if (!t.verbatim) t.content = buffer.text;
      if (t.content.empty()) {  // it would be found between any two bytes
        throw Error(ErrorKind::unsupported, "added token " + std::to_string(t.id) +
                                                " normalizes to nothing: not supported");
      }
      tokens.push_back(std::move(t));
    }
    return tokens;
  }

  std::unique_ptr<Model> make_model() {
    if (parts_.kind == "bpe" || parts_.kind == "ranks") return byte_level_model();
    if (parts_.kind == "characters") return character_model();
    if (parts_.kind == "spm") return sentencepiece_model();
    if (parts_.kind == "unigram") return unigram_model();
    if (parts_.kind == "wordpiece") {
      return std::make_unique<WordPieceModel>(
          all_tokens(), parts_.start, parts_.prefix,
          static_cast<size_t>(std::max<int64_t>(0, parts_.max_word)), unknown_id());
    }
    if (parts_.kind == "trie") return std::make_unique<LongestMatchModel>(all_tokens());
    if (parts_.kind == "words") return std::make_unique<WordLevelModel>(all_tokens(), unknown_id());
    throw Error(ErrorKind::unsupported, "tokenizer model " + parts_.kind + " is not supported");
  }

  // The same with its options only; its tables come from the image.
  std::unique_ptr<Model> empty_model() const {
    const std::string& kind = parts_.kind;
    if (kind == "bpe" || kind == "ranks") return std::make_unique<MergeModel>(byte_options());
    if (kind == "spm") return std::make_unique<MergeModel>(sentencepiece_options());
    if (kind == "characters") return std::make_unique<CharacterBpe>(character_options());
    if (kind == "unigram") return std::make_unique<UnigramModel>(unigram_options());
    if (kind == "wordpiece") return std::make_unique<WordPieceModel>();
    if (kind == "trie") return std::make_unique<LongestMatchModel>();
    if (kind == "words") return std::make_unique<WordLevelModel>();
    throw Error(ErrorKind::unsupported, "tokenizer model " + kind + " is not supported");
  }

  MergeOptions byte_options() const {
    MergeOptions options;
    options.whole_words = parts_.ignore_merges;
    options.fuse_unknown = parts_.fuse_unknown;
    options.unknown_id = parts_.raw_added ? kNone : unknown_id();
    options.byte_ids.fill(kNone);
    return options;
  }

  MergeOptions sentencepiece_options() const {
    MergeOptions options;
    options.byte_symbols = false;
    options.fuse_unknown = parts_.fuse_unknown;
    options.unknown_id = unknown_id();
    options.byte_ids.fill(kNone);
    return options;
  }

  CharacterBpeOptions character_options() const {
    CharacterBpeOptions options;
    options.prefix = parts_.prefix;
    options.suffix = parts_.suffix;
    options.whole_words = parts_.ignore_merges;
    options.byte_fallback = parts_.byte_fallback;
    options.fuse_unknown = parts_.fuse_unknown;
    options.unknown_id = unknown_id();
    return options;
  }

  UnigramOptions unigram_options() const {
    UnigramOptions options;
    options.arithmetic = parts_.float_sums ? Arithmetic::float_sums : Arithmetic::double_sums;
    options.unknown_id = unknown_id();
    options.byte_fallback = parts_.byte_fallback;
    options.byte_ids.fill(kNone);
    return options;
  }

  // Strings that a word may be: of tokens that the model itself has.
  Arena all_tokens() const {
    Arena arena;
    arena.reserve(size(), parts_.tokens.blob.size());
    for (uint32_t id = 0; id < size(); ++id) {
      const bool hidden = parts_.kind == "trie" && role(id) != Role::normal;
      arena.add(in_model(id) && !hidden ? parts_.tokens[id] : std::string_view());
    }
    return arena;
  }
  // Added tokens of tokenizer.json files are often tokens of the model too; the reader marks those
  // that are not.
  bool in_model(uint32_t id) const {
    return parts_.raw_added ? role(id) != Role::absent
                            : role(id) != Role::absent && role(id) != Role::user_defined;
  }

  // normalized: added tokens in the form that they are found in, which tokenizer.json files show.
  Arena texts(const std::vector<AddedToken>& normalized) const {
    std::vector<bool> raw(size());
    std::unordered_map<uint32_t, std::string_view> shown;
    for (const AddedToken& t : normalized) {
      if (!parts_.raw_added) shown[t.id] = t.content;
    }
    if (parts_.raw_added) {
      for (const AddedToken& t : parts_.added) raw[t.id] = true;
    }
    Arena arena;
    arena.reserve(size(), parts_.tokens.blob.size());
    std::string bytes;
    for (uint32_t id = 0; id < size(); ++id) {
      const auto form = shown.find(id);
      const std::string_view token = form == shown.end() ? parts_.tokens[id] : form->second;
      const int byte = parts_.space_texts && role(id) != Role::control ? byte_token(token) : -1;
      if (role(id) == Role::unknown && !parts_.unknown_text.empty()) {
        arena.add(parts_.unknown_text);
      } else if (raw[id] && !(parts_.space_texts && role(id) == Role::user_defined)) {
        arena.add(token);
      } else if (byte >= 0) {
        const char b = static_cast<char>(byte);
        arena.add({&b, 1});
      } else if (parts_.space_texts) {
        arena.add(spaces_for_symbols(token));
      } else if (parts_.byte_texts && bytes_of(token, bytes)) {
        arena.add(bytes);
      } else {
        arena.add(token);
      }
    }
    return arena;
  }

  std::unique_ptr<Model> byte_level_model() {
    MergeOptions options = byte_options();
    std::vector<bool> added(size());
    for (const AddedToken& t : parts_.added) added[t.id] = parts_.raw_added;
    Arena pieces;
    std::vector<uint32_t> lookup;
    std::vector<uint32_t> second;  // added tokens are found by their string after all others
    std::string bytes;
    pieces.reserve(size(), parts_.tokens.blob.size());
    for (uint32_t id = 0; id < size(); ++id) {
      const bool mapped = in_model(id) && bytes_of(parts_.tokens[id], bytes);
      pieces.add(mapped ? std::string_view(bytes) : std::string_view());
      (added[id] ? second : lookup).push_back(id);
      if (mapped && bytes.size() == 1 && !added[id]) {
        uint32_t& slot = options.byte_ids[static_cast<unsigned char>(bytes[0])];
        if (slot == kNone) slot = id;
      }
    }
    lookup.insert(lookup.end(), second.begin(), second.end());
    auto model = std::make_unique<MergeModel>(std::move(pieces), lookup, options);
    if (parts_.kind == "ranks") {
      if (parts_.scores.size() != size()) refuse("scores and tokens differ in number");
      model->add_merges_by_score(lookup, {parts_.scores.begin(), parts_.scores.end()});
      model->finish();
      return model;
    }
    model->reserve_merges(parts_.merges.size());
    add_byte_merges(*model);
    model->finish();
    return model;
  }

  // Many merges at once: nearly all their time is waiting for memory.
  void add_byte_merges(MergeModel& model) const {
    constexpr size_t kBlock = 32;
    MergeModel::Search searches[3 * kBlock];
    std::vector<char> bytes;
    uint32_t last = 0;  // what a merge makes is mostly the same token again, or the next
    for (size_t first = 0; first < parts_.merges.size(); first += kBlock) {
      const size_t count = std::min(kBlock, parts_.merges.size() - first);
      size_t most = 0;
      for (size_t i = first; i < first + count; ++i) most += parts_.merges[i].size();
      if (bytes.size() < most) bytes.resize(most);
      char* at = bytes.data();
      for (size_t i = 0; i < count; ++i) {
        const auto [a, b] = merge_at(first + i);
        const size_t left = bytes_of(a, at);
        const size_t right = left == kNotBytes ? kNotBytes : bytes_of(b, at + left);
        if (right == kNotBytes) refuse_merge(first + i, "is not in the byte alphabet");
        searches[3 * i] = model.search({at, left});
        searches[3 * i + 1] = model.search({at + left, right});
        const std::string_view whole(at, left + right);
        last += model.is(whole, last) ? 0 : 1;
        searches[3 * i + 2] =
            model.is(whole, last) ? MergeModel::Search{whole, 0, last} : model.search(whole);
        at += left + right;
      }
      model.find_all({searches, 3 * count});
      last = searches[3 * count - 1].id;
      for (size_t i = 0; i < count; ++i) {
        const MergeModel::Search* s = searches + 3 * i;
        check_merge(first + i, s[0].id, s[1].id, s[2].id);
        model.prefetch_merge(s[0].id, s[1].id);
      }
      for (size_t i = 0; i < count; ++i) {
        const MergeModel::Search* s = searches + 3 * i;
        model.add_merge(s[0].id, s[1].id, {static_cast<uint32_t>(first + i), s[2].id});
      }
    }
  }

  std::unique_ptr<Model> character_model() {
    const CharacterBpeOptions options = character_options();
    auto model = std::make_unique<CharacterBpe>(all_tokens(), options);
    model->reserve_merges(parts_.merges.size());
    each_merge([&](size_t rank, std::string_view a, std::string_view b) {
      if (b.size() < parts_.prefix.size()) refuse_merge(rank, "lacks the continuing prefix");
      const uint32_t first = model->find(a);
      const uint32_t second = model->find(b);
      const uint32_t whole =
          model->find(std::string(a) + std::string(b.substr(parts_.prefix.size())));
      check_merge(rank, first, second, whole);
      model->add_merge(first, second, {static_cast<uint32_t>(rank), whole});
    });
    model->finish();
    return model;
  }

  template <typename Use>
  void each_merge(Use use) const {
    for (size_t i = 0; i < parts_.merges.size(); ++i) {
      const auto [left, right] = merge_at(i);
      use(i, left, right);
    }
  }
  std::pair<std::string_view, std::string_view> merge_at(size_t i) const {
    const std::string_view merge = parts_.merges[i];
    size_t cut = merge.find('\0');
    if (cut == std::string_view::npos) cut = merge.find(' ', 1);
    if (cut == std::string_view::npos) refuse_merge(i, "does not name two tokens");
    return {merge.substr(0, cut), merge.substr(cut + 1)};
  }
  void check_merge(size_t i, uint32_t a, uint32_t b, uint32_t whole) const {
    if (a == kNone || b == kNone || whole == kNone) {
      refuse_merge(i, "names a token that the vocabulary lacks");
    }
  }
  [[noreturn]] void refuse_merge(size_t i, const char* what) const {
    refuse("merge " + std::to_string(i) + " " + what + ": " + std::string(parts_.merges[i]));
  }

  std::unique_ptr<Model> sentencepiece_model() {
    if (parts_.scores.size() != size()) refuse("scores and tokens differ in number");
    MergeOptions options = sentencepiece_options();
    options.byte_ids = byte_ids();
    Arena pieces;
    pieces.reserve(size(), parts_.tokens.blob.size());
    std::vector<uint32_t> mergeable;
    for (uint32_t id = 0; id < size(); ++id) {
      pieces.add(parts_.tokens[id]);
      if (is_piece(id)) mergeable.push_back(id);
    }
    auto model = std::make_unique<MergeModel>(std::move(pieces), mergeable, options);
    model->add_merges_by_score(mergeable, {parts_.scores.begin(), parts_.scores.end()});
    return model;
  }

  bool is_piece(uint32_t id) const {
    const Role r = role(id);
    return (r == Role::normal || r == Role::user_defined || r == Role::unused) &&
           !parts_.tokens[id].empty();
  }

  std::array<uint32_t, 256> byte_ids() const {
    std::array<uint32_t, 256> ids;
    ids.fill(kNone);
    for (uint32_t id = 0; id < size(); ++id) {
      const int byte = role(id) == Role::byte ? byte_token(parts_.tokens[id]) : -1;
      if (byte >= 0) ids[static_cast<size_t>(byte)] = id;
    }
    return ids;
  }

  std::unique_ptr<Model> unigram_model() {
    if (parts_.scores.size() != size()) refuse("scores and tokens differ in number");
    UnigramOptions options = unigram_options();
    options.byte_ids = byte_ids();
    Arena strings;
    std::vector<uint32_t> pieces;
    double lowest = std::numeric_limits<float>::max();
    for (uint32_t id = 0; id < size(); ++id) {
      strings.add(parts_.tokens[id]);
      const Role r = role(id);
      // sentencepiece finds normal and user-defined pieces only, and takes the lowest score of
      // normal ones.
      const bool found =
          parts_.float_sums ? r == Role::normal || r == Role::user_defined : in_model(id);
      if (!found) continue;
      pieces.push_back(id);
      if (!parts_.float_sums || r == Role::normal) lowest = std::min(lowest, parts_.scores[id]);
    }
    return std::make_unique<UnigramModel>(
        std::move(strings), pieces, std::vector<double>(parts_.scores.begin(), parts_.scores.end()),
        lowest, options);
  }

  const TokenizerParts& parts_;
  Archive* image_;
};

}  // namespace

void StringColumn::check(const char* what) const {
  int64_t previous = 0;
  bool falls = false;
  for (const int64_t at : offsets) {
    falls |= at < previous;
    previous = at;
  }
  if (falls || previous > static_cast<int64_t>(blob.size())) {
    refuse(std::string("offsets of ") + what + " are malformed");
  }
}

std::unique_ptr<Engine> build_engine(const TokenizerParts& parts, Archive* image) {
  const UnicodeScope unicode(parts.options.classes);
  return Builder(parts, image).build();
}

}  // namespace tokamak::text
