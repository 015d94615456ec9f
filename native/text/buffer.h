// Text on its way through normalizers and pre-tokenizers, with the place each byte came from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/utf8.h"

namespace tokamak::text {

struct Span {
  int64_t start = 0, end = 0;  // bytes of the input
};

// `origin` is kept only when someone asked for spans; it has one entry per byte of `text`. `base`:
// where the stretch of input begins that the text was.
struct Buffer {
  std::string text;
  std::vector<Span> origin;
  int64_t base = 0;
  bool tracked = false;

  void assign(std::string_view s, int64_t at) {
    text.assign(s);
    base = at;
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
    old_ = end;
  }
  // The next new character and what it takes of the old ones: 0: the next one. 1: none, its place
  // in the input is that of the old byte before. -n: the next one, and n more that are gone; its
  // place is that of the first. Places as Hugging Face's NormalizedString has them, reordering
  // included.
  void change(uint32_t code, int64_t taken) {
    const size_t before = text_.size();
    append_utf8(text_, code);
    if (!buffer_.tracked) return;
    const size_t size = buffer_.text.size();
    const Span place = taken > 0 ? place_before(old_) : place_before(std::min(old_ + 1, size));
    origin_.insert(origin_.end(), text_.size() - before, place);
    const char* old = buffer_.text.data();
    for (int64_t n = taken > 0 ? 0 : 1 - taken; n > 0 && old_ < size; --n) {
      old_ += decode_utf8(old + old_, old + size).length;
    }
  }
  // New bytes for old ones that end at `end`: their place in the input is that of the last of
  // these.
  void replace(std::string_view bytes, size_t end) {
    text_.append(bytes);
    if (buffer_.tracked) origin_.insert(origin_.end(), bytes.size(), place_before(end));
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
  // Of the whole character of the old text that byte `at` - 1 is of.
  Span place_before(size_t at) const {
    if (at == 0) return {buffer_.base, buffer_.base};
    const auto is_inner = [this](size_t i) {
      return i < buffer_.text.size() &&
             is_continuation(static_cast<unsigned char>(buffer_.text[i]));
    };
    size_t start = at - 1;
    while (start > 0 && is_inner(start)) --start;
    while (is_inner(at)) ++at;
    return span_of(start, at);
  }
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
  size_t old_ = 0;  // of the old text, what change() takes next
};

}  // namespace tokamak::text
