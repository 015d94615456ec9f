"""OLMoE: OLMo 2's normed queries and keys in a pre-norm block; experts whose weights are not normalised."""

from __future__ import annotations

from tokamak.models import llama, mixtral, olmo2
from tokamak.models.mixtral import Config
from tokamak.nn import Module

__all__ = ["Config", "Olmoe"]


class Block(llama.Block):
    attention = olmo2.Attention

    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return mixtral.SparseMLP(c, c.intermediate_size, normed=False)


class Olmoe(llama.Llama):
    block = Block
