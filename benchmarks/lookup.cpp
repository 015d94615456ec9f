// Table-lookup products of ternary matrices with int8 activations: what `lookup.py` measures.
//
//   tl1  a nibble 3 a + b + 4 per pair of columns; 2 bits a weight
//   tl2  a nibble |9 a + 3 b + c| and a sign bit per triple of columns; 1.67 bits a weight
//
// Panels of 32 rows; blocks of 256 steps over all panels lie one after another, so that the tables
// of a block stay in the first-level cache. A step is two groups (pairs or triples): 32 bytes, row
// r in byte r, the first group in the low nibble; tl2 has 8 bytes of sign bits behind them, first
// group first. A table has the 16 products of a group as int16, low bytes first, so that one
// shuffle looks up 32 rows. Sums are exact integers, in the scalar and in the AVX2 version.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kRows = 32;
constexpr int64_t kBlock = 256;  // steps whose tables, 16 KiB, are used by all panels in turn
constexpr int kWiden = 32;       // steps until int16 sums are widened: 2 * 3 * 127 * 32 = 24384

struct Table {
  uint8_t low[16];
  uint8_t high[16];
};
static_assert(sizeof(Table) == 32);

struct Pairs {
  uint8_t codes[kRows];
};
struct Triples {
  uint8_t codes[kRows];
  uint32_t negative[2];  // bit r: row r
};
static_assert(sizeof(Pairs) == 32 && sizeof(Triples) == 40);

void set(Table& table, int index, int value) {
  table.low[index] = static_cast<uint8_t>(value & 0xff);
  table.high[index] = static_cast<uint8_t>((value >> 8) & 0xff);
}

int get(const Table& table, int index) {
  return static_cast<int16_t>(table.low[index] | table.high[index] << 8);
}

// Where a step lies.
int64_t place(int64_t panel, int64_t step, int64_t panels, int64_t steps) {
  const int64_t block = step / kBlock * kBlock;
  const int64_t width = steps - block < kBlock ? steps - block : kBlock;
  return block * panels + panel * width + step - block;
}

template <class Step>
void scalar(const Step* w, const Table* tables, int64_t panels, int64_t steps, int32_t* out) {
  for (int64_t p = 0; p < panels; ++p) {
    for (int r = 0; r < kRows; ++r) {
      int32_t sum = 0;
      for (int64_t s = 0; s < steps; ++s) {
        const Step& step = w[place(p, s, panels, steps)];
        for (int g = 0; g < 2; ++g) {
          int value = get(tables[2 * s + g], step.codes[r] >> (4 * g) & 15);
          if constexpr (sizeof(Step) == sizeof(Triples)) {
            if ((step.negative[g] >> r & 1) != 0) value = -value;
          }
          sum += value;
        }
      }
      out[p * kRows + r] = sum;
    }
  }
}

__attribute__((target("avx2"))) inline __m256i both(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// 0 or -1 in byte r.
__attribute__((target("avx2"))) inline __m256i spread(uint32_t bits) {
  const __m256i bytes =
      _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)),
                          _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                           2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
  const __m256i one = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, one), one);
}

// Adds to out[32] what a block of a panel gives.
template <class Step>
__attribute__((target("avx2"))) void avx2(const Step* w, const Table* tables, int64_t steps,
                                          int32_t* out) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i wide[4] = {};
  for (int64_t first = 0; first < steps; first += kWiden) {
    __m256i sum[2] = {};
    const int64_t end = first + kWiden < steps ? first + kWiden : steps;
    for (int64_t s = first; s < end; ++s) {
      const Step& step = w[s];
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(step.codes));
      const __m256i index[2] = {_mm256_and_si256(codes, nibble),
                                _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble)};
      for (int g = 0; g < 2; ++g) {
        const Table& table = tables[2 * s + g];
        const __m256i low = _mm256_shuffle_epi8(both(table.low), index[g]);
        const __m256i high = _mm256_shuffle_epi8(both(table.high), index[g]);
        __m256i front = _mm256_unpacklo_epi8(low, high), rear = _mm256_unpackhi_epi8(low, high);
        if constexpr (sizeof(Step) == sizeof(Triples)) {
          const __m256i minus = spread(step.negative[g]);
          const __m256i f = _mm256_unpacklo_epi8(minus, minus);
          const __m256i r = _mm256_unpackhi_epi8(minus, minus);
          front = _mm256_sub_epi16(_mm256_xor_si256(front, f), f);
          rear = _mm256_sub_epi16(_mm256_xor_si256(rear, r), r);
        }
        sum[0] = _mm256_add_epi16(sum[0], front);
        sum[1] = _mm256_add_epi16(sum[1], rear);
      }
    }
    for (int half = 0; half < 2; ++half) {  // rows 8 half + [0, 8) and the same from 16 on
      const __m256i s = sum[half];
      wide[half] = _mm256_add_epi32(wide[half], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(s)));
      wide[2 + half] =
          _mm256_add_epi32(wide[2 + half], _mm256_cvtepi16_epi32(_mm256_extracti128_si256(s, 1)));
    }
  }
  for (int i = 0; i < 4; ++i) {
    auto* sums = reinterpret_cast<__m256i*>(out + 8 * i);
    _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), wide[i]));
  }
}

template <class Step>
void blocks(const Step* w, const Table* tables, int64_t panels, int64_t steps, int32_t* out) {
  std::memset(out, 0, sizeof(int32_t) * static_cast<size_t>(panels * kRows));
  for (int64_t first = 0; first < steps; first += kBlock) {
    const int64_t width = steps - first < kBlock ? steps - first : kBlock;
    for (int64_t p = 0; p < panels; ++p) {
      avx2(w + place(p, first, panels, steps), tables + 2 * first, width, out + p * kRows);
    }
  }
}

}  // namespace

extern "C" {

// tables[columns / 2] of int8 activations.
void tl1_tables(const int8_t* x, int64_t columns, Table* tables) {
  for (int64_t j = 0; j < columns / 2; ++j) {
    for (int code = 0; code < 16; ++code) {
      set(tables[j], code,
          code > 8 ? 0 : (code / 3 - 1) * x[2 * j] + (code % 3 - 1) * x[2 * j + 1]);
    }
  }
}

// tables[columns / 3]; code 9 a + 3 b + c of a triple whose first weight that is not 0 is 1.
void tl2_tables(const int8_t* x, int64_t columns, Table* tables) {
  for (int64_t j = 0; j < columns / 3; ++j) {
    for (int a = -1; a <= 1; ++a) {
      for (int b = -1; b <= 1; ++b) {
        for (int c = -1; c <= 1; ++c) {
          const int code = 9 * a + 3 * b + c;
          if (code >= 0) set(tables[j], code, a * x[3 * j] + b * x[3 * j + 1] + c * x[3 * j + 2]);
        }
      }
    }
  }
}

void tl1_scalar(const Pairs* w, const Table* t, int64_t panels, int64_t steps, int32_t* out,
                int64_t /*repeats*/) {
  scalar(w, t, panels, steps, out);
}
void tl2_scalar(const Triples* w, const Table* t, int64_t panels, int64_t steps, int32_t* out,
                int64_t /*repeats*/) {
  scalar(w, t, panels, steps, out);
}
void tl1_avx2(const Pairs* w, const Table* t, int64_t panels, int64_t steps, int32_t* out,
              int64_t repeats) {
  for (int64_t i = 0; i < repeats; ++i) blocks(w, t, panels, steps, out);
}
void tl2_avx2(const Triples* w, const Table* t, int64_t panels, int64_t steps, int32_t* out,
              int64_t repeats) {
  for (int64_t i = 0; i < repeats; ++i) blocks(w, t, panels, steps, out);
}
}
