"""The vocabulary of the tables in `names`: what a row and a family of GGUF names are, and the rows many share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of a file and the parameter it becomes.

    tensor, path: within the file and the model; of a row per layer without "blk.N." and "layers.N.".
    shape: extents by name, outermost first, from `config.extents`; "*" is any, the model then says which it needs.
    heads: its rows belong to heads that rope turns. cut: it is cut by rows into these (path, extent), in this order,
    instead of `path`. pick: extents (of, first, count): only these rows of every `of`. turn: extent of the heads that
    rope turns whole, where that is not head_dim. view: the shape of the parameter, where the file writes another.
    """

    tensor: str
    path: str
    shape: str
    optional: bool = False
    heads: bool = False
    cut: tuple[tuple[str, str], ...] = ()
    pick: tuple[str, str, str] | None = None
    turn: str = ""
    view: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers `tensors`N. of a file, which are `paths`N. of the model, as many as the configuration's `count` says."""

    tensors: str
    paths: str
    count: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class FamilyNames:
    """How one architecture is written in GGUF.

    interleaved: rows of Q and K lie in pairs (0, 1), (2, 3), ... of each head, as rope without a half split wants
    them; the loader puts them in half-split order. window: `attention.sliding_window` holds for every layer; period: or for all but every n-th.
    either: the first or the second set of tensors of a layer is there, whole. numbers: keys of this family alone, each
    a float, and the configuration names they become. fixed: keys that are read only to be refused with another value
    (None: never).
    flags: the same for booleans; counts: the same for integers from 1 up that must be there, some: from 0 up that may.
    lists: keys with a value per layer. where: names of booleans per layer: whether the layer has this tensor. ignored: keys that change nothing for text. rope: whether there is rotary
    embedding. causal: whether a token sees only those before it. attends: whether there are attention heads. hybrid: layers without heads or feed-forward have 0 of them.
    means: configuration that no key says. stacks: layers of another kind than `layer`, whose names begin otherwise; `layer` is
    then empty. told: booleans of the configuration and the tensor whose presence says them. derive: more of it, computed from
    what was read; None removes an entry. sizes: further extents. unread: tensors, by their full name, that files have and no
    reader uses. form: the name of the row that holds instead, "" for this one, by keys without prefix.
    """

    model: tuple[Row, ...]
    layer: tuple[Row, ...]
    norm_key: str = "attention.layer_norm_rms_epsilon"
    norm_name: str = "rms_norm_eps"
    interleaved: bool = False
    window: bool = False
    period: int = 0
    either: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    some: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    rope: bool = True
    causal: bool = True
    attends: bool = True
    hybrid: bool = False
    means: Mapping[str, Any] = field(default_factory=dict)
    derive: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    sizes: Callable[[Mapping[str, Any]], dict[str, int]] | None = None
    unread: tuple[str, ...] = ()
    form: Callable[[Mapping[str, Any]], str] | None = None
    stacks: tuple[Stack, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)


def biases(*names: tuple[str, str, str]) -> tuple[Row, ...]:
    return tuple(Row(f"{tensor}.bias", f"{path}.bias", shape, optional=True) for tensor, path, shape in names)


MODEL = (
    Row("token_embd.weight", "embed_tokens.weight", "vocab hidden"),
    Row("output_norm.weight", "norm.weight", "hidden"),
    Row("output.weight", "lm_head.weight", "vocab hidden", optional=True),
)
NORMS = (
    Row("attn_norm.weight", "input_layernorm.weight", "hidden"),
    Row("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
)
OUT = Row("attn_output.weight", "self_attn.o_proj.weight", "hidden q")
QKV = (
    Row("attn_q.weight", "self_attn.q_proj.weight", "q hidden", heads=True),
    Row("attn_k.weight", "self_attn.k_proj.weight", "kv hidden", heads=True),
    Row("attn_v.weight", "self_attn.v_proj.weight", "kv hidden"),
)
QKV_BIAS = (
    Row("attn_q.bias", "self_attn.q_proj.bias", "q", optional=True, heads=True),
    Row("attn_k.bias", "self_attn.k_proj.bias", "kv", optional=True, heads=True),
    Row("attn_v.bias", "self_attn.v_proj.bias", "kv", optional=True),
)
DOWN = Row("ffn_down.weight", "mlp.down_proj.weight", "hidden inter")
GATED = (
    Row("ffn_gate.weight", "mlp.gate_proj.weight", "inter hidden"),
    Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"),
    DOWN,
)
OTHER_BIASES = biases(
    ("attn_output", "self_attn.o_proj", "hidden"),
    ("ffn_gate", "mlp.gate_proj", "inter"),
    ("ffn_up", "mlp.up_proj", "inter"),
    ("ffn_down", "mlp.down_proj", "hidden"),
)
DENSE = (*NORMS, *QKV, *QKV_BIAS, OUT, *GATED)

EXPERTS = (
    Row("ffn_gate_inp.weight", "mlp.gate.weight", "experts hidden"),
    Row("ffn_gate_exps.weight", "mlp.experts.gate_proj", "experts expert_inter hidden"),
    Row("ffn_up_exps.weight", "mlp.experts.up_proj", "experts expert_inter hidden"),
    Row("ffn_down_exps.weight", "mlp.experts.down_proj", "experts hidden expert_inter"),
)
SHARED_EXPERT = (
    Row("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", "one hidden"),
    Row("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight", "shared_inter hidden"),
    Row("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", "shared_inter hidden"),
    Row("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight", "hidden shared_inter"),
)
COUNTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
OWN_WIDTH = {**COUNTS, "expert_feed_forward_length": "moe_intermediate_size"}
SHARED_WIDTH = {**OWN_WIDTH, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"}

MODEL_LN = (*MODEL, Row("output_norm.bias", "norm.bias", "hidden", optional=True))
NORMS_LN = (
    *NORMS,
    Row("attn_norm.bias", "input_layernorm.bias", "hidden"),
    Row("ffn_norm.bias", "post_attention_layernorm.bias", "hidden"),
)
HEAD_NORMS = (
    Row("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
)
WIDE_NORMS = (
    Row("attn_q_norm.weight", "self_attn.q_norm.weight", "q"),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight", "kv"),
)
FUSED_QKV = (
    Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv hidden"),
    Row("attn_qkv.bias", "self_attn.qkv_proj.bias", "qkv", optional=True),
)
PLAIN = (Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"), DOWN)
POST_NORMS = (
    Row("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
    Row("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden"),
)
LAYER_NORM: dict[str, Any] = {"norm_key": "attention.layer_norm_epsilon", "norm_name": "layer_norm_eps"}
MULTIPLIERS = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


def optional(*rows: Row) -> tuple[Row, ...]:
    """The same rows, absent from some layers or files."""
    return tuple(replace(row, optional=True) for row in rows)
