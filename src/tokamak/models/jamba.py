"""Jamba: layers of Mamba with norms on dt, B and C, a few of attention without rope; experts in some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir.graph import Value
from tokamak.models import llama, mamba, mixtral
from tokamak.nn import Module, RMSNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(mixtral.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    layer_types: tuple[str, ...]
    has_experts: tuple[bool, ...]  # of each layer
    mamba_inner_size: int
    state_size: int
    conv_kernel: int
    time_step_rank: int


@dataclass(frozen=True, slots=True)
class Inner:
    """What a Mamba mixer asks for."""

    hidden_size: int
    intermediate_size: int
    state_size: int
    conv_kernel: int
    time_step_rank: int


class Mixer(mamba.Mixer):
    def __init__(self, c: Config) -> None:
        sizes = (c.hidden_size, c.mamba_inner_size, c.state_size, c.conv_kernel, c.time_step_rank)
        super().__init__(Inner(*sizes))
        self.dt_norm = RMSNorm(c.time_step_rank, c.rms_norm_eps)
        self.b_norm, self.c_norm = (RMSNorm(c.state_size, c.rms_norm_eps) for _ in range(2))

    def normed(self, *parts: Value) -> tuple[Value, ...]:
        dt, b, c = parts
        return self.dt_norm(dt), self.b_norm(b), self.c_norm(c)


class Block(llama.Block):
    """The branch that mixes rows is called self_attn in every layer."""

    def __init__(self, c: Config, index: int) -> None:
        super().__init__(c)
        self.self_attn: Any = Mixer(c)
        if c.layer_types[index] == "full_attention":
            self.self_attn = llama.Attention(c)
            self.self_attn.rope = None
        if c.has_experts[index]:
            self.mlp: Module = mixtral.SparseMLP(c, c.intermediate_size, normed=False)


class Jamba(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        return Block(c, index)
