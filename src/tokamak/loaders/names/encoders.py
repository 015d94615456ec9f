"""Rows of `names.FAMILIES`: encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokamak.loaders.names.dense import GEMMA3
from tokamak.loaders.names.rows import (
    DOWN,
    GATED,
    LAYER_NORM,
    MODEL,
    OTHER_BIASES,
    OUT,
    PLAIN,
    QKV,
    QKV_BIAS,
    FamilyNames,
    Row,
)

FUSED_OR_NOT = (
    *(Row(r.tensor, r.path, r.shape, optional=True, heads=r.heads) for r in (*QKV, *QKV_BIAS)),
    Row(
        "attn_qkv.weight",
        "",
        "qkv hidden",
        optional=True,
        cut=tuple((r.path, r.shape.split()[0]) for r in QKV),
    ),
    Row("attn_qkv.bias", "", "qkv", optional=True, cut=tuple((r.path, r.shape) for r in QKV_BIAS)),
)
CLASSIFIER = (
    Row("cls.weight", "classifier.dense.weight", "hidden hidden", optional=True),
    Row("cls.bias", "classifier.dense.bias", "hidden", optional=True),
    Row("cls.output.weight", "classifier.out_proj.weight", "labels hidden", optional=True),
    Row("cls.output.bias", "classifier.out_proj.bias", "labels", optional=True),
)
BERT_MODEL = (
    MODEL[0],
    Row("token_types.weight", "token_types.weight", "types hidden", optional=True),
    Row("token_embd_norm.weight", "embed_norm.weight", "hidden"),
    Row("token_embd_norm.bias", "embed_norm.bias", "hidden"),
    *CLASSIFIER,
)
BERT_NORMS = (
    Row("attn_output_norm.weight", "attention_norm.weight", "hidden"),
    Row("attn_output_norm.bias", "attention_norm.bias", "hidden"),
    Row("layer_output_norm.weight", "output_norm.weight", "hidden"),
    Row("layer_output_norm.bias", "output_norm.bias", "hidden"),
)
ENCODER: dict[str, Any] = {
    "causal": False,
    "either": (("attn_q.weight", "attn_k.weight", "attn_v.weight"), ("attn_qkv.weight",)),
    **LAYER_NORM,
}


ENCODERS: Mapping[str, FamilyNames] = {
    "gemma-embedding": replace(GEMMA3, causal=False),
    "bert": FamilyNames(
        (*BERT_MODEL, Row("position_embd.weight", "embed_positions.weight", "positions hidden")),
        (*FUSED_OR_NOT, OUT, *BERT_NORMS, *PLAIN, *OTHER_BIASES),
        rope=False,
        **ENCODER,
    ),
    "nomic-bert": FamilyNames(
        BERT_MODEL, (*FUSED_OR_NOT, OUT, *BERT_NORMS, *GATED, *OTHER_BIASES), **ENCODER
    ),
    "modern-bert": FamilyNames(
        (
            *(MODEL[0], Row("token_embd_norm.weight", "embed_norm.weight", "hidden"), MODEL[1]),
            *(CLASSIFIER[0], CLASSIFIER[2], CLASSIFIER[3]),
            Row("cls.norm.weight", "classifier.norm.weight", "hidden", optional=True),
        ),
        (
            Row("attn_norm.weight", "input_layernorm.weight", "hidden", optional=True),
            Row("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
            *FUSED_OR_NOT,
            OUT,
            Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
            DOWN,
        ),
        window=True,
        numbers={"rope.freq_base_swa": "rope_local_base_freq"},
        counts={"attention.sliding_window_pattern": "sliding_window_pattern"},
        fixed={
            "hidden_activation": ("gelu",),
            "attention.layer_norm_rms_epsilon": None,
        },  # the same epsilon twice
        **ENCODER,
    ),
}
