// The header of a GGUF file: where every metadata value and every tensor lies. Nothing is copied.
//
// Layout (all little endian): "GGUF", u32 version, u64 num_tensors, u64 num_keys; keys: string
// name, u32 value type, value; tensors: string name, u32 num_dims, u64 dims[num_dims] innermost
// first, u32 type, u64 offset into the data part; then padding to the alignment and the data part.
// A string is a u64 length and its bytes; an array is a u32 value type, a u64 count and its
// elements. Source: docs/gguf.md of the ggml repository.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/types.h"

namespace tokamak::gguf {

// Real files hold under 200 keys and a few thousand tensors. The limits keep what a hostile header
// can make us allocate at some ten megabytes, whatever the size of the file.
constexpr uint64_t kMaxKeys = 1u << 16;
constexpr uint64_t kMaxTensors = 1u << 17;
constexpr uint64_t kMaxKeyLength = 65535;       // the format's own limit
constexpr uint64_t kMaxTensorNameLength = 255;  // the format says 64; other writers go beyond
constexpr uint32_t kMaxDims = 4;

struct Entry {
  std::string_view key;    // bytes in the file, not yet known to be UTF-8
  ValueType type;          // type of the value, `array` for arrays
  ValueType element_type;  // arrays: type of the elements; else equal to `type`
  uint64_t count;          // arrays: number of elements; strings: bytes; else 1
  size_t offset;           // where the value (of an array: its first element) starts
  size_t nbytes;           // bytes from there on, length prefixes of strings in an array included
};

struct Tensor {
  std::string_view name;       // bytes in the file, not yet known to be UTF-8
  const TensorType* type;      // never null
  std::vector<uint64_t> dims;  // outermost first, each at least 1
  size_t offset;               // from the start of the file
  size_t nbytes;
};

struct Header {
  uint32_t version;
  uint64_t alignment;  // bytes, a power of two
  size_t data_offset;  // where the data part starts
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;
};

// Parses and checks the header of `file`; the views in the result point into it.
// Throws Error: model_file for what is malformed, unsupported for what is well-formed but not read
// here (big-endian files, other versions, arrays of arrays, unknown tensor types).
Header parse(std::span<const uint8_t> file);

// Reads a little-endian value of a fixed size from `at`, which must have sizeof(T) bytes.
template <typename T>
T load(const uint8_t* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// `text` between quotes with everything that is not printable ASCII escaped, cut after 80
// characters: what a stranger's file may put on a terminal or into a log.
std::string quoted(std::string_view text);

}  // namespace tokamak::gguf
