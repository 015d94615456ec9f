"""Tiny models of transformers, one case per family, and what GGUF files say of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokamak.loaders.writer import Typed

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


@dataclass(frozen=True)
class Case:
    """kind: transformers' model_type. arch: of the file. config, keys: beyond SIZES and KEYS. paired: query and key rows."""

    kind: str
    arch: str
    config: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    paired: bool = False
    norm: str = "attention.layer_norm_rms_epsilon"
    ready: bool = False  # rope turns neighbours in the original too
    one_more: bool = False  # norms multiply by 1 + weight
    grouped: str = ""  # the fused projection whose rows are queries, key and value of each group


MOE = {"expert_count": 5, "expert_used_count": 2}
GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
    "logits_scaling": 2.0,
}
GRANITE_KEYS = {"embedding_scale": 3.0, "residual_scale": 0.5, "attention.scale": 0.3, "logit_scale": 2.0}
LAYER = "attention.layer_norm_epsilon"
HF_ROUTED = {
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
GGUF_ROUTED = MOE | {
    "expert_feed_forward_length": 24,
    "expert_shared_count": 1,
    "leading_dense_block_count": 1,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 1.5,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "mixtral": Case("mixtral", "llama", {"num_local_experts": 5, "num_experts_per_tok": 2}, MOE, paired=True),
    "qwen3moe": Case(
        "qwen3_moe",
        "qwen3moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "head_dim": 16,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
        },
        MOE | {"expert_feed_forward_length": 24, "attention.key_length": 16, "attention.value_length": 16},
    ),
    "olmoe": Case("olmoe", "olmoe", {"num_experts": 5, "num_experts_per_tok": 2}, MOE),
    "granitemoe": Case(
        "granitemoe",
        "granitemoe",
        {"num_local_experts": 5, "num_experts_per_tok": 2, **GRANITE},
        MOE | GRANITE_KEYS,
        paired=True,
    ),
    "gptj": Case(
        "gptj",
        "gptj",
        {"n_inner": 48, "rotary_dim": 4, "head_dim": None, "num_key_value_heads": None},
        {"attention.head_count_kv": 4, "rope.dimension_count": 4},
        norm=LAYER,
        ready=True,
    ),
    "gemma2": Case(
        "gemma2",
        "gemma2",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20, "tie_word_embeddings": True}
        | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        {"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 20}
        | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        one_more=True,
    ),
    "cohere2": Case(
        "cohere2",
        "cohere2",
        {"sliding_window": 20, "num_hidden_layers": 5, "logit_scale": 0.5, "tie_word_embeddings": True},
        {"attention.sliding_window": 20, "block_count": 5, "logit_scale": 0.5},
        norm=LAYER,
        ready=True,
    ),
    "falcon-40b": Case(
        "falcon",
        "falcon",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 48, "bias": False},
        norm=LAYER,
        grouped="attention.query_key_value",
    ),
    "starcoder2": Case("starcoder2", "starcoder2", {"use_bias": True}, norm=LAYER),
    "nemotron": Case(
        "nemotron",
        "nemotron",
        {"partial_rotary_factor": 0.5},
        {"rope.dimension_count": 4},
        norm=LAYER,
        one_more=True,
    ),
    "smollm3": Case(
        "smollm3",
        "smollm3",
        {"num_hidden_layers": 5, "use_sliding_window": False},
        {"block_count": 5},
        paired=True,
    ),
    "seed_oss": Case(
        "seed_oss", "seed_oss", {"head_dim": 8, "attention_bias": True, "attention_out_bias": False}
    ),
    "hunyuan-dense": Case("hunyuan_v1_dense", "hunyuan-dense", {"head_dim": 8}),
    "hunyuan-moe": Case(
        "hunyuan_v1_moe",
        "hunyuan-moe",
        {"head_dim": 8, "num_experts": 5, "moe_topk": 2, "num_shared_expert": 1, "moe_intermediate_size": 48},
        MOE | {"expert_feed_forward_length": 48, "expert_shared_feed_forward_length": 48},
    ),
    "dots1": Case(
        "dots1", "dots1", HF_ROUTED | {"num_key_value_heads": 4}, GGUF_ROUTED | {"attention.head_count_kv": 4}
    ),
    "glm4moe": Case(
        "glm4_moe",
        "glm4moe",
        HF_ROUTED
        | {"partial_rotary_factor": 0.5, "use_qk_norm": True, "head_dim": 8, "attention_bias": True},
        GGUF_ROUTED | {"rope.dimension_count": 4},
    ),
    "ernie4_5-moe": Case(
        "ernie4_5_moe",
        "ernie4_5-moe",
        {"moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 1}
        | {"moe_layer_start_index": 1, "moe_layer_end_index": 1, "moe_layer_interval": 1, "head_dim": 8},
        MOE | {"expert_feed_forward_length": 24, "expert_shared_count": 1, "leading_dense_block_count": 1},
        ready=True,
    ),
    "minimax-m2": Case(
        "minimax_m2",
        "minimax-m2",
        {"head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2, "rotary_dim": 4}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        MOE | {"expert_feed_forward_length": 48, "expert_gating_func": 2, "rope.dimension_count": 4},
    ),
    "lfm2moe": Case(
        "lfm2_moe",
        "lfm2moe",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_dense_layers": 1}
        | {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "use_expert_bias": True}
        | {"norm_topk_prob": True, "routed_scaling_factor": 1.0, "tie_word_embeddings": True},
        MOE
        | {"expert_feed_forward_length": 24, "leading_dense_block_count": 1, "expert_gating_func": 2}
        | {"shortconv.l_cache": 3, "attention.head_count_kv": Typed("array[int32]", [0, 2])},
    ),
    "ministral3": Case(
        "ministral3",
        "mistral3",
        {"head_dim": 8, "rope_parameters": YARN | {"llama_4_scaling_beta": 0.1}},
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 16,
            "attention.temperature_scale": 0.1,
        },
        paired=True,
    ),
    "mpt": Case(
        "mpt",
        "mpt",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "no_bias": True, "max_seq_len": 128}
        | {"attn_config": {"clip_qkv": 0.8, "alibi": True}, "tie_word_embeddings": True},
        {"feed_forward_length": 128, "attention.head_count_kv": 4, "attention.max_alibi_bias": 8.0}
        | {"attention.clamp_kqv": 0.8, "rope.freq_base": None},
        norm=LAYER,
    ),
    "deepseek-v3-yarn": Case(
        "deepseek_v3",
        "deepseek2",
        HF_ROUTED
        | {
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 12,
        }
        | {"num_key_value_heads": 4, "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
        GGUF_ROUTED
        | {"attention.head_count_kv": 4, "attention.q_lora_rank": 24, "attention.kv_lora_rank": 16}
        | {"attention.key_length": 12, "attention.value_length": 12, "rope.dimension_count": 4}
        | {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 16,
        }
        | {"rope.scaling.yarn_log_multiplier": 0.1},
        ready=True,
    ),
}
EPSILON = 1e-5
# Where gguf's map is of another form of the model.
OWN_NAMES: dict[str, str] = {}
KEYS = {
    "block_count": 2,
    "context_length": 128,
    "embedding_length": 32,
    "feed_forward_length": 48,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "rope.freq_base": 10000.0,
}
