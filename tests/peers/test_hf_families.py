"""Tiny random models saved by transformers: read from their directory they give the same logits."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

import hf_models
import tokamak
from graphs import batch
from tokamak import executors, models
from tokamak.bench.peers import LlamaCpp
from tokamak.ir.passes import optimize
from tokamak.loaders import open_checkpoint
from tokamak.loaders.names.hf import HF_FAMILIES
from tokamak.types import Limits

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

LIMIT = 1e-4  # float32 against float64 arithmetic
VOCABULARY = 320
SIZES = {name: value for name, value in hf_models.SIZES.items() if name != "rope_parameters"}
SIZES |= {"vocab_size": VOCABULARY}
FACTORS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
    "logits_scaling": 2.0,
}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
OWN = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
GPT = {"num_key_value_heads": None, "intermediate_size": None}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
ROUTED_PLAIN = {
    "n_routed_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
}
HYBRID = {"layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_state": 16, "mamba_n_groups": 1}
HYBRID |= {"shared_intermediate_size": 24, "position_embedding_type": "rope"}
SCAN = dict.fromkeys(("num_attention_heads", "num_key_value_heads", "intermediate_size"))
# Second forms of a model_type.
FORMS = {
    "falcon-40b": "falcon",
    "granitemoehybrid-dense": "granitemoehybrid",
    "gemma4_text-keys": "gemma4_text",
    "llama-dynamic": "llama",
    "llama-yarn": "llama",
}
LOCAL_FIRST = ["sliding_attention", "sliding_attention", "full_attention"] * 2
CASES = {
    "llama": {},
    "bitnet": {},
    "mistral": {"sliding_window": 16},
    "mixtral": LOCAL,
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen2_moe": OWN | {"shared_expert_intermediate_size": 40},
    "qwen3_moe": OWN | {"head_dim": 16, "norm_topk_prob": True},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "olmo2": {},
    "granite": FACTORS,
    "granitemoe": FACTORS | LOCAL,
    "phi": {},
    "phi3": {},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "num_hidden_layers": 7, "sliding_window": 16},
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neox": {"num_key_value_heads": None},
    "stablelm": {},
    "cohere": {"logit_scale": 0.25},
    "glm4": {"head_dim": 16},
    "arcee": {},
    "ernie4_5": {"head_dim": 16},
    "deepseek_v2": ROUTED | {"q_lora_rank": None, "topk_method": "greedy", "first_k_dense_replace": 1},
    "deepseek_v3": ROUTED | {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5},
    "cohere2": {"sliding_window": 16, "num_hidden_layers": 5, "logit_scale": 0.5},
    "gemma2": {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 10.0,
    },
    "starcoder2": {"sliding_window": 16},
    "nemotron": {},
    "smollm3": {"num_hidden_layers": 5},
    "seed_oss": {"head_dim": 8, "attention_bias": True, "attention_out_bias": False},
    "hunyuan_v1_dense": {"head_dim": 8},
    "olmo": {"clip_qkv": 0.8},
    "exaone4": {"sliding_window": 16, "sliding_window_pattern": 4, "num_hidden_layers": 5},
    "olmo3": {
        "sliding_window": 16,
        "num_hidden_layers": 5,
        "rope_parameters": {"full_attention": YARN, "sliding_attention": ROPE},
    },
    "phimoe": LOCAL | {"attention_bias": True, "lm_head_bias": True},
    "dots1": ROUTED_PLAIN | {"num_key_value_heads": 4},
    "glm4_moe": ROUTED_PLAIN
    | {"partial_rotary_factor": 0.5, "use_qk_norm": True, "head_dim": 8, "attention_bias": True},
    "minimax_m2": LOCAL | {"head_dim": 8, "rope_parameters": ROPE | {"partial_rotary_factor": 0.5}},
    "ministral3": {"head_dim": 8, "rope_parameters": YARN | {"llama_4_scaling_beta": 0.1}},
    "falcon": {"num_kv_heads": 1, "num_key_value_heads": None, "ffn_hidden_size": 48},
    "falcon-40b": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_key_value_heads": None},
    "mpt": GPT
    | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "attn_config": {"clip_qkv": 0.8}},
    "mamba": SCAN | {"time_step_rank": 4},
    "falcon_mamba": SCAN | {"time_step_rank": 4},
    "mamba2": SCAN | {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 2},
    "jamba": {"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}
    | {"expert_layer_offset": 1, "mamba_dt_rank": 2, "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": OWN | {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "granitemoehybrid": FACTORS | LOCAL | HYBRID,
    "granitemoehybrid-dense": FACTORS | HYBRID | {"num_local_experts": 0, "num_experts_per_tok": 0},
    "qwen3_5_text": {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "llama4_text": {"num_local_experts": 4, "head_dim": 8, "intermediate_size_mlp": 56}
    | {"interleave_moe_layer_step": 2, "num_hidden_layers": 4, "attention_chunk_size": 16},
    "ernie4_5_moe": {
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": 24,
        "moe_num_shared_experts": 1,
    }
    | {"moe_layer_start_index": 1, "head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2, "num_shared_expert": 1},
    "minicpm3": {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
    | {"v_head_dim": 8, "num_key_value_heads": 4, "dim_model_base": 256},
    "gemma4_text": {"head_dim": 8, "global_head_dim": 16, "num_hidden_layers": 6, "layer_types": LOCAL_FIRST}
    | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 320, "sliding_window": 16}
    | {"num_kv_shared_layers": 3, "final_logit_softcapping": 30.0},
    "gemma4_text-keys": {"head_dim": 8, "global_head_dim": 16, "num_hidden_layers": 6}
    | {"layer_types": LOCAL_FIRST, "hidden_size_per_layer_input": 0, "sliding_window": 16}
    | {"num_kv_shared_layers": 0, "attention_k_eq_v": True},
    "glm": {"head_dim": 8},
    "exaone": {},
    "jais2": {},
    "falcon_h1": {
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 16,
        "head_dim": 8,
    }
    | {"embedding_multiplier": 2.0, "lm_head_multiplier": 0.5, "key_multiplier": 0.7}
    | {"attention_in_multiplier": 1.2, "attention_out_multiplier": 0.9, "ssm_in_multiplier": 1.1}
    | {"ssm_out_multiplier": 0.8, "ssm_multipliers": [0.7, 0.8, 0.9, 1.1, 1.2]}
    | {"mlp_multipliers": [0.8, 1.2]},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mlp"], "num_hidden_layers": 3, "n_groups": 2}
    | {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "head_dim": 8},
    "qwen3_5_moe_text": OWN
    | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "intermediate_size": None}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "shared_expert_intermediate_size": 40}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "llama-dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    "llama-yarn": {
        "head_dim": 32,
        "rope_parameters": YARN | {"truncate": False, "mscale": 0.7, "mscale_all_dim": 0.4},
    },
    "gptj": GPT | {"rotary_dim": 4},
    "bloom": GPT,
    "gpt_oss": LOCAL | {"head_dim": 16, "sliding_window": 16, "rope_parameters": ROPE},
}


# llama.cpp looks gelu up in a table of halves, and scans in another order.
LOOSE = {"gemma", "gemma2", "gemma3_text", "gemma4_text", "gemma4_text-keys", "phi", "gpt2", "gpt_bigcode"}
LOOSE |= {"gpt_neox", "falcon", "falcon-40b", "mpt", "bloom", "mamba", "falcon_mamba"}
# Where llama.cpp computes something else, or nothing.
ELSEWHERE = {
    **dict.fromkeys(("bitnet", "gptj"), "it has no such architecture"),
    **dict.fromkeys(("mistral", "starcoder2"), "it knows no window for this architecture"),
    "exaone4": "it has windows in models of 64 layers only",
    "llama4_text": "its chunks are always of 8192",
    "phimoe": "it weighs experts by one softmax",
    "olmoe": "it wants key norms as wide as queries",
    "llama-yarn": "it always rounds the ramp",
}


def words(folder):
    """A tokenizer of bytes, so that the converted file has one."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    vocabulary = {c: i for i, c in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {f"<|{i}|>": i for i in range(len(vocabulary), VOCABULARY)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def save(kind, folder):
    torch.manual_seed(0)
    options = {k: v for k, v in {**SIZES, **CASES[kind]}.items() if v is not None}
    config = transformers.AutoConfig.for_model(FORMS.get(kind, kind), **options)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(4)
    model.save_pretrained(folder, max_shard_size="24KB")
    return model


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_directory_and_the_file_made_of_it_give_the_logits_of_transformers(kind, tmp_path):
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    (folder := tmp_path / "model").mkdir()
    model, path = save(kind, folder), tmp_path / "model.gguf"
    words(folder)
    ids = np.random.default_rng(0).integers(1, VOCABULARY, 40)
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    found = of_reference(folder, ids)
    assert np.abs(found - expected).max() <= LIMIT * expected.std()
    tokamak.quantize(folder, path, None, threads=1)
    # a file has epsilons in float32: 3e-8 of them
    assert np.abs(of_reference(path, ids) - found).max() <= 1e-6 * expected.std()
    said = open_checkpoint(path).metadata
    assert (said["tokenizer.ggml.pre"], said["tokenizer.chat_template"]) == ("gpt-2", "{{ messages }}")
    if kind in ELSEWHERE:
        return
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    peer = LlamaCpp(path, context=64, threads=1)
    theirs = peer.logits(ids.tolist())
    peer.close()
    assert np.abs(theirs - expected).max() <= (2e-2 if kind in LOOSE else LIMIT) * expected.std()


def of_reference(path, ids):
    checkpoint = open_checkpoint(path)
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=128)
    program = executors.get("reference").compile(
        optimize(graph), checkpoint.weights, Limits(4, max_rows=64, kv_dtype="f32")
    )
    return program.run(batch(([*range(4)], ids.tolist(), len(ids)), every_row=True, block=32))


def test_dynamic_scaling_is_that_of_transformers_for_a_text_as_long_as_the_context(tmp_path):
    transformers.utils.logging.disable_progress_bar()
    model = save("llama-dynamic", tmp_path)
    ids = np.random.default_rng(1).integers(1, VOCABULARY, 200)  # trained: 128
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    for context, same in ((200, True), (128 + 100, False)):
        with tokamak.load(tmp_path, executor="reference", kv_dtype="f32", context=context) as llm:
            error = np.abs(llm.logits(ids.tolist()) - expected).max() / expected.std()
        assert (error <= LIMIT) == same


READERS = {
    "t5": [
        {"feed_forward_proj": "relu", "tie_word_embeddings": True},
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
    ],
    "mt5": [{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}],
}


@pytest.mark.parametrize(
    ("kind", "form"), [(kind, form) for kind, forms in READERS.items() for form in forms]
)
def test_a_directory_that_reads_a_text_gives_the_logits_of_transformers(kind, form, tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3}
    config = transformers.AutoConfig.for_model(kind, vocab_size=97, decoder_start_token_id=0, **sizes, **form)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(tmp_path, max_shard_size="24KB")
    rng = np.random.default_rng(0)
    source, begun = rng.integers(1, 97, 40).tolist(), [0, *rng.integers(1, 97, 20).tolist()]
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([begun])}
        expected = model(**inputs).logits[0].numpy()
    for executor in ("reference", "cpu"):
        with tokamak.load(tmp_path, executor=executor, kv_dtype="f32") as llm:
            found = llm.logits(begun, source=source)
        assert np.abs(found - expected).max() <= LIMIT * expected.std()


@pytest.mark.filterwarnings("ignore")
def test_experts_in_mxfp4_are_what_transformers_makes_of_them(tmp_path):
    unpack = pytest.importorskip("transformers.integrations.mxfp4").convert_moe_packed_tensors
    safetensors = pytest.importorskip("safetensors.torch")
    transformers.utils.logging.disable_progress_bar()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "tie_word_embeddings": False}
    config = transformers.AutoConfig.for_model("gpt_oss", **SIZES | CASES["gpt_oss"] | sizes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(tmp_path)
    held = safetensors.load_file(str(tmp_path / "model.safetensors"))
    generator = torch.Generator().manual_seed(0)
    for i, layer in enumerate(model.model.layers):
        for name, (outputs, inputs) in {"gate_up_proj": (192, 64), "down_proj": (64, 96)}.items():
            path = f"model.layers.{i}.mlp.experts.{name}"
            blocks = torch.randint(
                0, 256, (4, outputs, inputs // 32, 16), generator=generator, dtype=torch.uint8
            )
            scales = torch.randint(120, 126, blocks.shape[:3], generator=generator, dtype=torch.uint8)
            with torch.no_grad():
                getattr(layer.mlp.experts, name).copy_(unpack(blocks, scales, dtype=torch.float32))
            del held[path]
            held |= {f"{path}_blocks": blocks, f"{path}_scales": scales}
    safetensors.save_file(held, str(tmp_path / "model.safetensors"))
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}})
    )
    ids = np.random.default_rng(0).integers(1, 97, 40)
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    assert open_checkpoint(tmp_path).weights["layers.1.mlp.experts.down_proj"].format == "mxfp4"
    with tokamak.load(tmp_path, executor="reference", kv_dtype="f32") as llm:
        assert np.abs(llm.logits(ids.tolist()) - expected).max() <= LIMIT * expected.std()


def test_every_family_has_a_case():
    decoders = {kind for kind, f in HF_FAMILIES.items() if not models.is_encoder(f.architecture)}
    assert {FORMS.get(kind, kind) for kind in (*CASES, *READERS)} == decoders


@pytest.mark.parametrize(
    "kind", ["jamba", "qwen3_5_text", "falcon", "lfm2", "granitemoehybrid", "llama4_text"]
)
@pytest.mark.filterwarnings("ignore")
def test_settings_that_are_missing_or_odd_are_refused(kind, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    save(kind, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name, value in config.items():
        if not isinstance(value, int) or isinstance(value, bool) or name.endswith("_id"):
            continue
        for odd in ("x", [], -1):
            path.write_text(json.dumps(config | {name: odd}))
            with contextlib.suppress(tokamak.TokamakError):
                open_checkpoint(tmp_path)
