#include "cpu/weights.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"
#include "cpu/activations.h"
#include "cpu/topology.h"

namespace tokamak::cpu {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 31;  // rows or columns of a matrix

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorKind::invalid_params, message);
}

const quant::FormatRow& checked_format(quant::Format format, int64_t rows, int64_t cols) {
  const quant::FormatRow* row = quant::find_format(format);
  if (row == nullptr)
    refuse("format " + std::to_string(static_cast<int>(format)) + " has no kernel");
  if (rows < 1 || cols < 1 || rows > kMaxSide || cols > kMaxSide || cols % row->block_size != 0) {
    refuse("a " + std::string(row->name) + " matrix of " + std::to_string(rows) + " x " +
           std::to_string(cols) + " needs columns in multiples of " +
           std::to_string(row->block_size));
  }
  if (activation_of(format) == Activation::q8_row && cols > kMaxRowColumns) {
    refuse("a " + std::string(row->name) + " matrix of " + std::to_string(cols) +
           " columns is wider than " + std::to_string(kMaxRowColumns));
  }
  return *row;
}

// The scale of a whole matrix follows its panels, so that packed bytes are complete.
size_t scale_nbytes(quant::Format format) {
  return activation_of(format) == Activation::q8_row ? 64 : 0;
}

}  // namespace

size_t Weights::packed_nbytes(quant::Format format, int64_t rows, int64_t cols) const {
  checked_format(format, rows, cols);
  const auto panels = static_cast<size_t>((rows + kernels_.panel_rows - 1) / kernels_.panel_rows);
  return (panels * kernels_.panel_nbytes(format, cols) + 63) / 64 * 64 + scale_nbytes(format);
}

void Weights::reserve(size_t nbytes) {
  if (used_ > 0) refuse("weights are reserved once, before the first matrix");
  pages_ = Pages(nbytes);
  const std::vector<int> nodes = memory_nodes();
  if (nodes.size() > 1) interleaved_ = interleave(pages_.data(), pages_.size(), nodes);
}

size_t Weights::add_matrix(quant::Format format, std::span<const std::byte> bytes, int64_t rows,
                           int64_t cols, float scale, Pool& pool) {
  const size_t nbytes = packed_nbytes(format, rows, cols);
  const size_t row_nbytes = quant::row_nbytes(format, cols);
  if (bytes.size() != row_nbytes * static_cast<size_t>(rows)) {
    refuse("a matrix of " + std::to_string(rows) + " rows of " + std::to_string(row_nbytes) +
           " bytes was given " + std::to_string(bytes.size()) + " bytes");
  }
  if (nbytes > pages_.size() - used_) {
    throw Error(ErrorKind::capacity, "matrices need more than the " +
                                         std::to_string(pages_.size()) +
                                         " bytes reserved for them");
  }
  std::byte* home = pages_.data() + used_;
  const PackedMatrix w{format, rows, cols, kernels_.panel_nbytes(format, cols), home, scale};
  const int64_t panel_rows = kernels_.panel_rows;
  const int64_t panels = (rows + panel_rows - 1) / panel_rows;
  pool.run(panels, [&](int64_t panel, int) {
    const int64_t first = panel * panel_rows;
    kernels_.pack_panel(format, bytes.data() + static_cast<size_t>(first) * row_nbytes, row_nbytes,
                        static_cast<int>(std::min(panel_rows, rows - first)), cols,
                        home + static_cast<size_t>(panel) * w.panel_nbytes);
  });
  if (scale_nbytes(format) > 0) std::memcpy(home + nbytes - 64, &scale, sizeof scale);
  used_ += nbytes;
  matrices_.push_back(w);
  return matrices_.size() - 1;
}

size_t Weights::add_packed(quant::Format format, std::span<const std::byte> bytes, int64_t rows,
                           int64_t cols) {
  const size_t nbytes = packed_nbytes(format, rows, cols);
  if (bytes.size() != nbytes || reinterpret_cast<uintptr_t>(bytes.data()) % 64 != 0) {
    refuse("a packed matrix of " + std::to_string(rows) + " x " + std::to_string(cols) + " takes " +
           std::to_string(nbytes) + " bytes at a multiple of 64, not " +
           std::to_string(bytes.size()));
  }
  float scale = 1.0f;
  if (scale_nbytes(format) > 0) std::memcpy(&scale, bytes.data() + nbytes - 64, sizeof scale);
  matrices_.push_back(
      {format, rows, cols, kernels_.panel_nbytes(format, cols), bytes.data(), scale});
  mapped_nbytes_ += nbytes;
  return matrices_.size() - 1;
}

size_t Weights::add_vector(std::span<const float> values) {
  vectors_.emplace_back(values.begin(), values.end());
  vector_nbytes_ += values.size_bytes();
  return vectors_.size() - 1;
}

const PackedMatrix& Weights::matrix(int64_t index) const {
  if (index < 0 || index >= static_cast<int64_t>(matrices_.size())) {
    refuse("matrix " + std::to_string(index) + " does not exist");
  }
  return matrices_[static_cast<size_t>(index)];
}

std::span<const float> Weights::vector(int64_t index) const {
  if (index < 0 || index >= static_cast<int64_t>(vectors_.size())) {
    refuse("vector " + std::to_string(index) + " does not exist");
  }
  return vectors_[static_cast<size_t>(index)];
}

}  // namespace tokamak::cpu
