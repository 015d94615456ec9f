"""Nemotron and Jais 2: StableLM whose feed-forward is relu^2 between two matrices. GGUF files hold Nemotron's norms as 1 + weight."""

from __future__ import annotations

from tokamak.models import phi, stablelm
from tokamak.models.phi import Config
from tokamak.nn import MLP, Module

__all__ = ["Config", "Nemotron"]


class Block(stablelm.Block):
    def feed_forward(self, c: Config) -> Module:
        return MLP(c.hidden_size, c.intermediate_size, "relu2")


class Nemotron(phi.Phi):
    block = Block
