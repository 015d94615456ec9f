"""RWKV 6 (Finch): a matrix per head that decays by what the row says, and mixes of each row with the one before.

Time mixing moves between rows, channel mixing is the feed-forward. Source: Peng et al. 2024, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import rwkv
from tokamak.nn import LayerNorm, Linear, Module, Param, Step

GROUP_EPS = 64e-5  # of the norm over each head


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and constants."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int
    layer_norm_eps: float
    head_size: int
    time_mix_extra_dim: int
    time_decay_extra_dim: int


class TimeMix(Module):
    """Five mixes of a row with the one before feed decay, key, value, receptance and gate."""

    def __init__(self, c: Config) -> None:
        self.c, d = c, c.hidden_size
        self.lerp_x, self.lerp = Param(d), Param(5, d)
        self.w1, self.w2 = Linear(d, 5 * c.time_mix_extra_dim), Param(5, d, c.time_mix_extra_dim)
        self.decay, self.first = Param(d), Param(d // c.head_size, c.head_size)
        self.decay_w1 = Linear(d, c.time_decay_extra_dim)
        self.decay_w2 = Linear(c.time_decay_extra_dim, d)
        self.receptance, self.key, self.value, self.gate, self.output = (Linear(d, d) for _ in range(5))
        self.ln_weight, self.ln_bias = Param(d), Param(d)

    def forward(self, x: Value, step: Step) -> Value:
        c, d = self.c, self.c.hidden_size
        heads, ones = d // c.head_size, step.const(f"ones.{d}", np.ones(d, np.float32))
        change = rwkv.moved(x, step)
        mixed = ops.add(ops.affine(change, self.lerp_x.value), x)
        fine = ops.split_heads(ops.softcap(self.w1(mixed), cap=1.0), heads=5)  # tanh
        shares = ops.affine(
            ops.heads_linear(fine, self.w2.value),
            step.const(f"ones.5x{d}", np.ones((5, d), np.float32)),
            self.lerp.value,
        )
        flat = ops.merge_heads(shares)
        xw, xk, xv, xr, xg = (
            ops.add(ops.mul(change, ops.columns(flat, start=i * d, stop=(i + 1) * d)), x) for i in range(5)
        )
        decay = ops.affine(self.decay_w2(ops.softcap(self.decay_w1(xw), cap=1.0)), ones, self.decay.value)
        r, k, v, w = (
            ops.split_heads(y, heads=heads)
            for y in (self.receptance(xr), self.key(xk), self.value(xv), decay)
        )
        state = step.recall(heads, c.head_size, c.head_size)
        y = ops.linear_attention(r, k, v, w, *state, self.first.value, rule="bonus")
        y = rwkv.per_head_norm(y, self.ln_weight.value, self.ln_bias.value, eps=GROUP_EPS)
        return self.output(ops.mul(ops.silu(self.gate(xg)), y))


class ChannelMix(Module):
    """sigmoid(receptance) * value(relu^2(key)), of mixes with the row before."""

    def __init__(self, c: Any) -> None:
        d, inner = c.hidden_size, c.intermediate_size
        self.lerp_k, self.lerp_r = Param(d), Param(d)
        self.key, self.value, self.receptance = Linear(d, inner), Linear(inner, d), Linear(d, d)

    def forward(self, x: Value, step: Step) -> Value:
        change = rwkv.moved(x, step)
        xk, xr = (ops.add(ops.affine(change, p.value), x) for p in (self.lerp_k, self.lerp_r))
        return ops.sigmoid_mul(self.value(ops.relu2(self.key(xk))), self.receptance(xr))


class Block(Module):
    def __init__(self, c: Config) -> None:
        self.ln1, self.ln2 = (LayerNorm(c.hidden_size, c.layer_norm_eps) for _ in range(2))
        self.time_mix, self.channel_mix = TimeMix(c), ChannelMix(c)

    def forward(self, x: Value, step: Step, _values: list[Value]) -> Value:
        x = ops.add(self.time_mix(self.ln1(x), step), x)
        return ops.add(self.channel_mix(self.ln2(x), step), x)


class Rwkv6(rwkv.Rwkv):
    def layer(self, c: Any, _index: int) -> Module:
        return Block(c)
