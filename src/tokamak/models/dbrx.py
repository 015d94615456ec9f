"""DBRX: layer norms without bias, clipped q, k and v in one matrix, experts."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import mixtral, phi, phi3, stablelm
from tokamak.nn import Linear, Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(phi.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    num_experts: int
    num_experts_per_tok: int
    clip_qkv: float = 0.0  # 0: no limit


class ClippedLinear(Linear):
    """A projection limited to [-limit, limit]."""

    def __init__(self, inputs: int, outputs: int, limit: float) -> None:
        super().__init__(inputs, outputs)
        self.limit = limit

    def forward(self, x: Value) -> Value:
        y = super().forward(x)
        return ops.clip(y, limit=self.limit) if self.limit else y


class Attention(phi3.Attention):
    def __init__(self, c: Config) -> None:
        super().__init__(c)
        rows = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim
        self.qkv_proj = ClippedLinear(c.hidden_size, rows, c.clip_qkv)


class Block(stablelm.Block):
    attention = Attention

    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return mixtral.SparseMLP(c, c.intermediate_size, normed=True)  # type: ignore[arg-type]  # has the counts


class Dbrx(phi.Phi):
    block = Block
