"""Nemotron-H: every layer is one branch behind a norm, Mamba 2, attention that does not turn, or relu^2 between two matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import falcon_h1, llama, mamba2
from tokamak.nn import MLP, Module, RMSNorm, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(falcon_h1.Config):
    """Sizes and constants; what each layer is, by the tensors it has."""

    has_mamba: tuple[bool, ...]
    has_attention: tuple[bool, ...]


class Block(Module):
    def __init__(self, c: Config, index: int) -> None:
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mamba = mamba2.Mixer(c) if c.has_mamba[index] else None
        self.self_attn: Any = None
        self.mlp: Any = None
        if c.has_attention[index]:
            self.self_attn = llama.Attention(c)
            self.self_attn.rope = None
        elif not self.mamba:
            self.mlp = MLP(c.hidden_size, c.intermediate_size, "relu2")

    def forward(self, x: Value, step: Step) -> Value:
        h = self.input_layernorm(x)
        if self.mlp:
            return ops.add(self.mlp(h), x)
        return ops.add((self.mamba or self.self_attn)(h, step), x)


class NemotronH(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        return Block(c, index)
