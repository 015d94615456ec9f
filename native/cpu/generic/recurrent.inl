// One row of one head of the recurrent ops. The order of additions is that of keys and states.

// e^x of one number is exp_one of attention.inl, so that a decay per head and per state agree.

// out[j] = out[j] * keep + x[j] * by
inline void blend(float* out, float keep, const float* x, float by, int64_t n) {
  const vf kept = set1(keep);
  const vf factor = set1(by);
  map2(out, x, n, out, [=](vf a, vf b) { return fma(b, factor, mul(a, kept)); });
}

// out[j] += x[j] * by
inline void accumulate(float* out, const float* x, float by, int64_t n) {
  const vf factor = set1(by);
  map2(out, x, n, out, [=](vf a, vf b) { return fma(b, factor, a); });
}

// State space with softplus(dt) as the step.  Source: Gu and Dao 2023, equation 2 and section 3.
inline void scan_row(const ScanRow& row, float* state) noexcept {
  const float step = softplus(row.dt);
  const vf by_step = set1(step);
  const float decay = row.a_is_scalar ? exp_one(step * row.a[0]) : 0.0f;
  for (int64_t p = 0; p < row.width; ++p, state += row.states) {
    const vf input = set1(step * row.x[p]);
    vf sum = zero();
    for (int64_t n = 0; n < row.states; n += kRows) {
      const int lanes = static_cast<int>(row.states - n < kRows ? row.states - n : kRows);
      const vf keep = row.a_is_scalar ? set1(decay) : exp(mul(by_step, load_n(row.a + n, lanes)));
      const vf s = fma(input, load_n(row.b + n, lanes), mul(keep, load_n(state + n, lanes)));
      store_n(state + n, s, lanes);
      sum = fma(s, load_n(row.c + n, lanes), sum);
    }
    row.out[p] = sum_lanes(sum) + row.d * row.x[p];
  }
}

// S = exp(w) S; S += k (beta (v - S^T k))^T; out = S^T q.  Source: Yang et al. 2024, equation 10.
inline void delta_row(const MatrixRow& row, float* state) {
  const int64_t n = row.values;
  const float decay = exp_one(row.w[0]);
  float* change = row.scratch;
  __builtin_memset(change, 0, static_cast<size_t>(n) * sizeof(float));
  for (int64_t k = 0; k < row.keys; ++k) {
    row_scale(state + k * n, decay, n, state + k * n);
    accumulate(change, state + k * n, row.k[k], n);
  }
  const vf beta = set1(row.a[0]);
  map2(row.v, change, n, change, [=](vf v, vf s) { return mul(sub(v, s), beta); });
  __builtin_memset(row.out, 0, static_cast<size_t>(n) * sizeof(float));
  for (int64_t k = 0; k < row.keys; ++k) {
    accumulate(state + k * n, change, row.k[k], n);
    accumulate(row.out, state + k * n, row.q[k], n);
  }
}

// out = S^T q + (q . u k) v; S = diag(exp(-exp(w))) S + k v^T.  Source: Peng et al. 2024, eq. 19.
inline void bonus_row(const MatrixRow& row, float* state) {
  const int64_t n = row.values;
  __builtin_memset(row.out, 0, static_cast<size_t>(n) * sizeof(float));
  float now = 0.0f;
  for (int64_t k = 0; k < row.keys; ++k) {
    now += row.q[k] * row.a[k] * row.k[k];
    accumulate(row.out, state + k * n, row.q[k], n);
    blend(state + k * n, exp_one(-exp_one(row.w[k])), row.v, row.k[k], n);
  }
  accumulate(row.out, row.v, now, n);
}

// S = diag(exp(w)) S + b (S^T a)^T + k v^T; out = S^T q.  Source: Peng et al. 2025, equation 17.
inline void removal_row(const MatrixRow& row, float* state) {
  const int64_t n = row.values;
  float* removed = row.scratch;
  __builtin_memset(removed, 0, static_cast<size_t>(n) * sizeof(float));
  for (int64_t k = 0; k < row.keys; ++k) accumulate(removed, state + k * n, row.a[k], n);
  __builtin_memset(row.out, 0, static_cast<size_t>(n) * sizeof(float));
  for (int64_t k = 0; k < row.keys; ++k) {
    blend(state + k * n, exp_one(row.w[k]), row.v, row.k[k], n);
    accumulate(state + k * n, removed, row.b[k], n);
    accumulate(row.out, state + k * n, row.q[k], n);
  }
}

inline void matrix_row(const MatrixRow& row, float* state) noexcept {
  switch (row.rule) {
    case Rule::delta:
      return delta_row(row, state);
    case Rule::bonus:
      return bonus_row(row, state);
    case Rule::removal:
      return removal_row(row, state);
  }
}
