#include "text/unigram.h"

#include <algorithm>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "text/utf8.h"

namespace tokamak::text {

namespace {

constexpr double kUnknownPenalty = 10.0;
// sentencepiece 0.2.3 starts its sums afresh below this, to keep the precision of float.
constexpr double kRebase = -100000.0;

}  // namespace

UnigramModel::UnigramModel(Arena strings, const std::vector<uint32_t>& pieces,
                           std::vector<double> scores, double min_score, UnigramOptions options)
    : strings_(std::move(strings)),
      scores_(std::move(scores)),
      unknown_score_(min_score - kUnknownPenalty),
      options_(options) {
  if (options_.arithmetic == Arithmetic::float_sums) {
    unknown_score_ = static_cast<float>(min_score) - static_cast<float>(kUnknownPenalty);
  }
  map_.reserve(pieces.size());
  std::vector<std::pair<std::string_view, int32_t>> keys;
  for (const uint32_t id : pieces) {
    if (strings_[id].empty() || !map_.insert(strings_, id)) continue;
    longest_ = std::max(longest_, strings_[id].size());
    keys.emplace_back(strings_[id], static_cast<int32_t>(id));
  }
  std::sort(keys.begin(), keys.end());
  trie_.build(keys);
}

void UnigramModel::tables(Archive& archive) {
  archive.enter("pieces");
  strings_.tables(archive);
  archive.leave();
  archive.enter("words");
  map_.tables(archive, strings_);
  archive.leave();
  archive.enter("trie");
  trie_.tables(archive, strings_.size());
  archive.leave();
  archive.table("scores", scores_);
  archive.value("byte_ids", options_.byte_ids);
  archive.value("unknown_score", unknown_score_);
  archive.value("longest", longest_);
  if (!archive.reads()) return;
  bool holds = scores_.size() == strings_.size();
  for (const uint32_t id : options_.byte_ids)
    holds = holds && (id == kNone || id < strings_.size());
  archive.require(holds, "byte_ids");
}

// The first way to reach a place wins among equals; places are tried from the left.
template <typename Sum>
void UnigramModel::best_path(std::string_view word, std::vector<ViterbiNode>& nodes) const {
  nodes.assign(word.size() + 1, {0, ViterbiNode::kUnreached, kNone});
  const auto reach = [&nodes](size_t end, size_t start, uint32_t id, double sum) {
    ViterbiNode& node = nodes[end];
    sum = static_cast<double>(static_cast<Sum>(sum));
    if (node.start != ViterbiNode::kUnreached && !(sum > node.sum)) return;
    node = {sum, static_cast<uint32_t>(start), id};
  };
  for (size_t at = 0; at < word.size();) {
    const size_t length = decode_utf8(word.data() + at, word.data() + word.size()).length;
    if (std::is_same_v<Sum, float> && nodes[at].sum < kRebase) {
      const auto last = std::min(nodes.size(), at + longest_ + 1);
      const double base = nodes[at].sum;
      for (size_t i = at; i < last; ++i) nodes[i].sum = static_cast<Sum>(nodes[i].sum - base);
    }
    const double here = nodes[at].sum;
    bool single = false;
    trie_.prefixes(word.substr(at), [&](size_t size, int32_t value) {
      const auto id = static_cast<uint32_t>(value);
      reach(at + size, at, id, scores_[id] + here);
      single = single || size == length;
    });
    if (!single) {
      const Sum sum = static_cast<Sum>(unknown_score_) + static_cast<Sum>(here);
      reach(at + length, at, options_.unknown_id, static_cast<double>(sum));
    }
    at += length;
  }
}

void UnigramModel::emit_unknown(std::string_view bytes, Tokens& out) const {
  const auto byte_id = [this](char c) { return options_.byte_ids[static_cast<unsigned char>(c)]; };
  if (options_.byte_fallback &&
      std::none_of(bytes.begin(), bytes.end(), [&](char c) { return byte_id(c) == kNone; })) {
    // Hugging Face's bytes stand for the whole run each.
    const bool whole = options_.arithmetic == Arithmetic::double_sums;
    const auto size = static_cast<uint32_t>(bytes.size());
    for (size_t i = 0; i < size; ++i) {
      out.add(byte_id(bytes[i]), !whole ? 1 : i + 1 < size ? size | Tokens::kShared : size);
    }
    return;
  }
  if (options_.unknown_id == kNone) {
    throw Error(ErrorKind::tokenizer_file,
                "the text has characters that the vocabulary lacks, and it has no unknown token");
  }
  out.add(options_.unknown_id, static_cast<uint32_t>(bytes.size()));
}

void UnigramModel::encode(std::string_view word, Tokens& out, ModelScratch& scratch) const {
  if (word.empty()) return;
  std::vector<ViterbiNode>& nodes = scratch.nodes;
  if (options_.arithmetic == Arithmetic::float_sums) {
    best_path<float>(word, nodes);
  } else {
    best_path<double>(word, nodes);
  }
  scratch.cuts.clear();  // ends of pieces, last first; neighbouring unknown pieces are one
  for (size_t end = word.size(); end > 0; end = nodes[end].start) {
    const bool unknown = nodes[end].id == options_.unknown_id;
    const bool fused = unknown && !scratch.cuts.empty() && scratch.cuts.back().unknown &&
                       scratch.cuts.back().start == end;
    if (fused) {
      scratch.cuts.back().start = nodes[end].start;
    } else {
      scratch.cuts.push_back({nodes[end].start, end, nodes[end].id, unknown});
    }
  }
  for (auto cut = scratch.cuts.rbegin(); cut != scratch.cuts.rend(); ++cut) {
    const std::string_view piece = word.substr(cut->start, cut->end - cut->start);
    if (!cut->unknown) {
      out.add(cut->id, static_cast<uint32_t>(piece.size()));
      continue;
    }
    // Hugging Face looks the fused string up once more.
    const uint32_t id =
        options_.arithmetic == Arithmetic::double_sums ? map_.find(strings_, piece) : kNone;
    if (id != kNone) {
      out.add(id, static_cast<uint32_t>(piece.size()));
    } else {
      emit_unknown(piece, out);
    }
  }
}

}  // namespace tokamak::text
