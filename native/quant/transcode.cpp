#include "quant/transcode.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "cpu/features.h"
#include "cpu/pool.h"

namespace tokamak::quant {
namespace {

// Elements decoded at once: 16 super-groups, so that a tile of every width is full, in 32 kB.
constexpr int64_t kPiece = 4096;
constexpr int64_t kPiecesPerChunk = 32;  // between two looks at the counter of work

struct Available {
  std::array<const CodecTable*, 4> tables{};
  size_t count = 0;

  Available() noexcept {
#if defined(__x86_64__) || defined(_M_X64)
    if (cpu::features().avx512vnni) tables[count++] = &kAvx512Codecs;
    if (cpu::features().avx2) tables[count++] = &kAvx2Codecs;
#endif
    tables[count++] = &kBaselineCodecs;
#ifdef TOKAMAK_EMULATE_AVX512
    if (!cpu::features().avx512vnni) tables[count++] = &kAvx512Codecs;
#endif
  }
};

bool all_finite(const float* x, int64_t n) noexcept {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  }
  return largest < 0x7f800000u;
}

size_t nbytes(Codec codec, int64_t elements) noexcept {
  const CodecFormat& format = codec_format(codec);
  return static_cast<size_t>(elements / format.block_size) * static_cast<size_t>(format.type_size);
}

// Elements first .. first + n: where they lie if they are floats already, else decoded.
const float* at(const Transcoding& job, std::span<const uint8_t> rows, int64_t first, int64_t n,
                float* decoded) noexcept {
  const uint8_t* groups = rows.data() + nbytes(job.source, first);
  if (job.source == Codec::f32 && reinterpret_cast<uintptr_t>(groups) % alignof(float) == 0) {
    return reinterpret_cast<const float*>(groups);
  }
  job.table->decode(job.source, groups, static_cast<size_t>(n), decoded);
  return decoded;
}

}  // namespace

Codec codec_named(std::string_view name) {
  for (size_t i = 0; i < std::size(kCodecFormats); ++i) {
    if (kCodecFormats[i].name == name) return static_cast<Codec>(i);
  }
  throw Error(ErrorKind::unsupported,
              "weight format " + std::string(name) + " has no native codec");
}

std::span<const CodecTable* const> codec_tables() noexcept {
  static const Available available;
  return {available.tables.data(), available.count};
}

void transcode(const Transcoding& job, std::span<const uint8_t> rows, std::span<uint8_t> out,
               int threads) {
  const CodecFormat& from = codec_format(job.source);
  const CodecFormat& to = codec_format(job.target);
  const int64_t total = static_cast<int64_t>(rows.size()) / from.type_size * from.block_size;
  constexpr int64_t kChunk = kPiece * kPiecesPerChunk;
  const int64_t chunks = (total + kChunk - 1) / kChunk;
  std::atomic<int64_t> bad{total};
  cpu::Pool pool(static_cast<int>(std::clamp<int64_t>(threads, 1, std::max<int64_t>(chunks, 1))));
  pool.run(chunks, [&](int64_t chunk, int) noexcept {
    alignas(64) float decoded[kPiece];
    alignas(64) float w[kPiece];
    const int64_t end = std::min(total, (chunk + 1) * kChunk);
    for (int64_t first = chunk * kChunk; first < end; first += kPiece) {
      const int64_t n = std::min(kPiece, end - first);
      const float* x = at(job, rows, first, n, decoded);
      if (to.block_size > 1 && !all_finite(x, n)) {
        int64_t seen = bad.load();
        while (first < seen && !bad.compare_exchange_weak(seen, first)) {
        }
        continue;
      }
      if (!job.importance.empty()) {
        int64_t column = first % job.columns;
        for (int64_t i = 0; i < n; ++i) {
          w[i] = job.importance[static_cast<size_t>(column)];
          if (++column == job.columns) column = 0;
        }
      }
      job.table->encode(job.target, x, job.importance.empty() ? nullptr : w, static_cast<size_t>(n),
                        out.data() + nbytes(job.target, first));
    }
  });
  if (bad < total) {
    // The exact row: the piece holds several where rows are short.
    float decoded[kPiece];
    const float* x = at(job, rows, bad, std::min(kPiece, total - bad), decoded);
    int64_t element = bad;
    while (all_finite(x + (element - bad), 1)) ++element;
    throw Error(ErrorKind::invalid_params, "row " + std::to_string(element / job.columns) +
                                               " has a value that is not finite; " +
                                               std::string(to.name) + " cannot hold it");
  }
}

}  // namespace tokamak::quant
