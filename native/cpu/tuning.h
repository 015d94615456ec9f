// Sizes that decide speed and nothing else: results are the same bits for all of them.
//
// The defaults are good on every machine they were tried on; `tokamak tune` looks for better ones.
#pragma once

#include <cstdint>

namespace tokamak::cpu {

struct Tuning {
  int64_t chunk_nbytes = 64 << 10;   // of weights that a thread claims: some microseconds of memory
  int64_t block_nbytes = 192 << 10;  // of activations that a chunk meets: part of a cache
  int64_t spin_us = 50;              // that a thread looks for work before it sleeps
};

// Throws Error(invalid_params) outside [4 KiB, 16 MiB], [16 KiB, 16 MiB], [0, 10000].
void check_tuning(const Tuning& tuning);

}  // namespace tokamak::cpu
