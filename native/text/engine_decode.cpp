// Token ids to text: the other half of the engine.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/engine.h"

namespace tokamak::text {

void Engine::check_ids(const int32_t* ids, size_t count) const {
  const uint32_t size = vocab_size();
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) bad |= static_cast<uint32_t>(ids[i]) >= size ? 1u : 0u;
  if (bad == 0) return;
  for (size_t i = 0; i < count; ++i) {
    if (static_cast<uint32_t>(ids[i]) < size) continue;
    throw Error(ErrorKind::invalid_params,
                "token id " + std::to_string(ids[i]) + " at index " + std::to_string(i) +
                    " is outside the vocabulary of " + std::to_string(size));
  }
}

std::string Engine::decode(const int32_t* ids, size_t count, bool skip_special, bool strip_space,
                           bool as_text) const {
  check_ids(ids, count);
  const auto shown = [&](uint32_t id) {
    return !(skip_special && parts_.is_special[id]) && !parts_.is_absent[id];
  };
  if (!parts_.decoders.empty() || parts_.join_with_space) {
    std::vector<uint32_t> kept;
    for (size_t i = 0; i < count; ++i) {
      if (shown(static_cast<uint32_t>(ids[i]))) kept.push_back(static_cast<uint32_t>(ids[i]));
    }
    return decode_by_steps(kept);
  }
  std::string out;
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    if (i + 16 < count) parts_.texts.prefetch_place(static_cast<uint32_t>(ids[i + 16]));
    total += parts_.texts[static_cast<uint32_t>(ids[i])].size();
  }
  out.reserve(total);
  size_t run = 0;  // bytes at the end that came from byte tokens
  const auto close_run = [&]() {
    const std::string_view bytes = std::string_view(out).substr(out.size() - run);
    if (run != 0 && valid_until(bytes, 0) != run) {
      out.resize(out.size() - run);
      for (; run > 0; --run) out.append("\xEF\xBF\xBD");
    }
    run = 0;
  };
  bool strip = strip_space && parts_.options.strip_space;
  const auto is_byte = [&](int32_t id) { return parts_.is_byte[static_cast<uint32_t>(id)]; };
  const bool runs = as_text && parts_.byte_runs && std::any_of(ids, ids + count, is_byte);
  const bool strip_whole = strip && !parts_.options.strip_each && parts_.surface_id == kNone;
  if (!runs && !skip_special && (!strip || strip_whole)) {  // absent ids have no text
    out = join(ids, count, total);
    if (strip_whole && out.starts_with(' ')) out.erase(0, 1);
    return out;
  }
  for (size_t i = 0; i < count; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    if (!shown(id)) continue;
    if (runs && !parts_.is_byte[id]) close_run();
    std::string_view text = parts_.texts[id];
    if (strip && out.empty() && !text.empty()) {
      if (text[0] == ' ' && id != parts_.surface_id) text.remove_prefix(1);
      strip = parts_.options.strip_each;
    }
    out.append(text);
    if (runs && parts_.is_byte[id]) run += text.size();  // 0: a space that was stripped
  }
  if (runs) close_run();
  return out;
}

// The texts of ids, one after the other: `total` bytes. Copies 16 bytes at a time, past the end of
// short ones.
std::string Engine::join(const int32_t* ids, size_t count, size_t total) const {
  std::string out(total + Arena::kPadding, '\0');
  char* at = out.data();
  constexpr size_t kAhead = 8;
  for (size_t i = 0; i < count; ++i) {
    if (i + 2 * kAhead < count) {
      parts_.texts.prefetch_place(static_cast<uint32_t>(ids[i + 2 * kAhead]));
      parts_.texts.prefetch_bytes(static_cast<uint32_t>(ids[i + kAhead]));
    }
    const std::string_view text = parts_.texts[static_cast<uint32_t>(ids[i])];
    std::memcpy(at, text.data(), Arena::kPadding);
    if (text.size() > Arena::kPadding) std::memcpy(at, text.data(), text.size());
    at += text.size();
  }
  out.resize(total);
  return out;
}

std::string Engine::decode_by_steps(const std::vector<uint32_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const uint32_t id : ids) tokens.emplace_back(parts_.texts[id]);
  for (const auto& decoder : parts_.decoders) decoder->apply(tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i != 0 && parts_.join_with_space) out.push_back(' ');
    out += tokens[i];
  }
  return out;
}

}  // namespace tokamak::text
