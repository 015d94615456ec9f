"""What GGUF files call things, family by family: tensors to parameter paths, with the shape each must have.

Tables only; `config.py` reads the keys and `checkpoint.py` applies the tables. A new family is a new row in
`FAMILIES`. Names of tensors: docs/gguf.md of ggml and gguf-py's tensor mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokamak.loaders.names_dense import DENSE_FAMILIES
from tokamak.loaders.names_encoders import ENCODERS
from tokamak.loaders.names_mixtures import MIXTURES
from tokamak.loaders.names_recurrent import RECURRENT
from tokamak.loaders.rows import (
    COUNTS,
    DENSE,
    DOWN,
    EXPERTS,
    FUSED_QKV,
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
    OWN_WIDTH,
    PLAIN,
    POST_NORMS,
    QKV,
    QKV_BIAS,
    SHARED_EXPERT,
    SHARED_WIDTH,
    WIDE_NORMS,
    FamilyNames,
    Row,
)

__all__ = ["FAMILIES", "FamilyNames", "Row"]

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

PHI3_LAYER = (
    *NORMS,
    Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv hidden"),
    OUT,
    Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
    DOWN,
)

GPT2 = FamilyNames(
    (*MODEL_LN, Row("position_embd.weight", "embed_positions.weight", "positions hidden")),
    (*NORMS_LN, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES),
    rope=False,
    **LAYER_NORM,
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
    window=True,
    numbers={"rope.freq_base_swa": "rope_local_base_freq"},
)


def _mixtral(keys: Mapping[str, Any]) -> str:
    return "mixtral" if keys.get("expert_count") else ""


def _baichuan(keys: Mapping[str, Any]) -> str:
    return "baichuan-13b" if keys.get("block_count") == 40 else ""


FAMILIES: Mapping[str, FamilyNames] = {
    # Llama 1-3 and Mistral. The converter permutes Q and K; a file of the original Llama 1 names it
    # "Meta AI original pth" in tensor_data_layout, which is the same order.
    "llama": FamilyNames(MODEL, (*DENSE, *OTHER_BIASES), interleaved=True, window=True, form=_mixtral),
    "mixtral": FamilyNames(
        MODEL, (*NORMS, *QKV, OUT, *EXPERTS), interleaved=True, window=True, counts=COUNTS
    ),
    "qwen2": FamilyNames((*MODEL, Row("output.bias", "lm_head.bias", "vocab", optional=True)), DENSE),
    "qwen3": FamilyNames(
        MODEL,
        (
            *DENSE,
            Row("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
            Row("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
        ),
    ),
    "qwen2moe": FamilyNames(
        MODEL, (*NORMS, *QKV, *QKV_BIAS, OUT, *EXPERTS, *SHARED_EXPERT), counts=SHARED_WIDTH
    ),
    "qwen3moe": FamilyNames(MODEL, (*NORMS, *HEAD_NORMS, *QKV, OUT, *EXPERTS), counts=OWN_WIDTH),
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
    "phi3": FamilyNames(MODEL, PHI3_LAYER, window=True),
    "bitnet": BITNET_FAMILY,
    "bitnet-25": BITNET_FAMILY,
    "bitnet-b1.58": BITNET_FAMILY,
    "arcee": FamilyNames(MODEL, (*NORMS, *QKV, OUT, *PLAIN), interleaved=True),
    # The 13B form has slopes on scores instead of rope: readers know it by its 40 layers.
    "baichuan": FamilyNames(MODEL, DENSE, interleaved=True, form=_baichuan),
    "command-r": FamilyNames(
        MODEL_LN,
        (NORMS[0], *QKV, OUT, *GATED),
        interleaved=True,
        numbers={"logit_scale": "logit_scale"},
        **LAYER_NORM,
    ),
    "ernie4_5": FamilyNames(MODEL, DENSE, interleaved=True),
    "exaone4": FamilyNames(MODEL, (*POST_NORMS, *HEAD_NORMS, *QKV, OUT, *GATED)),
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
    "gemma": FamilyNames(MODEL, (*NORMS, *QKV, OUT, *GATED)),
    "gemma3": GEMMA3,
    "gemma-embedding": replace(GEMMA3, causal=False),
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
    "gpt2": GPT2,
    "gptneox": FamilyNames(
        MODEL_LN,
        (*NORMS_LN, *FUSED_QKV, OUT, *PLAIN, *OTHER_BIASES),
        flags={"use_parallel_residual": "use_parallel_residual"},
        **LAYER_NORM,
    ),
    "granite": FamilyNames(MODEL, DENSE, interleaved=True, numbers=MULTIPLIERS),
    "granitemoe": FamilyNames(
        MODEL,
        (*NORMS, *QKV, OUT, *EXPERTS),
        interleaved=True,
        numbers=MULTIPLIERS,
        counts=COUNTS,
    ),
    "minicpm": FamilyNames(MODEL, DENSE, interleaved=True, numbers=MULTIPLIERS),
    "olmoe": FamilyNames(MODEL, (*NORMS, *WIDE_NORMS, *QKV, OUT, *EXPERTS), counts=COUNTS),
    "olmo2": FamilyNames(
        MODEL,
        (
            *POST_NORMS,
            *WIDE_NORMS,
            *QKV,
            OUT,
            *GATED,
        ),
    ),
    "stablelm": FamilyNames(
        MODEL_LN,
        (*NORMS_LN, *QKV, *QKV_BIAS, OUT, *GATED),
        fixed={"use_parallel_residual": (False,)},
        **LAYER_NORM,
    ),
    "starcoder": GPT2,
    **DENSE_FAMILIES,
    **ENCODERS,
    **MIXTURES,
    **RECURRENT,
}
