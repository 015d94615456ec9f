// Included once per instruction set, inside its namespace and target region. Vectors of the
// compiler (GCC, Clang), which it lowers to what the region allows; no function of a library is
// called. Vectors go by reference, since how they are passed by value depends on the region.

inline constexpr size_t lanes = 8;
using Floats = float __attribute__((vector_size(lanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(lanes * sizeof(int32_t))));
using Half = float __attribute__((vector_size(lanes / 2 * sizeof(float))));
using Doubles = double __attribute__((vector_size(lanes / 2 * sizeof(double))));

inline void load(const float* from, Floats& to) noexcept { std::memcpy(&to, from, sizeof to); }
inline void store(const Floats& from, float* to) noexcept { std::memcpy(to, &from, sizeof from); }
inline double sum_of(const Doubles& v) noexcept { return (v[0] + v[1]) + (v[2] + v[3]); }

// Both halves of v, in float64: wider vectors would be taken apart one by one.
inline void widen(const Floats& v, Doubles& low, Doubles& high) noexcept {
  Half halves[2];
  std::memcpy(halves, &v, sizeof v);
  low = __builtin_convertvector(halves[0], Doubles);
  high = __builtin_convertvector(halves[1], Doubles);
}

inline void add(const Floats& v, Doubles& sum) noexcept {
  Doubles low, high;
  widen(v, low, high);
  sum += low + high;
}

// x becomes max(x, -87), w e^x, or 0 where x was not above -87. e^x = 2^n e^r with |r| <= ln 2 / 2,
// r in two parts of ln 2, e^r by its Taylor polynomial of degree 7 (remainder below 2^-27).
inline void exponential(Floats& x, Floats& w) noexcept {
  constexpr float least = -87.0F;
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Ints inside = x > least;
  x = inside ? x : Floats{} + least;
  const Floats n = (x * 1.44269504F + shift) - shift;
  const Floats r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  Floats p = r * (1.0F / 5040.0F) + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * (r * r) + r + 1.0F;
  const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;
  std::memcpy(&power, &bits, sizeof power);
  w = inside ? p * power : Floats{};
}

// At most `lanes` entries: what is missing weighs nothing.
template <bool with_moment>
inline void weigh_rest(const float* logits, size_t count, float largest, float* weights,
                       Doubles& sum, Doubles& moment) noexcept {
  Floats x = Floats{} + lowest, w;
  std::memcpy(&x, logits, count * sizeof(float));
  x -= largest;
  exponential(x, w);
  std::memcpy(weights, &w, count * sizeof(float));
  add(w, sum);
  if (with_moment) add(w * x, moment);
}

template <bool with_moment>
inline Weighed weigh(const float* logits, size_t n, float largest, float* weights,
                     double* sums) noexcept {
  Weighed all{0.0, 0.0};
  for (size_t start = 0, block = 0; start < n; start += weigh_block, ++block) {
    const size_t end = start + weigh_block < n ? start + weigh_block : n;
    Doubles sum{}, moment{};
    size_t i = start;
    for (; i + lanes <= end; i += lanes) {
      Floats x, w;
      load(logits + i, x);
      x -= largest;
      exponential(x, w);
      store(w, weights + i);
      add(w, sum);
      if (with_moment) add(w * x, moment);
    }
    if (i < end) weigh_rest<with_moment>(logits + i, end - i, largest, weights + i, sum, moment);
    sums[block] = sum_of(sum);
    all.total += sums[block];
    all.moment += sum_of(moment);
  }
  return all;
}

inline double weight_from(const float* logits, size_t n, const float* weights,
                          float border) noexcept {
  Doubles sum{};
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Floats x, w;
    load(logits + i, x);
    load(weights + i, w);
    w = x >= border ? w : Floats{};
    add(w, sum);
  }
  double total = sum_of(sum);
  for (; i < n; ++i) total += static_cast<double>(logits[i] >= border ? weights[i] : 0.0F);
  return total;
}

// Largest, and whether an entry is no number or +infinity.
inline float largest_of(const float* logits, size_t n, bool* bad) noexcept {
  Floats most = Floats{} + lowest;
  Ints right = Ints{} - 1;
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Floats x;
    load(logits + i, x);
    most = x > most ? x : most;
    right &= x <= finite;
  }
  float largest = lowest;
  bool all = true;
  for (; i < n; ++i) {
    largest = logits[i] > largest ? logits[i] : largest;
    all = all && logits[i] <= finite;
  }
  for (size_t j = 0; j < lanes; ++j) {
    largest = most[j] > largest ? most[j] : largest;
    all = all && right[j] != 0;
  }
  *bad = !all;
  return largest;
}

inline void divide(const float* logits, size_t n, float t, float* out) noexcept {
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Floats x;
    load(logits + i, x);
    store(x / t, out + i);
  }
  for (; i < n; ++i) out[i] = logits[i] / t;
}

// Number, and sum of (logit - origin)^power for power 1 and 2, of those that are not -infinity.
inline void moments(const float* logits, size_t n, double origin, double* out) noexcept {
  Doubles first{}, second{};
  Ints num{};
  double rest[3] = {};
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Floats x;
    load(logits + i, x);
    const Ints allowed = x > lowest;
    num -= allowed;
    x = allowed ? x : Floats{};
    const Floats one = allowed ? Floats{} + 1.0F : Floats{};
    Doubles values[2], ones[2];
    widen(x, values[0], values[1]);
    widen(one, ones[0], ones[1]);
    for (size_t half = 0; half < 2; ++half) {
      const Doubles d = values[half] - ones[half] * origin;
      first += d;
      second += d * d;
    }
  }
  for (; i < n; ++i) {
    if (!(logits[i] > lowest)) continue;
    const double d = static_cast<double>(logits[i]) - origin;
    rest[0] += 1.0;
    rest[1] += d;
    rest[2] += d * d;
  }
  for (size_t j = 0; j < lanes; ++j) rest[0] += static_cast<double>(num[j]);
  out[0] = rest[0];
  out[1] = rest[1] + sum_of(first);
  out[2] = rest[2] + sum_of(second);
}
