"""RWKV 7 (Goose): the matrix of a head forgets along one direction of its own choice and learns another, row by row.

Values of later layers lean towards those of the first. Source: Peng et al. 2025, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import mamba, rwkv
from tokamak.nn import LayerNorm, Linear, Module, Param, Step

GROUP_EPS, UNIT_EPS = 64e-5, 1e-12  # of each head's norm; of the direction that is forgotten
SLOWEST = -0.606531  # -exp(-1/2): the logarithm of the smallest factor


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and constants; ranks of the small matrices by what they make."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int
    layer_norm_eps: float
    head_size: int
    decay_rank: int
    learning_rank: int
    value_rank: int
    gate_rank: int


class Small(Module):
    """bias + second(first(x)) through a few columns."""

    def __init__(self, size: int, rank: int, *, tanh: bool = False) -> None:
        self.first, self.second = Linear(size, rank), Linear(rank, size)
        self.bias, self.tanh = Param(size), tanh

    def forward(self, x: Value) -> Value:
        h, d = self.first(x), self.bias.shape[0]
        ones = x.graph.const(f"ones.{d}", np.ones(d, np.float32))
        return ops.affine(self.second(ops.softcap(h, cap=1.0) if self.tanh else h), ones, self.bias.value)


class TimeMix(Module):
    """Mixes of a row with the one before feed receptance, decay, key, value, learning rate and gate."""

    def __init__(self, c: Config, index: int) -> None:
        self.c, d = c, c.hidden_size
        self.lerp_r, self.lerp_w, self.lerp_k = (Param(d) for _ in range(3))
        self.lerp_v, self.lerp_a, self.lerp_g = (Param(d) for _ in range(3))
        self.decay, self.rate = Small(d, c.decay_rank, tanh=True), Small(d, c.learning_rank)
        self.lean = Small(d, c.value_rank) if index else None
        self.gate1, self.gate2 = Linear(d, c.gate_rank), Linear(c.gate_rank, d)
        self.k_k, self.k_a, self.r_k = (Param(d) for _ in range(3))
        self.receptance, self.key, self.value, self.output = (Linear(d, d) for _ in range(4))
        self.ln_weight, self.ln_bias = Param(d), Param(d)

    def forward(self, x: Value, step: Step, values: list[Value]) -> Value:
        c, heads, change = self.c, self.c.hidden_size // self.c.head_size, rwkv.moved(x, step)
        xr, xw, xk, xv, xa, xg = (
            ops.add(ops.affine(change, p.value), x)
            for p in (self.lerp_r, self.lerp_w, self.lerp_k, self.lerp_v, self.lerp_a, self.lerp_g)
        )
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        if self.lean:
            v = ops.add(ops.sigmoid_mul(rwkv.difference(values[0], v), self.lean(xv)), v)
        values.append(v)
        rate, forgotten = ops.sigmoid(self.rate(xa)), ops.affine(k, self.k_k.value)
        forgotten = ops.split_heads(forgotten, heads=heads)
        forgotten = mamba.plain_norm(forgotten, UNIT_EPS / c.head_size, c.head_size**-0.5)
        k = ops.add(ops.affine(rwkv.difference(ops.mul(k, rate), k), self.k_a.value), k)
        decay = ops.scale(ops.sigmoid(self.decay(xw)), factor=SLOWEST)
        r_h, k_h, v_h, w_h, rate_h = (ops.split_heads(y, heads=heads) for y in (r, k, v, decay, rate))
        learned = ops.mul(forgotten, rate_h)
        state, away = step.recall(heads, c.head_size, c.head_size), ops.scale(forgotten, factor=-1.0)
        y = ops.linear_attention(r_h, k_h, v_h, w_h, *state, away, learned, rule="removal")
        y = rwkv.per_head_norm(y, self.ln_weight.value, self.ln_bias.value, eps=GROUP_EPS)
        own = ops.split_heads(ops.affine(ops.mul(r, k), self.r_k.value), heads=heads)
        ones = np.ones((heads, c.head_size, c.head_size), np.float32)  # sums each head into all its columns
        own = ops.heads_linear(own, step.const(f"sums.{heads}", ones))
        y = ops.add(ops.merge_heads(ops.mul(own, v_h)), y)
        return self.output(ops.mul(self.gate2(ops.sigmoid(self.gate1(xg))), y))


class ChannelMix(Module):
    """value(relu^2(key)), of a mix with the row before."""

    def __init__(self, c: Config) -> None:
        d, inner = c.hidden_size, c.intermediate_size
        self.lerp_k, self.key, self.value = Param(d), Linear(d, inner), Linear(inner, d)

    def forward(self, x: Value, step: Step) -> Value:
        mixed = ops.add(ops.affine(rwkv.moved(x, step), self.lerp_k.value), x)
        return self.value(ops.relu2(self.key(mixed)))


class Block(Module):
    def __init__(self, c: Config, index: int) -> None:
        self.ln1, self.ln2 = (LayerNorm(c.hidden_size, c.layer_norm_eps) for _ in range(2))
        self.time_mix, self.channel_mix = TimeMix(c, index), ChannelMix(c)

    def forward(self, x: Value, step: Step, values: list[Value]) -> Value:
        x = ops.add(self.time_mix(self.ln1(x), step, values), x)
        return ops.add(self.channel_mix(self.ln2(x), step), x)


class Rwkv7(rwkv.Rwkv):
    def layer(self, c: Any, index: int) -> Module:
        return Block(c, index)
