"""Rows of `names.FAMILIES`: mixtures of experts, and attention over latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokamak.errors import UnsupportedError
from tokamak.loaders.names.dense import CUT_QKV, SECTIONS, cut_sizes
from tokamak.loaders.names.rows import (
    COUNTS,
    EXPERTS,
    GATED,
    HEAD_NORMS,
    LAYER_NORM,
    MODEL,
    MODEL_LN,
    MULTIPLIERS,
    NORMS,
    NORMS_LN,
    OUT,
    OWN_WIDTH,
    QKV,
    QKV_BIAS,
    SHARED_EXPERT,
    SHARED_WIDTH,
    WIDE_NORMS,
    FamilyNames,
    Row,
    biases,
    optional,
)

ROUTED = (
    *EXPERTS,
    Row("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", "experts", optional=True),
)
# Leading layers have one feed-forward, the others experts, and all of them perhaps a shared one.
LAYERED = optional(
    *GATED,
    *ROUTED,
    Row("ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight", "shared hidden"),
    Row("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight", "shared hidden"),
    Row("ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight", "hidden shared"),
)
ROUTING: dict[str, Any] = {
    "counts": OWN_WIDTH,
    "some": {
        "leading_dense_block_count": "first_k_dense_replace",
        "expert_shared_count": "n_shared_experts",
        "expert_gating_func": "scoring_func",
        "expert_group_count": "n_group",
        "expert_group_used_count": "topk_group",
    },
    "flags": {"expert_weights_norm": "norm_topk_prob"},
    "numbers": {"expert_weights_scale": "routed_scaling_factor"},
}
SCORES = {0: "softmax", 1: "softmax", 2: "sigmoid"}


def scored(config: dict[str, Any]) -> dict[str, Any]:
    """The number of a scoring function as its name."""
    number = config.get("scoring_func", 0)
    if number not in SCORES:
        raise UnsupportedError(f"key expert_gating_func is {number}, known: {sorted(SCORES)}")
    unscaled = {"routed_scaling_factor": None} if config.get("routed_scaling_factor") == 0 else {}
    return {"scoring_func": SCORES[number], **unscaled}


def shared(config: Mapping[str, Any]) -> dict[str, int]:
    """Width of the shared experts together."""
    return {"shared": config.get("n_shared_experts", 0) * config["moe_intermediate_size"]}


def cut_and_shared(config: Mapping[str, Any]) -> dict[str, int]:
    return cut_sizes(config) | shared(config)


def layered(*rows: Row, **attrs: Any) -> FamilyNames:
    """A family with these rows of attention and LAYERED's of feed-forwards."""
    parts: dict[str, Any] = {**ROUTING, "derive": scored, "sizes": shared, **attrs}
    return FamilyNames(MODEL, (*NORMS, *rows, OUT, *LAYERED), **parts)


# Queries and latents are cut into what turns and what does not.
def _query(tensor: str, shape: str) -> tuple[Row, ...]:
    return (
        Row(tensor, "self_attn.q_nope_proj.weight", shape, True, pick=("head", "zero", "qk_nope_head_dim")),
        Row(
            tensor,
            "self_attn.q_pe_proj.weight",
            shape,
            True,
            heads=True,
            pick=("head", "qk_nope_head_dim", "qk_rope_head_dim"),
            turn="qk_rope_head_dim",
        ),
    )


LATENT = (
    *_query("attn_q.weight", "q hidden"),
    Row("attn_q_a.weight", "self_attn.q_a_proj.weight", "q_lora_rank hidden", optional=True),
    Row("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", "q_lora_rank", optional=True),
    *_query("attn_q_b.weight", "q q_lora_rank"),
    Row(
        "attn_kv_a_mqa.weight",
        "self_attn.kv_a_proj.weight",
        "kv_a hidden",
        pick=("kv_a", "zero", "kv_lora_rank"),
    ),
    Row(
        "attn_kv_a_mqa.weight",
        "self_attn.k_pe_proj.weight",
        "kv_a hidden",
        heads=True,
        pick=("kv_a", "kv_lora_rank", "qk_rope_head_dim"),
        turn="qk_rope_head_dim",
    ),
    Row("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", "kv_lora_rank"),
    Row(
        "attn_k_b.weight", "self_attn.k_b", "num_attention_heads kv_lora_rank qk_nope_head_dim", optional=True
    ),
    Row("attn_v_b.weight", "self_attn.v_b", "num_attention_heads v_head_dim kv_lora_rank", optional=True),
    Row(
        "attn_kv_b.weight",
        "self_attn.k_nope_proj.weight",
        "kv_b kv_lora_rank",
        optional=True,
        pick=("kv_head", "zero", "qk_nope_head_dim"),
    ),
    Row(
        "attn_kv_b.weight",
        "self_attn.v_proj.weight",
        "kv_b kv_lora_rank",
        optional=True,
        pick=("kv_head", "qk_nope_head_dim", "v_head_dim"),
    ),
    Row("attn_output.weight", "self_attn.o_proj.weight", "hidden v"),
)
LATENT_COUNTS = {
    "attention.value_length": "v_head_dim",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.key_length_mla": "key_length_mla",
    "attention.value_length_mla": "value_length_mla",
}


def latent(config: dict[str, Any]) -> dict[str, Any]:
    """Widths of heads: of what they are computed from, not of what the absorbed form caches."""
    key = config.get("key_length_mla", config["head_dim"])
    value = config.get("value_length_mla", config.get("v_head_dim", key))
    turns, heads = config["rotary_dim"], config["num_attention_heads"]
    if not 0 < turns < key or "kv_lora_rank" not in config:
        raise UnsupportedError(
            f"heads of {key} columns of which {turns} turn, over no latent, are not implemented"
        )
    widths = {"head_dim": key, "v_head_dim": value, "num_key_value_heads": heads}
    parts = {"qk_rope_head_dim": turns, "qk_nope_head_dim": key - turns}
    return widths | parts | dict.fromkeys(("key_length_mla", "value_length_mla"))


def latent_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    per_head = config["qk_nope_head_dim"] + config["v_head_dim"]
    heads = config["num_attention_heads"]
    return {
        "kv_a": config["kv_lora_rank"] + config["qk_rope_head_dim"],
        "kv_head": per_head,
        "kv_b": per_head * heads,
        "v": config["v_head_dim"] * heads,
    }


def multiplied(config: dict[str, Any]) -> dict[str, Any]:
    """Factors that its files leave to the reader. Source: MiniCPM3-4B's configuration."""
    depth = config["num_hidden_layers"] ** 0.5
    return latent(config) | {
        "embedding_multiplier": 12.0,
        "residual_multiplier": 1.4 / depth,
        "logits_scaling": config["hidden_size"] / 256,
    }


GATED_EXPERT_BIASES = (
    Row("ffn_gate_inp.bias", "mlp.router.bias", "experts"),
    Row("ffn_gate_exps.bias", "mlp.experts.gate_bias", "experts expert_inter"),
    Row("ffn_up_exps.bias", "mlp.experts.up_bias", "experts expert_inter"),
    Row("ffn_down_exps.bias", "mlp.experts.down_bias", "experts hidden"),
)

MIXTURES: Mapping[str, FamilyNames] = {
    "bailingmoe": layered(*QKV, interleaved=True),
    "bailingmoe2": layered(*CUT_QKV, *HEAD_NORMS, sizes=cut_and_shared),
    "dbrx": FamilyNames(
        MODEL_LN,
        (
            NORMS[0],
            Row("attn_output_norm.weight", "post_attention_layernorm.weight", "hidden"),
            Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv hidden"),
            OUT,
            *EXPERTS,
        ),
        counts=COUNTS,
        numbers={"attention.clamp_kqv": "clip_qkv"},
        **LAYER_NORM,
    ),
    "deepseek": layered(*QKV, interleaved=True),
    "deepseek2": FamilyNames(
        MODEL,
        (*NORMS, *LATENT, *LAYERED),
        interleaved=True,
        counts=OWN_WIDTH,
        some=ROUTING["some"] | LATENT_COUNTS,
        flags=ROUTING["flags"],
        numbers=ROUTING["numbers"],
        derive=lambda c: scored(c) | latent(c),
        sizes=lambda c: latent_sizes(c) | shared(c),
    ),
    "dots1": layered(*QKV, *HEAD_NORMS),
    "ernie4_5-moe": layered(
        *QKV,
        interleaved=True,
        some=ROUTING["some"] | {"interleave_moe_layer_step": "moe_layer_interval"},
        means={"norm_topk_prob": True},
        ignored=("expert_shared_feed_forward_length",),  # as wide as experts, which the tensors must show
        derive=lambda c: scored(c) | every_layer(c),
    ),
    "glm4moe": FamilyNames(
        MODEL,
        (
            NORMS[0],
            Row("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
            *QKV,
            *QKV_BIAS,
            *optional(*HEAD_NORMS),
            OUT,
            *LAYERED,
        ),
        derive=scored,
        sizes=shared,
        **ROUTING,
    ),
    "gpt-oss": FamilyNames(
        MODEL,
        (
            NORMS[0],
            Row("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
            *QKV,
            *QKV_BIAS,
            OUT,
            *biases(("attn_output", "self_attn.o_proj", "hidden")),
            Row("attn_sinks.weight", "self_attn.sinks", "num_attention_heads"),
            Row("ffn_gate_inp.weight", "mlp.router.weight", "experts hidden"),
            *EXPERTS[1:],
            *GATED_EXPERT_BIASES,
        ),
        period=2,
        window=True,
        counts=OWN_WIDTH,
    ),
    "granitemoe": FamilyNames(
        MODEL,
        (*NORMS, *QKV, OUT, *EXPERTS),
        interleaved=True,
        numbers=MULTIPLIERS,
        counts=COUNTS,
    ),
    "hunyuan-moe": FamilyNames(
        MODEL,
        (
            *NORMS,
            *HEAD_NORMS,
            *QKV,
            OUT,
            *EXPERTS,
            Row("ffn_gate_shexp.weight", "mlp.shared_mlp.gate_proj.weight", "shared_inter hidden"),
            Row("ffn_up_shexp.weight", "mlp.shared_mlp.up_proj.weight", "shared_inter hidden"),
            Row("ffn_down_shexp.weight", "mlp.shared_mlp.down_proj.weight", "hidden shared_inter"),
        ),
        counts={**OWN_WIDTH, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
    ),
    "llama4": FamilyNames(
        MODEL,
        (
            *NORMS,
            *QKV,
            OUT,
            *optional(
                *GATED,
                *EXPERTS,
                Row("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight", "expert_inter hidden"),
                Row("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", "expert_inter hidden"),
                Row("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight", "hidden expert_inter"),
            ),
        ),
        interleaved=True,
        counts=OWN_WIDTH,
        some={
            "interleave_moe_layer_step": "interleave_moe_layer_step",
            "attention.chunk_size": "attention_chunk_size",
        },
    ),
    "minicpm3": FamilyNames(
        MODEL,
        (*NORMS, *LATENT, *GATED),
        some=LATENT_COUNTS,
        derive=multiplied,
        sizes=latent_sizes,
    ),
    "minimax-m2": layered(*QKV, *WIDE_NORMS, means={"norm_topk_prob": True}),
    "mixtral": FamilyNames(
        MODEL, (*NORMS, *QKV, OUT, *EXPERTS), interleaved=True, window=True, counts=COUNTS
    ),
    "olmoe": FamilyNames(MODEL, (*NORMS, *WIDE_NORMS, *QKV, OUT, *EXPERTS), counts=COUNTS),
    "phimoe": FamilyNames(
        (*MODEL_LN, Row("output.bias", "lm_head.bias", "vocab", optional=True)),
        (
            *NORMS_LN,
            *QKV,
            *QKV_BIAS,
            OUT,
            *biases(("attn_output", "self_attn.o_proj", "hidden")),
            *EXPERTS,
        ),
        counts=COUNTS,
        window=True,
        norm_name="layer_norm_eps",
    ),
    "qwen2moe": FamilyNames(
        MODEL, (*NORMS, *QKV, *QKV_BIAS, OUT, *EXPERTS, *SHARED_EXPERT), counts=SHARED_WIDTH
    ),
    "qwen3moe": FamilyNames(MODEL, (*NORMS, *HEAD_NORMS, *QKV, OUT, *EXPERTS), counts=OWN_WIDTH),
    "qwen3vlmoe": FamilyNames(
        MODEL,
        (*NORMS, *HEAD_NORMS, *QKV, OUT, *EXPERTS),
        counts=OWN_WIDTH,
        ignored=(*SECTIONS, "n_deepstack_layers"),
    ),
}


def every_layer(config: dict[str, Any]) -> dict[str, Any]:
    """Refuse what this family could mean but no published model does."""
    if config.get("moe_layer_interval", 1) != 1:
        raise UnsupportedError(
            "experts in some of the later layers only are not implemented for this architecture"
        )
    return {"moe_layer_interval": None}
