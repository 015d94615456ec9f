#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

#include "text/unicode_data.inl"

constexpr const char* kProperties[] = {
    "Lu",       "Ll",    "Lt",    "Lm",          "Lo",     "Mn",  "Mc",       "Me",       "Nd",
    "Nl",       "No",    "Pc",    "Pd",          "Ps",     "Pe",  "Pi",       "Pf",       "Po",
    "Sm",       "Sc",    "Sk",    "So",          "Zs",     "Zl",  "Zp",       "Cc",       "Cf",
    "Cs",       "Co",    "Cn",    "White_Space", "Word",   "Han", "Hiragana", "Katakana", "Hangul",
    "Cyrillic", "Latin", "Greek", "Arabic",      "Hebrew", "Thai"};
constexpr size_t kNumCategories = 30;

uint64_t property_mask(std::string_view name) {
  uint64_t mask = 0;
  for (size_t i = 0; i < std::size(kProperties); ++i) {
    const std::string_view p = kProperties[i];
    if (p == name || (name.size() == 1 && i < kNumCategories && p[0] == name[0])) {
      mask |= uint64_t{1} << i;
    }
  }
  if (mask == 0) {
    throw Error(ErrorKind::unsupported,
                "character class \\p{" + std::string(name) + "} is not known here");
  }
  return mask;
}

}  // namespace

// Two-level table over the runs: class of each code point.
struct ClassTable {
  std::string name;
  std::vector<uint64_t> properties;  // of each class
  std::vector<uint32_t> runs;        // first code point << 8 | class, rising
  std::array<uint16_t, (kEndOfText >> 7)> page_of{};
  std::vector<std::array<uint8_t, 128>> pages;

  ClassTable(std::string name_, std::vector<uint64_t> properties_, std::vector<uint32_t> runs_)
      : name(std::move(name_)), properties(std::move(properties_)), runs(std::move(runs_)) {
    std::map<std::array<uint8_t, 128>, uint16_t> known;
    size_t run = 0;
    for (uint32_t page = 0; page < page_of.size(); ++page) {
      std::array<uint8_t, 128> classes;
      for (uint32_t i = 0; i < 128; ++i) {
        while (run + 1 < runs.size() && runs[run + 1] >> 8 <= page * 128 + i) ++run;
        classes[i] = static_cast<uint8_t>(runs[run]);
      }
      const auto [it, fresh] = known.emplace(classes, static_cast<uint16_t>(pages.size()));
      if (fresh) pages.push_back(classes);
      page_of[page] = it->second;
    }
  }
};

namespace {

// Tables stay until the process ends: engines point to them.
std::mutex loaded_mutex;
std::map<std::string, std::unique_ptr<const ClassTable>> loaded;
thread_local const ClassTable* in_scope = nullptr;

const ClassTable& built_in() {
  static const ClassTable table("", {std::begin(kClassProperties), std::end(kClassProperties)},
                                {std::begin(kClassRuns), std::end(kClassRuns)});
  return table;
}

const ClassTable& tables() { return in_scope != nullptr ? *in_scope : built_in(); }

}  // namespace

CodeSet CodeSet::of(uint32_t first, uint32_t last) {
  CodeSet s;
  s.ranges_.push_back({first, last});
  return s;
}

CodeSet CodeSet::property(std::string_view name) {
  const uint64_t mask = property_mask(name);
  CodeSet s;
  const ClassTable& data = tables();
  for (size_t i = 0; i < data.runs.size(); ++i) {
    if ((data.properties[data.runs[i] & 0xFF] & mask) == 0) continue;
    const uint32_t next = i + 1 < data.runs.size() ? data.runs[i + 1] >> 8 : kEndOfText;
    s.ranges_.push_back({data.runs[i] >> 8, next - 1});
  }
  s.normalize();
  return s;
}

void CodeSet::normalize() {
  std::sort(ranges_.begin(), ranges_.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<Range> merged;
  for (const Range& r : ranges_) {
    if (!merged.empty() && r.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, r.last);
    } else {
      merged.push_back(r);
    }
  }
  ranges_ = std::move(merged);
}

void CodeSet::add(uint32_t first, uint32_t last) {
  ranges_.push_back({first, last});
  normalize();
}

void CodeSet::add(const CodeSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalize();
}

CodeSet CodeSet::complement(bool with_end) const {
  CodeSet s;
  uint32_t next = 0;
  for (const Range& r : ranges_) {
    if (r.first > next) s.ranges_.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  const uint32_t last = with_end ? kEndOfText : kEndOfText - 1;
  if (next <= last) s.ranges_.push_back({next, last});
  return s;
}

CodeSet CodeSet::intersect(const CodeSet& other) const {
  CodeSet s;
  size_t i = 0;
  size_t j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const Range a = ranges_[i];
    const Range b = other.ranges_[j];
    const uint32_t first = std::max(a.first, b.first);
    const uint32_t last = std::min(a.last, b.last);
    if (first <= last) s.ranges_.push_back({first, last});
    (a.last < b.last ? i : j) += 1;
  }
  return s;
}

bool CodeSet::contains(uint32_t c) const {
  const auto it = std::upper_bound(ranges_.begin(), ranges_.end(), c,
                                   [](uint32_t v, const Range& r) { return v < r.first; });
  return it != ranges_.begin() && c <= it[-1].last;
}

const char* unicode_version() { return kUnicodeVersion; }
const std::string& unicode_name() { return tables().name; }

UnicodeScope::UnicodeScope(const ClassTable* table) : before_(std::exchange(in_scope, table)) {}
UnicodeScope::~UnicodeScope() { in_scope = before_; }

const ClassTable* class_table(const std::string& name) {
  if (name.empty()) return nullptr;
  const std::lock_guard lock(loaded_mutex);
  const auto it = loaded.find(name);
  if (it == loaded.end()) {
    throw Error(ErrorKind::unavailable, "no tables of character classes named " + name);
  }
  return it->second.get();
}

void load_classes(const std::string& name, std::vector<uint64_t> properties,
                  std::vector<uint32_t> runs) {
  const auto broken = [](const char* what) {
    throw Error(ErrorKind::tokenizer_file, std::string("tables of character classes: ") + what);
  };
  if (name.empty()) broken("they need a name");
  if (properties.empty() || properties.size() > 256) broken("there must be 1 to 256 classes");
  if (runs.empty() || runs[0] >> 8 != 0) broken("they do not begin with U+0000");
  for (size_t i = 0; i < runs.size(); ++i) {
    if ((runs[i] & 0xFF) >= properties.size()) broken("a run has a class that is not there");
    if (runs[i] >> 8 >= kEndOfText || (i != 0 && runs[i] >> 8 <= runs[i - 1] >> 8)) {
      broken("the runs do not rise");
    }
  }
  auto table = std::make_unique<const ClassTable>(name, std::move(properties), std::move(runs));
  const std::lock_guard lock(loaded_mutex);
  loaded.try_emplace(name, std::move(table));
}

Properties properties_of(uint32_t c) {
  const ClassTable& table = tables();
  return {table.properties[table.pages[table.page_of[c >> 7]][c & 127]]};
}

}  // namespace tokamak::text
