"""Jais: BLOOM's positions, silu gates, scores divided by head_dim."""

from __future__ import annotations

from tokamak.ir.graph import Value
from tokamak.models import bloom, gpt2, mpt
from tokamak.models.mpt import Config
from tokamak.models.rope import slopes
from tokamak.nn import GatedMLP, Module, Step

__all__ = ["Config", "Jais"]


class Attention(mpt.Attention):
    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        return step.attend(q, k, v, scale=1 / self.c.head_dim, slopes=slopes(step, q, self.c.alibi_bias_max))


class Block(gpt2.Block):
    attention = Attention

    def feed_forward(self, c: Config) -> Module:
        return GatedMLP(c.hidden_size, c.intermediate_size)


class Jais(bloom.Bloom):
    block = Block
