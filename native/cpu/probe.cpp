// The probes of probe.h. Each instruction set has one loop, compiled in a target region and chosen
// by name.
#include "cpu/probe.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "base/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tokamak::cpu {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kPage = 4096;

// Keeps a result alive that nobody reads, so that the compiler cannot drop the loop that made it.
std::atomic<uint64_t> sink;

// Runs `work(thread)` on every thread at once and returns the seconds until the last one is done.
template <class Work>
double timed(int threads, const Work& work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) {
    others.emplace_back([&, i] {
      ready.fetch_add(1);
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      work(i);
    });
  }
  while (ready.load() < threads - 1) std::this_thread::yield();
  const auto start = Clock::now();
  go.store(true, std::memory_order_release);
  work(0);
  for (auto& t : others) t.join();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// ---- reading
// -------------------------------------------------------------------------------------------

uint64_t read_portable(const std::byte* p, size_t nbytes) noexcept {
  uint64_t acc[8] = {};
  for (size_t i = 0; i < nbytes; i += 64) {
    uint64_t line[8];
    std::memcpy(line, p + i, 64);
    for (int j = 0; j < 8; ++j) acc[j] ^= line[j];
  }
  uint64_t all = 0;
  for (uint64_t a : acc) all ^= a;
  return all;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t read_avx2(const std::byte* p, size_t nbytes) noexcept {
  // Eight streams of 512 bytes per turn: enough loads in flight to fill every miss buffer of a
  // core.
  __m256i acc[4] = {};
  for (size_t i = 0; i < nbytes; i += 512) {
    for (size_t j = 0; j < 512; j += 128) {
      for (size_t k = 0; k < 4; ++k) {
        const auto* at = reinterpret_cast<const __m256i*>(p + i + j + 32 * k);
        acc[k] = _mm256_xor_si256(acc[k], _mm256_load_si256(at));
      }
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(acc[0], acc[1]), _mm256_xor_si256(acc[2], acc[3]));
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), all);
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}
#endif

using Read = uint64_t (*)(const std::byte*, size_t) noexcept;

Read best_read() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return read_avx2;
#endif
  return read_portable;
}

struct Free {
  void operator()(std::byte* p) const noexcept { std::free(p); }
};
using Buffer = std::unique_ptr<std::byte, Free>;

Buffer huge_buffer(size_t nbytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t rounded = (nbytes + kHuge - 1) / kHuge * kHuge;
  Buffer buffer(static_cast<std::byte*>(std::aligned_alloc(kHuge, rounded)));
  if (!buffer) {
    throw Error(ErrorKind::capacity,
                "no memory for a probe of " + std::to_string(rounded) + " bytes");
  }
#if defined(__linux__)
  madvise(buffer.get(), rounded, MADV_HUGEPAGE);  // a wish: small pages only make the figure lower
#endif
  return buffer;
}

// ---- multiplying
// ---------------------------------------------------------------------------------------

constexpr int kTurns = 1 << 20;  // turns of a loop between two looks at the clock: about 10 ms

struct Dot {
  std::string_view isa;
  bool (*runs_here)() noexcept;
  uint64_t (*loop)() noexcept;  // kTurns turns
  double macs_per_turn;
};

uint64_t dot_portable() noexcept {
  // Sixteen int32 lanes of independent sums: the widest form that a plain compiler turns into
  // vectors.
  uint8_t a[64];
  int8_t b[64];
  for (int i = 0; i < 64; ++i) {
    a[i] = static_cast<uint8_t>(i);
    b[i] = static_cast<int8_t>(i - 32);
  }
  int32_t acc[16] = {};
  for (int t = 0; t < kTurns / 4; ++t) {
    for (int lane = 0; lane < 16; ++lane) {
      int32_t sum = 0;
      for (int j = 0; j < 4; ++j) sum += int32_t{a[4 * lane + j]} * b[4 * lane + j];
      acc[lane] ^= sum + t;
    }
    a[t & 63] ^= 1;
  }
  uint64_t all = 0;
  for (int32_t v : acc) all ^= static_cast<uint64_t>(static_cast<uint32_t>(v));
  return all;
}

#if defined(__x86_64__)
// The instructions are written as assembly: a compiler may simplify intrinsics whose operands do
// not change.
__attribute__((target("avx2"))) uint64_t dot_avx2() noexcept {
  const __m256i codes = _mm256_set1_epi8(3), acts = _mm256_set1_epi8(5);
  __m256i acc[8] = {};
  for (int t = 0; t < kTurns; ++t) {
    for (auto& a : acc) {
      __m256i pairs;
      asm volatile("vpmaddubsw %2, %3, %1\n\tvpaddw %1, %0, %0"
                   : "+x"(a), "=&x"(pairs)
                   : "x"(acts), "x"(codes));
    }
  }
  __m256i all = acc[0];
  for (int i = 1; i < 8; ++i) all = _mm256_xor_si256(all, acc[i]);
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0));
}

__attribute__((target("avx512f,avx512vnni"))) uint64_t dot_avx512vnni() noexcept {
  const __m512i codes = _mm512_set1_epi32(0x03030303), acts = _mm512_set1_epi32(0x05050505);
  __m512i acc[12] = {};
  for (int t = 0; t < kTurns; ++t) {
    for (auto& a : acc) asm volatile("vpdpbusd %1, %2, %0" : "+v"(a) : "v"(acts), "v"(codes));
  }
  __m512i all = acc[0];
  for (int i = 1; i < 12; ++i) all = _mm512_xor_si512(all, acc[i]);
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, all);
  return words[0];
}

bool has_avx2() noexcept { return __builtin_cpu_supports("avx2"); }
bool has_avx512vnni() noexcept {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
}
#endif

bool always() noexcept { return true; }

constexpr Dot kDots[] = {
    {"scalar", always, dot_portable, 16.0},  // a quarter of the turns, 64 products each
#if defined(__x86_64__)
    {"avx2", has_avx2, dot_avx2, 8.0 * 32},
    {"avx512vnni", has_avx512vnni, dot_avx512vnni, 12.0 * 64},
#endif
};

void check_threads(int threads) {
  if (threads < 1 || threads > 1024) {
    throw Error(ErrorKind::invalid_params,
                "threads is " + std::to_string(threads) + ", not in 1..1024");
  }
}

}  // namespace

std::vector<double> read_seconds(std::span<const std::byte> memory, int threads, int repeats) {
  check_threads(threads);
  const auto count = static_cast<size_t>(threads);
  const size_t slice = memory.size() / count / kPage * kPage;
  const Read read = best_read();
  std::vector<double> seconds;
  for (int r = 0; r <= repeats && slice > 0; ++r) {
    const double s = timed(threads, [&](int i) {
      sink.fetch_xor(read(memory.data() + slice * static_cast<size_t>(i), slice));
    });
    const double whole = static_cast<double>(memory.size()) / static_cast<double>(slice * count);
    if (r > 0) seconds.push_back(s * whole);
  }
  return seconds;
}

std::vector<double> read_seconds(int threads, size_t nbytes, int repeats) {
  check_threads(threads);
  const auto count = static_cast<size_t>(threads);
  const size_t slice = (nbytes / count + kPage) / kPage * kPage;
  const Buffer buffer = huge_buffer(slice * count);
  timed(threads,
        [&](int i) { std::memset(buffer.get() + slice * static_cast<size_t>(i), i + 1, slice); });
  auto seconds = read_seconds({buffer.get(), slice * count}, threads, repeats);
  for (double& s : seconds) s *= static_cast<double>(nbytes) / static_cast<double>(slice * count);
  return seconds;
}

std::vector<double> int8_rates(std::string_view isa, int threads, int repeats) {
  check_threads(threads);
  for (const Dot& dot : kDots) {
    if (dot.isa != isa) continue;
    if (!dot.runs_here()) {
      throw Error(ErrorKind::unavailable, "this processor has no " + std::string(isa));
    }
    std::vector<double> rates;
    for (int r = 0; r <= repeats; ++r) {
      const double s = timed(threads, [&](int) { sink.fetch_xor(dot.loop()); });
      if (r > 0) rates.push_back(dot.macs_per_turn * kTurns * threads / s);
    }
    return rates;
  }
  throw Error(ErrorKind::invalid_params,
              "no probe for the instruction set '" + std::string(isa) + "'");
}

std::vector<std::string_view> probe_isas() {
  std::vector<std::string_view> names;
  for (const Dot& dot : kDots) {
    if (dot.runs_here()) names.push_back(dot.isa);
  }
  return names;
}

}  // namespace tokamak::cpu
