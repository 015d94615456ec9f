// Canonical and compatibility forms, and lower case, by tables of the Unicode version that is
// followed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/buffer.h"

namespace tokamak::text {

enum class Form { nfc, nfd, nfkc, nfkd };

class NormalizationTables {
 public:
  // lines: as tools/generate_unicode.py writes them. Throws TokenizerFileError if malformed.
  explicit NormalizationTables(std::string_view lines);

  // Those that go with the classes that this thread uses; throws UnavailableError before they are
  // loaded.
  static std::shared_ptr<const NormalizationTables> current();
  // name: of the classes that they go with.
  static void load(const std::string& name, std::shared_ptr<const NormalizationTables> tables);

  void apply(Form form, Buffer& buffer) const;
  void lowercase(Buffer& buffer) const;

 private:
  enum Flag : uint8_t {
    kCanonical = 1,   // NFD changes it
    kCompatible = 2,  // NFKD changes it
    kMark = 4,        // combining class is not 0
    kSecond = 8,      // may compose with what is before it
    kCased = 16,      // has a lower case
  };
  struct Item {
    uint32_t code;
    uint8_t combining;
    int64_t taken;  // of the characters of the text, see Rewriter::change
  };
  using Map = std::unordered_map<uint32_t, std::u32string>;

  uint8_t flags(uint32_t code) const { return pages_[page_of_[code >> 7]][code & 127]; }
  void set_flag(uint32_t code, uint8_t flag);
  uint8_t combining_class(uint32_t code) const;
  void decompose(uint32_t code, bool compatible, std::vector<Item>& out) const;
  uint32_t compose(uint32_t first, uint32_t second) const;
  void compose_all(std::vector<Item>& items) const;

  Map canonical_, compatible_, lower_;
  std::unordered_map<uint32_t, uint8_t> combining_;
  std::unordered_map<uint64_t, uint32_t> pairs_;
  std::array<uint16_t, (kEndOfText >> 7)> page_of_{};
  std::vector<std::array<uint8_t, 128>> pages_;
};

}  // namespace tokamak::text
