// An array that is built here, or lies in a mapped image and is only read; and the names under
// which an image keeps such arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace tokamak::text {

template <typename T>
class Table {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Table() = default;
  Table(std::vector<T> values) : owned_(std::move(values)) { sync(); }
  Table(Table&&) noexcept = default;  // the elements stay where they are
  Table& operator=(Table&&) noexcept = default;
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  static Table mapped(const T* data, size_t size) {
    Table t;
    t.data_ = data;
    t.size_ = size;
    return t;
  }

  const T& operator[](size_t i) const noexcept { return data_[i]; }
  const T* data() const noexcept { return data_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  const T& back() const noexcept { return data_[size_ - 1]; }
  // Bytes of memory that only this process has.
  size_t nbytes() const noexcept { return owned_.capacity() * sizeof(T); }

  // The rest is for tables that are built here.
  T& at(size_t i) noexcept { return owned_[i]; }
  void assign(size_t count, const T& value) {
    owned_.assign(count, value);
    sync();
  }
  void resize(size_t count) {
    owned_.resize(count);
    sync();
  }
  void reserve(size_t count) {
    owned_.reserve(count);
    sync();
  }
  void clear() {
    owned_.clear();
    sync();
  }
  void push_back(const T& value) {
    owned_.push_back(value);
    sync();
  }
  template <typename Iterator>
  void append(Iterator first, Iterator last) {
    owned_.insert(owned_.end(), first, last);
    sync();
  }

 private:
  void sync() noexcept {
    data_ = owned_.data();
    size_ = owned_.size();
  }
  std::vector<T> owned_;
  const T* data_ = nullptr;
  size_t size_ = 0;
};

// Named arrays, written to an image or taken from one. Whoever has tables says their names once,
// and the same code does both.
class Archive {
 public:
  using Bytes = std::span<const std::byte>;

  Archive() = default;  // writes
  explicit Archive(std::map<std::string, Bytes> arrays)
      : reads_(true), arrays_(std::move(arrays)) {}

  bool reads() const { return reads_; }
  const std::map<std::string, Bytes>& arrays() const { return arrays_; }
  void enter(const std::string& name) { prefix_ += name + "."; }
  void leave() { prefix_.erase(prefix_.find_last_of('.', prefix_.size() - 2) + 1); }

  template <typename T>
  void table(const char* name, Table<T>& table) {
    if (!reads_) {
      arrays_[prefix_ + name] = std::as_bytes(std::span<const T>(table.data(), table.size()));
      return;
    }
    const Bytes bytes = find(name);
    const auto place = reinterpret_cast<uintptr_t>(bytes.data());
    if (bytes.size() % sizeof(T) != 0 || place % alignof(T) != 0) refuse(name);
    table = Table<T>::mapped(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T));
  }

  // One value, which stays where it is while the archive is written.
  template <typename T>
  void value(const char* name, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (!reads_) {
      arrays_[prefix_ + name] = std::as_bytes(std::span<const T, 1>(&value, 1));
      return;
    }
    const Bytes bytes = find(name);
    if (bytes.size() != sizeof(T)) refuse(name);
    std::memcpy(&value, bytes.data(), sizeof(T));
  }

  void flag(const char* name, bool& flag) {
    if (!reads_) return value(name, flag);
    uint8_t byte = 0;
    value(name, byte);
    require(byte <= 1, name);
    flag = byte == 1;
  }

  [[noreturn]] void refuse(const std::string& name) const {
    throw Error(ErrorKind::tokenizer_file, "the image's table " + prefix_ + name + " is malformed");
  }
  // Refuses the image where `holds` is false.
  void require(bool holds, const char* name) const {
    if (!holds) refuse(name);
  }

 private:
  Bytes find(const char* name) const {
    const auto it = arrays_.find(prefix_ + name);
    if (it == arrays_.end()) refuse(name);
    return it->second;
  }

  bool reads_ = false;
  std::string prefix_;
  std::map<std::string, Bytes> arrays_;
};

}  // namespace tokamak::text
