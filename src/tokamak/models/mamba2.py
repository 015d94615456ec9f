"""Mamba 2: a state space with one decay per head; gate, input, B, C and dt from one projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, mamba
from tokamak.nn import Linear, Module, Param, RMSNorm, Step


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and constants, named as in Hugging Face configurations."""

    hidden_size: int
    num_hidden_layers: int
    vocab_size: int
    rms_norm_eps: float
    mamba_inner_size: int
    mamba_n_heads: int
    mamba_n_groups: int
    state_size: int
    conv_kernel: int
    tie_word_embeddings: bool = False


class Mixer(Module):
    """norm(silu(gate) * y), group by group, before the output projection."""

    def __init__(self, c: Any) -> None:
        self.c, inner, heads = c, c.mamba_inner_size, c.mamba_n_heads
        self.shared = c.mamba_n_groups * c.state_size  # columns of B, and of C
        self.in_proj = Linear(c.hidden_size, 2 * inner + 2 * self.shared + heads)
        self.conv1d = mamba.Conv(inner + 2 * self.shared, c.conv_kernel)
        self.dt_bias, self.A, self.D = Param(heads), Param(heads, 1), Param(heads)
        self.norm = Param(c.mamba_n_groups, inner // c.mamba_n_groups, optional=True)
        self.out_proj = Linear(inner, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        c, inner, shared, heads = self.c, self.c.mamba_inner_size, self.shared, self.c.mamba_n_heads
        all_ = self.in_proj(x)
        gate = ops.columns(all_, start=0, stop=inner)
        mixed = ops.columns(all_, start=inner, stop=2 * inner + 2 * shared)
        dt = ops.columns(all_, start=2 * inner + 2 * shared, stop=2 * inner + 2 * shared + heads)
        ones = step.const(f"ones.{heads}", np.ones(heads, np.float32))
        h = self.conv1d(mixed, step)
        inputs = ops.split_heads(ops.columns(h, start=0, stop=inner), heads=heads)
        b, c_ = (
            ops.split_heads(ops.columns(h, start=start, stop=start + shared), heads=c.mamba_n_groups)
            for start in (inner, inner + shared)
        )
        dt = ops.affine(dt, ones, self.dt_bias.value)
        state = step.recall(heads, inner // heads, c.state_size)
        y = ops.merge_heads(ops.scan(inputs, dt, self.A.value, b, c_, self.D.value, *state))
        y = ops.mul(ops.silu(gate), y)
        if self.norm.bound:
            groups = mamba.plain_norm(ops.split_heads(y, heads=c.mamba_n_groups), c.rms_norm_eps)
            y = ops.merge_heads(ops.affine(groups, self.norm.value))
        return self.out_proj(y)


class Block(Module):
    def __init__(self, c: Config) -> None:
        self.norm, self.mixer = RMSNorm(c.hidden_size, c.rms_norm_eps), Mixer(c)

    def forward(self, x: Value, step: Step) -> Value:
        return ops.add(self.mixer(self.norm(x), step), x)


class Mamba2(llama.Llama):
    block = Block
