// Least-squares searches for scales and minima, a group or super-group to a lane: same as
// tokamak/quant/fit.py, but sums run in the order of the elements.

constexpr float kClearly = 1 + 1e-6f;  // a later candidate must beat an earlier one by more
constexpr float kSilent = 1e-15f;      // groups of smaller magnitudes become zeros

// Weights that are all one: multiplying by them costs nothing.
struct Ones {
  F operator[](int) const noexcept { return splat(1.0f); }
  Ones operator+(int) const noexcept { return {}; }
};

inline F to_f16(F x) noexcept { return f16_value(f16_bits(clip(x, -65504.0f, 65504.0f))); }

// to_f16, but what is not zero stays so.
inline F super_scale(F x) noexcept {
  const F rounded = to_f16(x);
  return select((rounded == 0.0f) & (x != 0.0f), with_sign_of(splat(0x1p-24f), x), rounded);
}

// 1 / x, and 0 where x is (nearly) 0.
inline F inverse(F x) noexcept { return from_bits(bits(1.0f / x) & ~(magnitude(x) < kSilent)); }

// The element of largest magnitude, with its sign.
template <int kSize>
inline F peak(const F* x) noexcept {
  F top = x[0], size = magnitude(x[0]);
  for (int i = 1; i < kSize; ++i) {
    const F other = magnitude(x[i]);
    top = select(other > size, x[i], top);
    size = most(other, size);
  }
  return top;
}

// A grid gives the value nearest to a scaled element. kFirst: the value of largest magnitude,
// negative.
template <int kLow, int kHigh>
struct Linear {
  static constexpr float kFirst = kLow;
  static F values(F scaled) noexcept { return nearest(clip(scaled, kLow, kHigh)); }
};

// Rising whole numbers; ties go to the larger one.
template <const auto& kValues>
struct Codebook {
  static constexpr float kFirst = kValues[0];
  static F values(F scaled) noexcept {
    F found = splat(kValues[0]);
    for (size_t i = 1; i < std::size(kValues); ++i) {
      const float middle = 0.5f * static_cast<float>(kValues[i] + kValues[i - 1]);
      const F step = splat(static_cast<float>(kValues[i] - kValues[i - 1]));
      found += from_bits((scaled >= middle) & bits(step));
    }
    return found;
  }
  // The place of that value, from 0.
  static I places(F scaled) noexcept {
    I place = whole(0);
    for (size_t i = 1; i < std::size(kValues); ++i) {
      place -= scaled >= 0.5f * static_cast<float>(kValues[i] + kValues[i - 1]);
    }
    return place;
  }
};

// Best s of y = s * q, q on the grid: peak / (first + step) for each step, then least squares.
template <int kSize, class Grid, class W, size_t kSteps>
inline F scale_only(const F* x, W w, const float (&steps)[kSteps]) noexcept {
  const F top = peak<kSize>(x);
  F best = splat(0.0f), best_gain = splat(0.0f);
  for (const float step : steps) {
    const F scale = inverse(top / (Grid::kFirst + step));
    F xq = splat(0.0f), qq = splat(0.0f);
    for (int i = 0; i < kSize; ++i) {
      const F q = Grid::values(x[i] * scale);
      const F wq = w[i] * q;
      xq += wq * x[i];
      qq += wq * q;
    }
    const F s = xq * inverse(qq);
    const F gain = s * xq;
    const I better = gain > best_gain * kClearly;
    best = select(better, s, best);
    best_gain = select(better, gain, best_gain);
  }
  return best;
}

struct Sums {
  F sw, sx;
};

template <int kSize, class W>
inline Sums weighted_sums(const F* x, W w) noexcept {
  Sums sums{splat(0.0f), splat(0.0f)};
  for (int i = 0; i < kSize; ++i) {
    sums.sw += w[i];
    sums.sx += w[i] * x[i];
  }
  return sums;
}

struct Line {
  F s, m;
};

// Sums over the elements of a group for codes q in [0, high] of (x + shift) / scale.
struct CodeSums {
  F sq, xq, qq;
};

template <int kSize, class W>
inline CodeSums code_sums(const F* x, W w, F shift, F scale, float high) noexcept {
  CodeSums sums{splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int i = 0; i < kSize; ++i) {
    const F q = nearest(clip((x[i] + shift) * scale, 0.0f, high));
    const F wq = w[i] * q;
    sums.sq += wq;
    sums.xq += wq * x[i];
    sums.qq += wq * q;
  }
  return sums;
}

// Best s, m of y = s * q - m, q in [0, high]; m >= 0 unless kAnySign.
template <int kSize, bool kAnySign, int kRounds, class W, size_t kSteps>
inline Line scale_and_minimum(const F* x, W w, float high, const float (&steps)[kSteps]) noexcept {
  F low = kAnySign ? x[0] : least(x[0], splat(0.0f)), top = x[0];
  for (int i = 1; i < kSize; ++i) {
    low = least(x[i], low);
    top = most(x[i], top);
  }
  const F span = top - low;
  const Sums sums = weighted_sums<kSize>(x, w);
  Line best{span / high, -low};
  F best_gain = splat(-std::numeric_limits<float>::infinity());
  for (const float step : steps) {
    F s = span / (high + step), m = -low;
    for (int round = 0; round < kRounds; ++round) {
      const CodeSums c = code_sums<kSize>(x, w, m, inverse(s), high);
      const F det = sums.sw * c.qq - c.sq * c.sq;
      const F scale = 1.0f / most(det, splat(1e-30f));
      s = (sums.sw * c.xq - sums.sx * c.sq) * scale;
      m = (c.qq * sums.sx - c.sq * c.xq) * -scale;
      const I free = kAnySign ? det > 0.0f : (det > 0.0f) & (m >= 0.0f);
      s = select(free, s, c.xq * inverse(c.qq));
      m = select(free, m, splat(0.0f));
      const F gain = s * c.xq - m * sums.sx;
      const I better = (gain > best_gain * kClearly) & (s > 0.0f);
      best.s = select(better, s, best.s);
      best.m = select(better, m, best.m);
      best_gain = select(better, gain, best_gain);
    }
  }
  return best;
}

// Integer scales of the groups of a super-group for a given d, and the sum of their errors.
template <int kGroups, int kSize, class Grid, int kLow, int kHigh, class W>
inline F symmetric_groups(const F* x, W w, F d, const F* s, F* sc) noexcept {
  F total = splat(0.0f);
  const F inverse_d = inverse(d);
  for (int g = 0; g < kGroups; ++g) {
    const F start = nearest(clip(s[g] * inverse_d, kLow, kHigh));
    F error = splat(std::numeric_limits<float>::infinity());
    sc[g] = start;
    for (const float step : {0.0f, -1.0f, 1.0f}) {
      const F trial = clip(start + step, kLow, kHigh);
      const F scale = d * trial, inverse_scale = inverse(scale);
      F trial_error = splat(0.0f);
      for (int i = 0; i < kSize; ++i) {
        const F miss = Grid::values(x[g * kSize + i] * inverse_scale) * scale - x[g * kSize + i];
        trial_error += miss * w[g * kSize + i] * miss;
      }
      const I better = trial_error < error;
      sc[g] = select(better, trial, sc[g]);
      error = least(trial_error, error);
    }
    total += error;
  }
  return total;
}

// y = d * sc * q, d f16 per super-group, whole sc in [kLow, kHigh] per group, q on the grid.
template <int kGroups, int kSize, class Grid, int kLow, int kHigh, class W, size_t kSteps>
inline F symmetric(const F* x, W w, const float (&steps)[kSteps], F* best_sc) noexcept {
  F s[kGroups], sc[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    s[g] = scale_only<kSize, Grid>(x + g * kSize, w + g * kSize, steps);
  }
  const F top = peak<kGroups>(s) / static_cast<float>(kLow);
  F d = super_scale(top);
  const F second = super_scale(top * (static_cast<float>(kLow) / (kLow + 1)));
  const F third = super_scale(top * (Grid::kFirst / (Grid::kFirst + 1)));
  F best_d = d, best_error = splat(std::numeric_limits<float>::infinity());
  for (int g = 0; g < kGroups; ++g) best_sc[g] = splat(0.0f);
  for (int turn = 0; turn < 3; ++turn) {
    const F total = symmetric_groups<kGroups, kSize, Grid, kLow, kHigh>(x, w, d, s, sc);
    const I better = total < best_error;
    best_d = select(better, d, best_d);
    for (int g = 0; g < kGroups; ++g) best_sc[g] = select(better, sc[g], best_sc[g]);
    best_error = least(total, best_error);
    if (turn == 2) break;
    F above = splat(0.0f), below = splat(0.0f);
    for (int g = 0; g < kGroups; ++g) {
      const F scale = inverse(d * sc[g]);
      F xq = splat(0.0f), qq = splat(0.0f);
      for (int i = g * kSize; i < (g + 1) * kSize; ++i) {
        const F q = Grid::values(x[i] * scale);
        const F wq = w[i] * q;
        xq += wq * x[i];
        qq += wq * q;
      }
      s[g] = xq * inverse(qq);
      above += sc[g] * xq;
      below += sc[g] * sc[g] * qq;
    }
    const F fitted = super_scale(above * inverse(below));
    d = turn == 0 ? second : select(fitted == d, third, fitted);
  }
  return best_d;
}

// Least-squares u, v >= 0 of x = u * a - v * b; the old u where that has no answer.
inline Line solve(F aa, F ab, F bb, F ax, F bx, F old_u) noexcept {
  const F det = aa * bb - ab * ab;
  I good = det > 1e-6f * aa * bb;
  const F scale = 1.0f / select(good, det, splat(1.0f));
  const F u = (bb * ax - ab * bx) * scale, v = (ab * ax - aa * bx) * scale;
  good &= v >= 0.0f;
  F alone = ax * inverse(aa);
  alone = select(alone > 0.0f, alone, old_u);
  return {select(good, u, alone), select(good, v, splat(0.0f))};
}

template <int kGroups>
struct Affine {
  F d, dmin, sc[kGroups], m[kGroups];
};

// Integer scale and minimum of one group for given super-scales; returns the error.
template <int kSize, class W>
inline F affine_group(const F* x, W w, const Sums& sums, F d, F dmin, const Line& start, float high,
                      float scale_high, F* sc, F* m) noexcept {
  const F inverse_dmin = inverse(dmin);
  const F first_sc = nearest(clip(start.s * inverse(d), 0.0f, scale_high));
  const F first_m = nearest(clip(start.m * inverse_dmin, 0.0f, scale_high));
  F best = splat(std::numeric_limits<float>::infinity());
  *sc = first_sc;
  *m = first_m;
  for (const float step : {0.0f, -1.0f, 1.0f}) {
    const F trial = clip(first_sc + step, 0.0f, scale_high);
    const F scale = d * trial, inverse_scale = inverse(scale);
    F trial_m = first_m;
    for (int round = 0; round < 2; ++round) {
      const F shift = dmin * trial_m;
      F error = splat(0.0f), wq = splat(0.0f);
      for (int i = 0; i < kSize; ++i) {
        const F q = nearest(clip((x[i] + shift) * inverse_scale, 0.0f, high));
        const F miss = q * scale - shift - x[i];
        error += miss * w[i] * miss;
        wq += w[i] * q;
      }
      const I better = error < best;
      *sc = select(better, trial, *sc);
      *m = select(better, trial_m, *m);
      best = least(error, best);
      const F wanted = (scale * wq - sums.sx) / sums.sw;
      trial_m = nearest(clip(wanted * inverse_dmin, 0.0f, scale_high));
    }
  }
  return best;
}

// y = d * sc * q - dmin * m; q in [0, high], whole sc and m in [0, scale_high] per group.
template <int kGroups, int kSize, class W, size_t kSteps>
inline Affine<kGroups> asymmetric(const F* x, W w, float high, float scale_high,
                                  const float (&steps)[kSteps]) noexcept {
  Line line[kGroups];
  Sums sums[kGroups];
  F top_s = splat(0.0f), top_m = splat(0.0f);
  for (int g = 0; g < kGroups; ++g) {
    line[g] = scale_and_minimum<kSize, false, 1>(x + g * kSize, w + g * kSize, high, steps);
    sums[g] = weighted_sums<kSize>(x + g * kSize, w + g * kSize);
    top_s = g == 0 ? line[g].s : most(line[g].s, top_s);
    top_m = g == 0 ? line[g].m : most(line[g].m, top_m);
  }
  Affine<kGroups> best{}, now{};
  now.d = best.d = super_scale(top_s / scale_high);
  now.dmin = best.dmin = super_scale(top_m / scale_high);
  F best_error = splat(std::numeric_limits<float>::infinity());
  for (int turn = 0; turn < 3; ++turn) {
    F total = splat(0.0f);
    for (int g = 0; g < kGroups; ++g) {
      total += affine_group<kSize>(x + g * kSize, w + g * kSize, sums[g], now.d, now.dmin, line[g],
                                   high, scale_high, &now.sc[g], &now.m[g]);
    }
    const I better = total < best_error;
    best_error = least(total, best_error);
    best.d = select(better, now.d, best.d);
    best.dmin = select(better, now.dmin, best.dmin);
    for (int g = 0; g < kGroups; ++g) {
      best.sc[g] = select(better, now.sc[g], best.sc[g]);
      best.m[g] = select(better, now.m[g], best.m[g]);
    }
    if (turn == 2) break;
    F pair[5] = {};
    for (int g = 0; g < kGroups; ++g) {
      const F sc = now.sc[g], m = now.m[g];
      const CodeSums c =
          code_sums<kSize>(x + g * kSize, w + g * kSize, now.dmin * m, inverse(now.d * sc), high);
      pair[0] += sc * sc * c.qq;
      pair[1] += sc * m * c.sq;
      pair[2] += m * m * sums[g].sw;
      pair[3] += sc * c.xq;
      pair[4] += m * sums[g].sx;
      line[g] = solve(c.qq, c.sq, sums[g].sw, c.xq, sums[g].sx, line[g].s);
    }
    const Line both = solve(pair[0], pair[1], pair[2], pair[3], pair[4], now.d);
    now.d = super_scale(both.s);
    now.dmin = super_scale(both.m);
  }
  return best;
}
