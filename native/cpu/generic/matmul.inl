// out[t, r] = sum_k W[r, k] * x[t, k] + bias[r] over packed panels.
//
// Every (row, token) is one chain of additions in rising k, whatever runs beside it: `step` adds
// one packed group (or super-group, or float column) and is the only place where arithmetic
// happens. Few tokens read the packed bytes directly; many tokens unpack a stretch of a panel once
// and reuse it from the first-level cache.
//
//   groups32   acc = fma(d_w * d_a, float(sum_32 (code - zero) * q), acc)
//   groups256  acc = fma(d_w * d_a, float(sum_g scale_g * sum (code - zero) * q), acc)
//              acc = acc - (dmin_w * d_a) * float(sum_g min_g * sum q)     where the format has
//              minima
//   ternary    acc = fma(d_w * d_a, float(sum_256 (code - 1) * q), acc)
//   floats     acc = fma(w, x, acc)

// Codes one per byte and scales widened: the same interface as the packed struct, cheaper to read.
template <class Packed>
struct alignas(64) Unpacked256 {
  static constexpr int kPerVector = 1;
  static constexpr int kVectors = Packed::kVectors * Packed::kPerVector;
  static constexpr int kVectorsPerSum = Packed::kVectorsPerSum * Packed::kPerVector;

  uint8_t q[Packed::kGroups][kVectors][4 * kRows];
  uint8_t scale[Packed::kGroups][4 * kRows];
  uint8_t min[4][4 * kRows];
  float d[kRows];
  float dmin[kRows];

  explicit Unpacked256(const Packed& src) {
    for (int g = 0; g < Packed::kGroups; ++g) {
#pragma GCC unroll kUnroll
      for (int v = 0; v < Packed::kVectors; ++v) {
        VQuad quads[Packed::kPerVector];
        src.codes(g, v, quads);
        for (int i = 0; i < Packed::kPerVector; ++i)
          store_quad(q[g][Packed::kPerVector * v + i], quads[i]);
      }
      store_scale(scale[g], src.group_scale(g));
    }
    store(d, src.scale_f32());
    if constexpr (Packed::kHasMin) {
      for (int j = 0; j < 4; ++j) store_pair(min[j], src.min_pair(j));
      store(dmin, src.min_f32());
    }
  }
  void codes(int g, int v, VQuad (&out)[1]) const { out[0] = load_quad(q[g][v]); }
  VScale group_scale(int g) const { return load_scale(scale[g]); }
  VPair min_pair(int j) const { return load_pair(min[j]); }
  vf scale_f32() const { return load(d); }
  vf min_f32() const { return load(dmin); }
};

// The same for a group of 32 columns or a ternary super-group.
template <class Packed>
struct alignas(64) UnpackedPlain {
  static constexpr int kPerVector = 1;
  static constexpr int kVectors = Packed::kVectors * Packed::kPerVector;

  uint8_t q[kVectors][4 * kRows];
  float d[kRows];

  explicit UnpackedPlain(const Packed& src) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < Packed::kVectors; ++v) {
      VQuad quads[Packed::kPerVector];
      src.codes(v, quads);
      for (int i = 0; i < Packed::kPerVector; ++i)
        store_quad(q[Packed::kPerVector * v + i], quads[i]);
    }
    store(d, src.scale_f32());
  }
  void codes(int v, VQuad (&out)[1]) const { out[0] = load_quad(q[v]); }
  vf scale_f32() const { return load(d); }
};

// Unpacked form of a packed struct; bytes that are read as they lie stay packed.
template <class Packed>
struct UnpackedOf {
  using type = Packed;
};
template <class Packed>
  requires requires { typename Packed::Unpacked; }
struct UnpackedOf<Packed> {
  using type = typename Packed::Unpacked;
};
template <>
struct UnpackedOf<PackedQ4_K> {
  using type = Unpacked256<PackedQ4_K>;
};
template <>
struct UnpackedOf<PackedQ5_K> {
  using type = Unpacked256<PackedQ5_K>;
};
template <>
struct UnpackedOf<PackedQ6_K> {
  using type = Unpacked256<PackedQ6_K>;
};
template <>
struct UnpackedOf<PackedTQ2_0> {
  using type = UnpackedPlain<PackedTQ2_0>;
};
template <>
struct UnpackedOf<PackedQ4_0> {
  using type = UnpackedPlain<PackedQ4_0>;
};
template <>
struct UnpackedOf<PackedQ5_0> {
  using type = UnpackedPlain<PackedQ5_0>;
};

// A register tile: P panels x N tokens, one float per (row, token).
template <int P, int N>
struct Tile {
  vf acc[P][N];
};

// Adds the products of `vectors` vectors of Per quads to s. q points at the first column; codes(p,
// v, out) unpacks vector v of panel p.
template <int P, int N, int Per, class Codes>
inline void dot_quads(VSum (&s)[P][N], int vectors, const int8_t* const (&q)[N], Codes codes) {
#pragma GCC unroll kUnroll
  for (int v = 0; v < vectors; ++v) {
    VQuad w[P][Per];
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) codes(p, v, w[p]);
#pragma GCC unroll kUnroll
    for (int i = 0; i < Per; ++i) {
#pragma GCC unroll kUnroll
      for (int t = 0; t < N; ++t) {
        const VQuad a = splat_quad(q[t] + 4 * (Per * v + i));
#pragma GCC unroll kUnroll
        for (int p = 0; p < P; ++p) s[p][t] = dot(s[p][t], w[p][i], a);
      }
    }
  }
}

template <class Packed, int P, int N, class Source>
inline void step_groups256(const Source* const (&w)[P], const Q8SuperGroup* const (&a)[N],
                           Tile<P, N>& tile) {
  vi total[P][N];
#pragma GCC unroll kUnroll
  for (int i = 0; i < P * N; ++i) total[i / N][i % N] = int_zero();
  for (int g = 0; g < Packed::kGroups; ++g) {
#pragma GCC unroll kUnroll
    for (int first = 0; first < Source::kVectors; first += Source::kVectorsPerSum) {
      VSum s[P][N];
      const int8_t* q[N];
#pragma GCC unroll kUnroll
      for (int t = 0; t < N; ++t) {
        q[t] = a[t]->q + 4 * Source::kPerVector * (Source::kVectors * g + first);
#pragma GCC unroll kUnroll
        for (int p = 0; p < P; ++p) {
          s[p][t] = Packed::kHasMin ? sum_zero() : sum_from(a[t]->offset32[g]);
        }
      }
      dot_quads<P, N, Source::kPerVector>(
          s, Source::kVectorsPerSum, q,
          [&](int p, int v, auto& out) { w[p]->codes(g, first + v, out); });
#pragma GCC unroll kUnroll
      for (int p = 0; p < P; ++p) {
        const VScale scale = w[p]->group_scale(g);
#pragma GCC unroll kUnroll
        for (int t = 0; t < N; ++t) total[p][t] = scale_add(total[p][t], s[p][t], scale);
      }
    }
  }
#pragma GCC unroll kUnroll
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll kUnroll
    for (int t = 0; t < N; ++t) {
      const vf d = set1(a[t]->d);
      vf acc = fma(mul(w[p]->scale_f32(), d), to_float(total[p][t]), tile.acc[p][t]);
      if constexpr (Packed::kHasMin) {
        vi minima = int_zero();
#pragma GCC unroll kUnroll
        for (int j = 0; j < 4; ++j)
          minima = dot_pair(minima, w[p]->min_pair(j), a[t]->sums + 2 * j);
        acc = fnma(mul(w[p]->min_f32(), d), to_float(minima), acc);
      }
      tile.acc[p][t] = acc;
    }
  }
}

template <class Packed, int P, int N, class Source>
inline void step_ternary(const Source* const (&w)[P], const Q8SuperGroup* const (&a)[N],
                         Tile<P, N>& tile) {
  constexpr int kChains =
      P * N <= 2 ? 4 : 1;  // shorter chains of integer additions; the sum is exact
  VSum s[kChains][P][N];
#pragma GCC unroll kUnroll
  for (int t = 0; t < N; ++t) {
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) {
      s[0][p][t] = sum_from(a[t]->offset1);
      for (int c = 1; c < kChains; ++c) s[c][p][t] = sum_zero();
    }
  }
  constexpr int kVectors = 4 / Source::kPerVector;  // 16 columns at a time
  for (int v = 0; v < Source::kVectors; v += kVectors * kChains) {
#pragma GCC unroll kUnroll
    for (int c = 0; c < kChains; ++c) {
      const int8_t* q[N];
      const int first = v + kVectors * c;
#pragma GCC unroll kUnroll
      for (int t = 0; t < N; ++t) q[t] = a[t]->q + 4 * Source::kPerVector * first;
      dot_quads<P, N, Source::kPerVector>(
          s[c], kVectors, q, [&](int p, int i, auto& out) { w[p]->codes(first + i, out); });
    }
  }
#pragma GCC unroll kUnroll
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll kUnroll
    for (int t = 0; t < N; ++t) {
      VSum all = s[0][p][t];
      for (int c = 1; c < kChains; ++c) all = sum_add(all, s[c][p][t]);
      const vf d = mul(w[p]->scale_f32(), set1(a[t]->d));
      tile.acc[p][t] = fma(d, to_float(widen(all)), tile.acc[p][t]);
    }
  }
}

template <class Packed, int P, int N, class Source>
inline void step_groups32(const Source* const (&w)[P], const Q8Group* const (&a)[N],
                          Tile<P, N>& tile) {
  const int8_t* q[N];
#pragma GCC unroll kUnroll
  for (int t = 0; t < N; ++t) q[t] = a[t]->q;
  vi total[P][N];
  if constexpr (Packed::kSigned) {
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) total[i / N][i % N] = signed_zero(Packed::offset(*a[i % N]));
#pragma GCC unroll kUnroll
    for (int v = 0; v < 8; ++v) {
      VQuad code[P][1];
#pragma GCC unroll kUnroll
      for (int p = 0; p < P; ++p) w[p]->codes(v, code[p]);
#pragma GCC unroll kUnroll
      for (int t = 0; t < N; ++t) {
        const VQuad x = splat_quad(q[t] + 4 * v);
#pragma GCC unroll kUnroll
        for (int p = 0; p < P; ++p) total[p][t] = dot_signed(total[p][t], code[p][0], x);
      }
    }
  } else {
    VSum s[P][N];
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) s[i / N][i % N] = sum_from(Packed::offset(*a[i % N]));
    dot_quads<P, N, Source::kPerVector>(s, Source::kVectors, q,
                                        [&](int p, int v, auto& out) { w[p]->codes(v, out); });
#pragma GCC unroll kUnroll
    for (int i = 0; i < P * N; ++i) total[i / N][i % N] = widen(s[i / N][i % N]);
  }
#pragma GCC unroll kUnroll
  for (int p = 0; p < P; ++p) {
    const vf d = w[p]->scale_f32();
#pragma GCC unroll kUnroll
    for (int t = 0; t < N; ++t) {
      tile.acc[p][t] = fma(mul(d, set1(a[t]->d)), to_float(total[p][t]), tile.acc[p][t]);
    }
  }
}

template <int P, int N, class Packed>
inline void step_floats(const Packed* const (&w)[P], const float* const (&x)[N], Tile<P, N>& tile) {
  vf value[P];
#pragma GCC unroll kUnroll
  for (int p = 0; p < P; ++p) value[p] = w[p]->value();
#pragma GCC unroll kUnroll
  for (int t = 0; t < N; ++t) {
    const vf a = set1(*x[t]);
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) tile.acc[p][t] = fma(value[p], a, tile.acc[p][t]);
  }
}

// What one packed struct is multiplied with.
template <class Packed, Family>
struct ActivationOf {
  using type = Q8SuperGroup;
};
template <class Packed>
struct ActivationOf<Packed, Family::groups32> {
  using type = Q8Group;
};
template <class Packed>
struct ActivationOf<Packed, Family::floats> {
  using type = float;
};
template <class Packed>
struct ActivationOf<Packed, Family::own> {
  using type = typename Packed::Act;
};
template <class K>
using ActOf = typename ActivationOf<typename K::Packed, K::kFamily>::type;

// `count` packed structs of P panels (w[p] + b) times those of N tokens (a[t] + b), added to the
// tile.
template <class K, int P, int N, class Source>
inline void steps(const Source* const (&w)[P], const ActOf<K>* const (&a)[N], int64_t count,
                  Tile<P, N>& tile) {
  using Packed = typename K::Packed;
  for (int64_t b = 0; b < count; ++b) {
    const Source* wb[P];
    const ActOf<K>* ab[N];
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) wb[p] = w[p] + b;
#pragma GCC unroll kUnroll
    for (int t = 0; t < N; ++t) ab[t] = a[t] + b;
    if constexpr (K::kFamily == Family::own) {
      Packed::template step<P, N>(wb, ab, tile);
    } else if constexpr (K::kFamily == Family::groups256) {
      step_groups256<Packed, P, N>(wb, ab, tile);
    } else if constexpr (K::kFamily == Family::ternary) {
      step_ternary<Packed, P, N>(wb, ab, tile);
    } else if constexpr (K::kFamily == Family::groups32) {
      step_groups32<Packed, P, N>(wb, ab, tile);
    } else {
      step_floats<P, N>(wb, ab, tile);
    }
  }
}

// Arguments of `matmul`, as kernels.h describes them.
struct Call {
  const PackedMatrix& w;
  const std::byte* acts;
  size_t act_stride;
  const float* bias;
  float* out;
  size_t out_stride;

  template <class T>
  const T* packed(int64_t panel) const {
    return reinterpret_cast<const T*>(w.bytes + static_cast<size_t>(panel) * w.panel_nbytes);
  }
  template <class T>
  const T* act(int64_t token) const {
    return reinterpret_cast<const T*>(acts + static_cast<size_t>(token) * act_stride);
  }
  float* result(int64_t panel, int64_t token) const {
    return out + static_cast<size_t>(token) * out_stride + panel * kRows;
  }
  int rows_of(int64_t panel) const {
    const int64_t left = w.rows - panel * kRows;
    return static_cast<int>(left < kRows ? left : kRows);
  }
  // Sums over the columns so far wait where the result will lie, in the rows that exist.
  vf kept(int64_t panel, int64_t token) const {
    const int rows = rows_of(panel);
    const float* src = result(panel, token);
    return rows == kRows ? load(src) : load_n(src, rows);
  }
  void keep(int64_t panel, int64_t token, vf acc) const {
    const int rows = rows_of(panel);
    float* dst = result(panel, token);
    if (rows == kRows) {
      store(dst, acc);
    } else {
      store_n(dst, acc, rows);
    }
  }
  // With the bias.
  void write(int64_t panel, int64_t token, vf acc) const {
    if (bias == nullptr) return keep(panel, token, acc);
    const int rows = rows_of(panel);
    const float* more = bias + panel * kRows;
    keep(panel, token, add(acc, rows == kRows ? load(more) : load_n(more, rows)));
  }
};

// The chain of a (row, token) as it is written: a form that scales whole rows does so here.
template <class K>
inline vf finished(const Call& call, int64_t token, vf acc) {
  if constexpr (requires { K::Packed::finish(call, token, acc); }) {
    return K::Packed::finish(call, token, acc);
  } else {
    return acc;
  }
}

// Few tokens: P panels x N tokens over all columns, straight from the packed bytes.
template <class K, int P, int N>
inline void direct(const Call& call, int64_t panel, int64_t token) {
  using Packed = typename K::Packed;
  using Act = ActOf<K>;
  const Packed* w[P];
  const Act* a[N];
  for (int p = 0; p < P; ++p) w[p] = call.packed<Packed>(panel + p);
  for (int t = 0; t < N; ++t) a[t] = call.act<Act>(token + t);
  Tile<P, N> tile;
  for (int i = 0; i < P * N; ++i) tile.acc[i / N][i % N] = zero();
  steps<K, P, N>(w, a, call.w.cols / K::kCols, tile);
  for (int p = 0; p < P; ++p) {
    for (int t = 0; t < N; ++t)
      call.write(panel + p, token + t, finished<K>(call, token + t, tile.acc[p][t]));
  }
}

template <class K, int N>
inline void direct_panels(const Call& call, int64_t panel_begin, int64_t panel_end, int64_t token) {
  constexpr int P = K::kFamily != Family::floats ? 1
                    : kFloatDirectPanels / N > 1 ? kFloatDirectPanels / N
                                                 : 1;
  int64_t panel = panel_begin;
  for (; panel + P <= panel_end; panel += P) direct<K, P, N>(call, panel, token);
  if constexpr (P > 2) {
    for (; panel + 2 <= panel_end; panel += 2) direct<K, 2, N>(call, panel, token);
  }
  for (; panel < panel_end; ++panel) direct<K, 1, N>(call, panel, token);
}

// N is the most that are tried: the call that has exactly N tokens runs.
template <class K, int N = kMaxDirectTokens>
inline void few_tokens(const Call& call, int64_t tokens, int64_t panel_begin, int64_t panel_end) {
  if constexpr (N > 0) {
    if (tokens == N) return direct_panels<K, N>(call, panel_begin, panel_end, 0);
    few_tokens<K, N - 1>(call, tokens, panel_begin, panel_end);
  }
}

// Columns of a panel that are kept unpacked in the first-level cache.
template <class K>
inline constexpr int kStretch = K::kFamily == Family::floats ? 256 : 256 / K::kCols;

inline constexpr int kMaxTokenBlock =
    192;  // tokens that share one unpacking; a multiple of every tile

// Sums of P panels x kMaxTokenBlock tokens between stretches.
template <int P>
struct alignas(64) Sums {
  float v[kMaxTokenBlock][P][kRows];
};

// Weights of the next stretch, asked for in bursts while the tiles of this one are computed. Few
// tokens leave too little arithmetic to wait for memory behind, and the processor's own prefetching
// stops where the tiles after the first read again what is cached.
template <int P>
struct Ahead {
  static constexpr int64_t kColumns = 16;  // of a tile between two bursts

  const std::byte* at[P] = {};
  int64_t left = 0;   // bytes of each panel still to ask for
  int64_t burst = 0;  // of each panel

  void fetch() {
    if (left <= 0) return;
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) {
      for (int64_t i = 0; i < burst; i += 64) __builtin_prefetch(at[p] + i, 0, 2);
      at[p] += burst;
    }
    left -= burst;
  }
};

// What P panels hold after `done` structs, else what the next P begin with (a thread mostly goes on
// with the chunk behind this one), to be fetched while `columns` columns of tiles are computed.
template <class K, int P>
inline Ahead<P> ahead_of(const Call& call, int64_t panel, int64_t done, int64_t columns) {
  using Packed = typename K::Packed;
  constexpr int64_t kSize = sizeof(Packed);
  int64_t begin = done * kSize;
  const auto whole = static_cast<int64_t>(call.w.panel_nbytes);
  if (begin >= whole) {
    panel += P;
    begin = 0;
  }
  Ahead<P> ahead;
  if ((panel + P - 1) * kRows >= call.w.rows) return ahead;
  for (int p = 0; p < P; ++p) ahead.at[p] = call.packed<std::byte>(panel + p) + begin;
  ahead.left = whole - begin < kStretch<K> * kSize ? whole - begin : kStretch<K> * kSize;
  const int64_t bursts = columns / Ahead<P>::kColumns;
  ahead.burst = (ahead.left / (bursts > 0 ? bursts : 1) + 63) / 64 * 64;
  return ahead;
}

// One stretch of P panels times the next N tokens.
template <class K, int P, int N, class Source>
inline void tile_of(const Call& call, const Source* const (&w)[P], int64_t first, int64_t count,
                    int64_t token, float (*sums)[P][kRows], Ahead<P>& ahead) {
  using Act = ActOf<K>;
  const Act* a[N];
  Tile<P, N> tile;
#pragma GCC unroll kUnroll
  for (int t = 0; t < N; ++t) {
    a[t] = call.act<Act>(token + t) + first;
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) tile.acc[p][t] = load(sums[t][p]);
  }
  if constexpr (K::kFamily == Family::floats) {
    const Source* at[P];
    for (int p = 0; p < P; ++p) at[p] = w[p];
    constexpr int64_t kPiece = Ahead<P>::kColumns;
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      ahead.fetch();
      steps<K, P, N>(at, a, count - begin < kPiece ? count - begin : kPiece, tile);
      for (auto& one : at) one += kPiece;
      for (auto& one : a) one += kPiece;
    }
  } else {
    steps<K, P, N>(w, a, count, tile);
  }
#pragma GCC unroll kUnroll
  for (int t = 0; t < N; ++t) {
#pragma GCC unroll kUnroll
    for (int p = 0; p < P; ++p) store(sums[t][p], tile.acc[p][t]);
  }
}

// The next n <= N tokens.
template <class K, int P, int N, class Source>
inline void tile_of_any(int64_t n, const Call& call, const Source* const (&w)[P], int64_t first,
                        int64_t count, int64_t token, float (*sums)[P][kRows], Ahead<P>& ahead) {
  if constexpr (N > 0) {
    if (n == N) return tile_of<K, P, N>(call, w, first, count, token, sums, ahead);
    tile_of_any<K, P, N - 1>(n, call, w, first, count, token, sums, ahead);
  }
}

// What one pass computes with: tokens from token_begin on, packed structs of columns from begin on.
struct Part {
  int64_t token_begin, token_end, begin, end;
};

template <class K, int P>
inline void many_tokens(const Call& call, int64_t panel, const Part& part) {
  using Packed = typename K::Packed;
  using Source = typename UnpackedOf<Packed>::type;
  constexpr int N = K::kFamily == Family::floats ? kFloatTileTokens : kTileTokens;
  constexpr bool kUnpacks = !std::is_same_v<Packed, Source>;
  alignas(64) std::byte buffer[kUnpacks ? P * kStretch<K> * sizeof(Source) : 1];
  Sums<P> sums;
  const int64_t tokens = part.token_end - part.token_begin;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int p = 0; p < P; ++p) {
      store(sums.v[t][p], part.begin == 0 ? zero() : call.kept(panel + p, part.token_begin + t));
    }
  }
  for (int64_t first = part.begin; first < part.end; first += kStretch<K>) {
    const int64_t count = part.end - first < kStretch<K> ? part.end - first : kStretch<K>;
    const Source* w[P];
    for (int p = 0; p < P; ++p) {
      const Packed* packed = call.packed<Packed>(panel + p) + first;
      if constexpr (kUnpacks) {
        Source* unpacked = reinterpret_cast<Source*>(buffer) + p * kStretch<K>;
        for (int64_t b = 0; b < count; ++b) new (unpacked + b) Source(packed[b]);
        w[p] = unpacked;
      } else {
        w[p] = packed;
      }
    }
    Ahead<P> ahead;
    if constexpr (K::kFamily == Family::floats) {
      const int64_t columns = (tokens + N - 1) / N * count;
      ahead = ahead_of<K, P>(call, panel, first + count, columns);
    }
    // Tiles of nearly one size: a small one at the end would wait for its few chains of additions.
    int64_t t = 0;
    for (int64_t tiles = (tokens + N - 1) / N; tiles > 0; --tiles) {
      const int64_t n = (tokens - t + tiles - 1) / tiles;
      tile_of_any<K, P, N>(n, call, w, first, count, part.token_begin + t, sums.v + t, ahead);
      t += n;
    }
  }
  const bool last = part.end == call.w.cols / K::kCols;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int p = 0; p < P; ++p) {
      const int64_t token = part.token_begin + t;
      const vf sum = load(sums.v[t][p]);
      if (last) {
        call.write(panel + p, token, finished<K>(call, token, sum));
      } else {
        call.keep(panel + p, token, sum);
      }
    }
  }
}

// Columns per pass over the panels, at most: of long rows too few tokens would share an unpacking.
inline constexpr int64_t kPassColumns = 2048;

// Tokens per pass: their activations, of `nbytes` each, should stay in a second-level cache of 512
// KiB.
inline int64_t token_block(size_t nbytes) {
  constexpr int kStep = 24;
  const auto fit = static_cast<int64_t>((size_t{288} << 10) / nbytes) / kStep * kStep;
  return fit < 2 * kStep ? 2 * kStep : fit > kMaxTokenBlock ? kMaxTokenBlock : fit;
}

template <class K>
inline void matmul_of(const Call& call, int64_t tokens, int64_t panel_begin, int64_t panel_end) {
  if (tokens <= kMaxDirectTokens) return few_tokens<K>(call, tokens, panel_begin, panel_end);
  constexpr int P = K::kFamily == Family::floats ? kFloatTilePanels : kTilePanels;
  const int64_t stretches = (call.w.cols / K::kCols + kStretch<K> - 1) / kStretch<K>;
  const int64_t passes = (call.w.cols + kPassColumns - 1) / kPassColumns;
  const int64_t structs = (stretches + passes - 1) / passes * kStretch<K>;
  const int64_t block = token_block(static_cast<size_t>(structs) * sizeof(ActOf<K>));
  Part part{};
  for (; part.token_begin < tokens; part.token_begin = part.token_end) {
    part.token_end = tokens - part.token_begin < block ? tokens : part.token_begin + block;
    for (part.begin = 0; part.begin < call.w.cols / K::kCols; part.begin = part.end) {
      const int64_t left = call.w.cols / K::kCols - part.begin;
      part.end = part.begin + (left < structs ? left : structs);
      int64_t panel = panel_begin;
      for (; panel + P <= panel_end; panel += P) many_tokens<K, P>(call, panel, part);
      if constexpr (P > 1) {
        for (; panel < panel_end; ++panel) many_tokens<K, 1>(call, panel, part);
      }
    }
  }
}

inline void matmul(const PackedMatrix& w, const std::byte* acts, size_t act_stride, int64_t tokens,
                   int64_t panel_begin, int64_t panel_end, const float* bias, float* out,
                   size_t out_stride) noexcept {
  const Call call{w, acts, act_stride, bias, out, out_stride};
  with_kind_of(Kinds{}, w.format, [&](auto kind) {
    matmul_of<typename decltype(kind)::FormOf>(call, tokens, panel_begin, panel_end);
  });
}
