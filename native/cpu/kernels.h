// The seam between matrix kernels and the program that calls them.
//
// A weight matrix of N rows and K columns is packed at load into panels of `panel_rows` rows.
// Inside a panel, groups of 4 consecutive columns are interleaved over the rows, so that one vector
// lane is one output row: no horizontal sums, and the activation is a 4-byte broadcast. One row of
// activations (decode) and many (prompt) run the same arithmetic in the same order, so their
// results are the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/formats.h"

namespace tokamak::cpu {

// How activations are stored for a weight format.
enum class Activation : uint8_t {
  f32,     // as they are: float weights
  q8_32,   // int8 per 32 columns with a scale: legacy formats, as ggml's Q8_0
  q8_256,  // int8 per 256 columns with a scale and sums per 16: K formats and ternary, as ggml's
           // Q8_K
  q8_256_sums8,  // the same with sums per 8: iq2 formats
  q8_row,        // int8 with one scale for the row: i2_s, as bitnet.cpp does
};

// Which translation unit of an instruction set has the kernels of a format.
enum class KernelUnit : uint8_t { blocks, codes256, codes32 };

// A packed matrix; `bytes` is 64-byte aligned and holds ceil(rows / panel_rows) panels, rows padded
// with zeros.
struct PackedMatrix {
  quant::Format format;
  int64_t rows;         // N
  int64_t cols;         // K, a multiple of the format's group
  size_t panel_nbytes;  // bytes of one panel
  const std::byte* bytes;
  float scale = 1.0f;  // of the whole matrix: i2_s only
};

// Matrix kernels of one translation unit, for its formats only; KernelTable has them all. All
// functions are noexcept and thread-safe.
struct MatrixKernels {
  size_t (*panel_nbytes)(quant::Format format, int64_t cols);
  void (*pack_panel)(quant::Format format, const std::byte* src, size_t row_nbytes, int rows,
                     int64_t cols, std::byte* panel);
  void (*matmul)(const PackedMatrix& w, const std::byte* acts, size_t act_stride, int64_t tokens,
                 int64_t panel_begin, int64_t panel_end, const float* bias, float* out,
                 size_t out_stride);
  void (*unpack_row)(const PackedMatrix& w, int64_t row, float* out);
};

Activation activation_of(quant::Format format) noexcept;
KernelUnit unit_of(quant::Format format) noexcept;

// Kernels of one instruction set. All pointers are set; all functions are noexcept and thread-safe.
struct KernelTable {
  const char* isa;  // "scalar", "avx2", "avx512vnni"
  int panel_rows;   // rows of a panel: 8 or 16
  int tile_panels;  // panels that `matmul` takes at once for many tokens: fewer run slower

  const MatrixKernels* matrix[3];  // by KernelUnit

  // Bytes of one quantised activation row, a multiple of 64.
  size_t (*activation_nbytes)(Activation kind, int64_t cols);
  // x[cols] -> out, 64-byte aligned. A group with NaN or infinity becomes zeros with a NaN scale
  // (so NaN shows in the result); nothing else is undefined.
  void (*quantize_row)(Activation kind, const float* x, int64_t cols, std::byte* out);

  // Bytes of one packed panel of K columns.
  size_t panel_nbytes(quant::Format format, int64_t cols) const noexcept {
    return of(format).panel_nbytes(format, cols);
  }
  // Packs rows [0, rows) (rows <= panel_rows, the rest padded) from `src` (row_nbytes apart) into
  // one panel.
  void pack_panel(quant::Format format, const std::byte* src, size_t row_nbytes, int rows,
                  int64_t cols, std::byte* panel) const noexcept {
    of(format).pack_panel(format, src, row_nbytes, rows, cols, panel);
  }
  // out[t * out_stride + r] = sum_k W[r, k] * x[t, k] + bias[r]   for panels [panel_begin,
  // panel_end), t in [0, tokens). `acts` are rows from quantize_row of the format's kind,
  // act_stride bytes apart (f32 kind: floats). bias may be null. r runs over the rows of these
  // panels only, never beyond `rows`.
  void matmul(const PackedMatrix& w, const std::byte* acts, size_t act_stride, int64_t tokens,
              int64_t panel_begin, int64_t panel_end, const float* bias, float* out,
              size_t out_stride) const noexcept {
    of(w.format).matmul(w, acts, act_stride, tokens, panel_begin, panel_end, bias, out, out_stride);
  }
  // One row of the matrix as floats, exactly as the codec decodes it: embedding lookup.
  void unpack_row(const PackedMatrix& w, int64_t row, float* out) const noexcept {
    of(w.format).unpack_row(w, row, out);
  }

 private:
  const MatrixKernels& of(quant::Format format) const noexcept {
    return *matrix[static_cast<size_t>(unit_of(format))];
  }
};

// Every table this processor can run, best first; `kernels()` is the one chosen (TOKAMAK_ISA
// forces).
const KernelTable* const* available_tables(int* count) noexcept;

}  // namespace tokamak::cpu
