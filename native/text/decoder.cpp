#include "text/decoder.h"

#include <algorithm>

#include "text/bytes.h"
#include "text/pattern.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

constexpr std::string_view kReplacementBytes = "\xEF\xBF\xBD";

std::string replaced(std::string_view s, std::string_view from, std::string_view to) {
  std::string out;
  size_t at = 0;
  for (size_t found = s.find(from); found != std::string_view::npos; found = s.find(from, at)) {
    out.append(s.substr(at, found - at)).append(to);
    at = found + from.size();
  }
  return out.append(s.substr(at));
}

// English spacing as WordPiece decoders tidy it, in this order.
void clean_up(std::string& s) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) s = replaced(s, from, to);
}

class Bpe final : public Decoder {
 public:
  explicit Bpe(std::string suffix) : suffix_(std::move(suffix)) {}
  void apply(std::vector<std::string>& tokens) const override {
    if (suffix_.empty()) return;
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replaced(tokens[i], suffix_, i + 1 == tokens.size() ? "" : " ");
    }
  }

 private:
  std::string suffix_;
};

class ByteLevel final : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string all;
    std::string bytes;
    for (const std::string& token : tokens) all += bytes_of(token, bytes) ? bytes : token;
    tokens.assign(1, replace_invalid(all));
  }
};

class WordPiece final : public Decoder {
 public:
  bool is_local() const override { return true; }
  WordPiece(std::string prefix, bool tidy) : prefix_(std::move(prefix)), tidy_(tidy) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i != 0) {
        if (tokens[i].starts_with(prefix_)) {
          tokens[i].erase(0, prefix_.size());
        } else {
          tokens[i].insert(0, 1, ' ');
        }
      }
      if (tidy_) clean_up(tokens[i]);
    }
  }

 private:
  std::string prefix_;
  bool tidy_;
};

class Metaspace final : public Decoder {
 public:
  bool is_local() const override { return true; }
  Metaspace(std::string symbol, bool drop_first)
      : symbol_(std::move(symbol)), drop_first_(drop_first) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replaced(tokens[i], symbol_, i == 0 && drop_first_ ? "" : " ");
    }
  }

 private:
  std::string symbol_;
  bool drop_first_;
};

class Ctc final : public Decoder {
 public:
  Ctc(std::string pad, std::string delimiter, bool tidy)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), tidy_(tidy) {}
  void apply(std::vector<std::string>& tokens) const override {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      if (!pad_.empty()) token = replaced(token, pad_, "");
      if (!tidy_) continue;
      clean_up(token);
      if (!delimiter_.empty()) token = replaced(token, delimiter_, " ");
    }
    std::erase_if(tokens, [](const std::string& t) { return t.empty(); });
  }

 private:
  std::string pad_, delimiter_;
  bool tidy_;
};

class Replace final : public Decoder {
 public:
  bool is_local() const override { return true; }
  explicit Replace(const Step& step)
      : string_(step.text("string")), content_(step.text("content")) {
    if (!step.text("regex").empty()) pattern_ = Pattern::compile(step.text("regex"));
    if (!pattern_ && string_.empty()) {
      throw Error(ErrorKind::unsupported, "a Replace of nothing is not supported");
    }
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens)
      token = pattern_ ? matched(token) : replaced(token, string_, content_);
  }

 private:
  std::string matched(const std::string& token) const {
    std::string out;
    const char* end = token.data() + token.size();
    for (const char* p = token.data(); p < end;) {
      const char* stop = pattern_->match(p, end);
      if (stop != nullptr && stop != p) {
        out += content_;
        p = stop;
        continue;
      }
      const size_t length = decode_utf8(p, end).length;
      out.append(p, length);
      p += length;
    }
    return out;
  }
  std::string string_, content_;
  std::shared_ptr<const Pattern> pattern_;
};

class Fuse final : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.assign(1, all);
  }
};

class Strip final : public Decoder {
 public:
  Strip(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(std::vector<std::string>& tokens) const override {
    if (content_.empty()) return;
    for (std::string& token : tokens) {
      for (int64_t i = 0; i < start_ && token.starts_with(content_); ++i)
        token.erase(0, content_.size());
      for (int64_t i = 0; i < stop_ && token.ends_with(content_); ++i) {
        token.resize(token.size() - content_.size());
      }
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

// A run of byte tokens is its bytes if they are UTF-8 as a whole, else one U+FFFD per byte.
class ByteFallback final : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string run;
    const auto flush = [&]() {
      if (run.empty()) return;
      if (valid_until(run, 0) == run.size()) {
        out.push_back(run);
      } else {
        for (size_t i = 0; i < run.size(); ++i) out.emplace_back(kReplacementBytes);
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      const int byte = byte_token(token);
      if (byte >= 0) {
        run.push_back(static_cast<char>(byte));
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  }
};

}  // namespace

std::string replace_invalid(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    const size_t until = valid_until(bytes, at);
    out.append(bytes.substr(at, until - at));
    at = until;
    if (at == bytes.size()) break;
    out.append(kReplacementBytes);
    at += invalid_length(bytes.substr(at));
  }
  return out;
}

std::unique_ptr<Decoder> make_decoder(const Step& step) {
  const std::string& type = step.type;
  if (type == "BPEDecoder") return std::make_unique<Bpe>(step.get<std::string>("suffix", "</w>"));
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "WordPiece") {
    return std::make_unique<WordPiece>(step.get<std::string>("prefix", "##"),
                                       step.flag("cleanup", true));
  }
  if (type == "Metaspace") {
    return std::make_unique<Metaspace>(step.text("replacement"),
                                       step.text("prepend_scheme") != "never");
  }
  if (type == "CTC") {
    return std::make_unique<Ctc>(step.text("pad_token"), step.text("word_delimiter_token"),
                                 step.flag("cleanup", true));
  }
  if (type == "Replace") return std::make_unique<Replace>(step);
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") {
    return std::make_unique<Strip>(step.text("content"), step.get<int64_t>("start", 0),
                                   step.get<int64_t>("stop", 0));
  }
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  throw Error(ErrorKind::unsupported, "decoder " + type + " is not supported");
}

}  // namespace tokamak::text
