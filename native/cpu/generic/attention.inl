// Attention of a few query rows over one cache block, online softmax.
//
// For one row the sequence of operations depends on its visible keys only: scores add up in rising
// column, values in rising key, and rows that share registers never mix. Source: Dao 2023,
// FlashAttention-2, algorithm 1.

inline constexpr int kKeyVectors = kBlock / kRows;
inline constexpr int kScoreRows = 8 / kKeyVectors;  // 8 running sums hide the latency of fma

// e^x of one number, as the vector function gives it.
inline float exp_one(float x) {
  float y;
  store_n(&y, exp(set1(x)), 1);
  return y;
}

// Elements of a block, as they lie in it or loaded beforehand: `at(i)` is a vector from element i
// on.
struct Floats {
  const float* p;
  vf at(int64_t i) const { return load(p + i); }
};
struct Halves {
  const uint16_t* p;
  vf at(int64_t i) const { return load_f16(p + i); }
};
struct Bfloats {
  const uint16_t* p;
  vf at(int64_t i) const { return load_bf16(p + i); }
};

// out[r][j] = sum_d q[r][d] * keys[d][j]
template <int R, class Source>
inline void score(const float* q, int64_t stride, Source keys, int64_t head_dim, float* out) {
  vf s[R][kKeyVectors];
#pragma GCC unroll kUnroll
  for (int i = 0; i < R * kKeyVectors; ++i) s[i / kKeyVectors][i % kKeyVectors] = zero();
  for (int64_t d = 0; d < head_dim; ++d) {
    vf k[kKeyVectors];
#pragma GCC unroll kUnroll
    for (int v = 0; v < kKeyVectors; ++v) k[v] = keys.at(d * kBlock + v * kRows);
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
      const vf x = set1(q[r * stride + d]);
#pragma GCC unroll kUnroll
      for (int v = 0; v < kKeyVectors; ++v) s[r][v] = fma(x, k[v], s[r][v]);
    }
  }
#pragma GCC unroll kUnroll
  for (int i = 0; i < R * kKeyVectors; ++i) {
    store(out + i * kRows, s[i / kKeyVectors][i % kKeyVectors]);
  }
}

// What a row adds to the score of its key j of the block: slope * (j - at), at its own position.
struct Slope {
  float slope;
  int64_t at;
};

// What a row adds to the score of key j of the block: bias[j - at], from `reach` on that of reach.
struct Bias {
  const float* bias;  // of distance 0, or null
  int64_t at, reach;
};

// Scores of one row to weights e^(s - m'), in place; keys outside [begin, end) become 0. Updates
// most and total and returns e^(m - m'), by which older sums shrink.
inline float soften(float* s, int begin, int end, float cap, Slope slope, Bias bias, float& most,
                    float& total) {
  if (cap > 0.0f) row_softcap(s, cap, kBlock, s);
  if (slope.slope != 0.0f) {
    for (int j = 0; j < kBlock; ++j) s[j] += slope.slope * static_cast<float>(j - slope.at);
  }
  if (bias.bias != nullptr) {
    for (int j = begin; j < end; ++j) {
      const int64_t far = j - bias.at;
      s[j] += bias.bias[far < -bias.reach ? -bias.reach : far > bias.reach ? bias.reach : far];
    }
  }
  for (int j = 0; j < begin; ++j) s[j] = -__builtin_inff();
  for (int j = end; j < kBlock; ++j) s[j] = -__builtin_inff();
  vf top = load(s);
  for (int j = kRows; j < kBlock; j += kRows) top = max(top, load(s + j));
  const float here = max_lanes(top);
  const float raised = here > most ? here : most;
  const float shrink = raised == most ? 1.0f : exp_one(most - raised);
  const vf shift = set1(raised);
  vf sum = zero();
  for (int j = 0; j < kBlock; j += kRows) {
    const vf p = exp(sub(load(s + j), shift));
    store(s + j, p);
    sum = add(sum, p);
  }
  total = total * shrink + sum_lanes(sum);
  most = raised;
  return shrink;
}

// acc[c] = acc[c] * shrink + sum_j p[j] * values[j][c], for V vectors of columns from `first` on
template <int V, class Source>
inline void weigh(const float* p, int begin, int end, float shrink, Source values, int64_t width,
                  int64_t first, float* acc) {
  vf a[V];
#pragma GCC unroll kUnroll
  for (int v = 0; v < V; ++v) a[v] = mul(load(acc + first + v * kRows), set1(shrink));
  for (int j = begin; j < end; ++j) {
    const vf x = set1(p[j]);
#pragma GCC unroll kUnroll
    for (int v = 0; v < V; ++v) a[v] = fma(x, values.at(j * width + first + v * kRows), a[v]);
  }
#pragma GCC unroll kUnroll
  for (int v = 0; v < V; ++v) store(acc + first + v * kRows, a[v]);
}

template <class Source>
inline void weigh_row(const float* p, int begin, int end, float shrink, Source values,
                      int64_t width, float* acc) {
  int64_t c = 0;
  for (; c + 8 * kRows <= width; c += 8 * kRows)
    weigh<8>(p, begin, end, shrink, values, width, c, acc);
  for (; c + 4 * kRows <= width; c += 4 * kRows)
    weigh<4>(p, begin, end, shrink, values, width, c, acc);
  for (; c < width; c += kRows) weigh<1>(p, begin, end, shrink, values, width, c, acc);
}

template <class Source>
inline void attend_rows(const AttentionRows& rows, int64_t first, int64_t head_dim, Source keys,
                        Source values) {
  alignas(64) float s[kScoreRows * kBlock];
  const auto inside = [&](int64_t key) {
    const int64_t at = key - first;
    return static_cast<int>(at < 0 ? 0 : at > kBlock ? kBlock : at);
  };
  for (int64_t r = 0; r < rows.count; r += kScoreRows) {
    const int64_t count = rows.count - r < kScoreRows ? rows.count - r : kScoreRows;
    const float* q = rows.q + r * rows.width;
    if (count == kScoreRows) {
      score<kScoreRows>(q, rows.width, keys, head_dim, s);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        score<1>(q + i * rows.width, rows.width, keys, head_dim, s + i * kBlock);
      }
    }
    for (int64_t i = r; i < r + count; ++i) {
      const int begin = inside(rows.low[i]);
      const int end = inside(rows.high[i]);
      if (begin >= end) continue;
      float* p = s + (i - r) * kBlock;
      const Slope slope{rows.slope == nullptr ? 0.0f : rows.slope[i], rows.high[i] - 1 - first};
      const Bias bias = rows.bias == nullptr ? Bias{nullptr, 0, 0}
                                             : Bias{rows.bias[i], rows.at[i] - first, rows.reach};
      const float shrink =
          soften(p, begin, end, rows.softcap, slope, bias, rows.most[i], rows.total[i]);
      weigh_row(p, begin, end, shrink, values, rows.value_width, rows.acc + i * rows.value_width);
    }
  }
}

// Few rows read a float block where it lies; for more it is worth loading it once.
inline void attend(const AttentionRows& rows, int64_t first, CacheType type, int64_t head_dim,
                   int64_t value_dim, const std::byte* keys, const std::byte* values,
                   float* scratch) noexcept {
  const bool direct = rows.count <= kScoreRows && rows.value_width == value_dim;
  const auto* half_keys = reinterpret_cast<const uint16_t*>(keys);
  const auto* half_values = reinterpret_cast<const uint16_t*>(values);
  if (direct && type == CacheType::f16) {
    attend_rows(rows, first, head_dim, Halves{half_keys}, Halves{half_values});
  } else if (direct && type == CacheType::bf16) {
    attend_rows(rows, first, head_dim, Bfloats{half_keys}, Bfloats{half_values});
  } else if (rows.value_width == value_dim && type == CacheType::f32) {
    attend_rows(rows, first, head_dim, Floats{reinterpret_cast<const float*>(keys)},
                Floats{reinterpret_cast<const float*>(values)});
  } else {
    float* loaded_values = scratch + head_dim * kBlock;
    load_keys(type, keys, head_dim, scratch);
    load_values(type, values, value_dim, rows.value_width, loaded_values);
    attend_rows(rows, first, head_dim, Floats{scratch}, Floats{loaded_values});
  }
}

inline void merge(int64_t width, const float* acc, float most, float total, float* acc_into,
                  float* most_into, float* total_into) noexcept {
  if (*total_into == 0.0f) {  // nothing there yet
    __builtin_memcpy(acc_into, acc, static_cast<size_t>(width) * sizeof(float));
    *most_into = most;
    *total_into = total;
    return;
  }
  const float raised = most > *most_into ? most : *most_into;
  const float old_part = exp_one(*most_into - raised);
  const float new_part = exp_one(most - raised);
  *total_into = *total_into * old_part + total * new_part;
  *most_into = raised;
  for (int64_t c = 0; c < width; c += kRows) {
    store(acc_into + c,
          add(mul(load(acc_into + c), set1(old_part)), mul(load(acc + c), set1(new_part))));
  }
}
