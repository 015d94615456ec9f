"""T5, Flan-T5 and UL2: an encoder reads a text, a decoder that attends to it writes another.

Positions are learned numbers per bucket of distance, added to scores, which are not scaled. Source: Raffel et al. 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.nn import MLP, Embedding, GatedMLP, Linear, Module, Param, RMSNorm, Source, Step


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and constants, named as in Hugging Face configurations."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_decoder_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    num_buckets: int = 32
    max_distance: int = 128
    gated: bool = False
    hidden_act: str = ""  # by default gelu where gated, else relu
    tie_word_embeddings: bool = False


class Attention(Module):
    """Projections; `read` attends to the rows' own text, `cross` to a source."""

    def __init__(self, c: Config) -> None:
        self.c, width = c, c.num_attention_heads * c.head_dim
        self.q_proj, self.k_proj, self.v_proj = (Linear(c.hidden_size, width) for _ in range(3))
        self.o_proj = Linear(width, c.hidden_size)

    def heads(self, linear: Linear, x: Value) -> Value:
        """[..., H * D] -> [..., H, D]."""
        return ops.split_heads(linear(x), heads=self.c.num_attention_heads)

    def forward(self, x: Value, step: Step, buckets: Value, causal: bool, shares: str) -> Value:
        q, k, v = (self.heads(p, x) for p in (self.q_proj, self.k_proj, self.v_proj))
        reach = self.c.max_distance
        out = step.attend(q, k, v, scale=1.0, causal=causal, buckets=buckets, reach=reach, shares=shares)
        return self.o_proj(ops.merge_heads(out))


class Cross(Attention):
    """Queries of the reading rows, keys and values of the source."""

    def forward(self, x: Value, states: Value, source: Source, shares: str) -> Value:  # type: ignore[override]
        q, k, v = self.heads(self.q_proj, x), self.heads(self.k_proj, states), self.heads(self.v_proj, states)
        return self.o_proj(ops.merge_heads(source.attended(q, k, v, scale=1.0, shares=shares)))


class Block(Module):
    """Norm, work, add; in the decoder the middle one of three looks at the source."""

    def __init__(self, c: Config, *, decodes: bool) -> None:
        self.self_attn, self.cross_attn = Attention(c), Cross(c) if decodes else None
        sizes = (c.hidden_size, c.intermediate_size, c.hidden_act or ("gelu" if c.gated else "relu"))
        self.mlp = GatedMLP(*sizes) if c.gated else MLP(*sizes)
        self.attn_norm, self.mlp_norm = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2))
        self.cross_norm = RMSNorm(c.hidden_size, c.rms_norm_eps) if decodes else None

    def forward(self, x: Value, step: Step, buckets: Value, shares: str, *of_source: Any) -> Value:
        causal = self.cross_attn is not None
        x = ops.add(self.self_attn(self.attn_norm(x), step, buckets, causal, shares), x)
        if self.cross_attn and self.cross_norm:
            x = ops.add(self.cross_attn(self.cross_norm(x), *of_source, step.last_state()), x)
        return ops.add(self.mlp(self.mlp_norm(x)), x)


class Stack(Module):
    """The layers of one side. An encoder's K and V are needed for one step only, so its layers share a cache."""

    def __init__(self, c: Config, layers: int, *, decodes: bool) -> None:
        self.decodes = decodes
        self.buckets = Param(c.num_buckets, c.num_attention_heads)
        self.layers = [Block(c, decodes=decodes) for _ in range(layers)]
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Value, step: Step, *of_source: Any) -> Value:
        shares = ""
        for layer in self.layers:
            x = layer(x, step, self.buckets.value, shares, *of_source)
            shares = "" if self.decodes else step.last_state()
        return self.norm(x)


class T5(Module):
    """Source rows through the encoder, text rows through the decoder, logits of the rows asked for."""

    def __init__(self, c: Config) -> None:
        self.c = c
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.encoder = Stack(c, c.num_hidden_layers, decodes=False)
        self.decoder = Stack(c, c.num_decoder_layers, decodes=True)
        self.lm_head = None if c.tie_word_embeddings else Linear(c.hidden_size, c.vocab_size)

    def forward(self, step: Step) -> Value:
        source = Source(step)
        states = self.encoder(self.embed_tokens(source.token_ids), source)
        x = self.decoder(self.embed_tokens(step.token_ids), step, states, source)
        x = ops.take_rows(x, step.logit_rows)
        if self.lm_head:
            return self.lm_head(x)
        if not self.c.gated:  # the first version alone scales what its shared table reads
            x = ops.scale(x, factor=self.c.hidden_size**-0.5)
        return self.embed_tokens.as_linear(x)
