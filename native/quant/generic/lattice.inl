// Search for the scales and points of the lattice formats, a super-group at a time: same as
// tokamak/quant/lattice.py. Lanes hold the neighbours of a cell, each summed over the coordinates
// in their order.

inline constexpr float kFactors[] = {1.0f, 0.85f, 0.7f, 0.55f, 1.15f, 0.4f};
inline constexpr float kDelta = 0.125f;

enum class Delta : uint8_t { none, group, vector };

// y = d * (2 s + 1) / unit * (point + delta), signs apart where there is no delta.
struct LatticeSpec {
  Grid grid;
  int groups;
  int scale_high;
  float unit;
  bool even;
  Delta delta;
};

struct Points {
  uint16_t index[64];
  uint8_t minus[64];
  float error[16];  // of each group
};

struct Found {
  float d;
  float s[16];
  Points points;
  uint8_t signs[32];
};

inline float scalar_inverse(float x) noexcept { return std::fabs(x) < kSilent ? 0.0f : 1.0f / x; }

inline float scalar_super_scale(float x) noexcept {
  const float limited = std::clamp(x, -65504.0f, 65504.0f);
  const float rounded = f16_to_f32(f32_to_f16(limited));
  return rounded == 0.0f && x != 0.0f ? std::copysign(0x1p-24f, x) : rounded;
}

inline float scalar_nearest(float x) noexcept { return (x + 12582912.0f) - 12582912.0f; }

// A vector less its delta, and the cell of the full grid it falls in for a scale.
template <int kDim>
struct Place {
  float moved[kDim];
  size_t cell;
};

template <int kDim>
inline Place<kDim> place_of(const Neighbours& table, const float* x, float scale,
                            float delta) noexcept {
  const float inverse_scale = scalar_inverse(scale), inverse_step = 1.0f / table.step;
  const float top = static_cast<float>(table.num_levels - 1), shift = scale * delta;
  Place<kDim> place;
  float number = 0.0f, power = 1.0f;  // below 2^24: exact
  for (int i = 0; i < kDim; ++i) {
    place.moved[i] = x[i] - shift;
    const float at = (place.moved[i] * inverse_scale - table.first) * inverse_step;
    number += scalar_nearest(std::clamp(at, 0.0f, top)) * power;
    power *= static_cast<float>(table.num_levels);
  }
  place.cell = static_cast<size_t>(static_cast<int32_t>(number));
  return place;
}

// The nearest of the neighbours of the place's cell, for scale * point; returns its error.
template <int kDim>
inline float nearest_point(const Neighbours& table, const Place<kDim>& place, const float* w,
                           float scale, uint16_t* index) noexcept {
  const int32_t* near = table.near.data() + place.cell * (kDim / 4) * kNeighbours;
  // Errors are not negative, so their bits are ordered as they are; the place in the list takes the
  // four lowest ones, and one minimum finds both, without a branch.
  constexpr int32_t kMask = kNeighbours - 1;
  I best = whole(std::numeric_limits<int32_t>::max());
  for (int n = 0; n < kNeighbours; n += kLanes) {
    F error = splat(0.0f);
    for (int i = 0; i < kDim; ++i) {
      I words;
      std::memcpy(&words, near + i / 4 * kNeighbours + n, sizeof(words));
      const F miss = to_float((words << (24 - 8 * (i % 4))) >> 24) * scale - place.moved[i];
      error += miss * miss * w[i];
    }
    const I key = (bits(error) & ~kMask) | (lane_numbers() + n);
    best = select(key < best, key, best);
  }
  int32_t key = best[0];
  for (int lane = 1; lane < kLanes; ++lane) key = std::min(key, best[lane]);
  *index = table.index[place.cell * kNeighbours + static_cast<size_t>(key & kMask)];
  return std::bit_cast<float>(key & ~kMask);
}

template <int kDim>
class LatticeSearch {
 public:
  LatticeSearch(const LatticeSpec& spec, const float* x, const float* w) noexcept
      : spec_(spec), table_(neighbours(spec.grid)), w_(w), per_group_(256 / kDim / spec.groups) {
    std::memcpy(x_, x, sizeof(x_));
  }

  void find(Found* found) noexcept {
    if (spec_.delta == Delta::none) split_signs(found->signs);
    float scale[16];
    start(scale);
    refine(scale, found);
  }

 private:
  // Sign bytes, and magnitudes in place of x; where a byte would be odd and must not be, its
  // cheapest element keeps a magnitude of the wrong sign.
  void split_signs(uint8_t* signs) noexcept {
    for (int b = 0; b < 32; ++b) {
      float* x = x_ + 8 * b;
      unsigned byte = 0;
      int cheapest = 0;
      float least_cost = std::numeric_limits<float>::infinity();
      for (int i = 0; i < 8; ++i) {
        byte |= static_cast<unsigned>(x[i] < 0.0f) << i;
        const float cost = w_[8 * b + i] * x[i] * x[i];
        if (cost < least_cost) {
          least_cost = cost;
          cheapest = i;
        }
        x[i] = std::fabs(x[i]);
      }
      if (spec_.even && std::popcount(byte) % 2 != 0) {
        byte ^= 1u << cheapest;
        x[cheapest] = -x[cheapest];
      }
      signs[b] = static_cast<uint8_t>(byte);
    }
  }

  void choose_group(int g, float scale, float delta, Points* out) const noexcept {
    Place<kDim> places[8];  // the tables are larger than the nearest caches: ask for all at once
    const int first = g * per_group_;
    for (int v = 0; v < per_group_; ++v) {
      places[v] = place_of<kDim>(table_, x_ + (first + v) * kDim, scale, delta);
      const int32_t* near = table_.near.data() + places[v].cell * (kDim / 4) * kNeighbours;
      __builtin_prefetch(near);
      if (kDim == 8) __builtin_prefetch(near + kNeighbours);
      __builtin_prefetch(table_.index.data() + places[v].cell * kNeighbours);
    }
    float error = 0.0f;
    for (int v = 0; v < per_group_; ++v) {
      error += nearest_point<kDim>(table_, places[v], w_ + (first + v) * kDim, scale,
                                   &out->index[first + v]);
      out->minus[first + v] = delta < 0.0f;
    }
    out->error[g] = error;
  }

  void choose(int g, float scale, Points* out) const noexcept {
    if (spec_.delta == Delta::none) return choose_group(g, scale, 0.0f, out);
    if (spec_.delta == Delta::group) {
      Points other;
      choose_group(g, scale, kDelta, out);
      choose_group(g, scale, -kDelta, &other);
      if (other.error[g] < out->error[g]) copy(g, other, out);
      return;
    }
    float total = 0.0f;
    for (int v = g * per_group_; v < (g + 1) * per_group_; ++v) {
      uint16_t index;
      const auto above = place_of<kDim>(table_, x_ + v * kDim, scale, kDelta);
      const auto below = place_of<kDim>(table_, x_ + v * kDim, scale, -kDelta);
      float error = nearest_point<kDim>(table_, above, w_ + v * kDim, scale, &out->index[v]);
      const float other = nearest_point<kDim>(table_, below, w_ + v * kDim, scale, &index);
      out->minus[v] = other < error;
      if (other < error) {
        out->index[v] = index;
        error = other;
      }
      total += error;
    }
    out->error[g] = total;
  }

  void copy(int g, const Points& from, Points* to) const noexcept {
    for (int v = g * per_group_; v < (g + 1) * per_group_; ++v) {
      to->index[v] = from.index[v];
      to->minus[v] = from.minus[v];
    }
    to->error[g] = from.error[g];
  }

  // Over a group: of w * value * x and w * value^2.
  void sums(int g, const Points& points, float* xq, float* qq) const noexcept {
    *xq = *qq = 0.0f;
    for (int v = g * per_group_; v < (g + 1) * per_group_; ++v) {
      const int8_t* point = table_.points.data() + points.index[v] * kDim;
      const float delta =
          spec_.delta == Delta::none ? 0.0f : (points.minus[v] != 0 ? -kDelta : kDelta);
      for (int i = 0; i < kDim; ++i) {
        const float value = static_cast<float>(point[i]) + delta;
        const float wv = w_[v * kDim + i] * value;
        *xq += wv * x_[v * kDim + i];
        *qq += wv * value;
      }
    }
  }

  // A scale per group, free of any grid.
  void start(float* scale) const noexcept {
    Points points;
    for (int g = 0; g < spec_.groups; ++g) {
      float top = 0.0f;
      for (int i = g * per_group_ * kDim; i < (g + 1) * per_group_ * kDim; ++i) {
        top = std::max(top, std::fabs(x_[i]));
      }
      top /= table_.last;
      float best_gain = 0.0f;
      scale[g] = 0.0f;
      for (const float factor : kFactors) {
        float xq, qq;
        choose(g, top * factor, &points);
        sums(g, points, &xq, &qq);
        const float s = xq * scalar_inverse(qq);
        if (s * xq > best_gain && s > 0.0f) {
          best_gain = s * xq;
          scale[g] = s;
        }
      }
    }
  }

  // d from the largest group scale, then from least squares: the best of three.
  void refine(float* scale, Found* found) const noexcept {
    const float high = static_cast<float>(spec_.scale_high);
    float d = 0.0f;
    for (int g = 0; g < spec_.groups; ++g) d = std::max(d, scale[g]);
    d = scalar_super_scale(d / (2 * high + 1) * spec_.unit);
    float best = std::numeric_limits<float>::infinity();
    for (int turn = 0; turn < 3; ++turn) {
      Points points, other;
      float s[16], total = 0.0f, above = 0.0f, below = 0.0f;
      const float unit_scale = d / spec_.unit, inverse_scale = scalar_inverse(unit_scale);
      for (int g = 0; g < spec_.groups; ++g) {
        const float wanted = scalar_nearest((scale[g] * inverse_scale - 1.0f) / 2.0f);
        const float first = std::clamp(wanted, 0.0f, high);
        s[g] = first;
        choose(g, unit_scale * (2 * first + 1), &points);
        for (const float step : {-1.0f, 1.0f}) {
          const float trial = first + step;
          if (trial < 0.0f || trial > high) continue;
          choose(g, unit_scale * (2 * trial + 1), &other);
          if (other.error[g] < points.error[g]) {
            copy(g, other, &points);
            s[g] = trial;
          }
        }
        total += points.error[g];
        float xq, qq;
        sums(g, points, &xq, &qq);
        const float odd = 2 * s[g] + 1;
        above += odd * xq;
        below += odd * odd * qq;
        if (qq > 0.0f) scale[g] = xq * scalar_inverse(qq);
      }
      if (turn == 0 || total < best) {
        best = total;
        found->d = d;
        found->points = points;
        std::memcpy(found->s, s, sizeof(s));
      }
      d = scalar_super_scale(above * scalar_inverse(below) * spec_.unit);
    }
    float zeros = 0.0f;  // lattices without a zero can be worse than nothing
    for (int i = 0; i < 256; ++i) zeros += w_[i] * x_[i] * x_[i];
    if (!(best < zeros)) found->d = 0.0f;
  }

  LatticeSpec spec_;
  const Neighbours& table_;
  const float* w_;
  int per_group_;
  float x_[256];
};

inline void put_short(uint8_t* to, unsigned value) noexcept {
  to[0] = static_cast<uint8_t>(value);
  to[1] = static_cast<uint8_t>(value >> 8);
}

inline void put_word(uint8_t* to, uint32_t value) noexcept { std::memcpy(to, &value, 4); }

inline unsigned code_of(float s) noexcept { return static_cast<unsigned>(s); }

// Four seven-bit signs and a scale.
inline uint32_t seven_bit_signs(const uint8_t* signs, float s) noexcept {
  uint32_t word = code_of(s) << 28;
  for (int i = 0; i < 4; ++i) word |= static_cast<uint32_t>(signs[i] & 127) << (7 * i);
  return word;
}

inline void nibbles(const float* s, int count, uint8_t* to) noexcept {
  for (int i = 0; i < count; i += 2) {
    to[i / 2] = static_cast<uint8_t>(code_of(s[i]) | (code_of(s[i + 1]) << 4));
  }
}

inline void store_iq2_xxs(const Found& f, uint8_t* to) noexcept {
  put_short(to, f32_to_f16(f.d));
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 4; ++i) to[2 + 8 * g + i] = static_cast<uint8_t>(f.points.index[4 * g + i]);
    put_word(to + 6 + 8 * g, seven_bit_signs(f.signs + 4 * g, f.s[g]));
  }
}

inline void store_iq2_xs(const Found& f, uint8_t* to) noexcept {
  put_short(to, f32_to_f16(f.d));
  for (int v = 0; v < 32; ++v) {
    put_short(to + 2 + 2 * v, f.points.index[v] | (static_cast<unsigned>(f.signs[v] & 127) << 9));
  }
  nibbles(f.s, 16, to + 66);
}

inline void store_iq2_s(const Found& f, uint8_t* to) noexcept {
  put_short(to, f32_to_f16(f.d));
  for (int v = 0; v < 32; ++v) {
    to[2 + v] = static_cast<uint8_t>(f.points.index[v]);
    to[34 + v] = f.signs[v];
    if (v % 4 == 0) to[66 + v / 4] = 0;
    to[66 + v / 4] =
        static_cast<uint8_t>(to[66 + v / 4] | ((f.points.index[v] >> 8) << (2 * (v % 4))));
  }
  nibbles(f.s, 16, to + 74);
}

inline void store_iq3_xxs(const Found& f, uint8_t* to) noexcept {
  put_short(to, f32_to_f16(f.d));
  for (int v = 0; v < 64; ++v) to[2 + v] = static_cast<uint8_t>(f.points.index[v]);
  for (int g = 0; g < 8; ++g) put_word(to + 66 + 4 * g, seven_bit_signs(f.signs + 4 * g, f.s[g]));
}

inline void store_iq3_s(const Found& f, uint8_t* to) noexcept {
  put_short(to, f32_to_f16(f.d));
  std::memset(to + 66, 0, 8);
  for (int v = 0; v < 64; ++v) {
    to[2 + v] = static_cast<uint8_t>(f.points.index[v]);
    to[66 + v / 8] = static_cast<uint8_t>(to[66 + v / 8] | ((f.points.index[v] >> 8) << (v % 8)));
  }
  std::memcpy(to + 74, f.signs, 32);
  nibbles(f.s, 8, to + 106);
}

inline void store_iq1_s(const Found& f, uint8_t* to) noexcept {
  put_short(to, f32_to_f16(f.d));
  for (int g = 0; g < 8; ++g) {
    unsigned high = (code_of(f.s[g]) << 12) | (static_cast<unsigned>(f.points.minus[4 * g]) << 15);
    for (int i = 0; i < 4; ++i) {
      const unsigned index = f.points.index[4 * g + i];
      to[2 + 4 * g + i] = static_cast<uint8_t>(index);
      high |= (index >> 8) << (3 * i);
    }
    put_short(to + 34 + 2 * g, high);
  }
}

inline void store_iq1_m(const Found& f, uint8_t* to) noexcept {
  for (int v = 0; v < 32; v += 2) {
    const unsigned low = f.points.index[v], high = f.points.index[v + 1];
    to[v] = static_cast<uint8_t>(low);
    to[v + 1] = static_cast<uint8_t>(high);
    to[32 + v / 2] = static_cast<uint8_t>(
        (low >> 8) | (static_cast<unsigned>(f.points.minus[v]) << 3) |
        (((high >> 8) | (static_cast<unsigned>(f.points.minus[v + 1]) << 3)) << 4));
  }
  const unsigned d = f32_to_f16(f.d);
  for (int q = 0; q < 4; ++q) {
    unsigned word = ((d >> (4 * q)) & 15) << 12;
    for (int i = 0; i < 4; ++i) word |= code_of(f.s[4 * q + i]) << (3 * i);
    put_short(to + 48 + 2 * q, word);
  }
}

template <int kDim, class Store>
inline void encode_lattice(Codec codec, const LatticeSpec& spec, const float* x, const float* w,
                           size_t n, uint8_t* out, const Store& store) noexcept {
  float ones[256];
  for (float& one : ones) one = 1.0f;
  for (; n >= 256; n -= 256) {
    Found found{};
    LatticeSearch<kDim>(spec, x, w == nullptr ? ones : w).find(&found);
    store(found, out);
    x += 256;
    w = w == nullptr ? nullptr : w + 256;
    out += codec_format(codec).type_size;
  }
}

// Points, signs and scales to values.

inline unsigned even_signs(unsigned seven) noexcept {
  return seven | ((static_cast<unsigned>(std::popcount(seven)) & 1u) << 7);
}

template <int kDim>
inline void signed_points(const int8_t* point, unsigned signs, float scale, float* y) noexcept {
  for (unsigned i = 0; i < kDim; ++i) {
    const int value = ((signs >> i) & 1u) != 0 ? -point[i] : point[i];
    y[i] = static_cast<float>(value) * scale;
  }
}

inline const int8_t* point_of(const Neighbours& table, unsigned index) noexcept {
  return table.points.data() + static_cast<size_t>(index) * static_cast<size_t>(table.dimensions);
}

inline uint32_t word_at(const uint8_t* p) noexcept {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

inline float half_scale(float d, unsigned s, float factor) noexcept {
  return d * (0.5f + static_cast<float>(s)) * factor;
}

inline unsigned nibble_at(const uint8_t* p, int i) noexcept {
  return (p[i / 2] >> (4 * (i % 2))) & 15u;
}

inline void decode_iq2_xxs(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  const float d = half_at(p);
  for (int v = 0; v < 32; ++v) {
    const uint8_t* part = p + 2 + 8 * (v / 4);
    const uint32_t word = word_at(part + 4);
    signed_points<8>(point_of(t, part[v % 4]), even_signs((word >> (7 * (v % 4))) & 127u),
                     half_scale(d, word >> 28, 0.25f), y + 8 * v);
  }
}

inline void decode_iq2_xs(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  const float d = half_at(p);
  for (int v = 0; v < 32; ++v) {
    const unsigned q = short_at(p + 2 + 2 * v);
    signed_points<8>(point_of(t, q & 511u), even_signs(q >> 9),
                     half_scale(d, nibble_at(p + 66, v / 2), 0.25f), y + 8 * v);
  }
}

inline void decode_iq2_s(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  const float d = half_at(p);
  for (int v = 0; v < 32; ++v) {
    const unsigned high = (p[66 + v / 4] >> (2 * (v % 4))) & 3u;
    signed_points<8>(point_of(t, p[2 + v] | (high << 8)), p[34 + v],
                     half_scale(d, nibble_at(p + 74, v / 2), 0.25f), y + 8 * v);
  }
}

inline void decode_iq3_xxs(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  const float d = half_at(p);
  for (int v = 0; v < 64; ++v) {
    const uint32_t word = word_at(p + 66 + 4 * (v / 8));
    const unsigned signs = even_signs((word >> (7 * (v / 2 % 4))) & 127u) >> (4 * (v % 2));
    signed_points<4>(point_of(t, p[2 + v]), signs, half_scale(d, word >> 28, 0.5f), y + 4 * v);
  }
}

inline void decode_iq3_s(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  const float d = half_at(p);
  for (int v = 0; v < 64; ++v) {
    const unsigned high = (p[66 + v / 8] >> (v % 8)) & 1u;
    const float scale = d * static_cast<float>(1 + 2 * nibble_at(p + 106, v / 8));
    signed_points<4>(point_of(t, p[2 + v] | (high << 8)), p[74 + v / 2] >> (4 * (v % 2)), scale,
                     y + 4 * v);
  }
}

inline void shifted_point(const int8_t* point, bool minus, float scale, float* y) noexcept {
  const int shift = minus ? -1 : 1;
  for (int i = 0; i < 8; ++i) y[i] = static_cast<float>(8 * point[i] + shift) * (scale * 0.125f);
}

inline void decode_iq1_s(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  const float d = half_at(p);
  for (int v = 0; v < 32; ++v) {
    const unsigned qh = short_at(p + 34 + 2 * (v / 4));
    const unsigned high = (qh >> (3 * (v % 4))) & 7u;
    shifted_point(point_of(t, p[2 + v] | (high << 8)), (qh >> 15) != 0,
                  d * static_cast<float>(2 * ((qh >> 12) & 7u) + 1), y + 8 * v);
  }
}

inline void decode_iq1_m(const Neighbours& t, const uint8_t* p, float* y) noexcept {
  unsigned bits_of_d = 0;
  for (int q = 0; q < 4; ++q)
    bits_of_d |= static_cast<unsigned>(short_at(p + 48 + 2 * q) >> 12) << (4 * q);
  const float d = f16_to_f32(static_cast<uint16_t>(bits_of_d));
  for (int v = 0; v < 32; ++v) {
    const unsigned nibble = nibble_at(p + 32, v);
    const unsigned s = (short_at(p + 48 + 2 * (v / 8)) >> (3 * (v / 2 % 4))) & 7u;
    shifted_point(point_of(t, p[v] | ((nibble & 7u) << 8)), (nibble >> 3) != 0,
                  d * static_cast<float>(2 * s + 1), y + 8 * v);
  }
}
