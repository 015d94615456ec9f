#include "text/seams.h"

#include <bit>

#include "text/utf8.h"

namespace tokamak::text {

namespace {

constexpr size_t kHalf = 256 * 256 / 64;

// The character that ends at `at`, whole and valid; length 0 where it is not.
Character before(std::string_view s, size_t at) {
  size_t start = at - 1;
  while (start > 0 && at - start < 4 && is_continuation(static_cast<unsigned char>(s[start])))
    --start;
  const Character c = decode_utf8(s.data() + start, s.data() + at);
  return c.valid && c.length == at - start ? c : Character{0, 0, false};
}

}  // namespace

void Seams::add(std::string_view token) {
  if (half_.empty()) half_.assign(kHalf, 0);
  for (size_t at = 1; at < token.size(); ++at) {
    const auto a = static_cast<unsigned char>(token[at - 1]);
    const auto b = static_cast<unsigned char>(token[at]);
    if (is_continuation(b) || (a < 0x80 && b < 0x80)) continue;
    const Character left = before(token, at);
    const Character right = decode_utf8(token.data() + at, token.data() + token.size());
    if (left.valid && right.valid) {
      hashes_.push_back(hash(left.code, right.code));
    } else {
      const uint64_t pair = static_cast<uint64_t>(a) << 8 | b;
      half_.at(pair >> 6) |= uint64_t{1} << (pair & 63);
    }
  }
}

void Seams::finish() {
  if (hashes_.empty()) return;
  const size_t bits = std::bit_ceil(hashes_.size() * 8 + 64);
  shift_ = 64u - static_cast<unsigned>(std::countr_zero(bits));
  filter_.assign(bits / 64, 0);
  for (const uint64_t h : hashes_)
    filter_.at(h >> shift_ >> 6) |= uint64_t{1} << (h >> shift_ & 63);
  hashes_ = {};
}

void Seams::tables(Archive& archive) {
  archive.table("half", half_);
  archive.table("filter", filter_);
  if (!archive.reads()) return;
  archive.require(half_.empty() || half_.size() == kHalf, "half");
  archive.require(filter_.empty() || (std::has_single_bit(filter_.size()) && !half_.empty()),
                  "filter");
  shift_ = 64u - static_cast<unsigned>(std::countr_zero(filter_.size() * 64));
}

size_t Seams::first_cut(std::string_view word) const noexcept {
  const char* end = word.data() + word.size();
  const char* p = word.data();
  Character left = decode_utf8(p, end);
  for (p += left.length; p < end;) {
    const Character right = decode_utf8(p, end);
    const auto a = static_cast<unsigned char>(p[-1]);
    const auto b = static_cast<unsigned char>(p[0]);
    const bool looked_at = (a >= 0x80 || b >= 0x80) && left.valid && right.valid;
    if (looked_at && !has(half_, static_cast<uint64_t>(a) << 8 | b) &&
        !has(filter_, hash(left.code, right.code) >> shift_)) {
      return static_cast<size_t>(p - word.data());
    }
    left = right;
    p += right.length;
  }
  return word.size();
}

}  // namespace tokamak::text
