// A checksum at the speed of memory, against damage: not against people.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tokamak {

// One sum of 64 bits for every `piece` bytes (a multiple of 64), the last piece shorter, on up to
// `threads` threads. Every change of a single 8-byte word changes its sum: each step of a lane,
// (sum ^ word) * odd, is one to one.
std::vector<uint64_t> checksums(std::span<const std::byte> bytes, size_t piece, int threads);

}  // namespace tokamak
