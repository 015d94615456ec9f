#include "quant/neighbours.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <numeric>

namespace tokamak::quant {
namespace {

// Coordinates of a cell: its number in base `levels`, the first coordinate lowest.
std::array<int, 8> middle_of(size_t cell, const Lattice& grid) {
  std::array<int, 8> middle{};
  for (int i = 0; i < grid.dimensions; ++i) {
    middle[static_cast<size_t>(i)] = grid.levels[cell % grid.levels.size()];
    cell /= grid.levels.size();
  }
  return middle;
}

void fill_cell(Neighbours& out, const Lattice& grid, size_t cell, std::vector<int>& distance,
               std::vector<uint16_t>& order) {
  const std::array<int, 8> middle = middle_of(cell, grid);
  const size_t dimensions = static_cast<size_t>(grid.dimensions);
  for (size_t p = 0; p < distance.size(); ++p) {
    int sum = 0;
    for (size_t i = 0; i < dimensions; ++i) {
      const int gap = out.points[p * dimensions + i] - middle[i];
      sum += gap * gap;
    }
    distance[p] = sum;
  }
  std::iota(order.begin(), order.end(), uint16_t{0});
  std::partial_sort(order.begin(), order.begin() + kNeighbours, order.end(),
                    [&](uint16_t a, uint16_t b) {
                      return distance[a] != distance[b] ? distance[a] < distance[b] : a < b;
                    });
  for (size_t n = 0; n < kNeighbours; ++n) {
    out.index[cell * kNeighbours + n] = order[n];
    for (size_t i = 0; i < dimensions; i += 4) {
      std::memcpy(&out.near[(cell * (dimensions / 4) + i / 4) * kNeighbours + n],
                  &out.points[order[n] * dimensions + i], 4);
    }
  }
}

Neighbours build(const Lattice& grid) {
  const size_t dimensions = static_cast<size_t>(grid.dimensions), levels = grid.levels.size();
  const size_t count = grid.digits.size() / dimensions;
  size_t cells = 1;
  for (size_t i = 0; i < dimensions; ++i) cells *= levels;
  Neighbours out{};
  out.dimensions = grid.dimensions;
  out.num_levels = static_cast<int>(levels);
  out.first = static_cast<float>(grid.levels.front());
  out.last = static_cast<float>(grid.levels.back());
  out.step = (out.last - out.first) / static_cast<float>(levels - 1);
  out.points.reserve(grid.digits.size());
  for (const uint8_t digit : grid.digits) out.points.push_back(grid.levels[digit]);
  out.near.resize(cells * (dimensions / 4) * kNeighbours);
  out.index.resize(cells * kNeighbours);
  std::vector<int> distance(count);
  std::vector<uint16_t> order(count);
  for (size_t cell = 0; cell < cells; ++cell) fill_cell(out, grid, cell, distance, order);
  return out;
}

}  // namespace

const Neighbours& neighbours(Grid grid) {
  static std::array<Neighbours, 6> built;
  static std::array<std::once_flag, 6> once;
  const auto at = static_cast<size_t>(grid);
  std::call_once(once[at], [&] { built[at] = build(lattice(grid)); });
  return built[at];
}

}  // namespace tokamak::quant
