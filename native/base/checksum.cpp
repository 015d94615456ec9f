#include "base/checksum.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

namespace tokamak {
namespace {

constexpr size_t kLanes = 8;  // hide the latency of a multiplication
constexpr uint64_t kOdd = 0x9e3779b97f4a7c15ull;

uint64_t sum_of(std::span<const std::byte> bytes) noexcept {
  uint64_t lanes[kLanes] = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto absorb = [&](const std::byte* p) {
    uint64_t words[kLanes];
    std::memcpy(words, p, sizeof words);
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = (lanes[i] ^ words[i]) * kOdd;
  };
  size_t at = 0;
  for (; at + sizeof lanes <= bytes.size(); at += sizeof lanes) absorb(bytes.data() + at);
  std::byte rest[sizeof lanes] = {};
  std::copy(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end(), rest);
  absorb(rest);
  uint64_t all = bytes.size();
  for (const uint64_t lane : lanes) {
    all = (all ^ lane ^ (lane >> 29)) * kOdd;
    all ^= all >> 32;
  }
  return all;
}

}  // namespace

std::vector<uint64_t> checksums(std::span<const std::byte> bytes, size_t piece, int threads) {
  const size_t pieces = (bytes.size() + piece - 1) / piece;
  std::vector<uint64_t> sums(pieces);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < pieces; i = next.fetch_add(1)) {
      sums[i] = sum_of(bytes.subspan(i * piece, std::min(piece, bytes.size() - i * piece)));
    }
  };
  std::vector<std::jthread> others;
  for (int i = 1; i < std::min<int>(threads, static_cast<int>(std::min<size_t>(pieces, 64))); ++i) {
    others.emplace_back(work);
  }
  work();
  others.clear();  // waits for them
  return sums;
}

}  // namespace tokamak
