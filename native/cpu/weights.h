// Packed weights of a program: matrices in one huge-page arena, small vectors beside them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/pages.h"
#include "cpu/kernels.h"
#include "cpu/pool.h"

namespace tokamak::cpu {

class Weights {
 public:
  explicit Weights(const KernelTable& kernels) : kernels_(kernels) {}

  // Bytes that a matrix takes in the arena. Throws Error(invalid_params) for sizes no kernel takes.
  size_t packed_nbytes(quant::Format format, int64_t rows, int64_t cols) const;
  // Address space for all matrices together; pages become resident as they are filled, on machines
  // with several memory nodes in turn on each, so that threads of every node read at full speed.
  void reserve(size_t nbytes);
  // Packs `bytes` [rows * row_nbytes], in parallel over panels. Throws Error: capacity beyond what
  // was reserved, invalid_params for bytes that do not fit the shape.
  // scale: of the whole matrix, where the format has one.
  size_t add_matrix(quant::Format format, std::span<const std::byte> bytes, int64_t rows,
                    int64_t cols, float scale, Pool& pool);
  // Takes a matrix that lies packed in memory of the caller's, who keeps it alive. Throws
  // Error(invalid_params) unless `bytes` is as long as packing would make it and 64-byte aligned.
  size_t add_packed(quant::Format format, std::span<const std::byte> bytes, int64_t rows,
                    int64_t cols);
  size_t add_vector(std::span<const float> values);

  // Throw Error(invalid_params) for an index that is none.
  const PackedMatrix& matrix(int64_t index) const;
  std::span<const float> vector(int64_t index) const;

  size_t nbytes() const noexcept { return used_ + mapped_nbytes_ + vector_nbytes_; }
  // The packed matrices that are not the caller's, one after another.
  std::span<const std::byte> arena() const noexcept { return {pages_.data(), used_}; }
  // Of them, in the caller's memory: mapped from a packed file.
  size_t mapped_nbytes() const noexcept { return mapped_nbytes_; }
  size_t huge_nbytes() const { return pages_.huge_nbytes(); }
  // Whether the matrices are spread over several memory nodes.
  bool interleaved() const noexcept { return interleaved_; }

 private:
  const KernelTable& kernels_;
  Pages pages_;
  bool interleaved_ = false;
  size_t used_ = 0;
  size_t mapped_nbytes_ = 0;
  size_t vector_nbytes_ = 0;
  std::vector<PackedMatrix> matrices_;
  std::vector<std::vector<float>> vectors_;
};

}  // namespace tokamak::cpu
