"""Phi-1, Phi-1.5, Phi-2: one layer norm feeds attention and feed-forward in parallel; partial rope; biases everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.config import Rope
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
    rope: Rope
    sliding_window: int = 0
    tie_word_embeddings: bool = False


class Block(Module):
    """x + attention(norm(x)) + mlp(norm(x))."""

    attention: type[Any] = llama.Attention

    def __init__(self, c: Config) -> None:
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = self.attention(c)
        self.mlp = self.feed_forward(c)

    def feed_forward(self, c: Config) -> Module:
        """Families override it."""
        return MLP(c.hidden_size, c.intermediate_size, "gelu")

    def forward(self, x: Value, step: Step) -> Value:
        h = self.input_layernorm(x)
        return ops.add(ops.add(self.self_attn(h, step), self.mlp(h)), x)


class Phi(Module):
    """Embedding, parallel blocks, final layer norm and the head, which may be the embedding."""

    block: type[Any] = Block

    def __init__(self, c: Config) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.layers = [self.layer(c, i) for i in range(c.num_hidden_layers)]
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
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
