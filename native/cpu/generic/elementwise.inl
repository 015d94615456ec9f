// Elementwise functions and norms over rows of floats.
//
// A row is cut into whole vectors and one masked rest, so an element's value does not depend on its
// row.

// e^x. x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its series to r^7 / 7! (truncation 5e-9). Exact 0
// below -87.3, infinity above 88, NaN stays NaN; relative error below 2e-7.
inline vf exp(vf x) {
  const vf low = set1(-87.3365f);
  const vf high = set1(88.02f);
  const vf kept = min(high, max(low, x));  // this order of arguments lets NaN through
  const vf n = round_nearest(mul(kept, set1(1.44269504f)));
  vf r = fnma(n, set1(0.693359375f), kept);  // ln 2 in two parts: n * the first is exact
  r = fnma(n, set1(-2.12194440e-4f), r);
  vf p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  vf y = mul(p, pow2(to_int(n)));
  y = select_gt(low, x, zero(), y);
  return select_gt(x, high, set1(__builtin_inff()), y);
}

// Odd polynomial below 0.625 (fitted to tanh(x) / x over x^2, relative error 3e-8), else 1 - 2 /
// (e^2|x| + 1).
inline vf tanh(vf x) {
  const vf a = abs(x);
  const vf z = mul(x, x);
  vf p = set1(-0.0059329853f);
  p = fma(p, z, set1(0.020881323f));
  p = fma(p, z, set1(-0.053825852f));
  p = fma(p, z, set1(0.13332601f));
  p = fma(p, z, set1(-0.33333328f));
  const vf small = fma(mul(p, z), x, x);
  const vf big = sub(set1(1.0f), div(set1(2.0f), add(exp(add(a, a)), set1(1.0f))));
  return select_gt(set1(0.625f), a, small, select_gt(zero(), x, sub(zero(), big), big));
}

inline vf sigmoid_times(vf x, vf argument) {  // x / (1 + e^-argument)
  return div(x, add(set1(1.0f), exp(sub(zero(), argument))));
}

// x * P(x), P the normal distribution by its tail q(|x|) = t (a1 + t (a2 + ...)) e^(-x^2/2) / 2,
// absolute error of P below 1e-7.  Source: Abramowitz and Stegun 7.1.26.
inline vf gelu_erf(vf x) {
  const vf z = mul(abs(x), set1(0.70710678f));
  const vf t = div(set1(1.0f), fma(z, set1(0.3275911f), set1(1.0f)));
  vf p = set1(1.061405429f);
  p = fma(p, t, set1(-1.453152027f));
  p = fma(p, t, set1(1.421413741f));
  p = fma(p, t, set1(-0.284496736f));
  p = fma(p, t, set1(0.254829592f));
  const vf tail = mul(mul(mul(p, t), exp(sub(zero(), mul(z, z)))), set1(0.5f));
  const vf below = select_gt(x, zero(), sub(set1(1.0f), tail), tail);
  return mul(x, below);
}

template <Act act>
inline vf activation(vf x) {
  if constexpr (act == Act::silu) {
    return sigmoid_times(x, x);
  } else if constexpr (act == Act::gelu) {  // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
    const vf u = mul(x, fma(mul(x, x), set1(0.0713548163f), set1(1.59576912f)));
    return sigmoid_times(x, u);
  } else if constexpr (act == Act::gelu_erf) {
    return gelu_erf(x);
  } else if constexpr (act == Act::sigmoid) {
    return sigmoid_times(set1(1.0f), x);
  } else {
    const vf positive = max(zero(), x);
    return act == Act::relu ? positive : mul(positive, positive);
  }
}

inline float softplus(float x) {  // log(1 + e^x), exact where either term vanishes
  return x > 0.0f ? x + __builtin_log1pf(__builtin_expf(-x)) : __builtin_log1pf(__builtin_expf(x));
}

// Both clamped to 7, gate from above only.
inline vf swiglu_clamped(vf gate, vf up) {
  const vf g = min(gate, set1(7.0f));
  const vf u = max(min(up, set1(7.0f)), set1(-7.0f));
  return mul(sigmoid_times(g, mul(g, set1(1.702f))), add(u, set1(1.0f)));
}

// out[i] = f(x[i])
template <class F>
inline void map(const float* x, int64_t n, float* out, F f) {
  int64_t i = 0;
  for (; i + kRows <= n; i += kRows) store(out + i, f(load(x + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) store_n(out + i, f(load_n(x + i, rest)), rest);
}

// out[i] = f(x[i], y[i])
template <class F>
inline void map2(const float* x, const float* y, int64_t n, float* out, F f) {
  int64_t i = 0;
  for (; i + kRows <= n; i += kRows) store(out + i, f(load(x + i), load(y + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) store_n(out + i, f(load_n(x + i, rest), load_n(y + i, rest)), rest);
}

// Sum of f(x[i]): four running vectors, then the rest, then pairwise. f(0) of the masked lanes must
// be 0.
template <class F>
inline float reduce(const float* x, int64_t n, F f) {
  vf s0 = zero();
  vf s1 = zero();
  vf s2 = zero();
  vf s3 = zero();
  int64_t i = 0;
  for (; i + 4 * kRows <= n; i += 4 * kRows) {
    s0 = add(s0, f(load(x + i)));
    s1 = add(s1, f(load(x + i + kRows)));
    s2 = add(s2, f(load(x + i + 2 * kRows)));
    s3 = add(s3, f(load(x + i + 3 * kRows)));
  }
  for (; i + kRows <= n; i += kRows) s0 = add(s0, f(load(x + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) s1 = add(s1, f(load_n(x + i, rest)));
  return sum_lanes(add(add(s0, s1), add(s2, s3)));
}

inline void row_add(const float* x, const float* y, int64_t n, float* out) noexcept {
  map2(x, y, n, out, [&](vf a, vf b) { return add(a, b); });
}

inline void row_mul(const float* x, const float* y, int64_t n, float* out) noexcept {
  map2(x, y, n, out, [&](vf a, vf b) { return mul(a, b); });
}

inline void row_scale(const float* x, float factor, int64_t n, float* out) noexcept {
  const vf by = set1(factor);
  map(x, n, out, [=](vf a) { return mul(a, by); });
}

inline void row_softcap(const float* x, float cap, int64_t n, float* out) noexcept {
  const vf by = set1(cap);
  map(x, n, out, [=](vf a) { return mul(by, tanh(div(a, by))); });
}

template <Act act>
inline void row_activation(const float* x, int64_t n, float* out) noexcept {
  map(x, n, out, [&](vf a) { return activation<act>(a); });
}

template <Act act>
inline void row_gate(const float* gate, const float* up, int64_t n, float* out) noexcept {
  map2(gate, up, n, out, [&](vf a, vf b) { return mul(activation<act>(a), b); });
}

inline void row_activate(Act act, const float* x, int64_t n, float* out) noexcept {
  switch (act) {
    case Act::silu:
      return row_activation<Act::silu>(x, n, out);
    case Act::gelu:
      return row_activation<Act::gelu>(x, n, out);
    case Act::gelu_erf:
      return row_activation<Act::gelu_erf>(x, n, out);
    case Act::relu2:
      return row_activation<Act::relu2>(x, n, out);
    case Act::relu:
      return row_activation<Act::relu>(x, n, out);
    case Act::sigmoid:
      return row_activation<Act::sigmoid>(x, n, out);
    case Act::softplus:
      for (int64_t i = 0; i < n; ++i) out[i] = softplus(x[i]);
      return;
    case Act::swiglu_clamped:  // has two inputs; the builder refuses it here
      return;
  }
}

inline void row_gated(Act act, const float* gate, const float* up, int64_t n, float* out) noexcept {
  switch (act) {
    case Act::silu:
      return row_gate<Act::silu>(gate, up, n, out);
    case Act::gelu:
      return row_gate<Act::gelu>(gate, up, n, out);
    case Act::gelu_erf:
      return row_gate<Act::gelu_erf>(gate, up, n, out);
    case Act::relu2:
      return row_gate<Act::relu2>(gate, up, n, out);
    case Act::relu:
      return row_gate<Act::relu>(gate, up, n, out);
    case Act::sigmoid:
      return row_gate<Act::sigmoid>(gate, up, n, out);
    case Act::softplus:
      for (int64_t i = 0; i < n; ++i) out[i] = softplus(gate[i]) * up[i];
      return;
    case Act::swiglu_clamped:
      return map2(gate, up, n, out, [&](vf a, vf b) { return swiglu_clamped(a, b); });
  }
}

// x / sqrt(mean(x^2) + eps) * weight.  Source: Zhang and Sennrich 2019, equation 4.
inline void row_rms_norm(const float* x, const float* weight, int64_t n, float eps,
                         float* out) noexcept {
  const float squares = reduce(x, n, [&](vf a) { return mul(a, a); });
  const vf by = set1(1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps));
  map2(x, weight, n, out, [=](vf a, vf w) { return mul(mul(a, by), w); });
}

// (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias.  Source: Ba et al. 2016, equation 4.
inline void row_layer_norm(const float* x, const float* weight, const float* bias, int64_t n,
                           float eps, float* out) noexcept {
  const float mean = reduce(x, n, [&](vf a) { return a; }) / static_cast<float>(n);
  const vf centre = set1(mean);
  map(x, n, out, [=](vf a) { return sub(a, centre); });
  const float squares = reduce(out, n, [&](vf a) { return mul(a, a); });
  const vf by = set1(1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps));
  map2(out, weight, n, out, [=](vf a, vf w) { return mul(mul(a, by), w); });
  map2(out, bias, n, out, [&](vf a, vf b) { return add(a, b); });
}

// Half-split rotary embedding of one head: columns i and i + half are a pair.  Source: Su et al.
// 2021, equation 34.
inline void row_rotate(const float* x, const float* cosine, const float* sine, int64_t half,
                       int64_t n, float* out) noexcept {
  const auto turn = [&](int64_t i, vf a, vf b, vf c, vf s, int lanes) {
    store_n(out + i, fnma(b, s, mul(a, c)), lanes);
    store_n(out + i + half, fma(a, s, mul(b, c)), lanes);
  };
  for (int64_t i = 0; i < half; i += kRows) {
    const int lanes = static_cast<int>(half - i < kRows ? half - i : kRows);
    turn(i, load_n(x + i, lanes), load_n(x + i + half, lanes), load_n(cosine + i, lanes),
         load_n(sine + i, lanes), lanes);
  }
  __builtin_memcpy(out + 2 * half, x + 2 * half, static_cast<size_t>(n - 2 * half) * sizeof(float));
}
