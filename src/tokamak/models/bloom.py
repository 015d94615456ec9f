"""BLOOM: GPT-2 whose positions are slopes on the scores, with a norm on the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import gpt2
from tokamak.models.rope import slopes
from tokamak.nn import Embedding, LayerNorm, Linear, Module, Step


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
    tie_word_embeddings: bool = False


class Attention(gpt2.Attention):
    """Scores fall with distance, at another rate for each head."""

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        return step.attend(q, k, v, scale=self.c.head_dim**-0.5, slopes=slopes(step, q))


class Block(gpt2.Block):
    attention = Attention


class Bloom(Module):
    """Embedding, its norm, blocks, final norm, head."""

    block: type[Any] = Block

    def __init__(self, c: Any) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.embed_norm = LayerNorm(c.hidden_size, c.layer_norm_eps, optional=True)
        self.layers = [self.block(c) for _ in range(c.num_hidden_layers)]
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.lm_head = None if c.tie_word_embeddings else Linear(c.hidden_size, c.vocab_size)

    def forward(self, step: Step) -> Value:
        x = self.embed_tokens(step.token_ids)
        if self.embed_norm.weight.bound:
            x = self.embed_norm(x)
        for layer in self.layers:
            x = layer(x, step)
        return (self.lm_head or self.embed_tokens.as_linear)(ops.take_rows(self.norm(x), step.logit_rows))
