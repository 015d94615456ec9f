"""Gemma 1: Llama with a scaled embedding and gelu gates; norms multiply by 1 + weight, which GGUF files hold added up."""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.nn import Embedding, GatedMLP, Module

__all__ = ["Config", "Gemma", "ScaledEmbedding"]


class ScaledEmbedding(Embedding):
    """Rows times sqrt(hidden_size); as an output projection unscaled."""

    def forward(self, ids: Value) -> Value:
        return ops.scale(super().forward(ids), factor=float(self.weight.shape[1]) ** 0.5)


class Block(llama.Block):
    def feed_forward(self, c: Config) -> Module:
        return GatedMLP(c.hidden_size, c.intermediate_size, "gelu")


class Gemma(llama.Llama):
    block = Block

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.embed_tokens = ScaledEmbedding(c.vocab_size, c.hidden_size)
