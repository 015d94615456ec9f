"""What brings the rows of an image encoder into a decoder: one row in, as a vector, one row out.

Where neighbouring patches are merged, they come side by side as one row: see `engine/vision.py`.
"""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models.clip import Config
from tokamak.nn import LayerNorm, Linear, Module, Step


class Projector(Module):
    """LLaVA: linear, act, linear."""

    def __init__(self, c: Config) -> None:
        self.width, self.act = c.hidden_size * c.merged, c.projector_act
        self.linear_1 = Linear(self.width, c.projector_size)
        self.linear_2 = Linear(c.projector_size, c.projected_size)

    def forward(self, step: Step) -> Value:
        return ops.take_rows(self.project(step.given(self.width)), step.logit_rows)

    def project(self, x: Value) -> Value:
        """[T, width] -> [T, projected_size]."""
        hidden: Value = getattr(ops, self.act)(self.linear_1(x))
        return self.linear_2(hidden)


class NormedProjector(Projector):
    """InternVL: the same behind a norm."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.norm = LayerNorm(self.width, 1e-5)

    def project(self, x: Value) -> Value:
        return super().project(self.norm(x))
