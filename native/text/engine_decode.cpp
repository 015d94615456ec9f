// Token ids to text: the other half of the engine.
#include <algorithm>
#include <mutex>
#include <utility>

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

// The table of what ids decode to after the first; null where tokens are not decoded one by one, or
// so few have been that making it would not pay.
const DecodeTable* Engine::decode_table(size_t count) const {
  const bool stepwise = !parts_.decoders.empty() || parts_.join_with_space;
  const auto each = [](const auto& d) { return d->is_local(); };
  if (!std::all_of(parts_.decoders.begin(), parts_.decoders.end(), each)) return nullptr;
  const size_t so_far = decoded_.fetch_add(count, std::memory_order_relaxed) + count;
  if (stepwise && so_far < vocab_size() / 8) return nullptr;
  std::call_once(decode_once_, [&] {
    decode_table_ = stepwise ? std::make_unique<DecodeTable>(followers())
                             : std::make_unique<DecodeTable>(&parts_.texts);
    decode_nbytes_ = decode_table_->nbytes();
  });
  return decode_table_.get();
}

// What each id decodes to where it is not the first.
Arena Engine::followers() const {
  std::vector<std::string> tokens(1);
  for (uint32_t id = 0; id < vocab_size(); ++id) tokens.emplace_back(parts_.texts[id]);
  for (const auto& decoder : parts_.decoders) decoder->apply(tokens);
  Arena arena;
  for (size_t i = 1; i < tokens.size(); ++i) {
    if (parts_.join_with_space) tokens[i].insert(0, 1, ' ');
    arena.add(tokens[i]);
  }
  return arena;
}

ByteBuffer Engine::decode(const int32_t* ids, size_t count, bool skip_special, bool strip_space,
                          bool as_text) const {
  check_ids(ids, count);
  const bool stepwise = !parts_.decoders.empty() || parts_.join_with_space;
  std::vector<int32_t> kept;
  if (skip_special || stepwise) {  // elsewhere absent ids have no text
    kept.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const auto id = static_cast<uint32_t>(ids[i]);
      if (!(skip_special && parts_.is_special[id]) && !parts_.is_absent[id]) kept.push_back(ids[i]);
    }
    ids = kept.data();
    count = kept.size();
  }
  ByteBuffer out;
  if (count == 0) return out;
  const DecodeTable* table = decode_table(count);
  if (stepwise) {
    out.append(decode_by_steps(ids, table == nullptr ? count : 1));
    if (table != nullptr) table->append(ids + 1, count - 1, out);
    return out;
  }
  size_t first = 0;
  if (strip_space && parts_.options.strip_space) first = decode_start(ids, count, out);
  if (!as_text || !parts_.byte_runs) {
    table->append(ids + first, count - first, out);
  } else {
    decode_runs(*table, ids, first, count, out);
  }
  return out;
}

// The first ids, whose one space in front is dropped, up to where there is text; how many.
size_t Engine::decode_start(const int32_t* ids, size_t count, ByteBuffer& out) const {
  size_t i = 0;
  for (bool strip = true; i < count && strip && out.size() == 0; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    std::string_view text = parts_.texts[id];
    if (text.empty()) continue;
    if (text[0] == ' ' && id != parts_.surface_id) text.remove_prefix(1);
    strip = parts_.options.strip_each;
    out.append(text);
  }
  return i;
}

// As text: a run of byte tokens that is not UTF-8 becomes one U+FFFD per byte. Those before `first`
// are in `out`.
void Engine::decode_runs(const DecodeTable& table, const int32_t* ids, size_t first, size_t count,
                         ByteBuffer& out) const {
  const auto is_byte = [&](size_t i) { return parts_.is_byte[static_cast<uint32_t>(ids[i])]; };
  size_t run = first != 0 && is_byte(first - 1) ? out.size() : 0;  // bytes at the end of `out`
  const auto close_run = [&] {
    const std::string_view bytes = out.view().substr(out.size() - run);
    if (run != 0 && valid_until(bytes, 0) != run) {
      out.shrink(out.size() - run);
      for (; run > 0; --run) out.append("\xEF\xBF\xBD");
    }
    run = 0;
  };
  for (size_t i = first; i < count;) {
    size_t stop = i;
    while (stop < count && !is_byte(stop)) ++stop;
    if (stop != i) {
      close_run();
      table.append(ids + i, stop - i, out);
    }
    for (; stop < count && is_byte(stop); ++stop) {
      const std::string_view text = parts_.texts[static_cast<uint32_t>(ids[stop])];
      out.append(text);
      run += text.size();
    }
    i = stop;
  }
  close_run();
}

std::string Engine::decode_by_steps(const int32_t* ids, size_t count) const {
  std::vector<std::string> tokens;
  tokens.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    tokens.emplace_back(parts_.texts[static_cast<uint32_t>(ids[i])]);
  }
  for (const auto& decoder : parts_.decoders) decoder->apply(tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i != 0 && parts_.join_with_space) out.push_back(' ');
    out += tokens[i];
  }
  return out;
}

}  // namespace tokamak::text
