"""Mamba 1 and Falcon-Mamba: a selective state space instead of attention; Falcon-Mamba norms dt, B and C."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.nn import Linear, Module, Param, RMSNorm, Step


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and constants, named as in Hugging Face configurations."""

    hidden_size: int
    num_hidden_layers: int
    vocab_size: int
    rms_norm_eps: float
    intermediate_size: int  # channels of the state space
    state_size: int
    conv_kernel: int
    time_step_rank: int
    use_mixer_norms: bool = False  # of dt, B and C, without weights
    tie_word_embeddings: bool = False


class Conv(Module):
    """Causal convolution over each channel, then silu."""

    def __init__(self, channels: int, taps: int) -> None:
        self.weight, self.bias = Param(channels, taps), Param(channels, optional=True)

    def forward(self, x: Value, step: Step) -> Value:
        channels, taps = self.weight.shape
        biases = (self.bias.bound,) if self.bias.bound else ()
        return ops.causal_conv(x, self.weight.value, *step.recall(taps - 1, channels), *biases, act="silu")


class Mixer(Module):
    """Gate and input from one projection; dt, B and C from the convolved input."""

    def __init__(self, c: Any) -> None:
        self.c, inner = c, c.intermediate_size
        self.in_proj = Linear(c.hidden_size, 2 * inner)
        self.conv1d = Conv(inner, c.conv_kernel)
        self.x_proj = Linear(inner, c.time_step_rank + 2 * c.state_size)
        self.dt_proj = Linear(c.time_step_rank, inner)
        self.A, self.D = Param(inner, c.state_size), Param(inner)
        self.out_proj = Linear(inner, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        c, inner, n = self.c, self.c.intermediate_size, self.c.state_size
        both = self.in_proj(x)
        h = self.conv1d(ops.columns(both, start=0, stop=inner), step)
        gate = ops.columns(both, start=inner, stop=2 * inner)
        fine = self.x_proj(h)
        ends = (0, c.time_step_rank, c.time_step_rank + n, c.time_step_rank + 2 * n)
        parts = [ops.columns(fine, start=a, stop=b) for a, b in pairwise(ends)]
        dt, b, c_ = self.normed(*parts)
        inputs = (ops.split_heads(h, heads=inner), self.dt_proj(dt), self.A.value)
        b, c_ = (ops.split_heads(v, heads=1) for v in (b, c_))
        y = ops.scan(*inputs, b, c_, self.D.value, *step.recall(inner, 1, n))
        return self.out_proj(ops.mul(ops.silu(gate), ops.merge_heads(y)))

    def normed(self, *parts: Value) -> tuple[Value, ...]:
        """dt, B and C; families norm them."""
        if not getattr(self.c, "use_mixer_norms", False):
            return parts
        return tuple(plain_norm(v, self.c.rms_norm_eps) for v in parts)


def plain_norm(x: Value, eps: float, factor: float = 1.0) -> Value:
    """Root mean square norm over the last axis, times a constant."""
    size = x.type.tail[-1]
    return ops.rms_norm(
        x, x.graph.const(f"norm.{size}.{factor:.9g}", np.full(size, factor, np.float32)), eps=eps
    )


class Block(Module):
    def __init__(self, c: Config) -> None:
        self.norm, self.mixer = RMSNorm(c.hidden_size, c.rms_norm_eps), Mixer(c)

    def forward(self, x: Value, step: Step) -> Value:
        return ops.add(self.mixer(self.norm(x), step), x)


class Mamba(llama.Llama):
    block = Block
