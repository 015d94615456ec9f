// Measures what this machine can do at best: bytes read from memory and int8 multiply-adds per
// second. Benchmarks state their results as shares of these, measured in the same run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace tokamak::cpu {

// Seconds that `threads` threads take to read `nbytes` once, for each of `repeats` passes after one
// warm-up. The buffer is written first, each thread its own slice, in huge pages where the system
// grants them. threads in [1, 1024]; nbytes is rounded up to 4 KiB per thread. Throws
// Error(capacity) without memory.
std::vector<double> read_seconds(int threads, size_t nbytes, int repeats);

// The same over memory that is there: a share for each thread, one pass before those that count.
// `memory` is aligned to 64 bytes; its end may be left out, less than a page for each thread.
std::vector<double> read_seconds(std::span<const std::byte> memory, int threads, int repeats);

// Unsigned-by-signed int8 multiply-adds per second of `threads` threads, from registers: the
// ceiling of every integer kernel of this instruction set. `isa` is "scalar", "avx2", "avxvnni" or
// "avx512vnni". Throws Error(invalid_params) for an unknown name, Error(unavailable) when the
// processor lacks it.
std::vector<double> int8_rates(std::string_view isa, int threads, int repeats);

// Names of the probes that run here, weakest first.
std::vector<std::string_view> probe_isas();

}  // namespace tokamak::cpu
