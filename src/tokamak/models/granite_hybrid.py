"""Granite 4 hybrid: Granite MoE whose layers are Mamba 2 or attention, which may not turn; a feed-forward that every row uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import granite, llama, mamba2, mixtral
from tokamak.nn import GatedMLP, Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(granite.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    layer_types: tuple[str, ...]
    num_experts: int = 0
    num_experts_per_tok: int = 0
    shared_intermediate_size: int = 0
    use_rope: bool = True
    mamba_inner_size: int
    mamba_n_heads: int
    mamba_n_groups: int
    state_size: int
    conv_kernel: int


class SharedMLP(Module):
    """Experts plus a feed-forward that every row uses."""

    def __init__(self, c: Any) -> None:
        self.routed = mixtral.SparseMLP(c, c.intermediate_size, normed=True)
        self.shared_mlp = GatedMLP(c.hidden_size, c.shared_intermediate_size)

    def forward(self, x: Value) -> Value:
        return ops.add(self.routed(x), self.shared_mlp(x))


class Block(granite.Block):
    """The branch that mixes rows is called self_attn in every layer."""

    def __init__(self, c: Config, index: int) -> None:
        super().__init__(c)
        self.self_attn: Any = mamba2.Mixer(c)
        if c.layer_types[index] == "full_attention":
            self.self_attn = llama.Attention(c)
            self.self_attn.rope = c.rope if c.use_rope else None
        if c.num_experts:
            self.mlp: Module = SharedMLP(c)


class GraniteHybrid(granite.Granite):
    def layer(self, c: Config, index: int) -> Module:
        return Block(c, index)
