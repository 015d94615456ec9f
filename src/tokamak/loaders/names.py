"""What GGUF files call things, family by family: tensors to parameter paths, with the shape each must have.

Tables only; `config.py` reads the keys and `checkpoint.py` applies the tables. A new family is a new row in
`FAMILIES`. Names of tensors: docs/gguf.md of ggml and gguf-py's tensor mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["FAMILIES", "FamilyNames", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of a file and the parameter it becomes.

    tensor, path: within the file and the model; of a row per layer without "blk.N." and "layers.N.".
    shape: extents by name, outermost first, from `config.extents`. heads: its rows belong to heads that rope turns.
    cut: it is cut by rows into these (path, extent), in this order, instead of `path`.
    """

    tensor: str
    path: str
    shape: str
    optional: bool = False
    heads: bool = False
    cut: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyNames:
    """How one architecture is written in GGUF.

    interleaved: rows of Q and K lie in pairs (0, 1), (2, 3), ... of each head, as rope without a half split wants
    them; the loader puts them in half-split order. window: `attention.sliding_window` holds for every layer.
    either: the first or the second set of tensors of a layer is there, whole. numbers: keys of this family alone, each
    a float, and the configuration names they become. fixed: keys that are read only to be refused with another value
    (None: never).
    flags: the same for booleans; counts: the same for integers from 1 up. rope: whether there is rotary embedding.
    causal: whether a token sees only those before it. mixture: the row that holds instead where the file has experts.
    """

    model: tuple[Row, ...]
    layer: tuple[Row, ...]
    norm_key: str = "attention.layer_norm_rms_epsilon"
    norm_name: str = "rms_norm_eps"
    interleaved: bool = False
    window: bool = False
    either: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    rope: bool = True
    causal: bool = True
    mixture: str = ""


def _biases(*names: tuple[str, str, str]) -> tuple[Row, ...]:
    return tuple(Row(f"{tensor}.bias", f"{path}.bias", shape, optional=True) for tensor, path, shape in names)


_MODEL = (
    Row("token_embd.weight", "embed_tokens.weight", "vocab hidden"),
    Row("output_norm.weight", "norm.weight", "hidden"),
    Row("output.weight", "lm_head.weight", "vocab hidden", optional=True),
)
_NORMS = (
    Row("attn_norm.weight", "input_layernorm.weight", "hidden"),
    Row("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
)
_OUT = Row("attn_output.weight", "self_attn.o_proj.weight", "hidden q")
_QKV = (
    Row("attn_q.weight", "self_attn.q_proj.weight", "q hidden", heads=True),
    Row("attn_k.weight", "self_attn.k_proj.weight", "kv hidden", heads=True),
    Row("attn_v.weight", "self_attn.v_proj.weight", "kv hidden"),
)
_QKV_BIAS = (
    Row("attn_q.bias", "self_attn.q_proj.bias", "q", optional=True, heads=True),
    Row("attn_k.bias", "self_attn.k_proj.bias", "kv", optional=True, heads=True),
    Row("attn_v.bias", "self_attn.v_proj.bias", "kv", optional=True),
)
_DOWN = Row("ffn_down.weight", "mlp.down_proj.weight", "hidden inter")
_GATED = (
    Row("ffn_gate.weight", "mlp.gate_proj.weight", "inter hidden"),
    Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"),
    _DOWN,
)
_OTHER_BIASES = _biases(
    ("attn_output", "self_attn.o_proj", "hidden"),
    ("ffn_gate", "mlp.gate_proj", "inter"),
    ("ffn_up", "mlp.up_proj", "inter"),
    ("ffn_down", "mlp.down_proj", "hidden"),
)
_DENSE = (*_NORMS, *_QKV, *_QKV_BIAS, _OUT, *_GATED)

_EXPERTS = (
    Row("ffn_gate_inp.weight", "mlp.gate.weight", "experts hidden"),
    Row("ffn_gate_exps.weight", "mlp.experts.gate_proj", "experts expert_inter hidden"),
    Row("ffn_up_exps.weight", "mlp.experts.up_proj", "experts expert_inter hidden"),
    Row("ffn_down_exps.weight", "mlp.experts.down_proj", "experts hidden expert_inter"),
)
_SHARED_EXPERT = (
    Row("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", "one hidden"),
    Row("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight", "shared_inter hidden"),
    Row("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", "shared_inter hidden"),
    Row("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight", "hidden shared_inter"),
)
_COUNTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
_OWN_WIDTH = {**_COUNTS, "expert_feed_forward_length": "moe_intermediate_size"}
_SHARED_WIDTH = {**_OWN_WIDTH, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"}

# BitNet: a norm before each output projection, and one scale per ternary matrix where the file keeps it apart.
_BITNET = (
    *_NORMS,
    *_QKV,
    _OUT,
    *_GATED,
    Row("attn_sub_norm.weight", "self_attn.attn_sub_norm.weight", "q"),
    Row("ffn_sub_norm.weight", "mlp.ffn_sub_norm.weight", "inter"),
    *(
        Row(row.tensor.replace(".weight", ".scale"), f"{row.path}_scale", "one", optional=True)
        for row in (*_QKV, _OUT, *_GATED)
    ),
)

_FUSED_OR_NOT = (
    *(Row(r.tensor, r.path, r.shape, optional=True, heads=r.heads) for r in (*_QKV, *_QKV_BIAS)),
    Row(
        "attn_qkv.weight",
        "",
        "qkv hidden",
        optional=True,
        cut=tuple((r.path, r.shape.split()[0]) for r in _QKV),
    ),
    Row("attn_qkv.bias", "", "qkv", optional=True, cut=tuple((r.path, r.shape) for r in _QKV_BIAS)),
)
_PHI2_LAYER = (
    Row("attn_norm.weight", "input_layernorm.weight", "hidden"),
    Row("attn_norm.bias", "input_layernorm.bias", "hidden"),
    *_FUSED_OR_NOT,
    _OUT,
    Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"),
    _DOWN,
    *_OTHER_BIASES,
)

_PHI3_LAYER = (
    *_NORMS,
    Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv hidden"),
    _OUT,
    Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
    _DOWN,
)

_MODEL_LN = (*_MODEL, Row("output_norm.bias", "norm.bias", "hidden", optional=True))
_NORMS_LN = (
    *_NORMS,
    Row("attn_norm.bias", "input_layernorm.bias", "hidden"),
    Row("ffn_norm.bias", "post_attention_layernorm.bias", "hidden"),
)
_HEAD_NORMS = (
    Row("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
)
_WIDE_NORMS = (
    Row("attn_q_norm.weight", "self_attn.q_norm.weight", "q"),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight", "kv"),
)
_FUSED_QKV = (
    Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv hidden"),
    Row("attn_qkv.bias", "self_attn.qkv_proj.bias", "qkv", optional=True),
)
_PLAIN = (Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"), _DOWN)
_POST_NORMS = (
    Row("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
    Row("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden"),
)
_LAYER_NORM: dict[str, Any] = {"norm_key": "attention.layer_norm_epsilon", "norm_name": "layer_norm_eps"}
_MULTIPLIERS = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
_GPT2 = FamilyNames(
    (*_MODEL_LN, Row("position_embd.weight", "embed_positions.weight", "positions hidden")),
    (*_NORMS_LN, *_FUSED_QKV, _OUT, *_PLAIN, *_OTHER_BIASES),
    rope=False,
    **_LAYER_NORM,
)

_BERT_MODEL = (
    _MODEL[0],
    Row("token_types.weight", "token_types.weight", "types hidden", optional=True),
    Row("token_embd_norm.weight", "embed_norm.weight", "hidden"),
    Row("token_embd_norm.bias", "embed_norm.bias", "hidden"),
    Row("cls.weight", "classifier.dense.weight", "hidden hidden", optional=True),
    Row("cls.bias", "classifier.dense.bias", "hidden", optional=True),
    Row("cls.output.weight", "classifier.out_proj.weight", "labels hidden", optional=True),
    Row("cls.output.bias", "classifier.out_proj.bias", "labels", optional=True),
)
_BERT_NORMS = (
    Row("attn_output_norm.weight", "attention_norm.weight", "hidden"),
    Row("attn_output_norm.bias", "attention_norm.bias", "hidden"),
    Row("layer_output_norm.weight", "output_norm.weight", "hidden"),
    Row("layer_output_norm.bias", "output_norm.bias", "hidden"),
)
_ENCODER: dict[str, Any] = {
    "causal": False,
    "either": (("attn_q.weight", "attn_k.weight", "attn_v.weight"), ("attn_qkv.weight",)),
    **_LAYER_NORM,
}

_GEMMA3 = FamilyNames(
    _MODEL,
    (
        _NORMS[0],
        Row("ffn_norm.weight", "pre_feedforward_layernorm.weight", "hidden"),
        *_POST_NORMS,
        *_HEAD_NORMS,
        *_QKV,
        _OUT,
        *_GATED,
    ),
    window=True,
    numbers={"rope.freq_base_swa": "rope_local_base_freq"},
)
_BITNET_FAMILY = FamilyNames(_MODEL, _BITNET)

FAMILIES: Mapping[str, FamilyNames] = {
    # Llama 1-3 and Mistral. The converter permutes Q and K; a file of the original Llama 1 names it
    # "Meta AI original pth" in tensor_data_layout, which is the same order.
    "llama": FamilyNames(_MODEL, (*_DENSE, *_OTHER_BIASES), interleaved=True, window=True, mixture="mixtral"),
    "mixtral": FamilyNames(
        _MODEL, (*_NORMS, *_QKV, _OUT, *_EXPERTS), interleaved=True, window=True, counts=_COUNTS
    ),
    "qwen2": FamilyNames((*_MODEL, Row("output.bias", "lm_head.bias", "vocab", optional=True)), _DENSE),
    "qwen3": FamilyNames(
        _MODEL,
        (
            *_DENSE,
            Row("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
            Row("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
        ),
    ),
    "qwen2moe": FamilyNames(
        _MODEL, (*_NORMS, *_QKV, *_QKV_BIAS, _OUT, *_EXPERTS, *_SHARED_EXPERT), counts=_SHARED_WIDTH
    ),
    "qwen3moe": FamilyNames(_MODEL, (*_NORMS, *_HEAD_NORMS, *_QKV, _OUT, *_EXPERTS), counts=_OWN_WIDTH),
    "phi2": FamilyNames(
        (
            *_MODEL,
            Row("output_norm.bias", "norm.bias", "hidden"),
            Row("output.bias", "lm_head.bias", "vocab", optional=True),
        ),
        _PHI2_LAYER,
        norm_key="attention.layer_norm_epsilon",
        norm_name="layer_norm_eps",
        either=(("attn_q.weight", "attn_k.weight", "attn_v.weight"), ("attn_qkv.weight",)),
    ),
    "phi3": FamilyNames(_MODEL, _PHI3_LAYER, window=True),
    "bert": FamilyNames(
        (*_BERT_MODEL, Row("position_embd.weight", "embed_positions.weight", "positions hidden")),
        (*_FUSED_OR_NOT, _OUT, *_BERT_NORMS, *_PLAIN, *_OTHER_BIASES),
        rope=False,
        **_ENCODER,
    ),
    "nomic-bert": FamilyNames(
        _BERT_MODEL, (*_FUSED_OR_NOT, _OUT, *_BERT_NORMS, *_GATED, *_OTHER_BIASES), **_ENCODER
    ),
    "modern-bert": FamilyNames(
        (_MODEL[0], Row("token_embd_norm.weight", "embed_norm.weight", "hidden"), _MODEL[1]),
        (
            Row("attn_norm.weight", "input_layernorm.weight", "hidden", optional=True),
            Row("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
            *_FUSED_OR_NOT,
            _OUT,
            Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
            _DOWN,
        ),
        window=True,
        numbers={"rope.freq_base_swa": "rope_local_base_freq"},
        counts={"attention.sliding_window_pattern": "sliding_window_pattern"},
        fixed={
            "hidden_activation": ("gelu",),
            "attention.layer_norm_rms_epsilon": None,
        },  # the same epsilon twice
        **_ENCODER,
    ),
    "bitnet": _BITNET_FAMILY,
    "bitnet-25": _BITNET_FAMILY,
    "bitnet-b1.58": _BITNET_FAMILY,
    "arcee": FamilyNames(_MODEL, (*_NORMS, *_QKV, _OUT, *_PLAIN), interleaved=True),
    # The 13B form has position biases instead of rope: readers know it by its 40 layers.
    "baichuan": FamilyNames(_MODEL, _DENSE, interleaved=True, fixed={"block_count": (32,)}),
    "command-r": FamilyNames(
        _MODEL_LN,
        (_NORMS[0], *_QKV, _OUT, *_GATED),
        interleaved=True,
        numbers={"logit_scale": "logit_scale"},
        **_LAYER_NORM,
    ),
    "ernie4_5": FamilyNames(_MODEL, _DENSE, interleaved=True),
    "exaone4": FamilyNames(_MODEL, (*_POST_NORMS, *_HEAD_NORMS, *_QKV, _OUT, *_GATED)),
    "falcon": FamilyNames(
        _MODEL_LN,
        (
            *_NORMS_LN[::2],
            Row("attn_norm_2.weight", "ln_attn.weight", "hidden", optional=True),
            Row("attn_norm_2.bias", "ln_attn.bias", "hidden", optional=True),
            *_FUSED_QKV,
            _OUT,
            *_PLAIN,
        ),
        **_LAYER_NORM,
    ),
    "gemma": FamilyNames(_MODEL, (*_NORMS, *_QKV, _OUT, *_GATED)),
    "gemma3": _GEMMA3,
    "gemma-embedding": replace(_GEMMA3, causal=False),
    "glm4": FamilyNames(
        _MODEL,
        (
            *_NORMS,
            Row("post_attention_norm.weight", "post_self_attn_layernorm.weight", "hidden"),
            Row("post_ffw_norm.weight", "post_mlp_layernorm.weight", "hidden"),
            *_QKV,
            *_QKV_BIAS,
            _OUT,
            Row("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up hidden"),
            _DOWN,
        ),
        interleaved=True,
    ),
    "gpt2": _GPT2,
    "gptneox": FamilyNames(
        _MODEL_LN,
        (*_NORMS_LN, *_FUSED_QKV, _OUT, *_PLAIN, *_OTHER_BIASES),
        flags={"use_parallel_residual": "use_parallel_residual"},
        **_LAYER_NORM,
    ),
    "granite": FamilyNames(_MODEL, _DENSE, interleaved=True, numbers=_MULTIPLIERS),
    "granitemoe": FamilyNames(
        _MODEL,
        (*_NORMS, *_QKV, _OUT, *_EXPERTS),
        interleaved=True,
        numbers=_MULTIPLIERS,
        counts=_COUNTS,
    ),
    "minicpm": FamilyNames(_MODEL, _DENSE, interleaved=True, numbers=_MULTIPLIERS),
    "olmoe": FamilyNames(_MODEL, (*_NORMS, *_WIDE_NORMS, *_QKV, _OUT, *_EXPERTS), counts=_COUNTS),
    "olmo2": FamilyNames(
        _MODEL,
        (
            *_POST_NORMS,
            *_WIDE_NORMS,
            *_QKV,
            _OUT,
            *_GATED,
        ),
    ),
    "stablelm": FamilyNames(
        _MODEL_LN,
        (*_NORMS_LN, *_QKV, *_QKV_BIAS, _OUT, *_GATED),
        fixed={"use_parallel_residual": (False,)},
        **_LAYER_NORM,
    ),
    "starcoder": _GPT2,
}
