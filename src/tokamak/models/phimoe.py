"""Phi-3.5 MoE: StableLM with biases whose feed-forward is two of many experts, chosen one after the other (sparsemixer)."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir.graph import Value
from tokamak.models import phi, stablelm
from tokamak.nn import Experts, Module, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(phi.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    num_experts: int
    num_experts_per_tok: int


class SparseMLP(Module):
    def __init__(self, c: Config) -> None:
        used = c.num_experts_per_tok
        self.gate = Router(c.hidden_size, c.num_experts, num_used=used, score="sparsemixer")
        self.experts = Experts(c.hidden_size, c.intermediate_size, c.num_experts, num_used=used)

    def forward(self, x: Value) -> Value:
        return self.experts(x, self.gate(x))


class Block(stablelm.Block):
    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return SparseMLP(c)


class PhiMoe(phi.Phi):
    block = Block
