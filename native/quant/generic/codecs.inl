// The two entries of a CodecTable: from a format to its loop over groups.

// f32_to_f16 and f16_to_f32 without branches, for compilers to vectorise.
inline uint16_t half_of(float x) noexcept {
  const auto all = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (all >> 16) & 0x8000u, size = all & 0x7fffffffu;
  const uint32_t normal = (size - 0x38000000u + 0x0fffu + ((size >> 13) & 1u)) >> 13;
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - 0x3f000000u;
  const uint32_t nan = 0x7e00u | ((size >> 13) & 0x3ffu);
  uint32_t h = size < 0x38800000u ? small : normal;
  h = size >= 0x47800000u ? 0x7c00u : h;
  h = size > 0x7f800000u ? nan : h;
  return static_cast<uint16_t>(sign | h);
}

inline float float_of(uint16_t h) noexcept {
  const uint32_t sign = (h & 0x8000u) << 16, size = h & 0x7fffu, shifted = size << 13;
  const auto small =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(size)) * 0x1p-24f);
  uint32_t all = shifted + (size >= 0x7c00u ? 0x70000000u : 0x38000000u);
  all = size < 0x0400u ? small : all;
  return std::bit_cast<float>(sign | all);
}

inline void encode_plain(Codec codec, const float* x, size_t n, uint8_t* out) noexcept {
  if (codec == Codec::f32) {
    std::memcpy(out, x, n * 4);
  } else if (codec == Codec::f16) {
    for (size_t i = 0; i < n; ++i) {
      const uint16_t h = half_of(x[i]);
      std::memcpy(out + 2 * i, &h, 2);
    }
  } else {
    for (size_t i = 0; i < n; ++i) {
      const uint16_t h = f32_to_bf16(x[i]);
      std::memcpy(out + 2 * i, &h, 2);
    }
  }
}

// encoder(tile, weights, out, count) for every kLanes groups of kSize.
template <int kSize, class Encoder>
inline void tiles(Codec codec, const float* x, const float* w, size_t num_elements, uint8_t* out,
                  const Encoder& encoder) noexcept {
  const auto nbytes = static_cast<size_t>(codec_format(codec).type_size);
  size_t groups = num_elements / kSize;
  alignas(64) F tile[kSize];
  alignas(64) F weights[kSize];
  while (groups > 0) {
    const size_t count = groups < kLanes ? groups : kLanes;
    transpose<kSize>(x, static_cast<int>(count), 0.0f, tile);
    if (w == nullptr) {
      encoder(tile, Ones{}, out, static_cast<int>(count));
    } else {
      transpose<kSize>(w, static_cast<int>(count), 1.0f, weights);
      encoder(tile, static_cast<const F*>(weights), out, static_cast<int>(count));
      w += count * kSize;
    }
    x += count * kSize;
    out += count * nbytes;
    groups -= count;
  }
}

#define TOKAMAK_LATTICE(codec, dimensions, grid, groups, high, unit, even, delta)         \
  case Codec::codec:                                                                      \
    return encode_lattice<dimensions>(                                                    \
        Codec::codec, {Grid::grid, groups, high, unit, even, Delta::delta}, x, w, n, out, \
        [](const Found& found, uint8_t* to) noexcept { store_##codec(found, to); })

#define TOKAMAK_ENCODE(codec, size, function)                                             \
  case Codec::codec:                                                                      \
    return tiles<size>(Codec::codec, x, w, n, out,                                        \
                       [](const F* tile, auto weights, uint8_t* to, int count) noexcept { \
                         function(tile, weights, to, count);                              \
                       })

inline void encode(Codec codec, const float* x, const float* w, size_t n, uint8_t* out) noexcept {
  switch (codec) {
    case Codec::f32:
    case Codec::f16:
    case Codec::bf16:
      return encode_plain(codec, x, n, out);
      TOKAMAK_ENCODE(q4_0, 32, encode_symmetric<8>);
      TOKAMAK_ENCODE(q4_1, 32, encode_affine<15>);
      TOKAMAK_ENCODE(q5_0, 32, encode_symmetric<16>);
      TOKAMAK_ENCODE(q5_1, 32, encode_affine<31>);
      TOKAMAK_ENCODE(q8_0, 32, encode_q8_0);
      TOKAMAK_ENCODE(q2_k, 256, encode_q2_k);
      TOKAMAK_ENCODE(q3_k, 256, encode_q3_k);
      TOKAMAK_ENCODE(q4_k, 256, encode_k_affine<15>);
      TOKAMAK_ENCODE(q5_k, 256, encode_k_affine<31>);
      TOKAMAK_ENCODE(q6_k, 256, encode_q6_k);
      TOKAMAK_ENCODE(iq4_nl, 32, encode_iq4_nl);
      TOKAMAK_ENCODE(iq4_xs, 256, encode_iq4_xs);
      TOKAMAK_ENCODE(mxfp4, 32, encode_mxfp4);
      TOKAMAK_ENCODE(nvfp4, 64, encode_nvfp4);
      TOKAMAK_ENCODE(tq1_0, 256, encode_tq1_0);
      TOKAMAK_ENCODE(tq2_0, 256, encode_tq2_0);
      TOKAMAK_ENCODE(q1_0, 128, encode_q1_0);
      TOKAMAK_ENCODE(q2_0, 64, encode_q2_0);
      TOKAMAK_LATTICE(iq2_xxs, 8, iq2_xxs, 8, 15, 8.0f, true, none);
      TOKAMAK_LATTICE(iq2_xs, 8, iq2_xs, 16, 15, 8.0f, true, none);
      TOKAMAK_LATTICE(iq2_s, 8, iq2_s, 16, 15, 8.0f, false, none);
      TOKAMAK_LATTICE(iq3_xxs, 4, iq3_xxs, 8, 15, 4.0f, true, none);
      TOKAMAK_LATTICE(iq3_s, 4, iq3_s, 8, 15, 1.0f, false, none);
      TOKAMAK_LATTICE(iq1_s, 8, iq1, 8, 7, 1.0f, false, group);
      TOKAMAK_LATTICE(iq1_m, 8, iq1, 16, 7, 1.0f, false, vector);
  }
}
#undef TOKAMAK_ENCODE
#undef TOKAMAK_LATTICE

inline void decode_plain(Codec codec, const uint8_t* groups, size_t n, float* y) noexcept {
  if (codec == Codec::f32) {
    std::memcpy(y, groups, n * 4);
    return;
  }
  const bool half = codec == Codec::f16;
  for (size_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, groups + 2 * i, 2);
    y[i] = half ? float_of(h) : bf16_to_f32(h);
  }
}

template <class Decoder>
inline void each(Codec codec, const uint8_t* groups, size_t n, float* y,
                 const Decoder& decoder) noexcept {
  const CodecFormat& format = codec_format(codec);
  const auto size = static_cast<size_t>(format.block_size);
  for (; n >= size; n -= size) {
    decoder(groups, y);
    groups += format.type_size;
    y += size;
  }
}

#define TOKAMAK_DECODE_POINTS(codec, grid)                                                \
  case Codec::codec:                                                                      \
    return each(Codec::codec, groups, n, y,                                               \
                [&table = neighbours(Grid::grid)](const uint8_t* g, float* to) noexcept { \
                  decode_##codec(table, g, to);                                           \
                })

#define TOKAMAK_DECODE(codec, function)     \
  case Codec::codec:                        \
    return each(Codec::codec, groups, n, y, \
                [](const uint8_t* g, float* to) noexcept { function(g, to); })

inline void decode(Codec codec, const uint8_t* groups, size_t n, float* y) noexcept {
  switch (codec) {
    case Codec::f32:
    case Codec::f16:
    case Codec::bf16:
      return decode_plain(codec, groups, n, y);
      TOKAMAK_DECODE(q4_0, (decode_legacy<false, false>));
      TOKAMAK_DECODE(q4_1, (decode_legacy<false, true>));
      TOKAMAK_DECODE(q5_0, (decode_legacy<true, false>));
      TOKAMAK_DECODE(q5_1, (decode_legacy<true, true>));
      TOKAMAK_DECODE(q8_0, decode_q8_0);
      TOKAMAK_DECODE(q2_k, decode_q2_k);
      TOKAMAK_DECODE(q3_k, decode_q3_k);
      TOKAMAK_DECODE(q4_k, decode_k_affine<false>);
      TOKAMAK_DECODE(q5_k, decode_k_affine<true>);
      TOKAMAK_DECODE(q6_k, decode_q6_k);
      TOKAMAK_DECODE(iq4_nl, decode_iq4_nl);
      TOKAMAK_DECODE(iq4_xs, decode_iq4_xs);
      TOKAMAK_DECODE(mxfp4, decode_mxfp4);
      TOKAMAK_DECODE(nvfp4, decode_nvfp4);
      TOKAMAK_DECODE(tq1_0, decode_tq1_0);
      TOKAMAK_DECODE(tq2_0, decode_tq2_0);
      TOKAMAK_DECODE(q1_0, decode_q1_0);
      TOKAMAK_DECODE(q2_0, decode_q2_0);
      TOKAMAK_DECODE_POINTS(iq2_xxs, iq2_xxs);
      TOKAMAK_DECODE_POINTS(iq2_xs, iq2_xs);
      TOKAMAK_DECODE_POINTS(iq2_s, iq2_s);
      TOKAMAK_DECODE_POINTS(iq3_xxs, iq3_xxs);
      TOKAMAK_DECODE_POINTS(iq3_s, iq3_s);
      TOKAMAK_DECODE_POINTS(iq1_s, iq1);
      TOKAMAK_DECODE_POINTS(iq1_m, iq1);
  }
}
#undef TOKAMAK_DECODE
#undef TOKAMAK_DECODE_POINTS
