#include "quant/grids.h"

#include <array>
#include <bit>
#include <cstddef>

namespace tokamak::quant {
namespace {

#include "quant/grids_data.inl"

constexpr int8_t kTernary[] = {-1, 0, 1};
constexpr int8_t kPairs[] = {8, 25, 43};
constexpr int8_t kQuads[] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr int8_t kOdd[] = {1, 3, 5, 7, 9, 11, 13, 15};

Lattice expand(int dimensions, std::span<const int8_t> levels, std::span<const uint64_t> bits) {
  Lattice out{dimensions, levels, {}};
  for (size_t word = 0; word < bits.size(); ++word) {
    for (uint64_t left = bits[word]; left != 0; left &= left - 1) {
      size_t number = 64 * word + static_cast<size_t>(std::countr_zero(left));
      for (int i = 0; i < dimensions; ++i) {
        out.digits.push_back(static_cast<uint8_t>(number % levels.size()));
        number /= levels.size();
      }
    }
  }
  return out;
}

}  // namespace

const Lattice& lattice(Grid grid) {
  static const std::array<Lattice, 6> all = {
      expand(8, kTernary, kIQ1Bits),   expand(8, kPairs, kIQ2_XXSBits),
      expand(8, kPairs, kIQ2_XSBits),  expand(8, kPairs, kIQ2_SBits),
      expand(4, kQuads, kIQ3_XXSBits), expand(4, kOdd, kIQ3_SBits),
  };
  return all[static_cast<size_t>(grid)];
}

}  // namespace tokamak::quant
