"""Mixtral: Llama whose feed-forward is several, of which a router chooses two for each row."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.nn import Experts, Module, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    num_experts: int
    num_experts_per_tok: int


class SparseMLP(Module):
    """The router and its experts. normed: the weights of the chosen experts add up to one."""

    def __init__(self, c: Config, intermediate_size: int, *, normed: bool) -> None:
        used = c.num_experts_per_tok
        self.gate = Router(c.hidden_size, c.num_experts, num_used=used, normed=int(normed))
        self.experts = Experts(c.hidden_size, intermediate_size, c.num_experts, num_used=used)

    def forward(self, x: Value) -> Value:
        return self.experts(x, self.gate(x))


class Block(llama.Block):
    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return SparseMLP(c, c.intermediate_size, normed=True)


class Mixtral(llama.Llama):
    block = Block
