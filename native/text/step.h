// One step of a tokenizer file (a normalizer, pre-tokenizer or decoder) as its file names it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"

namespace tokamak::text {

struct Step {
  using Value = std::variant<bool, int64_t, std::string>;
  std::string type;
  std::map<std::string, Value> options;

  template <typename T>
  T get(const std::string& key, T otherwise) const {
    const auto it = options.find(key);
    if (it == options.end()) return otherwise;
    if (const T* value = std::get_if<T>(&it->second)) return *value;
    throw Error(ErrorKind::tokenizer_file, type + "." + key + " has the wrong type");
  }
  std::string text(const std::string& key) const { return get<std::string>(key, {}); }
  bool flag(const std::string& key, bool otherwise = false) const { return get(key, otherwise); }
};

}  // namespace tokamak::text
