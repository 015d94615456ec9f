"""MiniMax M2: OLMo 2's norms over all heads of a projection, partial rope, sigmoid routing in every layer."""

from __future__ import annotations

from tokamak.models import llama, olmo2
from tokamak.models.moe import Routed, RoutedConfig
from tokamak.nn import Module

__all__ = ["MiniMaxM2", "RoutedConfig"]


class Block(llama.Block):
    attention = olmo2.Attention

    def feed_forward(self, c: RoutedConfig) -> Module:  # type: ignore[override]  # of this family's blocks
        return Routed(c)


class MiniMaxM2(llama.Llama):
    block = Block
