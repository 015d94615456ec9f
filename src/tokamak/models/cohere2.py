"""Cohere 2 (Command R7B): Command-R in which three layers see a window and turn, the fourth sees all and does not turn."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.models import command_r
from tokamak.nn import Module


@dataclass(frozen=True, slots=True)
class Config(command_r.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    sliding_window_pattern: int = 4


class Cohere2(command_r.CommandR):
    def layer(self, c: Config, index: int) -> Module:
        block = command_r.Block(c)
        if (index + 1) % c.sliding_window_pattern == 0:
            block.self_attn.rope, block.self_attn.window = None, 0
        return block
