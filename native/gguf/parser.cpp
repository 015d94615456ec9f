#include "gguf/parser.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <unordered_set>

#include "base/error.h"

namespace tokamak::gguf {

static_assert(std::endian::native == std::endian::little,
              "values are read as they lie in the file");

namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::model_file, what); }

std::string at_byte(size_t offset) { return " at byte " + std::to_string(offset); }

// Reads forward through the header; every read names what it wants, so that the error can say it.
class Cursor {
 public:
  explicit Cursor(std::span<const uint8_t> file) : file_(file) {}

  size_t position() const noexcept { return position_; }
  uint64_t remaining() const noexcept { return file_.size() - position_; }

  // Steps over `nbytes` and returns where they start.
  const uint8_t* take(uint64_t nbytes, std::string_view what) {
    if (nbytes > remaining()) {
      refuse(std::string(what) + at_byte(position_) + " needs " + std::to_string(nbytes) +
             " bytes, the file has " + std::to_string(remaining()) +
             " left: it is truncated or damaged");
    }
    const uint8_t* start = file_.data() + position_;
    position_ += static_cast<size_t>(nbytes);
    return start;
  }

  template <typename T>
  T number(std::string_view what) {
    return load<T>(take(sizeof(T), what));
  }

  std::string_view string(uint64_t max_length, std::string_view what) {
    const size_t start = position_;
    const uint64_t length = number<uint64_t>(what);
    if (length > max_length) {
      refuse(std::string(what) + at_byte(start) + " has a length of " + std::to_string(length) +
             ", at most " + std::to_string(max_length) + " is allowed");
    }
    return {reinterpret_cast<const char*>(take(length, what)), static_cast<size_t>(length)};
  }

 private:
  std::span<const uint8_t> file_;
  size_t position_ = 0;
};

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// Smallest encodings: length, one byte of name, type, one byte of value; length, one byte of name,
// number of dimensions, one dimension, type, offset.
constexpr uint64_t kMinKeyNbytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorNbytes = 8 + 1 + 4 + 8 + 4 + 8;

uint32_t read_version(Cursor& cursor) {
  const auto* magic = cursor.take(4, "magic");
  if (std::memcmp(magic, "GGUF", 4) != 0) {
    refuse("is not a GGUF file: it starts with " +
           quoted({reinterpret_cast<const char*>(magic), 4}));
  }
  const auto version = cursor.number<uint32_t>("version");
  if (version != 0 && (version & 0xffff) == 0) {
    throw Error(ErrorKind::unsupported,
                "is a big-endian GGUF file; convert it with gguf-py's gguf_convert_endian.py");
  }
  if (version < 2 || version > 3) {
    throw Error(ErrorKind::unsupported,
                "is GGUF version " + std::to_string(version) + "; versions 2 and 3 are read");
  }
  return version;
}

// A count is checked against the limit and against the bytes left before anything is allocated for
// it.
uint64_t check_count(const Cursor& cursor, uint64_t count, uint64_t limit, uint64_t min_nbytes,
                     const std::string& what) {
  if (count > limit) {
    refuse("says it has " + std::to_string(count) + " " + what + ", at most " +
           std::to_string(limit) + " are read");
  }
  if (count > cursor.remaining() / min_nbytes) {
    refuse("says it has " + std::to_string(count) + " " + what + ", but only " +
           std::to_string(cursor.remaining()) + " bytes follow: it is truncated or damaged");
  }
  return count;
}

ValueType read_value_type(Cursor& cursor, const std::string& what) {
  const size_t start = cursor.position();
  const auto id = cursor.number<uint32_t>(what);
  if (id >= kNumValueTypes) {
    refuse(what + " has the unknown value type " + std::to_string(id) + at_byte(start));
  }
  return static_cast<ValueType>(id);
}

void check_booleans(const uint8_t* values, uint64_t count, const std::string& what, size_t offset) {
  for (uint64_t i = 0; i < count; ++i) {
    if (values[i] > 1) {
      refuse(what + " has the value " + std::to_string(values[i]) + at_byte(offset + i) +
             " where a bool must be 0 or 1");
    }
  }
}

void read_array(Cursor& cursor, Entry& entry, const std::string& what) {
  entry.element_type = read_value_type(cursor, what);
  if (entry.element_type == ValueType::array) {
    throw Error(ErrorKind::unsupported, what + " is an array of arrays, which is not read here");
  }
  entry.count = cursor.number<uint64_t>(what);
  entry.offset = cursor.position();
  const uint64_t size = value_type_size(entry.element_type);
  if (entry.count > cursor.remaining() / (size != 0 ? size : sizeof(uint64_t))) {
    refuse(what + at_byte(entry.offset) + " is an array of " + std::to_string(entry.count) + " " +
           std::string(value_type_name(entry.element_type)) + " values, but only " +
           std::to_string(cursor.remaining()) + " bytes follow: the file is truncated or damaged");
  }
  if (size != 0) {
    const auto* values = cursor.take(entry.count * size, what);
    if (entry.element_type == ValueType::boolean) {
      check_booleans(values, entry.count, what, entry.offset);
    }
  } else {
    for (uint64_t i = 0; i < entry.count; ++i) cursor.string(kNoLimit, what);
  }
  entry.nbytes = cursor.position() - entry.offset;
}

Entry read_entry(Cursor& cursor) {
  Entry entry{};
  const size_t start = cursor.position();
  entry.key = cursor.string(kMaxKeyLength, "a metadata key");
  if (entry.key.empty()) refuse("has a metadata key without a name" + at_byte(start));
  const std::string what = "key " + quoted(entry.key);
  entry.type = entry.element_type = read_value_type(cursor, what);
  entry.count = 1;
  if (entry.type == ValueType::array) {
    read_array(cursor, entry, what);
  } else if (entry.type == ValueType::string) {
    const auto text = cursor.string(kNoLimit, what);
    entry.count = entry.nbytes = text.size();
    entry.offset = cursor.position() - entry.nbytes;
  } else {
    entry.offset = cursor.position();
    entry.nbytes = value_type_size(entry.type);
    const auto* value = cursor.take(entry.nbytes, what);
    if (entry.type == ValueType::boolean) check_booleans(value, 1, what, entry.offset);
  }
  return entry;
}

uint64_t read_alignment(const std::vector<Entry>& entries, std::span<const uint8_t> file) {
  for (const auto& entry : entries) {
    if (entry.key != "general.alignment") continue;
    if (entry.type != ValueType::uint32) {
      refuse("key \"general.alignment\" is of type " + std::string(value_type_name(entry.type)) +
             ", it must be uint32");
    }
    const auto alignment = load<uint32_t>(file.data() + entry.offset);
    if (!std::has_single_bit(alignment)) {
      refuse("key \"general.alignment\" is " + std::to_string(alignment) +
             ", it must be a power of two");
    }
    return alignment;
  }
  return 32;
}

// Product of the dimensions; refuses what does not fit in 63 bits, so that sums of sizes cannot
// wrap.
uint64_t num_elements(const Tensor& tensor, const std::string& what) {
  uint64_t total = 1;
  for (const auto dim : tensor.dims) {
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / total) {
      refuse(what + " has more than 2^63 elements");
    }
    total *= dim;
  }
  return total;
}

// Bytes of a tensor by its type and dimensions; 0 for types whose size the file does not tell.
uint64_t tensor_nbytes(const Tensor& tensor, const std::string& what) {
  const auto& type = *tensor.type;
  const uint64_t total = num_elements(tensor, what);
  if (type.layout == Layout::opaque) return 0;
  const uint64_t grouped = type.layout == Layout::grouped ? tensor.dims.back() : total;
  if (grouped % type.block_size != 0) {
    refuse(what + " has rows of " + std::to_string(grouped) + " elements, type " +
           std::string(type.name) + " needs a multiple of " + std::to_string(type.block_size));
  }
  const uint64_t groups = total / type.block_size;
  constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max() / 2;
  if (groups > kLargest / type.type_size) refuse(what + " has more than 2^62 bytes");
  return groups * type.type_size + (type.layout == Layout::whole_ternary ? 32 : 0);
}

Tensor read_tensor(Cursor& cursor, uint64_t alignment) {
  Tensor tensor{};
  const size_t start = cursor.position();
  tensor.name = cursor.string(kMaxTensorNameLength, "a tensor name");
  if (tensor.name.empty()) refuse("has a tensor without a name" + at_byte(start));
  const std::string what = "tensor " + quoted(tensor.name);
  const auto num_dims = cursor.number<uint32_t>(what);
  if (num_dims < 1 || num_dims > kMaxDims) {
    refuse(what + at_byte(start) + " has " + std::to_string(num_dims) +
           " dimensions, 1 to 4 are allowed");
  }
  tensor.dims.resize(num_dims);
  for (uint32_t i = num_dims; i-- > 0;) {
    tensor.dims[i] = cursor.number<uint64_t>(what);
    if (tensor.dims[i] == 0) refuse(what + at_byte(start) + " has a dimension of 0");
  }
  const auto type = cursor.number<uint32_t>(what);
  tensor.type = find_tensor_type(type);
  if (tensor.type == nullptr) {
    throw Error(ErrorKind::unsupported, what + at_byte(start) + " has the unknown type id " +
                                            std::to_string(type) + "; a newer tokamak may know it");
  }
  const auto offset = cursor.number<uint64_t>(what);
  if (offset % alignment != 0) {
    refuse(what + " starts at data offset " + std::to_string(offset) +
           ", which is no multiple of the alignment " + std::to_string(alignment));
  }
  tensor.offset = offset;  // still relative to the data part; `place` makes it absolute
  return tensor;
}

// Bytes of a tensor of type 36 that has `room` bytes up to its neighbour or the end. i2_s unless
// the room, which is aligned, is just that of one of two formats made of rows that one project
// writes under the same id: i2_f16, 10 bytes per 32 elements, and qk256, 64 bytes per 256.
uint64_t ternary_nbytes(const Tensor& tensor, uint64_t room, uint64_t alignment,
                        const std::string& what) {
  const uint64_t total = num_elements(tensor, what), columns = tensor.dims.back();
  const uint64_t i2_s = total / 4 + 32, i2_f16 = total / 32 * 10, qk256 = total / 4;
  const auto fits = [&](uint64_t nbytes) {
    return nbytes == room || (nbytes + alignment - 1) / alignment * alignment == room;
  };
  if (fits(i2_s)) return i2_s;
  if (columns % 32 == 0 && fits(i2_f16)) return i2_f16;
  if (columns % 256 == 0 && fits(qk256)) return qk256;
  if (i2_s < room) return i2_s;
  refuse(what + " of type i2_s has " + std::to_string(room) + " bytes; " + std::to_string(total) +
         " elements need " + std::to_string(i2_s) + ", or " + std::to_string(i2_f16) +
         " as i2_f16, or " + std::to_string(qk256) + " as qk256");
}

// Turns data offsets into file offsets and checks that every tensor lies inside the file and on
// bytes of its own. Tensors of opaque types get what lies before their neighbour.
void place(Header& header, size_t file_size) {
  const size_t space = file_size > header.data_offset ? file_size - header.data_offset : 0;
  std::vector<Tensor*> order;
  order.reserve(header.tensors.size());
  for (auto& tensor : header.tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
    return a->offset != b->offset ? a->offset < b->offset : a->name < b->name;
  });
  for (size_t i = 0; i < order.size(); ++i) {
    Tensor& tensor = *order[i];
    const std::string what = "tensor " + quoted(tensor.name);
    const uint64_t next =
        i + 1 < order.size() ? std::min<uint64_t>(order[i + 1]->offset, space) : space;
    uint64_t nbytes = tensor_nbytes(tensor, what);
    if (tensor.type->layout == Layout::whole_ternary && next > tensor.offset) {
      nbytes = ternary_nbytes(tensor, next - tensor.offset, header.alignment, what);
    }
    if (tensor.offset > space || nbytes > space - tensor.offset) {
      refuse(what + " of type " + std::string(tensor.type->name) + " needs " +
             std::to_string(nbytes) + " bytes at data offset " + std::to_string(tensor.offset) +
             ", but the data part has " + std::to_string(space) +
             " bytes: the file is truncated or damaged");
    }
    if (tensor.type->layout == Layout::opaque) nbytes = next - tensor.offset;
    if (i + 1 < order.size() && (nbytes > next - tensor.offset || next == tensor.offset)) {
      refuse(what + " of type " + std::string(tensor.type->name) + " overlaps tensor " +
             quoted(order[i + 1]->name) + " at data offset " +
             std::to_string(order[i + 1]->offset));
    }
    tensor.nbytes = static_cast<size_t>(nbytes);
  }
  for (auto& tensor : header.tensors) tensor.offset += header.data_offset;
}

}  // namespace

std::string quoted(std::string_view text) {
  constexpr size_t kLongest = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out + (text.size() > kLongest ? "...\"" : "\"");
}

Header parse(std::span<const uint8_t> file) {
  Cursor cursor(file);
  Header header{};
  header.version = read_version(cursor);
  const auto claimed_tensors = cursor.number<uint64_t>("number of tensors");
  const auto claimed_keys = cursor.number<uint64_t>("number of metadata keys");
  const auto num_keys = check_count(cursor, claimed_keys, kMaxKeys, kMinKeyNbytes, "metadata keys");
  check_count(cursor, claimed_tensors, kMaxTensors, kMinTensorNbytes, "tensors");
  std::unordered_set<std::string_view> names;
  for (uint64_t i = 0; i < num_keys; ++i) {
    header.entries.push_back(read_entry(cursor));
    const auto key = header.entries.back().key;
    if (!names.insert(key).second) refuse("has the metadata key " + quoted(key) + " twice");
  }
  header.alignment = read_alignment(header.entries, file);
  const auto num_tensors =
      check_count(cursor, claimed_tensors, kMaxTensors, kMinTensorNbytes, "tensors");
  names.clear();
  for (uint64_t i = 0; i < num_tensors; ++i) {
    header.tensors.push_back(read_tensor(cursor, header.alignment));
    const auto name = header.tensors.back().name;
    if (!names.insert(name).second) refuse("has the tensor " + quoted(name) + " twice");
  }
  const size_t alignment = static_cast<size_t>(header.alignment);
  header.data_offset = (cursor.position() + alignment - 1) / alignment * alignment;
  place(header, file.size());
  return header;
}

}  // namespace tokamak::gguf
