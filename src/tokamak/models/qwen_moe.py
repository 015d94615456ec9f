"""Qwen 2 MoE: experts beside a feed-forward that every row uses, behind a gate. Qwen 3 MoE: experts alone.

Weights of the chosen experts are normalised in Qwen 3 only. The experts have a width of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, mixtral, qwen3
from tokamak.nn import GatedMLP, Linear, Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(mixtral.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    moe_intermediate_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedConfig(Config):
    """The same with the width of the feed-forward that every row uses."""

    shared_expert_intermediate_size: int


class SharedMLP(mixtral.SparseMLP):
    """Experts, plus sigmoid(gate x) times the shared feed-forward."""

    def __init__(self, c: SharedConfig, *, normed: bool = False) -> None:
        super().__init__(c, c.moe_intermediate_size, normed=normed)
        self.shared_expert = GatedMLP(c.hidden_size, c.shared_expert_intermediate_size)
        self.shared_expert_gate = Linear(c.hidden_size, 1)

    def forward(self, x: Value) -> Value:
        shared = ops.sigmoid_mul(self.shared_expert(x), self.shared_expert_gate(x))
        return ops.add(super().forward(x), shared)


class SharedBlock(llama.Block):
    def feed_forward(self, c: SharedConfig) -> Module:  # type: ignore[override]  # of this family's blocks
        return SharedMLP(c)


class Block(qwen3.Block):
    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return mixtral.SparseMLP(c, c.moe_intermediate_size, normed=True)


class Qwen2Moe(llama.Llama):
    block = SharedBlock


class Qwen3Moe(qwen3.Qwen3):
    block = Block
