"""DeepSeek 1, Bailing (Ling) 1, ERNIE 4.5 MoE: Llama with dense layers first, then routed and shared experts."""

from __future__ import annotations

from tokamak.models import llama
from tokamak.models.moe import Routed, RoutedConfig
from tokamak.nn import Module

__all__ = ["DeepSeek", "RoutedConfig"]


class Block(llama.Block):
    def feed_forward(self, c: RoutedConfig) -> Module:  # type: ignore[override]  # of this family's blocks
        return Routed(c)


class DeepSeek(llama.Llama):
    def layer(self, c: RoutedConfig, index: int) -> Module:
        return llama.Block(c) if index < c.first_k_dense_replace else Block(c)
