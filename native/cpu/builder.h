// Makes the instructions of a program from indices and operands, and checks that they fit.
//
// Every function throws Error(invalid_params) that names the node where shapes, offsets or indices
// do not agree, so that nothing a caller passes can make an instruction reach outside its memory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cpu/attention.h"
#include "cpu/program.h"
#include "cpu/rowwise.h"

namespace tokamak::cpu {

// Indices of the packed matrices of every expert.
struct ExpertIds {
  std::vector<int64_t> gate, up, down;
  std::vector<int64_t> biases;  // vectors of all experts: gate, up, down, or none
};

// bias: vector index, -1 for none.
struct RouteShape {
  std::string score;
  int64_t bias, used;
  bool normed;
  float scaling;
  int64_t groups, top_groups, group_top;
};

// slopes, sinks: vector indices, -1 for none.
struct AttentionShape {
  int64_t heads;
  float scale;
  int64_t window;
  float softcap;
  int64_t chunk;
  bool causal;
  int64_t slopes, sinks;
  Keys keys;
  int64_t buckets;                 // vector index of [buckets][heads], -1 for none
  std::vector<int64_t> bucket_of;  // of each distance from -reach to reach
};

class Builder {
 public:
  explicit Builder(Program& program) : program_(program) {}

  void embed(const std::string& node, int64_t table, bool by_position, int64_t row,
             const Operand& out);
  // groups: (gate, columns)
  void gate(const std::string& node, const std::vector<std::pair<int64_t, int64_t>>& groups,
            const Operand& x, const Operand& out);
  void steer(const std::string& node, int64_t gate, int64_t direction, const Operand& x,
             const Operand& out);
  void replace_rows(const std::string& node, const Operand& x, const Operand& out);
  // biases: vector indices, one per weight, or none at all
  void linear(const std::string& node, const Operand& x, const std::vector<int64_t>& weights,
              const std::vector<int64_t>& biases, const Operand& out);
  // bias -1: rms_norm. residual: {residual, sum} or empty.
  void norm(const std::string& node, const Operand& x, int64_t weight, int64_t bias, float eps,
            const std::vector<Operand>& residual, const Operand& out);
  void binary(const std::string& node, const std::string& op, const Operand& x, const Operand& y,
              const Operand& out);
  // op: "scale", "softcap" or "clip"
  void scaling(const std::string& node, const std::string& op, float by, const Operand& x,
               const Operand& out);
  void activate(const std::string& node, const std::string& act, bool gated, const Operand& x,
                const Operand& out);
  void affine(const std::string& node, int64_t weight, int64_t bias, const Operand& x,
              const Operand& out);  // bias -1: none
  void join(const std::string& node, int64_t heads, int64_t y_heads, const Operand& x,
            const Operand& y, const Operand& out);
  void route(const std::string& node, const RouteShape& shape, const Operand& logits,
             const Operand& out);
  void experts(const std::string& node, const Operand& x, const Operand& weights,
               const ExpertIds& ids, int64_t used, const std::string& act, bool weighs_input,
               const Operand& out);
  // bias -1: none; act: "" for none
  void causal_conv(const std::string& node, int64_t state, int64_t weight, int64_t bias,
                   const std::string& act, const Operand& x, const Operand& out);
  // operands: x, dt, b, c; vectors: a, d
  void scan(const std::string& node, int64_t state, int64_t heads, int64_t groups,
            const std::vector<int64_t>& vectors, const std::vector<Operand>& operands,
            const Operand& out);
  // operands: q, k, v, w, and beta, or a and b; bonus: vector index, -1 for the other rules
  void linear_attention(const std::string& node, int64_t state, const std::string& rule,
                        int64_t heads, int64_t bonus, const std::vector<Operand>& operands,
                        const Operand& out);
  // Returns the index that `rope` takes.
  int64_t rope_table(int64_t inv_freq, float mscale);
  void rope(const std::string& node, int64_t table, int64_t head_dim, const Operand& x,
            const Operand& out);
  void attention(const std::string& node, int64_t cache, const AttentionShape& shape,
                 const std::vector<Operand>& qkv, const Operand& out);
  void take_rows(const std::string& node, const Operand& x, const Operand& out);

  // The operand, if it lies inside its arena.
  const Operand& checked(const std::string& node, const Operand& x) const;

 private:
  std::vector<float> biases(const std::string& node, const AttentionShape& shape);

  Program& program_;
  std::vector<const RopeTable*> rope_tables_;
};

}  // namespace tokamak::cpu
