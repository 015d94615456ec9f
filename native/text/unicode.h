// Character classes of one Unicode version, as sets of code points that patterns are built from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tokamak::text {

// A set of code points as rising, disjoint, inclusive ranges; kEndOfText may be a member.
class CodeSet {
 public:
  struct Range {
    uint32_t first, last;
    bool operator==(const Range&) const = default;
  };

  CodeSet() = default;
  static CodeSet of(uint32_t first, uint32_t last);
  // A general category or its first letter ("Lu", "L"), a script ("Han"), "White_Space" or "Word";
  // throws UnsupportedError for any other name.
  static CodeSet property(std::string_view name);

  void add(uint32_t first, uint32_t last);
  void add(const CodeSet& other);
  // Everything else below kEndOfText; with_end also turns membership of kEndOfText around.
  CodeSet complement(bool with_end) const;
  CodeSet intersect(const CodeSet& other) const;
  bool contains(uint32_t c) const;
  const std::vector<Range>& ranges() const { return ranges_; }
  bool operator==(const CodeSet&) const = default;

 private:
  void normalize();
  std::vector<Range> ranges_;
};

// What single characters are asked for outside patterns; values are places in kProperties.
enum class Property : uint8_t {
  white_space = 30,  // \s of the followed regex engine
  word = 31,         // \w
  numeric = 42,      // Rust's char::is_numeric
  punctuation,       // of BertPreTokenizer and Punctuation
  rust_space,        // Rust's char::is_whitespace
  accent,            // what StripAccents removes
  nonspacing,        // what BertNormalizer removes as accents
  clean_removed,     // ... as control characters
  clean_space,       // ... turns into a space
  chinese,           // ... puts spaces around
  nmt_removed,
  nmt_space,
  gcb_control,  // Grapheme_Cluster_Break
  gcb_extend,
  gcb_zwj,
  gcb_prepend,
  gcb_spacing,
  gcb_l,
  gcb_v,
  gcb_t,
  gcb_lv,
  gcb_lvt,
  gcb_regional,
  pictographic,  // 63
};

struct Properties {
  uint64_t bits;
  bool is(Property p) const { return (bits >> static_cast<unsigned>(p) & 1) != 0; }
};

// Tables of one followed release; "" are those built in.
struct ClassTable;
// Add tables under a name: properties of each class by bits of kProperties, and rising runs of
// first code point << 8 | class. Throws TokenizerFileError if malformed.
void load_classes(const std::string& name, std::vector<uint64_t> properties,
                  std::vector<uint32_t> runs);
// Throws UnavailableError where they were not loaded.
const ClassTable* class_table(const std::string& name);

// While it lives, what this thread asks about characters is answered by that table.
class UnicodeScope {
 public:
  explicit UnicodeScope(const ClassTable* table);
  ~UnicodeScope();
  UnicodeScope(const UnicodeScope&) = delete;
  UnicodeScope& operator=(const UnicodeScope&) = delete;

 private:
  const ClassTable* before_;
};

const char* unicode_version();  // of the tables built in
// Of the tables that this thread uses.
const std::string& unicode_name();
Properties properties_of(uint32_t c);
inline bool is_white_space(uint32_t c) { return properties_of(c).is(Property::white_space); }
inline bool is_word(uint32_t c) { return properties_of(c).is(Property::word); }

}  // namespace tokamak::text
