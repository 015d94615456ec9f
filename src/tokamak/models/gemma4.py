"""Gemma 4 (text, dense): Gemma 3 whose global layers have wider heads, whose last layers read the keys and values of earlier
ones, and where every layer gets an input of its own from the token. Scores are not scaled; values are normed too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import gemma, llama, mamba
from tokamak.models.config import Rope
from tokamak.models.rope import rotate
from tokamak.nn import Embedding, GatedMLP, Linear, Module, Param, RMSNorm, Step

Kept = dict[bool, tuple[Value, Value, str]]  # by local or global: keys, values and their cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations. head_dim and rope are those of global layers."""

    layer_types: tuple[str, ...]
    local_head_dim: int
    num_kv_shared_layers: int = 0
    hidden_size_per_layer_input: int = 0
    rope_local_base_freq: float = 10000.0
    final_logit_softcapping: float = 0.0


class Attention(Module):
    def __init__(self, c: Config, *, local: bool, shares: bool) -> None:
        self.c, self.local, self.shares = c, local, shares
        self.head_dim = dim = c.local_head_dim if local else c.head_dim
        self.rope = Rope(theta=c.rope_local_base_freq, context=c.rope.context) if local else c.rope
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.q_proj, self.o_proj = Linear(c.hidden_size, heads * dim), Linear(heads * dim, c.hidden_size)
        self.q_norm = RMSNorm(dim, c.rms_norm_eps)
        if not shares:
            self.k_proj = Linear(c.hidden_size, kv_heads * dim)
            self.v_proj = Linear(c.hidden_size, kv_heads * dim, optional=True)  # absent: as keys
            self.k_norm = RMSNorm(dim, c.rms_norm_eps)

    def forward(self, x: Value, step: Step, kept: Kept) -> Value:
        c = self.c
        q = self.turned(step, self.q_norm(ops.split_heads(self.q_proj(x), heads=c.num_attention_heads)))
        window = c.sliding_window if self.local else 0
        if self.shares:
            k, v, name = kept[self.local]
            return self.o_proj(ops.merge_heads(step.attend(q, k, v, scale=1.0, window=window, shares=name)))
        k = ops.split_heads(self.k_proj(x), heads=c.num_key_value_heads)
        own = self.v_proj.weight.bound
        v = ops.split_heads(self.v_proj(x), heads=c.num_key_value_heads) if own else k
        k, v = self.turned(step, self.k_norm(k)), mamba.plain_norm(v, c.rms_norm_eps)
        mixed = step.attend(q, k, v, scale=1.0, window=window)
        kept[self.local] = (k, v, step.last_state())
        return self.o_proj(ops.merge_heads(mixed))

    def turned(self, step: Step, x: Value) -> Value:
        name = "rope.local" if self.local else "rope.global"
        return rotate(step, self.rope, self.head_dim, x, name=name)[0]


class Block(Module):
    """Each branch: norm, work, norm, add; then the token's own input through a gate; then one factor."""

    def __init__(self, c: Config, index: int) -> None:
        size, extra = c.hidden_size, c.hidden_size_per_layer_input
        self.input_layernorm, self.post_attention_layernorm = (
            RMSNorm(size, c.rms_norm_eps) for _ in range(2)
        )
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = (
            RMSNorm(size, c.rms_norm_eps) for _ in range(2)
        )
        shares = index >= c.num_hidden_layers - c.num_kv_shared_layers
        self.self_attn = Attention(c, local=c.layer_types[index] == "sliding_attention", shares=shares)
        self.mlp = GatedMLP(size, c.intermediate_size, "gelu")
        self.layer_scalar = Param(1, 1)
        self.per_layer_input_gate = Linear(size, extra) if extra else None
        if extra:
            self.per_layer_projection = Linear(extra, size)
            self.post_per_layer_input_norm = RMSNorm(size, c.rms_norm_eps)

    def forward(self, x: Value, own: Value | None, step: Step, kept: Kept) -> Value:
        h = self.self_attn(self.input_layernorm(x), step, kept)
        x = ops.add(self.post_attention_layernorm(h), x)
        x = ops.add(self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x))), x)
        if own is not None and self.per_layer_input_gate:
            gated = ops.mul(ops.gelu(self.per_layer_input_gate(x)), own)
            x = ops.add(self.post_per_layer_input_norm(self.per_layer_projection(gated)), x)
        return ops.mul(x, ops.embed(step.token_ids, self.layer_scalar.value, row=0))


class Gemma4(gemma.Gemma):
    def __init__(self, c: Config) -> None:
        super().__init__(replace(c, num_hidden_layers=0))
        self.c, extra = c, c.hidden_size_per_layer_input
        self.layers = [Block(c, i) for i in range(c.num_hidden_layers)]
        if extra:
            width = c.num_hidden_layers * extra
            self.embed_tokens_per_layer = Embedding(c.vocab_size, width)
            self.per_layer_model_projection = Linear(c.hidden_size, width)
            self.per_layer_projection_norm = RMSNorm(extra, c.rms_norm_eps)

    def forward(self, step: Step) -> Value:
        c, extra, kept = self.c, self.c.hidden_size_per_layer_input, Kept()
        x = self.embed_tokens(step.token_ids)
        own: list[Value | None] = [None] * c.num_hidden_layers
        if extra:
            told = ops.scale(self.embed_tokens_per_layer(step.token_ids), factor=extra**0.5)
            made = ops.scale(self.per_layer_model_projection(x), factor=c.hidden_size**-0.5)
            made = self.per_layer_projection_norm(ops.split_heads(made, heads=c.num_hidden_layers))
            both = ops.scale(ops.add(ops.merge_heads(made), told), factor=2**-0.5)
            own = [ops.columns(both, start=i * extra, stop=(i + 1) * extra) for i in range(len(own))]
        for layer, mine in zip(self.layers, own, strict=True):
            x = layer(x, mine, step, kept)
        rows = ops.take_rows(self.norm(x), step.logit_rows)
        logits = (self.lm_head or self.embed_tokens.as_linear)(rows)
        return ops.softcap(logits, cap=c.final_logit_softcapping) if c.final_logit_softcapping else logits
