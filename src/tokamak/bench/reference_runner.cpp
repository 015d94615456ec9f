// A reference engine of the llama.cpp kind behind a pipe: loads one model, then answers requests.
//
// It is compiled against the headers of the tree that is asked (llama.cpp of any year, bitnet.cpp),
// so structures are laid out as that tree has them. Calls whose names changed are looked up by the
// types of their arguments: `requires` picks the one that the headers declare.
//
// usage: runner MODEL CONTEXT THREADS CACHE_TYPE    (CACHE_TYPE: a number of enum ggml_type)
//
// First line: "ready WIDTH CACHE_TYPE" (f16 where the engine has no other), or "error TEXT" and the
// end. Then requests, each a line and its payload, and their answers:
//
//   tokens NBYTES, text            "ok COUNT", int32[COUNT]
//   logits COUNT, int32[COUNT]     "ok COUNT WIDTH", float[COUNT][WIDTH]
//   nodes COUNT, int32[COUNT]      "node NBYTES COUNT WIDTH", name, float[COUNT][WIDTH], ..., "end"
//   seconds COUNT MORE, int32[COUNT]
//                                  "ok READ WRITTEN": seconds to read, to write MORE greedily
//
// An answer may be "error TEXT" instead; the runner then goes on.

#include <ggml-backend.h>
#include <ggml.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Ids = std::vector<llama_token>;

template <class Params>
llama_model* load(const char* path, Params params) {
  if constexpr (requires { llama_model_load_from_file(path, params); }) {
    return llama_model_load_from_file(path, params);
  } else {
    return llama_load_model_from_file(path, params);
  }
}

template <class Params>
llama_context* start(llama_model* model, Params params) {
  if constexpr (requires { llama_init_from_model(model, params); }) {
    return llama_init_from_model(model, params);
  } else {
    return llama_new_context_with_model(model, params);
  }
}

template <class Model>
auto vocabulary(Model* model) {  // before 2025 the model was its own vocabulary
  if constexpr (requires { llama_model_get_vocab(model); }) {
    return llama_model_get_vocab(model);
  } else {
    return static_cast<const Model*>(model);
  }
}

template <class Vocabulary>
int32_t width_of(const Vocabulary* vocab) {
  if constexpr (requires { llama_vocab_n_tokens(vocab); }) {
    return llama_vocab_n_tokens(vocab);
  } else {
    return llama_n_vocab(vocab);
  }
}

template <class Context>
void clear(Context* context) {
  if constexpr (requires { llama_get_memory(context); }) {
    if (auto memory = llama_get_memory(context)) llama_memory_clear(memory, true);
  } else if constexpr (requires { llama_kv_self_clear(context); }) {
    llama_kv_self_clear(context);
  } else {
    llama_kv_cache_clear(context);
  }
}

// Attention as plain products of matrices, unless the cache is rounded, which only the fused one
// reads.
template <class Params>
void choose_attention(Params& params, bool fused) {
  if constexpr (requires { params.flash_attn_type; }) {
    params.flash_attn_type = static_cast<decltype(params.flash_attn_type)>(fused ? 1 : 0);
  } else {
    params.flash_attn = fused;
  }
}

template <class Params>
void allow_outputs(Params& params, uint32_t count) {
  if constexpr (requires { params.n_outputs_max; }) params.n_outputs_max = count;
}

// Nodes with a row per token, as the graph is computed.
struct Nodes {
  int64_t rows = 0;  // 0: nothing is wanted
};

bool is_view(const ggml_tensor* t) {
  return t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_PERMUTE ||
         t->op == GGML_OP_TRANSPOSE;
}

bool is_wanted(const ggml_tensor* t, int64_t rows) {
  if (rows == 0 || t->type != GGML_TYPE_F32 || is_view(t)) return false;
  int outermost = GGML_MAX_DIMS - 1;
  while (outermost > 1 && t->ne[outermost] == 1 && rows != 1) --outermost;
  return outermost > 0 && t->ne[outermost] == rows;
}

// The elements in the order of the extents, whatever the strides are.
std::vector<float> elements(const ggml_tensor* t) {
  std::vector<char> raw(ggml_nbytes(t));
  ggml_backend_tensor_get(t, raw.data(), 0, raw.size());
  std::vector<float> out;
  out.reserve(static_cast<size_t>(ggml_nelements(t)));
  for (int64_t l = 0; l < t->ne[3]; ++l)
    for (int64_t k = 0; k < t->ne[2]; ++k)
      for (int64_t j = 0; j < t->ne[1]; ++j)
        for (int64_t i = 0; i < t->ne[0]; ++i) {
          const size_t at = static_cast<size_t>(i) * t->nb[0] + static_cast<size_t>(j) * t->nb[1] +
                            static_cast<size_t>(k) * t->nb[2] + static_cast<size_t>(l) * t->nb[3];
          float value;
          std::memcpy(&value, raw.data() + at, sizeof value);
          out.push_back(value);
        }
  return out;
}

void write(const void* data, size_t nbytes) { std::fwrite(data, 1, nbytes, stdout); }

bool seen(ggml_tensor* t, bool ask, void* user) {
  const auto& nodes = *static_cast<Nodes*>(user);
  const bool wanted = is_wanted(t, nodes.rows);
  if (ask || !wanted) return ask ? wanted : true;
  const std::vector<float> values = elements(t);
  const std::string name = ggml_get_name(t);
  std::printf("node %zu %lld %lld\n", name.size(), static_cast<long long>(nodes.rows),
              static_cast<long long>(static_cast<int64_t>(values.size()) / nodes.rows));
  write(name.data(), name.size());
  write(values.data(), values.size() * sizeof(float));
  return true;
}

// Reads ids at positions from `first`; every: keep the logits of each, else of the last. 0 on
// success.
int read(llama_context* context, const Ids& ids, int32_t first, bool every) {
  const auto count = static_cast<int32_t>(ids.size());
  llama_batch batch = llama_batch_init(count, 0, 1);
  batch.n_tokens = count;
  for (int32_t i = 0; i < count; ++i) {
    batch.token[i] = ids[static_cast<size_t>(i)];
    batch.pos[i] = first + i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = every || i == count - 1;
  }
  const int code = llama_decode(context, batch);
  llama_synchronize(context);
  llama_batch_free(batch);
  return code;
}

llama_token best(llama_context* context, int32_t width) {
  const float* row = llama_get_logits_ith(context, -1);
  return static_cast<llama_token>(std::max_element(row, row + width) - row);
}

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void answer_seconds(llama_context* context, const Ids& ids, int more, int32_t width) {
  auto from = std::chrono::steady_clock::now();
  if (read(context, ids, 0, false)) return void(std::printf("error the tokens are not read\n"));
  llama_token chosen = best(context, width);
  const double reading = since(from);
  from = std::chrono::steady_clock::now();
  for (int i = 0; i < more; ++i) {
    if (read(context, {chosen}, static_cast<int32_t>(ids.size()) + i, false))
      return void(std::printf("error token %d is not read\n", i));
    chosen = best(context, width);
  }
  std::printf("ok %.9f %.9f\n", reading, since(from));
}

void answer(const std::string& line, llama_model* model, llama_context* context, Nodes& nodes) {
  std::istringstream words(line);
  std::string kind;
  size_t count = 0;
  int more = 0;
  words >> kind >> count >> more;
  const auto vocab = vocabulary(model);
  const int32_t width = width_of(vocab);
  if (count > llama_n_ctx(context) && kind != "tokens")
    return void(std::printf("error %zu tokens are more than the context\n", count));
  if (kind == "tokens") {
    std::string text(count, '\0');
    std::cin.read(text.data(), static_cast<std::streamsize>(count));
    Ids ids(count + 8);
    const int32_t made = llama_tokenize(vocab, text.data(), static_cast<int32_t>(count), ids.data(),
                                        static_cast<int32_t>(ids.size()), true, true);
    if (made < 0) return void(std::printf("error the text has more tokens than bytes\n"));
    std::printf("ok %d\n", made);
    return write(ids.data(), static_cast<size_t>(made) * sizeof(llama_token));
  }
  Ids ids(count);
  std::cin.read(reinterpret_cast<char*>(ids.data()),
                static_cast<std::streamsize>(count * sizeof(llama_token)));
  for (llama_token one : ids)
    if (one < 0 || one >= width) return void(std::printf("error token %d is none\n", one));
  clear(context);
  if (kind == "seconds") return answer_seconds(context, ids, more, width);
  nodes.rows = kind == "nodes" ? static_cast<int64_t>(count) : 0;
  const int code = read(context, ids, 0, true);
  nodes.rows = 0;
  if (code) return void(std::printf("error llama_decode returns %d\n", code));
  if (kind == "nodes") return void(std::printf("end\n"));
  std::printf("ok %zu %d\n", count, width);
  write(llama_get_logits(context), count * static_cast<size_t>(width) * sizeof(float));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5)
    return std::fprintf(stderr, "usage: %s MODEL CONTEXT THREADS CACHE_TYPE\n", argv[0]), 2;
  llama_backend_init();
  auto loading = llama_model_default_params();
  loading.n_gpu_layers = 0;
  llama_model* model = load(argv[1], loading);
  if (!model) return std::printf("error it does not load %s\n", argv[1]), 3;
  Nodes nodes;
  auto params = llama_context_default_params();
  const auto context_size = static_cast<uint32_t>(std::atoi(argv[2]));
  params.n_ctx = params.n_batch = params.n_ubatch = context_size;
  params.n_threads = params.n_threads_batch = std::atoi(argv[3]);
  params.type_k = params.type_v = static_cast<ggml_type>(std::atoi(argv[4]));
  params.cb_eval = seen;
  params.cb_eval_user_data = &nodes;
  choose_attention(params,
                   std::atoi(argv[4]) != GGML_TYPE_F32 && std::atoi(argv[4]) != GGML_TYPE_F16);
  allow_outputs(params, context_size);
  llama_context* context = start(model, params);
  if (!context) {  // engines of 2024 take V in f16 only unless attention is fused
    params.type_k = params.type_v = GGML_TYPE_F16;
    choose_attention(params, false);
    context = start(model, params);
  }
  if (!context) return std::printf("error it makes no context\n"), 3;
  std::printf("ready %d %d\n", width_of(vocabulary(model)), static_cast<int>(params.type_v));
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    answer(line, model, context, nodes);
    std::fflush(stdout);
  }
}
