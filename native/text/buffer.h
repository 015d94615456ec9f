// Text on its way through normalizers and pre-tokenizers, with the place each byte came from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/utf8.h"

namespace tokamak::text {

struct Span {
  int64_t start = 0, end = 0;  // bytes of the input
};

// `origin` is kept only when someone asked for spans; it has one entry per byte of `text`.
struct Buffer {
  std::string text;
  std::vector<Span> origin;
  bool tracked = false;

  void assign(std::string_view s, int64_t at) {
    text.assign(s);
    origin.clear();
    for (size_t i = 0; tracked && i < s.size(); ++i) {
      const int64_t start = at + static_cast<int64_t>(i);
      origin.push_back({start, start + 1});
    }
  }
};

// Builds the next text from the current one. Usage: copy or put pieces in order, then finish().
class Rewriter {
 public:
  explicit Rewriter(Buffer& buffer) : buffer_(buffer) { text_.reserve(buffer.text.size() + 16); }

  // Bytes [start, end) of the current text as they are.
  void copy(size_t start, size_t end) {
    text_.append(buffer_.text, start, end - start);
    if (buffer_.tracked) {
      origin_.insert(origin_.end(), buffer_.origin.begin() + static_cast<std::ptrdiff_t>(start),
                     buffer_.origin.begin() + static_cast<std::ptrdiff_t>(end));
    }
  }
  // New bytes that stand for bytes [start, end) of the current text; start == end: for nothing.
  void put(std::string_view bytes, size_t start, size_t end) {
    text_.append(bytes);
    if (buffer_.tracked) origin_.insert(origin_.end(), bytes.size(), span_of(start, end));
  }
  // New bytes in front of the character at `at`, which they share their place in the input with.
  void put_before(std::string_view bytes, size_t at) {
    const std::string& text = buffer_.text;
    const size_t length = decode_utf8(text.data() + at, text.data() + text.size()).length;
    put(bytes, at, at + length);
  }
  void put_code(uint32_t code, size_t start, size_t end) {
    const size_t before = text_.size();
    append_utf8(text_, code);
    if (buffer_.tracked) origin_.insert(origin_.end(), text_.size() - before, span_of(start, end));
  }
  // Drops `suffix` from the end as often as it is there.
  void trim(std::string_view suffix) {
    while (text_.ends_with(suffix)) {
      text_.resize(text_.size() - suffix.size());
      if (buffer_.tracked) origin_.resize(text_.size());
    }
  }
  void finish() {
    buffer_.text.swap(text_);
    buffer_.origin.swap(origin_);
  }

 private:
  Span span_of(size_t start, size_t end) const {
    if (start < end) return {buffer_.origin[start].start, buffer_.origin[end - 1].end};
    const int64_t at = start < buffer_.origin.size() ? buffer_.origin[start].start
                       : buffer_.origin.empty()      ? 0
                                                     : buffer_.origin.back().end;
    return {at, at};
  }

  Buffer& buffer_;
  std::string text_;
  std::vector<Span> origin_;
};

}  // namespace tokamak::text
