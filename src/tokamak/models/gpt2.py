"""GPT-2 and GPT-BigCode (StarCoder 1): learned positions, fused q, k, v, gelu, tied head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.nn import MLP, Embedding, LayerNorm, Linear, Module, Step


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and constants, named as in Hugging Face configurations."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    layer_norm_eps: float
    num_positions: int
    tie_word_embeddings: bool = False


class Attention(Module):
    """Rows of qkv_proj: all query heads, then keys, then values."""

    def __init__(self, c: Any) -> None:
        self.c = c
        width = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim
        self.qkv_proj = Linear(c.hidden_size, width)
        self.o_proj = Linear(c.num_attention_heads * c.head_dim, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        c = self.c
        qkv = self.projected(x)
        start, parts = 0, []
        for heads in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads):
            stop = start + heads * c.head_dim
            parts.append(ops.split_heads(ops.columns(qkv, start=start, stop=stop), heads=heads))
            start = stop
        return self.o_proj(ops.merge_heads(self.attend(step, *parts)))

    def projected(self, x: Value) -> Value:
        """Queries, keys and values side by side."""
        return self.qkv_proj(x)

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        """Hook for families that know positions from scores."""
        return step.attend(q, k, v, scale=self.c.head_dim**-0.5)


class Block(Module):
    """Two residual branches, each behind its layer norm."""

    attention: type[Any] = Attention

    def __init__(self, c: Any) -> None:
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = self.attention(c)
        self.post_attention_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.mlp = self.feed_forward(c)

    def feed_forward(self, c: Any) -> Module:
        """Families override it."""
        return MLP(c.hidden_size, c.intermediate_size, "gelu")

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.self_attn(self.input_layernorm(x), step), x)
        return ops.add(self.mlp(self.post_attention_layernorm(x)), x)


class GPT2(Module):
    """Token plus position embedding, blocks, final norm, head."""

    def __init__(self, c: Config) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.embed_positions = Embedding(c.num_positions, c.hidden_size)
        self.layers = [Block(c) for _ in range(c.num_hidden_layers)]
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.lm_head = None if c.tie_word_embeddings else Linear(c.hidden_size, c.vocab_size)

    def forward(self, step: Step) -> Value:
        x = ops.add(self.embed_tokens(step.token_ids), self.embed_positions(step.positions))
        for layer in self.layers:
            x = layer(x, step)
        return (self.lm_head or self.embed_tokens.as_linear)(ops.take_rows(self.norm(x), step.logit_rows))
