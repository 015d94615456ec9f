// One operation of a program, ready to run: addresses resolved, sizes checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cpu/step.h"

namespace tokamak::cpu {

// Which kernel ran for which node, how often and how long.
struct Record {
  std::string node;    // name of the graph value it computes
  std::string op;      // "linear"
  std::string kernel;  // "linear.q4_k.avx2"
  int64_t calls = 0;
  int64_t nanoseconds = 0;
  int64_t nbytes = 0;  // weights and cache the calls had to read
  int64_t macs = 0;    // multiply-adds with weight matrices
};

class Instruction {
 public:
  virtual ~Instruction() = default;
  // Computes the whole node for this step. Allocates nothing.
  virtual void run(const Step& step) noexcept = 0;
  // Bytes of weights and cache that `run` must read.
  virtual int64_t nbytes(const Step& step) const noexcept {
    static_cast<void>(step);
    return 0;
  }
  // Multiply-adds with weight matrices that `run` does.
  virtual int64_t macs(const Step& step) const noexcept {
    static_cast<void>(step);
    return 0;
  }
  // Bytes of Step::scratch it needs in steps of up to `rows` rows with `threads` threads.
  virtual size_t scratch_nbytes(int64_t rows, int threads) const {
    static_cast<void>(rows);
    static_cast<void>(threads);
    return 0;
  }

  Record record;
};

}  // namespace tokamak::cpu
