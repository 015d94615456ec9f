"""Command-R: attention and feed-forward in parallel behind one layer norm without bias, scaled logits, tied head."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import phi
from tokamak.nn import GatedMLP, Module, Step


@dataclass(frozen=True, slots=True)
class Config(phi.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    logit_scale: float = 1.0


class Block(phi.Block):
    def feed_forward(self, c: phi.Config) -> Module:
        return GatedMLP(c.hidden_size, c.intermediate_size)


class CommandR(phi.Phi):
    block = Block

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.factor = c.logit_scale

    def forward(self, step: Step) -> Value:
        return ops.scale(super().forward(step), factor=self.factor)
