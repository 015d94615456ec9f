#include "sampling/ranking.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>

namespace tokamak::sampling {
namespace {

constexpr size_t num_bins = 2048;
constexpr size_t few = 256;  // entries that are sorted rather than cut again

// Which part of the range of its keys an entry lies in: the highest in bin 0, -infinity in the
// last.
struct Bins {
  float highest, scale;
  bool is_one;  // all keys are equal

  uint16_t of(float key) const noexcept {
    constexpr auto last = static_cast<float>(num_bins - 1);
    const float place = (highest - key) * scale;
    // Not a number where both are -infinity, or one is and the others are equal.
    return static_cast<uint16_t>(static_cast<int32_t>(place < last ? place : last));
  }
};

struct Range {
  float lowest = std::numeric_limits<float>::max();
  float highest = -std::numeric_limits<float>::infinity();
  bool forbidden = false;  // whether there is a -infinity, which counts as no end of the range

  void add(float key) noexcept {
    const bool finite = key >= std::numeric_limits<float>::lowest();
    highest = key > highest ? key : highest;
    lowest = finite && key < lowest ? key : lowest;
    forbidden |= !finite;
  }

  Bins bins() const noexcept {
    const float width = highest - lowest;
    const float scale = width > 0.0F ? static_cast<float>(num_bins - 1) / width : 0.0F;
    return {highest, std::min(scale, 1e30F), !forbidden && lowest == highest};
  }
};

struct Running {
  const float* weights;
  double target, sum;
  bool beyond;
  int32_t count;

  double weight(int32_t i) const noexcept { return weights == nullptr ? 1.0 : double(weights[i]); }
  bool met(double more) const noexcept {
    return beyond ? sum + more > target : sum + more >= target;
  }
};

Reached walk(std::span<const int32_t> at, Running& running) noexcept {
  Reached last{at.front(), running.count + 1};
  for (const int32_t i : at) {
    const double weight = running.weight(i);
    ++running.count;
    if (weight > 0.0) last = {i, running.count};
    if (running.met(weight)) return {i, running.count};
    running.sum += weight;
  }
  return last;
}

// The bin in which the running sum crosses the target; what lies before it is added to `running`.
uint16_t crossed(std::span<const uint16_t> bin_of, std::span<const int32_t> at,
                 Running& running) noexcept {
  std::array<double, num_bins> sums{};
  std::array<int32_t, num_bins> counts{};
  for (const uint16_t bin : bin_of) ++counts[bin];
  if (running.weights == nullptr) {
    std::copy(counts.begin(), counts.end(), sums.begin());
  } else {
    for (size_t i = 0; i < at.size(); ++i) {
      sums[bin_of[i]] += static_cast<double>(running.weights[at[i]]);
    }
  }
  size_t last = num_bins;
  while (last > 1 && !(sums[last - 1] > 0.0)) --last;  // rounding never leads past these
  size_t bin = 0;
  for (; bin + 1 < last && !running.met(sums[bin]); ++bin) {
    running.sum += sums[bin];
    running.count += counts[bin];
  }
  return static_cast<uint16_t>(bin);
}

void sort(const float* keys, std::span<int32_t> at) {
  std::sort(at.begin(), at.end(), [keys](int32_t a, int32_t b) {
    return keys[a] > keys[b] || (keys[a] == keys[b] && a < b);
  });
}

}  // namespace

Reached reach(std::span<const float> keys, const float* weights, double target, bool beyond) {
  // Allocating these would take longer than the passes.
  thread_local std::vector<int32_t> at;
  thread_local std::vector<float> near;
  thread_local std::vector<uint16_t> bin_of;
  at.resize(keys.size());
  std::iota(at.begin(), at.end(), 0);
  Running running{weights, target, 0.0, beyond, 0};
  std::span<const float> left = keys;  // of at
  while (at.size() > few) {
    Range range;
    for (const float key : left) range.add(key);
    const Bins bins = range.bins();
    if (bins.is_one) return walk(at, running);
    if (bin_of.size() < left.size()) bin_of.resize(left.size());
    for (size_t i = 0; i < left.size(); ++i) bin_of[i] = bins.of(left[i]);
    const uint16_t bin = crossed({bin_of.data(), left.size()}, at, running);
    near.resize(keys.size());
    size_t count = 0;
    for (size_t i = 0; i < left.size(); ++i) {  // without a branch; left may be in near itself
      const float key = left[i];
      at[count] = at[i];
      near[count] = key;
      count += bin_of[i] == bin ? 1 : 0;
    }
    if (count == at.size()) break;  // they differ by less than the bins can tell
    at.resize(count);
    left = {near.data(), count};
  }
  sort(keys.data(), at);
  return walk(at, running);
}

std::vector<int32_t> ranked(std::span<const float> keys) {
  constexpr int digit_bits = 11;
  constexpr size_t num_digits = size_t{1} << digit_bits;
  thread_local std::vector<uint64_t> words, spare;
  words.resize(keys.size());
  spare.resize(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(keys[i] + 0.0F);  // -0 becomes 0
    const uint32_t falling = (bits >> 31) != 0 ? bits : ~bits & 0x7FFFFFFFU;
    words[i] = uint64_t{falling} << 32 | i;
  }
  for (int shift = 32; shift < 64; shift += digit_bits) {  // stable, so positions stay in order
    std::array<size_t, num_digits> starts{};
    for (const uint64_t word : words) ++starts[word >> shift & (num_digits - 1)];
    std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), size_t{0});
    for (const uint64_t word : words) spare[starts[word >> shift & (num_digits - 1)]++] = word;
    words.swap(spare);
  }
  std::vector<int32_t> at(keys.size());
  for (size_t i = 0; i < at.size(); ++i) at[i] = static_cast<int32_t>(words[i] & 0xFFFFFFFFU);
  return at;
}

}  // namespace tokamak::sampling
