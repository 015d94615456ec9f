"""BERT, RoBERTa and XLM-R: an encoder with learned positions, norms after each residual, and heads for ranking.

Segment ids are 0 throughout, as llama.cpp has it.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    num_positions: int = 0
    type_vocab_size: int = 0
    num_labels: int = 0
    tie_word_embeddings: bool = False


class Attention(Module):
    """Every token sees every other."""

    def __init__(self, c: Config) -> None:
        self.c = c
        width = c.num_attention_heads * c.head_dim
        self.q_proj, self.k_proj, self.v_proj = (Linear(c.hidden_size, width) for _ in range(3))
        self.o_proj = Linear(width, c.hidden_size)

    def turn(self, q: Value, k: Value, step: Step) -> tuple[Value, Value]:  # noqa: ARG002
        """Positions are in the embedding."""
        return q, k

    def forward(self, x: Value, step: Step) -> Value:
        heads = self.c.num_attention_heads
        q, k, v = (ops.split_heads(p(x), heads=heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.turn(q, k, step)
        return self.o_proj(ops.merge_heads(step.attend(q, k, v, scale=self.c.head_dim**-0.5, causal=False)))


class Block(Module):
    """Work, add, norm, twice."""

    def __init__(self, c: Config) -> None:
        self.self_attn, self.mlp = self.parts(c)
        self.attention_norm, self.output_norm = (LayerNorm(c.hidden_size, c.layer_norm_eps) for _ in range(2))

    def parts(self, c: Config) -> tuple[Attention, Module]:
        """What this family is made of."""
        return Attention(c), MLP(c.hidden_size, c.intermediate_size, "gelu_erf")

    def forward(self, x: Value, step: Step) -> Value:
        x = self.attention_norm(ops.add(self.self_attn(x, step), x))
        return self.output_norm(ops.add(self.mlp(x), x))


class Classifier(Module):
    """out(tanh(dense x)) of each row; the first token's counts."""

    def __init__(self, c: Config) -> None:
        self.dense = Linear(c.hidden_size, c.hidden_size)
        self.out_proj = Linear(c.hidden_size, c.num_labels)

    def forward(self, x: Value) -> Value:
        return self.out_proj(ops.softcap(self.dense(x), cap=1.0))


class Bert(Module):
    """Embeddings, norm, blocks; the hidden states of the rows asked for, or their scores where there is a classifier."""

    block: type[Block] = Block

    def __init__(self, c: Config) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.embed_positions = Embedding(c.num_positions, c.hidden_size) if c.num_positions else None
        self.token_types = Embedding(c.type_vocab_size, c.hidden_size) if c.type_vocab_size else None
        self.embed_norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.layers = [self.block(c) for _ in range(c.num_hidden_layers)]
        self.classifier = Classifier(c) if c.num_labels else None

    def forward(self, step: Step) -> Value:
        x = self.embed_tokens(step.token_ids)
        if self.token_types:
            x = ops.add(self.token_types.only(step.token_ids, 0), x)
        if self.embed_positions:
            x = ops.add(self.embed_positions(step.positions), x)
        x = self.embed_norm(x)
        for layer in self.layers:
            x = layer(x, step)
        x = ops.take_rows(x, step.logit_rows)
        return self.classifier(x) if self.classifier else x
