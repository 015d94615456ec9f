// The lattices of the iq formats: which points of {levels}^dimensions may be stored, by index.
//
// Points rise as numbers in base `levels.size()` with the first coordinate lowest, so a lattice is
// a set of numbers. Source: the sets are part of the file formats; src/tokamak/quant/grids.py is
// the readable twin.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tokamak::quant {

enum class Grid : uint8_t { iq1, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s };

struct Lattice {
  int dimensions;                  // 8 or 4 coordinates of a point
  std::span<const int8_t> levels;  // rising
  std::vector<uint8_t> digits;     // [points][dimensions], indices into levels

  const uint8_t* point(int index) const noexcept { return digits.data() + dimensions * index; }
};

// Built once, on first use; thread-safe.
const Lattice& lattice(Grid grid);

}  // namespace tokamak::quant
