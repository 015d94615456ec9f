#include "cpu/builder.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/error.h"
#include "cpu/attention.h"
#include "cpu/builder_checks.h"
#include "cpu/linear.h"

namespace tokamak::cpu {
namespace {

bool is_result(const Operand& x) { return x.lead == Lead::result; }

// Rows of the two operands are the same rows.
bool same_rows(const Operand& x, const Operand& y) {
  const auto which = [](const Operand& v) { return is_result(v) ? Lead::wanted : v.lead; };
  return which(x) == which(y);
}

bool all_rows(const Operand& x) { return x.lead == Lead::rows || x.lead == Lead::sources; }

}  // namespace

const Operand& Builder::checked(const std::string& node, const Operand& x) const {
  const ProgramLimits& limits = program_.limits();
  const int64_t most = int64_t{1} << 32;
  need(x.column >= 0 && x.width >= 1 && x.stride >= 1 && x.column <= most && x.width <= most &&
           x.stride <= most && x.column + x.width <= x.stride,
       node, "an operand's columns do not fit its row");
  if (is_result(x)) {
    need(x.offset == 0 && x.stride == limits.result_width, node, "the result has other columns");
    return x;
  }
  const size_t room = x.lead == Lead::rows      ? limits.row_nbytes
                      : x.lead == Lead::sources ? limits.source_nbytes
                                                : limits.wanted_nbytes;
  need(x.offset % 64 == 0 && x.offset <= room &&
           static_cast<size_t>(x.stride) * 4 <= room - x.offset,
       node, "an operand lies outside its arena");
  return x;
}

void Builder::embed(const std::string& node, int64_t table, bool by_position, int64_t row,
                    const Operand& out) {
  const PackedMatrix& w = program_.weights().matrix(table);
  checked(node, out);
  need(all_rows(out) && out.width == w.cols, node, "embed writes one table row per row");
  need(row < w.rows, node, "embed takes a row that the table does not have");
  if (row >= 0) {
    // no id reaches the table
  } else if (by_position) {
    program_.limit_positions(w.rows);
  } else {
    program_.limit_token_ids(w.rows);
  }
  program_.add(std::make_unique<Embed>(w, by_position, row, out), node, "embed",
               "embed." + std::string(quant::find_format(w.format)->name));
}

void Builder::linear(const std::string& node, const Operand& x, const std::vector<int64_t>& weights,
                     const std::vector<int64_t>& biases, const Operand& out) {
  checked(node, x);
  checked(node, out);
  need(!weights.empty() && (biases.empty() || biases.size() == weights.size()), node,
       "linear needs weights, and a bias for each or for none");
  std::vector<LinearPart> parts;
  std::string kernel = "linear.";
  int64_t width = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const PackedMatrix& w = program_.weights().matrix(weights[i]);
    need(w.cols == x.width, node, "a weight has other columns than the input");
    const float* bias = nullptr;
    if (!biases.empty()) {
      const auto values = program_.weights().vector(biases[i]);
      need(static_cast<int64_t>(values.size()) == w.rows, node,
           "a bias has another length than its weight");
      bias = values.data();
    }
    parts.push_back({w, bias, width});
    const std::string name(quant::find_format(w.format)->name);
    if (kernel.find(name) == std::string::npos) kernel += (i == 0 ? "" : "+") + name;
    width += w.rows;
  }
  need(width == out.width && same_rows(x, out) && !is_result(x), node,
       "linear writes all weights side by side");
  program_.add(std::make_unique<Linear>(x, std::move(parts), out, program_.kernels(),
                                        program_.limits().tuning),
               node, "linear", kernel);
}

void Builder::norm(const std::string& node, const Operand& x, int64_t weight, int64_t bias,
                   float eps, const std::vector<Operand>& residual, const Operand& out) {
  const auto w = program_.weights().vector(weight);
  const auto b = bias < 0 ? std::span<const float>() : program_.weights().vector(bias);
  checked(node, x);
  checked(node, out);
  need(x.width == out.width && same_rows(x, out) && out.width % static_cast<int64_t>(w.size()) == 0,
       node, "norm keeps the shape, which is a multiple of the weight");
  need(b.empty() || b.size() == w.size(), node, "the bias has another length than the weight");
  need(residual.empty() || residual.size() == 2, node, "a residual comes with its sum");
  auto norm = std::make_unique<Norm>(x, w, b, eps, out);
  for (const Operand& r : residual) {
    checked(node, r);
    need(r.width == x.width && same_rows(r, x), node,
         "the residual has another shape than the input");
  }
  if (!residual.empty()) norm->add_residual({residual[0], residual[1]});
  const std::string name =
      std::string(residual.empty() ? "" : "add_") + (b.empty() ? "rms_norm" : "layer_norm");
  program_.add(std::move(norm), node, name, name);
}

void Builder::binary(const std::string& node, const std::string& op, const Operand& x,
                     const Operand& y, const Operand& out) {
  for (const Operand* v : {&x, &y, &out}) {
    checked(node, *v);
    const bool one = op != "add" && v == &y && v->width == 1;
    need((one || v->width == out.width) && same_rows(*v, out), node, op + " needs equal shapes");
  }
  need(op == "add" || op == "mul" || op == "sigmoid_mul", node,
       "operation '" + op + "' is unknown");
  const Binary kind = op == "add" ? Binary::add : op == "mul" ? Binary::mul : Binary::sigmoid_mul;
  program_.add(std::make_unique<BinaryOp>(kind, x, y, out), node, op, op);
}

void Builder::scaling(const std::string& node, const std::string& op, float by, const Operand& x,
                      const Operand& out) {
  checked(node, x);
  checked(node, out);
  need(x.width == out.width && same_rows(x, out), node, op + " keeps the shape");
  need(op == "scale" || op == "softcap" || op == "clip", node, "operation '" + op + "' is unknown");
  need(op != "clip" || by >= 0.0f, node, "clip needs a limit that is not negative");
  const Scale kind = op == "scale" ? Scale::scale : op == "clip" ? Scale::clip : Scale::softcap;
  program_.add(std::make_unique<Scaling>(kind, by, x, out), node, op, op);
}

void Builder::activate(const std::string& node, const std::string& act, bool gated,
                       const Operand& x, const Operand& out) {
  checked(node, x);
  checked(node, out);
  need(x.width == out.width * (gated ? 2 : 1) && same_rows(x, out), node,
       act + " has another shape");
  const std::string name = gated ? "gated" : act;
  program_.add(std::make_unique<Activate>(act_named(node, act, gated), gated, x, out), node, name,
               gated ? "gated." + act : act);
}

int64_t Builder::rope_table(int64_t inv_freq, float mscale) {
  const auto values = program_.weights().vector(inv_freq);
  auto table = std::make_unique<RopeTable>(values, mscale, program_.limits().max_rows);
  rope_tables_.push_back(table.get());
  program_.add(std::move(table), "rope.table", "rope_table", "rope_table");
  return static_cast<int64_t>(rope_tables_.size()) - 1;
}

void Builder::rope(const std::string& node, int64_t table, int64_t head_dim, const Operand& x,
                   const Operand& out) {
  need(table >= 0 && table < static_cast<int64_t>(rope_tables_.size()), node,
       "the rope table does not exist");
  const RopeTable& angles = *rope_tables_[static_cast<size_t>(table)];
  checked(node, x);
  checked(node, out);
  need(x.width == out.width && x.lead == Lead::rows && out.lead == Lead::rows && head_dim >= 1 &&
           out.width % head_dim == 0 && 2 * angles.half() <= head_dim,
       node, "rope turns at most head_dim columns of every head");
  program_.add(std::make_unique<Rope>(angles, head_dim, x, out), node, "rope", "rope");
}

void Builder::attention(const std::string& node, int64_t cache, const AttentionShape& shape,
                        const std::vector<Operand>& qkv, const Operand& out) {
  LayerCache& kv = program_.cache(cache);
  need(qkv.size() == 3, node, "attention reads q, k and v");
  need(shape.heads >= kv.kv_heads() && shape.heads % kv.kv_heads() == 0, node,
       "heads must be a multiple of kv heads");
  need(shape.window >= 0 && shape.chunk >= 0 && shape.softcap >= 0 && std::isfinite(shape.scale) &&
           std::isfinite(shape.softcap),
       node, "window, chunk and softcap must not be negative");
  const int64_t widths[] = {shape.heads * kv.head_dim(), kv.kv_heads() * kv.head_dim(),
                            kv.kv_heads() * kv.value_dim()};
  const Lead reading = shape.keys == Keys::sources ? Lead::sources : Lead::rows;
  const Lead stored = of_sources(shape.keys) ? Lead::sources : Lead::rows;
  for (size_t i = 0; i < 3; ++i) {
    checked(node, qkv[i]);
    need(qkv[i].width == widths[i] && qkv[i].lead == (i == 0 ? reading : stored), node,
         "q, k or v has another shape");
  }
  checked(node, out);
  need(out.width == shape.heads * kv.value_dim() && out.lead == reading, node,
       "attention writes the values' width of every head");
  need(shape.keys != Keys::cross || (!shape.causal && shape.window == 0), node,
       "every key of another text is visible");
  need((shape.keys == Keys::recent) == program_.keeps_recent(cache), node,
       "the cache keeps another part of a text than is read");
  need(shape.keys != Keys::recent || (shape.causal && (shape.window > 0 || shape.chunk > 0)), node,
       "only windows and chunks read the latest part of a text");
  if (of_sources(shape.keys)) program_.need_sources();
  const auto per_head = [&](int64_t index) {
    const auto values = index < 0 ? std::span<const float>() : program_.weights().vector(index);
    need(index < 0 || static_cast<int64_t>(values.size()) == shape.heads, node,
         "slopes and sinks are one number per head");
    return values;
  };
  static constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8_0", "q4_0"};
  const Attention::Shape made{shape.heads,
                              shape.window,
                              shape.scale,
                              shape.softcap,
                              shape.chunk,
                              shape.causal,
                              per_head(shape.slopes),
                              per_head(shape.sinks),
                              shape.keys,
                              biases(node, shape)};
  program_.add(std::make_unique<Attention>(qkv[0], qkv[1], qkv[2], out, kv, made), node,
               "attention", std::string("attention.") + kNames[static_cast<size_t>(kv.type())]);
}

// The number that each head adds at each distance from -reach to reach: [heads][2 * reach + 1].
std::vector<float> Builder::biases(const std::string& node, const AttentionShape& shape) {
  if (shape.buckets < 0) return {};
  const auto table = program_.weights().vector(shape.buckets);
  const auto count = static_cast<int64_t>(table.size()) / shape.heads;
  need(shape.bucket_of.size() % 2 == 1 && shape.keys != Keys::cross &&
           static_cast<int64_t>(table.size()) == count * shape.heads,
       node, "buckets are a table [buckets, heads] and a bucket for each distance");
  std::vector<float> found;
  for (int64_t head = 0; head < shape.heads; ++head) {
    for (const int64_t bucket : shape.bucket_of) {
      need(bucket >= 0 && bucket < count, node, "a distance has a bucket that does not exist");
      found.push_back(table[static_cast<size_t>(bucket * shape.heads + head)]);
    }
  }
  return found;
}

void Builder::take_rows(const std::string& node, const Operand& x, const Operand& out) {
  checked(node, x);
  checked(node, out);
  need(x.lead == Lead::rows && !all_rows(out) && x.width == out.width, node,
       "take_rows goes from all rows to those wanted");
  program_.add(std::make_unique<TakeRows>(x, out), node, "take_rows", "take_rows");
}

}  // namespace tokamak::cpu
