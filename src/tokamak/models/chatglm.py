"""ChatGLM 2 and 3, GLM-4-9B: Llama with gate and up in one matrix; half of each head turns."""

from __future__ import annotations

from tokamak.models import llama, phi3
from tokamak.models.llama import Config
from tokamak.nn import Module

__all__ = ["ChatGLM", "Config"]


class Block(llama.Block):
    def feed_forward(self, c: Config) -> Module:
        return phi3.MLP(c)


class ChatGLM(llama.Llama):
    block = Block
