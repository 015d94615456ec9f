"""Hunyuan, dense and MoE: Qwen 3 whose head norms come after rope; the MoE has a feed-forward that every row uses."""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, mixtral, qwen3
from tokamak.models.qwen_moe import SharedConfig
from tokamak.nn import GatedMLP, Module, Step

__all__ = ["Hunyuan", "HunyuanMoe", "SharedConfig"]


class Attention(qwen3.Attention):
    """Rope, then norms over head_dim."""

    def turned(self, step: Step, q: Value, k: Value) -> tuple[Value, Value]:
        return super().normed(*super().turned(step, q, k))

    def normed(self, q: Value, k: Value) -> tuple[Value, Value]:
        return q, k


class Block(llama.Block):
    attention = Attention


class Hunyuan(llama.Llama):
    block = Block


class SharedMLP(mixtral.SparseMLP):
    """Experts and a feed-forward beside them, added up."""

    def __init__(self, c: SharedConfig) -> None:
        super().__init__(c, c.moe_intermediate_size, normed=True)
        self.shared_mlp = GatedMLP(c.hidden_size, c.shared_expert_intermediate_size)

    def forward(self, x: Value) -> Value:
        return ops.add(super().forward(x), self.shared_mlp(x))


class MoeBlock(Block):
    def feed_forward(self, c: SharedConfig) -> Module:  # type: ignore[override]  # of this family's blocks
        return SharedMLP(c)


class HunyuanMoe(llama.Llama):
    block = MoeBlock
