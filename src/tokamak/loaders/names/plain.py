"""Rows of `names.FAMILIES`: decoders whose feed-forward has no gate, most with layer norm."""

from __future__ import annotations

from collections.abc import Mapping

from tokamak.loaders.names.rows import (
    DOWN,
    FUSED_QKV,
    GATED,
    LAYER_NORM,
    MODEL,
    MODEL_LN,
    NORMS,
    NORMS_LN,
    OTHER_BIASES,
    OUT,
    PLAIN,
    QKV,
    QKV_BIAS,
    FamilyNames,
    Row,
    biases,
)

NORM_BIASES = biases(
    ("attn_norm", "input_layernorm", "hidden"), ("ffn_norm", "post_attention_layernorm", "hidden")
)
HEAD_BIAS = Row("output.bias", "lm_head.bias", "vocab", optional=True)


PHI2_LAYER = (
    Row("attn_norm.weight", "input_layernorm.weight", "hidden"),
    Row("attn_norm.bias", "input_layernorm.bias", "hidden"),
    *(Row(r.tensor, r.path, r.shape, optional=True, heads=r.heads) for r in (*QKV, *QKV_BIAS)),
    Row(
        "attn_qkv.weight",
        "",
        "qkv hidden",
        optional=True,
        cut=tuple((r.path, r.shape.split()[0]) for r in QKV),
    ),
    Row("attn_qkv.bias", "", "qkv", optional=True, cut=tuple((r.path, r.shape) for r in QKV_BIAS)),
    OUT,
    Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"),
    DOWN,
    *OTHER_BIASES,
)

GPT2 = FamilyNames(
    (*MODEL_LN, Row("position_embd.weight", "embed_positions.weight", "positions hidden")),
    (*NORMS_LN, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES),
    rope=False,
    **LAYER_NORM,
)

NEMOTRON = FamilyNames(MODEL_LN, (*NORMS_LN, *QKV, *QKV_BIAS, OUT, *PLAIN, *OTHER_BIASES), **LAYER_NORM)

PLAIN_FAMILIES: Mapping[str, FamilyNames] = {
    "bloom": FamilyNames(
        (
            *MODEL_LN,
            Row("token_embd_norm.weight", "embed_norm.weight", "hidden"),
            Row("token_embd_norm.bias", "embed_norm.bias", "hidden"),
        ),
        (*NORMS_LN, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES),
        rope=False,
        **LAYER_NORM,
    ),
    "codeshell": FamilyNames(MODEL_LN, (*NORMS_LN, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES), **LAYER_NORM),
    "falcon": FamilyNames(
        MODEL_LN,
        (
            *NORMS_LN[::2],
            Row("attn_norm_2.weight", "ln_attn.weight", "hidden", optional=True),
            Row("attn_norm_2.bias", "ln_attn.bias", "hidden", optional=True),
            *FUSED_QKV,
            OUT,
            *PLAIN,
        ),
        **LAYER_NORM,
    ),
    "gpt2": GPT2,
    "gptj": FamilyNames(
        (*MODEL_LN, HEAD_BIAS),
        (NORMS[0], *NORM_BIASES[:1], *QKV, OUT, *PLAIN, *OTHER_BIASES),
        interleaved=True,
        **LAYER_NORM,
    ),
    "gptneox": FamilyNames(
        MODEL_LN,
        (*NORMS_LN, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES),
        flags={"use_parallel_residual": "use_parallel_residual"},
        **LAYER_NORM,
    ),
    "jais": FamilyNames(
        MODEL_LN,
        (*NORMS_LN, *FUSED_QKV, OUT, *GATED, *OTHER_BIASES),
        rope=False,
        numbers={"attention.max_alibi_bias": "alibi_bias_max"},
        **LAYER_NORM,
    ),
    "jais2": NEMOTRON,
    "mpt": FamilyNames(
        MODEL_LN,
        (*NORMS, *NORM_BIASES, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES),
        rope=False,
        numbers={"attention.max_alibi_bias": "alibi_bias_max", "attention.clamp_kqv": "clip_qkv"},
        **LAYER_NORM,
    ),
    "nemotron": NEMOTRON,
    "phi2": FamilyNames(
        (
            *MODEL,
            Row("output_norm.bias", "norm.bias", "hidden"),
            Row("output.bias", "lm_head.bias", "vocab", optional=True),
        ),
        PHI2_LAYER,
        norm_key="attention.layer_norm_epsilon",
        norm_name="layer_norm_eps",
        either=(("attn_q.weight", "attn_k.weight", "attn_v.weight"), ("attn_qkv.weight",)),
    ),
    "starcoder": GPT2,
    "starcoder2": FamilyNames(
        MODEL_LN,
        (*NORMS_LN, *QKV, *QKV_BIAS, OUT, *PLAIN, *OTHER_BIASES),
        window=True,
        **LAYER_NORM,
    ),
}
