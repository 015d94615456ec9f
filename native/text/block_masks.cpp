// Classes of ASCII bytes by compares, and how they are chosen.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "text/cutter.h"

namespace tokamak::text {

void block_masks_plain(const char* p, BlockMasks& out) noexcept {
  out = {};
  for (unsigned i = 0; i < Cutter::kBlock; ++i) {
    const auto c = static_cast<unsigned char>(p[i]);
    const uint64_t bit = uint64_t{1} << i;
    const auto put = [bit](uint64_t& mask, bool is) { mask |= is ? bit : 0; };
    put(out.high, c >= 0x80);
    put(out.letter, (c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    put(out.upper, c >= 'A' && c <= 'Z');
    put(out.digit, c >= '0' && c <= '9');
    put(out.space, c == ' ');
    put(out.newline, c == '\n' || c == '\r');
    put(out.blank, c == '\t' || c == '\v' || c == '\f');
    put(out.quote, c == '\'');
    put(out.slash, c == '/');
    put(out.tab, c == '\t');
    put(out.visible, c > ' ' && c < 0x7F);
  }
}

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2")
namespace {

// Bytes in [last - count + 1, last]: shifted to the top of the signed range, they are the greatest.
inline __m256i in_range(__m256i bytes, char last, char count) {
  const __m256i shifted = _mm256_add_epi8(bytes, _mm256_set1_epi8(static_cast<char>(127 - last)));
  return _mm256_cmpgt_epi8(shifted, _mm256_set1_epi8(static_cast<char>(127 - count)));
}

inline __m256i is(__m256i bytes, char c) { return _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(c)); }

inline uint64_t bits(__m256i low, __m256i high) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(low)) |
         static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(high))) << 32;
}

}  // namespace

void block_masks_avx2(const char* p, BlockMasks& out) noexcept {
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
  const __m256i fold = _mm256_set1_epi8(0x20);
  const __m256i lower_a = _mm256_or_si256(a, fold);
  const __m256i lower_b = _mm256_or_si256(b, fold);
  out.high = bits(a, b);
  out.letter = bits(in_range(lower_a, 'z', 26), in_range(lower_b, 'z', 26));
  out.upper = bits(in_range(a, 'Z', 26), in_range(b, 'Z', 26));
  out.digit = bits(in_range(a, '9', 10), in_range(b, '9', 10));
  out.space = bits(is(a, ' '), is(b, ' '));
  out.newline =
      bits(_mm256_or_si256(is(a, '\n'), is(a, '\r')), _mm256_or_si256(is(b, '\n'), is(b, '\r')));
  // 9 to 13 are the blanks and the newlines.
  out.blank = bits(in_range(a, 13, 5), in_range(b, 13, 5)) & ~out.newline;
  out.quote = bits(is(a, '\''), is(b, '\''));
  out.slash = bits(is(a, '/'), is(b, '/'));
  out.tab = bits(is(a, '\t'), is(b, '\t'));
  out.visible = bits(in_range(a, '~', 94), in_range(b, '~', 94));
}
#pragma GCC pop_options
#else
void block_masks_avx2(const char* p, BlockMasks& out) noexcept { block_masks_plain(p, out); }
#endif

bool wide_bytes() {
  static const bool wide = [] {
    const char* isa = std::getenv("TOKAMAK_ISA");
    if (isa != nullptr && std::string_view(isa) == "scalar") return false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
  }();
  return wide;
}

BlockMasksFunction block_masks() { return wide_bytes() ? &block_masks_avx2 : &block_masks_plain; }

}  // namespace tokamak::text
