// For every cell of the full grid around a lattice, the lattice points nearest to its middle: what
// an encoder compares a vector with, so that its time does not grow with the lattice.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/grids.h"

namespace tokamak::quant {

inline constexpr int kNeighbours = 16;

struct Neighbours {
  int dimensions;
  int num_levels;
  float first;                 // level
  float step;                  // between levels, on average
  float last;                  // level
  std::vector<int8_t> points;  // [points][dimensions], values
  // [cells][dimensions / 4][kNeighbours]: four values in the bytes of a word, the first lowest; of
  // the nearest point first
  std::vector<int32_t> near;
  std::vector<uint16_t> index;  // [cells][kNeighbours], of those points
};

// Built on first use; thread-safe.
const Neighbours& neighbours(Grid grid);

}  // namespace tokamak::quant
