// The builder's instructions for experts, recurrent states and heads.
#include <cmath>
#include <memory>

#include "cpu/builder.h"
#include "cpu/builder_checks.h"
#include "cpu/experts.h"
#include "cpu/recurrent.h"
#include "cpu/routing.h"

namespace tokamak::cpu {
namespace {

int64_t size_of(std::span<const float> values) { return static_cast<int64_t>(values.size()); }

}  // namespace

void Builder::affine(const std::string& node, int64_t weight, int64_t bias, const Operand& x,
                     const Operand& out) {
  const auto w = program_.weights().vector(weight);
  const auto b = bias < 0 ? std::span<const float>() : program_.weights().vector(bias);
  checked(node, x);
  checked(node, out);
  need(x.width == out.width && x.lead == out.lead && size_of(w) == x.width &&
           (b.empty() || b.size() == w.size()),
       node, "affine has one weight, and one bias or none, per column");
  program_.add(std::make_unique<Affine>(x, w, b, out), node, "affine", "affine");
}

void Builder::join(const std::string& node, int64_t heads, int64_t y_heads, const Operand& x,
                   const Operand& y, const Operand& out) {
  for (const Operand* v : {&x, &y, &out}) checked(node, *v);
  need(heads >= 1 && (y_heads == 1 || y_heads == heads) && x.width % heads == 0 &&
           y.width % y_heads == 0 && x.lead == out.lead && y.lead == out.lead &&
           out.width == x.width + y.width / y_heads * heads,
       node, "join writes heads of x and y side by side");
  program_.add(std::make_unique<Join>(heads, x, y, y_heads, out), node, "join", "join");
}

void Builder::route(const std::string& node, const RouteShape& shape, const Operand& logits,
                    const Operand& out) {
  checked(node, logits);
  checked(node, out);
  const auto bias =
      shape.bias < 0 ? std::span<const float>() : program_.weights().vector(shape.bias);
  const int64_t count = logits.width;
  need(out.width == count && logits.lead == out.lead && (bias.empty() || size_of(bias) == count),
       node, "route keeps the shape");
  need(shape.groups >= 1 && count % shape.groups == 0 && shape.top_groups >= 1 &&
           shape.top_groups <= shape.groups && shape.group_top >= 1 &&
           shape.group_top <= count / shape.groups && shape.used >= 1 &&
           shape.used <= count / shape.groups * shape.top_groups && std::isfinite(shape.scaling),
       node, "rows use at most the experts of the best groups");
  need(shape.score == "softmax" || shape.score == "sigmoid" ||
           (shape.score == "sparsemixer" && shape.used == 2),
       node, "score '" + shape.score + "' is unknown");
  const Score score = shape.score == "softmax"   ? Score::softmax
                      : shape.score == "sigmoid" ? Score::sigmoid
                                                 : Score::sparsemixer;
  const Routing routing{shape.used,       score,          shape.normed, shape.scaling, shape.groups,
                        shape.top_groups, shape.group_top};
  program_.add(std::make_unique<Route>(logits, bias, routing, out), node, "route",
               "route." + shape.score);
}

void Builder::experts(const std::string& node, const Operand& x, const Operand& weights,
                      const ExpertIds& ids, int64_t used, const std::string& act, bool weighs_input,
                      const Operand& out) {
  for (const Operand* v : {&x, &weights, &out}) checked(node, *v);
  const size_t count = ids.gate.size();
  need(count > 0 && count <= INT32_MAX && ids.up.size() == count && ids.down.size() == count, node,
       "every expert has three matrices");
  std::vector<Expert> experts;
  for (size_t i = 0; i < count; ++i) {
    Weights& w = program_.weights();
    experts.push_back({w.matrix(ids.gate[i]), w.matrix(ids.up[i]), w.matrix(ids.down[i])});
    const Expert& e = experts[i];
    const Expert& first = experts[0];
    need(e.gate.cols == x.width && e.up.cols == x.width && e.down.rows == out.width &&
             e.gate.rows == first.gate.rows && e.up.rows == first.gate.rows &&
             e.down.cols == first.gate.rows,
         node, "the matrices of an expert do not fit");
    need(e.gate.format == first.gate.format && e.up.format == first.up.format &&
             e.down.format == first.down.format,
         node, "experts differ in format");
  }
  const auto num_experts = static_cast<int64_t>(count);
  need(x.width == out.width && weights.width == num_experts && used >= 1 && used <= num_experts,
       node, "experts keep the shape, and rows use at most all of them");
  need(x.lead == Lead::rows && weights.lead == Lead::rows && out.lead == Lead::rows, node,
       "experts work on all rows");
  ExpertUse use{used, act_named(node, act, true), weighs_input, {}};
  need(ids.biases.empty() || ids.biases.size() == 3, node, "experts have three biases or none");
  const int64_t widths[] = {experts[0].gate.rows, experts[0].up.rows, out.width};
  for (size_t i = 0; i < ids.biases.size(); ++i) {
    use.biases[i] = program_.weights().vector(ids.biases[i]);
    need(size_of(use.biases[i]) == num_experts * widths[i], node,
         "a bias has another length than its matrices");
  }
  const std::string kernel =
      "experts." + std::string(quant::find_format(experts[0].gate.format)->name);
  program_.add(std::make_unique<Experts>(x, weights, std::move(experts), use, out,
                                         program_.kernels(), program_.limits().tuning),
               node, "experts", kernel);
}

void Builder::causal_conv(const std::string& node, int64_t state, int64_t weight, int64_t bias,
                          const std::string& act, const Operand& x, const Operand& out) {
  const auto w = program_.weights().vector(weight);
  const auto b = bias < 0 ? std::span<const float>() : program_.weights().vector(bias);
  checked(node, x);
  checked(node, out);
  LayerState& kept = program_.state(state);
  need(x.width == out.width && x.lead == Lead::rows && out.lead == Lead::rows &&
           size_of(w) % x.width == 0 && size_of(w) == kept.width() + x.width &&
           (b.empty() || size_of(b) == x.width),
       node, "the state holds all but one of the inputs that the weight covers");
  const CausalConv::Shape shape{w, b, !act.empty(),
                                act.empty() ? Act::silu : act_named(node, act, false)};
  program_.add(std::make_unique<CausalConv>(x, out, kept, shape), node, "causal_conv",
               "causal_conv");
}

void Builder::scan(const std::string& node, int64_t state, int64_t heads, int64_t groups,
                   const std::vector<int64_t>& vectors, const std::vector<Operand>& operands,
                   const Operand& out) {
  need(vectors.size() == 2 && operands.size() == 4, node, "scan reads x, dt, b, c, a and d");
  const auto a = program_.weights().vector(vectors[0]);
  const auto d = program_.weights().vector(vectors[1]);
  LayerState& kept = program_.state(state);
  for (const Operand& v : operands) {
    checked(node, v);
    need(v.lead == Lead::rows, node, "scan works on all rows");
  }
  checked(node, out);
  const auto& [x, dt, b, c] = std::tie(operands[0], operands[1], operands[2], operands[3]);
  need(heads >= 1 && groups >= 1 && heads % groups == 0 && x.width % heads == 0 &&
           out.width == x.width && out.lead == Lead::rows && dt.width == heads &&
           b.width == c.width && b.width % groups == 0 && size_of(d) == heads,
       node, "scan keeps the shape of x");
  const int64_t states = b.width / groups;
  need(kept.width() == x.width * states && (size_of(a) == heads || size_of(a) == heads * states),
       node, "the state has one number per column of x and state");
  program_.add(std::make_unique<Scan>(Scan::Inputs{x, dt, b, c}, out, kept,
                                      Scan::Shape{heads, groups, states, a, d}),
               node, "scan", "scan");
}

void Builder::linear_attention(const std::string& node, int64_t state, const std::string& rule,
                               int64_t heads, int64_t bonus, const std::vector<Operand>& operands,
                               const Operand& out) {
  need(rule == "delta" || rule == "bonus" || rule == "removal", node,
       "rule '" + rule + "' is unknown");
  const Rule kind = rule == "delta" ? Rule::delta : rule == "bonus" ? Rule::bonus : Rule::removal;
  const size_t count = kind == Rule::delta ? 5 : kind == Rule::bonus ? 4 : 6;
  need(operands.size() == count && (bonus >= 0) == (kind == Rule::bonus), node,
       "the rule has other inputs");
  for (const Operand& v : operands) {
    checked(node, v);
    need(v.lead == Lead::rows, node, "linear_attention works on all rows");
  }
  checked(node, out);
  LayerState& kept = program_.state(state);
  const Operand& q = operands[0];
  const Operand& v = operands[2];
  need(heads >= 1 && q.width % heads == 0 && v.width % heads == 0 && operands[1].width == q.width &&
           out.width == v.width && out.lead == Lead::rows,
       node, "q, k or v has another shape");
  for (size_t i = 3; i < count; ++i) {
    need(operands[i].width == (kind == Rule::delta ? heads : q.width), node,
         "decays have another shape");
  }
  const int64_t keys = q.width / heads;
  const int64_t values = v.width / heads;
  need(kept.width() == heads * keys * values, node, "the state has another shape");
  const auto u = bonus < 0 ? std::span<const float>() : program_.weights().vector(bonus);
  need(bonus < 0 || size_of(u) == q.width, node, "the bonus is one number per key column");
  const Operand& a = count > 4 ? operands[4] : operands[3];
  const Operand& b = count > 5 ? operands[5] : operands[3];
  program_.add(std::make_unique<LinearAttention>(
                   LinearAttention::Inputs{q, operands[1], v, operands[3], a, b}, out, kept,
                   LinearAttention::Shape{kind, heads, keys, values, u}),
               node, "linear_attention", "linear_attention." + rule);
}

}  // namespace tokamak::cpu
