"""Rows of `names.FAMILIES`: decoders with one gated feed-forward per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokamak.loaders.names.rows import (
    DENSE,
    DOWN,
    GATED,
    HEAD_NORMS,
    LAYER_NORM,
    MODEL,
    MODEL_LN,
    MULTIPLIERS,
    NORMS,
    NORMS_LN,
    OTHER_BIASES,
    OUT,
    PLAIN,
    POST_NORMS,
    QKV,
    QKV_BIAS,
    WIDE_NORMS,
    FamilyNames,
    Row,
    optional,
)

# Q, K and V in one matrix, read as three.
CUT_QKV = tuple(
    Row(f"attn_qkv.{end}", f"self_attn.{name}_proj.{end}", shape, end == "bias", name != "v", pick=pick)
    for end, shape in (("weight", "qkv hidden"), ("bias", "qkv"))
    for name, pick in (("q", ("qkv", "zero", "q")), ("k", ("qkv", "q", "kv")), ("v", ("qkv", "qk", "kv")))
)


def cut_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Rows of Q and K together, for CUT_QKV."""
    return {"qk": config["head_dim"] * (config["num_attention_heads"] + config["num_key_value_heads"])}


GATE_UP = (Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"), DOWN)
GEMMA_NORMS = (
    NORMS[0],
    Row("ffn_norm.weight", "pre_feedforward_layernorm.weight", "hidden"),
    *POST_NORMS,
)


def gemma2_scores(config: dict[str, Any]) -> dict[str, Any]:
    """Its largest form divides scores by another root than that of head_dim; no key says so, its 46 layers do."""
    if config["num_hidden_layers"] != 46:
        return {}
    return {"attention_multiplier": (config["hidden_size"] / config["num_attention_heads"]) ** -0.5}


def half_width(config: dict[str, Any]) -> dict[str, Any]:
    """Its feed_forward_length counts gate and up together."""
    return {"intermediate_size": config["intermediate_size"] // 2}


def local_and_global(config: dict[str, Any]) -> dict[str, Any]:
    """Which layers see a window; widths of their heads."""
    kinds = tuple(
        "sliding_attention" if local else "full_attention"
        for local in config.get("sliding_window_pattern", ())
    )
    return {"layer_types": kinds} | dict.fromkeys(
        ("sliding_window_pattern", "local_value_dim", "local_rotary_dim")
    )


LLAMA_LIKE = FamilyNames(MODEL, (*DENSE, *OTHER_BIASES), interleaved=True)
STRAIGHT = FamilyNames(MODEL, (*DENSE, *OTHER_BIASES))
SECTIONS = ("rope.dimension_sections",)  # of images; for text all sections turn by the same position
# BitNet: a norm before each output projection, and one scale per ternary matrix where the file keeps it apart.
BITNET = (
    *NORMS,
    *QKV,
    OUT,
    *GATED,
    Row("attn_sub_norm.weight", "self_attn.attn_sub_norm.weight", "q"),
    Row("ffn_sub_norm.weight", "mlp.ffn_sub_norm.weight", "inter"),
    *(
        Row(row.tensor.replace(".weight", ".scale"), f"{row.path}_scale", "one", optional=True)
        for row in (*QKV, OUT, *GATED)
    ),
)

PHI3_LAYER = (
    *NORMS,
    Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv hidden"),
    OUT,
    Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
    DOWN,
)

BITNET_FAMILY = FamilyNames(MODEL, BITNET)


GEMMA3 = FamilyNames(
    MODEL,
    (
        NORMS[0],
        Row("ffn_norm.weight", "pre_feedforward_layernorm.weight", "hidden"),
        *POST_NORMS,
        *HEAD_NORMS,
        *QKV,
        OUT,
        *GATED,
    ),
    period=6,
    window=True,
    numbers={"rope.freq_base_swa": "rope_local_base_freq"},
)


def _mixtral(keys: Mapping[str, Any]) -> str:
    return "mixtral" if keys.get("expert_count") else ""


def _baichuan(keys: Mapping[str, Any]) -> str:
    return "baichuan-13b" if keys.get("block_count") == 40 else ""


DENSE_FAMILIES: Mapping[str, FamilyNames] = {
    "arcee": FamilyNames(MODEL, (*NORMS, *QKV, OUT, *PLAIN), interleaved=True),
    # The 13B form has slopes on scores instead of rope: readers know it by its 40 layers.
    "baichuan": FamilyNames(MODEL, DENSE, interleaved=True, form=_baichuan),
    "baichuan-13b": FamilyNames(MODEL, DENSE, interleaved=True, rope=False),
    "bitnet": BITNET_FAMILY,
    "bitnet-25": BITNET_FAMILY,
    "bitnet-b1.58": BITNET_FAMILY,
    "chatglm": FamilyNames(
        MODEL,
        (*NORMS, *optional(*CUT_QKV, *QKV), *QKV_BIAS, OUT, *GATE_UP),
        interleaved=True,
        sizes=cut_sizes,
        either=(
            ("attn_qkv.weight",),
            ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
        ),
    ),
    "cohere2": FamilyNames(
        MODEL_LN,
        (NORMS[0], *QKV, OUT, *GATED),
        interleaved=True,
        period=4,
        window=True,
        numbers={"logit_scale": "logit_scale"},
        **LAYER_NORM,
    ),
    "command-r": FamilyNames(
        MODEL_LN,
        (NORMS[0], *QKV, OUT, *GATED),
        interleaved=True,
        numbers={"logit_scale": "logit_scale"},
        **LAYER_NORM,
    ),
    "ernie4_5": FamilyNames(MODEL, DENSE, interleaved=True),
    "exaone": STRAIGHT,
    "exaone4": FamilyNames(
        MODEL,
        (*POST_NORMS, *HEAD_NORMS, *QKV, OUT, *GATED),
        window=True,
        period=4,
        derive=lambda c: (
            {"sliding_window": c.get("sliding_window") or 4096} if c["num_hidden_layers"] == 64 else {}
        ),
    ),
    "gemma": FamilyNames(MODEL, (*NORMS, *QKV, OUT, *GATED)),
    "gemma2": FamilyNames(
        MODEL,
        (*GEMMA_NORMS, *QKV, OUT, *GATED),
        period=2,
        window=True,
        numbers={
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        derive=gemma2_scores,
    ),
    "gemma3": GEMMA3,
    "gemma4": FamilyNames(
        (
            *MODEL,
            Row("per_layer_token_embd.weight", "embed_tokens_per_layer.weight", "vocab *", optional=True),
            Row(
                "per_layer_model_proj.weight", "per_layer_model_projection.weight", "* hidden", optional=True
            ),
            Row("per_layer_proj_norm.weight", "per_layer_projection_norm.weight", "*", optional=True),
        ),
        (
            *GEMMA_NORMS,
            Row("attn_q.weight", "self_attn.q_proj.weight", "* hidden"),
            Row("attn_k.weight", "self_attn.k_proj.weight", "* hidden", optional=True),
            Row("attn_v.weight", "self_attn.v_proj.weight", "* hidden", optional=True),
            Row("attn_output.weight", "self_attn.o_proj.weight", "hidden *"),
            Row("attn_q_norm.weight", "self_attn.q_norm.weight", "*"),
            Row("attn_k_norm.weight", "self_attn.k_norm.weight", "*", optional=True),
            *GATED,
            Row("layer_output_scale.weight", "layer_scalar", "one", view="one one"),
            Row("inp_gate.weight", "per_layer_input_gate.weight", "* hidden", optional=True),
            Row("proj.weight", "per_layer_projection.weight", "hidden *", optional=True),
            Row("post_norm.weight", "post_per_layer_input_norm.weight", "hidden", optional=True),
        ),
        window=True,
        numbers={
            "rope.freq_base_swa": "rope_local_base_freq",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        counts={"attention.key_length_swa": "local_head_dim"},
        some={
            "attention.value_length_swa": "local_value_dim",
            "rope.dimension_count_swa": "local_rotary_dim",
            "attention.shared_kv_layers": "num_kv_shared_layers",
            "embedding_length_per_layer_input": "hidden_size_per_layer_input",
        },
        lists={"attention.sliding_window_pattern": "sliding_window_pattern"},
        fixed={"expert_count": (0,), "expert_used_count": (0,)},
        derive=local_and_global,
    ),
    "glm4": FamilyNames(
        MODEL,
        (
            *NORMS,
            Row("post_attention_norm.weight", "post_self_attn_layernorm.weight", "hidden"),
            Row("post_ffw_norm.weight", "post_mlp_layernorm.weight", "hidden"),
            *QKV,
            *QKV_BIAS,
            OUT,
            Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
            DOWN,
        ),
        interleaved=True,
    ),
    "granite": FamilyNames(MODEL, DENSE, interleaved=True, numbers=MULTIPLIERS),
    "hunyuan-dense": FamilyNames(MODEL, (*NORMS, *HEAD_NORMS, *QKV, *QKV_BIAS, OUT, *GATED)),
    "maincoder": FamilyNames(
        MODEL,
        (*NORMS, *(replace(row, heads=True) for row in HEAD_NORMS), *QKV, OUT, *GATED),
        interleaved=True,
    ),
    "internlm2": LLAMA_LIKE,
    # Llama 1-3 and Mistral. The converter permutes Q and K; a file of the original Llama 1 names it
    # "Meta AI original pth" in tensor_data_layout, which is the same order.
    "llama": FamilyNames(MODEL, (*DENSE, *OTHER_BIASES), interleaved=True, window=True, form=_mixtral),
    "minicpm": FamilyNames(MODEL, DENSE, interleaved=True, numbers=MULTIPLIERS),
    "mistral3": FamilyNames(
        MODEL, DENSE, interleaved=True, numbers={"attention.temperature_scale": "llama_4_scaling_beta"}
    ),
    "olmo": FamilyNames(
        (MODEL[0], MODEL[2]),
        (*QKV, OUT, *GATED),
        interleaved=True,
        numbers={"attention.clamp_kqv": "clip_qkv"},
        **LAYER_NORM,
    ),
    "olmo2": FamilyNames(
        MODEL,
        (
            *POST_NORMS,
            *WIDE_NORMS,
            *QKV,
            OUT,
            *GATED,
        ),
        window=True,
        period=4,
    ),
    "orion": FamilyNames(MODEL_LN, (*NORMS_LN, *QKV, OUT, *GATED), **LAYER_NORM),
    "paddleocr": FamilyNames(MODEL, DENSE, ignored=SECTIONS),
    "pangu-embedded": STRAIGHT,
    "phi3": FamilyNames(MODEL, PHI3_LAYER, window=True),
    "plamo": FamilyNames(MODEL, (NORMS[0], *QKV, OUT, *GATED)),
    "qwen": FamilyNames(MODEL, (*NORMS, *CUT_QKV, OUT, *GATED), sizes=cut_sizes, derive=half_width),
    "qwen2": FamilyNames((*MODEL, Row("output.bias", "lm_head.bias", "vocab", optional=True)), DENSE),
    "qwen2vl": FamilyNames(MODEL, DENSE, ignored=SECTIONS),
    "qwen3": FamilyNames(
        MODEL,
        (
            *DENSE,
            Row("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
            Row("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
        ),
        window=True,
        period=4,
    ),
    "qwen3vl": FamilyNames(MODEL, (*DENSE, *HEAD_NORMS), ignored=(*SECTIONS, "n_deepstack_layers")),
    "refact": FamilyNames(MODEL, (*NORMS, *QKV, OUT, *GATED), rope=False),
    "seed_oss": FamilyNames(
        MODEL,
        (
            NORMS[0],
            Row("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
            *QKV,
            *QKV_BIAS,
            OUT,
            *GATED,
            *OTHER_BIASES,
        ),
    ),
    "smollm3": LLAMA_LIKE,
    "stablelm": FamilyNames(
        MODEL_LN,
        (*NORMS_LN, *QKV, *QKV_BIAS, OUT, *GATED),
        fixed={"use_parallel_residual": (False,)},
        **LAYER_NORM,
    ),
    "xverse": LLAMA_LIKE,
}
