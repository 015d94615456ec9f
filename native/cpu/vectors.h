// Float kernels of one instruction set: everything a program runs besides matrices.
//
// Same rules as kernels.h: noexcept, thread-safe, and the order of additions depends on the
// position in a row only. Buffers need no alignment unless it is said; no output overlaps an input.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/cache.h"

namespace tokamak::cpu {

// swiglu_clamped is for `gated` only: g * sigmoid(1.702 g) * (u + 1), g and u clamped to 7.
enum class Act : uint8_t { silu, gelu, gelu_erf, relu2, relu, sigmoid, softplus, swiglu_clamped };

// Query rows that attend together, in working memory: one row per (query, head of the group).
// `width` is the keys' head_dim rounded up to a multiple of 16; columns beyond head_dim are zero.
// `value_width` is the same of the values.
struct AttentionRows {
  int64_t count;        // rows
  int64_t width;        // columns of q
  int64_t value_width;  // columns of acc
  const float* q;       // [count][width], scaled
  float* acc;           // [count][value_width] sum of exp(score - most) * value
  float* most;          // [count] largest score so far, -inf before the first
  float* total;         // [count] sum of exp(score - most)
  const int64_t* low;   // [count] visible keys of the row are [low, high), absolute
  const int64_t* high;
  const float* slope;  // [count], or null: slope * (key - position) is added to scores at the end
  float softcap;       // scores become softcap * tanh(score / softcap); 0: as they are
  // [count], or null: bias[clamp(key - at, -reach, reach)] is added to scores at the end
  const float* const* bias = nullptr;
  const int64_t* at = nullptr;  // [count] positions of the rows
  int64_t reach = 0;
};

// One row of a head: state [width][states], x and out [width], b and c [states].
struct ScanRow {
  int64_t width, states;
  float dt;        // before softplus
  const float* a;  // [states], or [1] where a_is_scalar
  bool a_is_scalar;
  float d;
  const float* x;
  const float* b;
  const float* c;
  float* out;
};

enum class Rule : uint8_t { delta, bonus, removal };

// One row of a head: state [keys][values]; q, k, w, a, b [keys] (delta: w and a are one number, the
// decay and beta; bonus: a is u), v, out and scratch [values].
struct MatrixRow {
  Rule rule;
  int64_t keys, values;
  const float* q;
  const float* k;
  const float* v;
  const float* w;
  const float* a;
  const float* b;
  float* out;
  float* scratch;
};

struct VectorTable {
  const char* isa;

  void (*add)(const float* x, const float* y, int64_t n, float* out);
  void (*mul)(const float* x, const float* y, int64_t n, float* out);
  void (*scale)(const float* x, float factor, int64_t n, float* out);
  void (*softcap)(const float* x, float cap, int64_t n, float* out);  // cap * tanh(x / cap)
  void (*activate)(Act act, const float* x, int64_t n, float* out);
  void (*gated)(Act act, const float* gate, const float* up, int64_t n,
                float* out);  // act(gate) * up
  // x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  // (x - mean) / sqrt(variance + eps) * weight + bias
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                     float* out);
  // Turns columns i and i + half of one head by the angle whose cosine and sine are given; n - 2 *
  // half pass.
  void (*rotate)(const float* x, const float* cosine, const float* sine, int64_t half, int64_t n,
                 float* out);

  // One position into a block: k[head_dim] to column `position` of the keys, v[head_dim] to its row
  // of values.
  void (*store_key)(CacheType type, const float* k, int64_t head_dim, int position,
                    std::byte* keys);
  void (*store_value)(CacheType type, const float* v, int64_t head_dim, int position,
                      std::byte* values);
  // Online softmax over the 32 keys of a block that begins at absolute position `first`:
  //   m' = max(m, max s);  acc = acc * exp(m - m') + sum_j exp(s_j - m') v_j;  total likewise
  // for each row that sees any of them; keys a row does not see do not count for it, whatever they
  // hold. scratch: (head_dim + rows.value_width) * 32 floats, 64-byte aligned.
  void (*attend)(const AttentionRows& rows, int64_t first, CacheType type, int64_t head_dim,
                 int64_t value_dim, const std::byte* keys, const std::byte* values, float* scratch);
  // Adds the sums of a split, of the given largest score, to others: acc, most, total in place.
  void (*merge)(int64_t width, const float* acc, float most, float total, float* acc_into,
                float* most_into, float* total_into);

  // One row of one head of a state space; formulas in recurrent.h.
  void (*scan)(const ScanRow& row, float* state);
  void (*linear_attention)(const MatrixRow& row, float* state);
};

// Table of the instruction set of that name, one of those of kernels.h.
const VectorTable& vectors_named(const char* isa) noexcept;

}  // namespace tokamak::cpu
