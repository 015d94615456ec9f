// Every tensor type id that GGUF files carry, by name, with its geometry; and the metadata value
// types.
//
// Known by name does not mean runnable: that is decided by the codecs and kernels. Ids that ggml
// withdrew are listed too, so that an old file is refused by the name of what it holds.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tokamak::gguf {

// How many bytes a tensor of a type takes.
enum class Layout : uint8_t {
  grouped,        // rows of groups: K / block_size * type_size bytes each
  whole_ternary,  // i2_s: 2 bits per element of the whole tensor, then 32 bytes with one scale;
                  // or what else goes by its id, see `ternary_nbytes` in parser.cpp
  opaque,  // depends on tile sizes that are not in the file: whatever lies before the next tensor
};

struct TensorType {
  uint32_t id;
  std::string_view name;  // ggml's name in lower case
  uint32_t block_size;    // elements per group along K
  uint32_t type_size;     // bytes per group
  Layout layout = Layout::grouped;
};

// All known types, rising by id.
std::span<const TensorType> tensor_types() noexcept;

// The type with this id, or nullptr.
const TensorType* find_tensor_type(uint32_t id) noexcept;

// Metadata value types, numbered as in the file.
enum class ValueType : uint32_t {
  uint8 = 0,
  int8 = 1,
  uint16 = 2,
  int16 = 3,
  uint32 = 4,
  int32 = 5,
  float32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  uint64 = 10,
  int64 = 11,
  float64 = 12,
};

constexpr uint32_t kNumValueTypes = 13;

// "uint32", "string", "array", ...
std::string_view value_type_name(ValueType type) noexcept;

// Bytes of one value; 0 for strings and arrays, whose size is in the file.
uint32_t value_type_size(ValueType type) noexcept;

}  // namespace tokamak::gguf
