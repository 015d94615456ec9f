"""Nomic BERT: BERT with rope instead of positions and a gated feed-forward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokamak.ir.graph import Value
from tokamak.models import bert
from tokamak.models.config import Rope
from tokamak.models.rope import rotate
from tokamak.nn import GatedMLP, Module, Step


@dataclass(frozen=True, slots=True)
class Config(bert.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    rope: Rope = field(default_factory=Rope)


class Attention(bert.Attention):
    c: Config

    def turn(self, q: Value, k: Value, step: Step) -> tuple[Value, Value]:
        q, k = rotate(step, self.c.rope, self.c.head_dim, q, k)
        return q, k


class Block(bert.Block):
    def parts(self, c: Any) -> tuple[bert.Attention, Module]:
        return Attention(c), GatedMLP(c.hidden_size, c.intermediate_size)


class NomicBert(bert.Bert):
    block = Block
