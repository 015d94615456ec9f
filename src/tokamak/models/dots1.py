"""dots.llm1, GLM-4.5, Bailing 2: DeepSeek's feed-forwards behind Qwen 3's attention, whose head norms may be absent."""

from __future__ import annotations

from tokamak.ir.graph import Value
from tokamak.models import llama, qwen3
from tokamak.models.moe import Routed, RoutedConfig
from tokamak.nn import Module, RMSNorm

__all__ = ["Dots1", "RoutedConfig"]


class Attention(qwen3.Attention):
    def __init__(self, c: RoutedConfig) -> None:
        super().__init__(c)
        self.q_norm, self.k_norm = (RMSNorm(c.head_dim, c.rms_norm_eps, optional=True) for _ in range(2))

    def normed(self, q: Value, k: Value) -> tuple[Value, Value]:
        return super().normed(q, k) if self.q_norm.weight.bound else (q, k)


class DenseBlock(llama.Block):
    attention = Attention


class Block(DenseBlock):
    def feed_forward(self, c: RoutedConfig) -> Module:  # type: ignore[override]  # of this family's blocks
        return Routed(c)


class Dots1(llama.Llama):
    def layer(self, c: RoutedConfig, index: int) -> Module:
        return DenseBlock(c) if index < c.first_k_dense_replace else Block(c)
