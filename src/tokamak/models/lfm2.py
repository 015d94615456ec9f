"""LFM 2: layers of short convolutions, a few of attention with head norms; the MoE form has experts after the first layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, qwen3
from tokamak.models.moe import Routed, RoutedConfig
from tokamak.nn import Linear, Module, Param, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    layer_types: tuple[str, ...]
    conv_taps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig(RoutedConfig):
    """The same with experts."""

    layer_types: tuple[str, ...]
    conv_taps: int


class ShortConv(Module):
    """out(c * conv(b * x)), where b, c and x come from one projection."""

    def __init__(self, c: Any) -> None:
        self.size = c.hidden_size
        self.in_proj = Linear(c.hidden_size, 3 * c.hidden_size)
        self.conv = Param(c.hidden_size, c.conv_taps)
        self.out_proj = Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        size, taps = self.conv.shape
        b, c, y = (
            ops.columns(all_, start=i * size, stop=(i + 1) * size)
            for all_ in [self.in_proj(x)]
            for i in range(3)
        )
        y = ops.causal_conv(ops.mul(b, y), self.conv.value, *step.recall(taps - 1, size))
        return self.out_proj(ops.mul(c, y))


class Block(llama.Block):
    """The branch that mixes rows is called self_attn in every layer."""

    def __init__(self, c: Any, index: int) -> None:
        super().__init__(c)
        attends = c.layer_types[index] == "full_attention"
        self.self_attn: Any = qwen3.Attention(c) if attends else ShortConv(c)
        if hasattr(c, "num_experts") and index >= c.first_k_dense_replace:
            self.mlp: Module = Routed(c)


class Lfm2(llama.Llama):
    def layer(self, c: Any, index: int) -> Module:
        return Block(c, index)
