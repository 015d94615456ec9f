// Scores of one query, and sums of values, over f16 rows in two layouts; compiled by
// cache_layout.py.
//
// scores[j] = sum_d q[d] k[j][d]; out[d] = sum_j p[j] v[j][d]. n is a multiple of 32, dim of 64.
#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int64_t kBlock = 32;

__m256 halves(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

float sum(__m256 a) {
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 h = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

}  // namespace

// rows [n][dim] -> blocks [n / 32][dim][32]
extern "C" void transpose(const uint16_t* rows, int64_t n, int64_t dim, uint16_t* blocks) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t d = 0; d < dim; ++d)
      blocks[(j / kBlock * dim + d) * kBlock + j % kBlock] = rows[j * dim + d];
}

// A register is 8 dims of one row; a horizontal sum per row, 8 rows at a time.
extern "C" void dot_rows(const float* q, const uint16_t* rows, int64_t n, int64_t dim, float* out) {
  for (int64_t j = 0; j < n; j += 8) {
    __m256 s[8];
    for (auto& one : s) one = _mm256_setzero_ps();
    for (int64_t d = 0; d < dim; d += 8) {
      const __m256 x = _mm256_loadu_ps(q + d);
      for (int i = 0; i < 8; ++i) s[i] = _mm256_fmadd_ps(x, halves(rows + (j + i) * dim + d), s[i]);
    }
    for (int i = 0; i < 8; ++i) out[j + i] = sum(s[i]);
  }
}

// A register is one dim of 8 rows; no horizontal sum.
extern "C" void dot_blocks(const float* q, const uint16_t* blocks, int64_t n, int64_t dim,
                           float* out) {
  for (int64_t b = 0; b < n / kBlock; ++b) {
    __m256 s[4];
    for (auto& one : s) one = _mm256_setzero_ps();
    for (int64_t d = 0; d < dim; ++d) {
      const __m256 x = _mm256_set1_ps(q[d]);
      for (int i = 0; i < 4; ++i)
        s[i] = _mm256_fmadd_ps(x, halves(blocks + (b * dim + d) * kBlock + 8 * i), s[i]);
    }
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + b * kBlock + 8 * i, s[i]);
  }
}

// A register is 8 dims of one row, 64 dims at a time.
extern "C" void add_rows(const float* p, const uint16_t* rows, int64_t n, int64_t dim, float* out) {
  for (int64_t d = 0; d < dim; d += 64) {
    __m256 s[8];
    for (auto& one : s) one = _mm256_setzero_ps();
    for (int64_t j = 0; j < n; ++j) {
      const __m256 x = _mm256_set1_ps(p[j]);
      for (int i = 0; i < 8; ++i)
        s[i] = _mm256_fmadd_ps(x, halves(rows + j * dim + d + 8 * i), s[i]);
    }
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(out + d + 8 * i, s[i]);
  }
}

// A register is one dim of 8 rows; a horizontal sum per dim, 8 dims at a time, block by block.
extern "C" void add_blocks(const float* p, const uint16_t* blocks, int64_t n, int64_t dim,
                           float* out) {
  for (int64_t d = 0; d < dim; d += 8) {
    __m256 s[8];
    for (auto& one : s) one = _mm256_setzero_ps();
    for (int64_t b = 0; b < n / kBlock; ++b) {
      for (int64_t c = 0; c < kBlock; c += 8) {
        const __m256 x = _mm256_loadu_ps(p + b * kBlock + c);
        for (int i = 0; i < 8; ++i)
          s[i] = _mm256_fmadd_ps(x, halves(blocks + (b * dim + d + i) * kBlock + c), s[i]);
      }
    }
    for (int i = 0; i < 8; ++i) out[d + i] = sum(s[i]);
  }
}
