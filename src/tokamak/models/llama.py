"""Llama 1-3, Mistral, Qwen 2: pre-norm decoder with grouped-query attention, rope and a gated feed-forward.

Biases on q, k and v (Qwen 2) and a sliding window (Mistral) follow the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models.config import Rope
from tokamak.models.rope import rotate
from tokamak.nn import Embedding, GatedMLP, Linear, Module, RMSNorm, Step


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
    rms_norm_eps: float
    rope: Rope
    sliding_window: int = 0
    attention_multiplier: float = 0.0  # of scores, 0: head_dim^-0.5
    tie_word_embeddings: bool = False


class Attention(Module):
    """Grouped-query attention with rope."""

    def __init__(self, c: Any) -> None:
        self.c = c
        self.scale = getattr(c, "attention_multiplier", 0.0) or c.head_dim**-0.5
        self.rope: Rope | None = c.rope  # None: positions do not turn
        self.rope_name = "rope.inv_freq"  # of its table; another rope has another name
        self.window = c.sliding_window
        self.q_proj = Linear(c.hidden_size, c.num_attention_heads * c.head_dim)
        self.k_proj = Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.v_proj = Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.o_proj = Linear(c.num_attention_heads * c.head_dim, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        return self.o_proj(self.mix(x, step))

    def mix(self, x: Value, step: Step) -> Value:
        """Everything before the output projection: [T, hidden_size] -> [T, H * head_dim]."""
        c, (q, k, v) = self.c, self.projected(x)
        q = ops.split_heads(q, heads=c.num_attention_heads)
        k, v = (ops.split_heads(y, heads=c.num_key_value_heads) for y in (k, v))
        return ops.merge_heads(self.attend(step, *self.turned(step, *self.normed(q, k)), v))

    def projected(self, x: Value) -> tuple[Value, Value, Value]:
        """Queries, keys and values, heads side by side."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def turned(self, step: Step, q: Value, k: Value) -> tuple[Value, Value]:
        """Rope."""
        if self.rope is None:
            return q, k
        q, k = rotate(step, self.rope, self.c.head_dim, q, k, name=self.rope_name)
        return q, k

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        """Hook for families whose scores are special."""
        return step.attend(q, k, v, scale=self.scale, window=self.window)

    def normed(self, q: Value, k: Value) -> tuple[Value, Value]:
        """Hook for families that norm queries and keys."""
        return q, k


class Block(Module):
    """Two residual branches, each behind its norm."""

    attention: type[Any] = Attention

    def __init__(self, c: Config) -> None:
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = self.attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = self.feed_forward(c)

    def feed_forward(self, c: Config) -> Module:
        """silu(gate) * up, then down; families override it."""
        return GatedMLP(c.hidden_size, c.intermediate_size)

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.self_attn(self.input_layernorm(x), step), x)
        return ops.add(self.mlp(self.post_attention_layernorm(x)), x)


class Llama(Module):
    """Embedding, blocks, final norm and the head, which may be the embedding."""

    block: type[Any] = Block

    def __init__(self, c: Config) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.layers = [self.layer(c, i) for i in range(c.num_hidden_layers)]
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = None if c.tie_word_embeddings else Linear(c.hidden_size, c.vocab_size)

    def layer(self, c: Any, index: int) -> Module:  # noqa: ARG002  for families whose layers differ
        """Block `index`."""
        block: Module = self.block(c)
        return block

    def forward(self, step: Step) -> Value:
        x = self.embed_tokens(step.token_ids)
        for layer in self.layers:
            x = layer(x, step)
        return (self.lm_head or self.embed_tokens.as_linear)(ops.take_rows(self.norm(x), step.logit_rows))
