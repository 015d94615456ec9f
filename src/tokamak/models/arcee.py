"""Arcee: Llama whose feed-forward is relu^2 between two matrices, without a gate."""

from __future__ import annotations

from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.nn import MLP, Module

__all__ = ["Arcee", "Config"]


class Block(llama.Block):
    def feed_forward(self, c: Config) -> Module:
        return MLP(c.hidden_size, c.intermediate_size, "relu2")


class Arcee(llama.Llama):
    block = Block
