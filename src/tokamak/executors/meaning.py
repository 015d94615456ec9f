"""What the ops mean: one NumPy function each, whose formulas are in `ir/ops.py`.

Plain rather than fast; `reference.py` runs graphs with them, and tests hold every kernel to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tokamak.ir.buckets import buckets
from tokamak.types import Array

_ERF = np.vectorize(math.erf, otypes=[np.float64])


class Meaning:
    """One function per op; shapes and formulas are in `ir/ops.py`."""

    @staticmethod
    def embed(ids: Array, table: Array, row: int) -> Array:
        return np.asarray(table[ids if row < 0 else np.full(len(ids), row)])

    @staticmethod
    def linear(x: Array, *inputs: Array, num_weights: int) -> Array:
        weights, biases = inputs[:num_weights], inputs[num_weights:]
        y = np.concatenate([x @ w.astype(x.dtype, copy=False).T for w in weights], axis=1)
        return y + np.concatenate(biases) if biases else y

    @staticmethod
    def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
        return np.asarray(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight)

    @staticmethod
    def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
        centred = x - np.mean(x, axis=-1, keepdims=True)
        return np.asarray(Meaning.rms_norm(centred, weight, eps=eps) + bias)

    @staticmethod
    def add_rms_norm(x: Array, residual: Array, weight: Array, *, eps: float) -> tuple[Array, Array]:
        return x + residual, Meaning.rms_norm(x + residual, weight, eps=eps)

    @staticmethod
    def add_layer_norm(
        x: Array, residual: Array, weight: Array, bias: Array, *, eps: float
    ) -> tuple[Array, Array]:
        return x + residual, Meaning.layer_norm(x + residual, weight, bias, eps=eps)

    @staticmethod
    def add(x: Array, y: Array) -> Array:
        return np.add(x, y)

    @staticmethod
    def mul(x: Array, y: Array) -> Array:
        return np.multiply(x, y)

    @staticmethod
    def sigmoid_mul(x: Array, gate: Array) -> Array:
        return np.asarray(x * (0.5 * (1 + np.tanh(0.5 * gate))))

    @staticmethod
    def gate(x: Array, gates: Array, *, groups: str) -> Array:
        pairs = [tuple(map(int, group.split(":"))) for group in groups.split(",")]
        owners = np.repeat([index for index, _ in pairs], [width for _, width in pairs])
        return np.asarray(x * gates[:, owners])

    @staticmethod
    def steer(x: Array, gates: Array, direction: Array, *, index: int) -> Array:
        return np.asarray(x + gates[:, index, None] * direction)

    @staticmethod
    def replace_rows(x: Array, vectors: Array, rows: Array) -> Array:
        out = x.copy()
        out[rows] = vectors
        return out

    @staticmethod
    def clip(x: Array, *, limit: float) -> Array:
        return np.clip(x, -limit, limit)

    @staticmethod
    def affine(x: Array, weight: Array, *bias: Array) -> Array:
        return np.asarray(x * weight + (bias[0] if bias else 0))

    @staticmethod
    def route(
        logits: Array,
        *bias: Array,
        num_used: int,
        score: str,
        normed: int,
        scaling: float,
        groups: int,
        top_groups: int,
        group_top: int,
    ) -> Array:
        if score == "sparsemixer":
            return _sparsemixer(logits)
        scores = Meaning.sigmoid(logits) if score == "sigmoid" else _softmax(logits)
        ranked = scores + bias[0] if bias else scores
        parts = ranked.reshape(len(logits), groups, -1)
        best = np.sort(parts, axis=2)[:, :, -group_top:].sum(axis=2)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :top_groups]
        outside = np.ones_like(best, bool)
        np.put_along_axis(outside, kept, values=False, axis=1)
        ranked = np.where(outside[:, :, None], -np.inf, parts).reshape(ranked.shape)
        chosen = np.argsort(-ranked, axis=1, kind="stable")[:, :num_used]
        weights = np.take_along_axis(scores, chosen, axis=1)
        if normed:
            weights = weights / weights.sum(axis=1, keepdims=True)
        out = np.zeros_like(logits)
        np.put_along_axis(out, chosen, weights * scaling, axis=1)
        return out

    @staticmethod
    def experts(
        x: Array,
        weights: Array,
        gate: Array,
        up: Array,
        down: Array,
        *biases: Array,
        num_used: int,  # noqa: ARG004  a bound for executors that reserve memory
        act: str,
        weighs: str,
    ) -> Array:
        out = np.zeros_like(x)
        gate_bias, up_bias, down_bias = biases or ([0] * len(gate),) * 3
        for e in range(len(gate)):
            rows = np.flatnonzero(weights[:, e])
            weight = weights[rows, e, None]
            inputs = x[rows] * weight if weighs == "input" else x[rows]
            hidden = _gate(act, inputs @ gate[e].T + gate_bias[e], inputs @ up[e].T + up_bias[e])
            result = hidden @ down[e].T + down_bias[e]
            out[rows] += result if weighs == "input" else weight * result
        return out

    @staticmethod
    def heads_linear(x: Array, weight: Array) -> Array:
        return np.asarray(np.einsum("thk,hnk->thn", x, weight))

    @staticmethod
    def join(x: Array, y: Array) -> Array:
        return np.concatenate([x, np.broadcast_to(y, (*x.shape[:2], y.shape[2]))], axis=2)

    @staticmethod
    def scale(x: Array, *, factor: float) -> Array:
        return np.multiply(x, factor)

    @staticmethod
    def softcap(x: Array, *, cap: float) -> Array:
        return np.asarray(cap * np.tanh(x / cap))

    @staticmethod
    def silu(x: Array) -> Array:
        return np.asarray(x * (0.5 * (1 + np.tanh(0.5 * x))))

    @staticmethod
    def gelu(x: Array) -> Array:
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))

    @staticmethod
    def gelu_erf(x: Array) -> Array:
        return np.asarray(0.5 * x * (1 + _ERF(x / math.sqrt(2))))

    @staticmethod
    def relu(x: Array) -> Array:
        return np.maximum(x, 0)

    @staticmethod
    def sigmoid(x: Array) -> Array:
        return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))

    @staticmethod
    def softplus(x: Array) -> Array:
        return np.logaddexp(x, 0)

    @staticmethod
    def relu2(x: Array) -> Array:
        return np.square(np.maximum(x, 0))

    @staticmethod
    def gated(x: Array, *, act: str) -> Array:
        return _gate(act, *np.split(x, 2, axis=1))

    @staticmethod
    def columns(x: Array, *, start: int, stop: int) -> Array:
        return x[:, start:stop]

    @staticmethod
    def split_heads(x: Array, *, heads: int) -> Array:
        return x.reshape(len(x), heads, x.shape[1] // heads)

    @staticmethod
    def merge_heads(x: Array) -> Array:
        return x.reshape(len(x), x.shape[1] * x.shape[2])

    @staticmethod
    def rope(x: Array, positions: Array, inv_freq: Array, *, mscale: float) -> Array:
        half = len(inv_freq)
        angle = positions[:, None].astype(np.float64) * inv_freq
        cos, sin = (mscale * f(angle)[:, None] for f in (np.cos, np.sin))
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    @staticmethod
    def attention(
        q: Array,
        k: Array,
        v: Array,
        cache: Array,
        slots: Array,
        starts: Array,
        lengths: Array,
        tables: Array,
        *per_head: Array,
        scale: float,
        window: int,
        softcap: float,
        chunk: int,
        causal: bool,
        adds: str,
        reach: int,
    ) -> Array:
        positions = cache.reshape(-1, *cache.shape[2:])
        positions[slots] = np.concatenate([k, v], axis=2)
        out, group = np.empty((*q.shape[:2], v.shape[2]), q.dtype), q.shape[1] // k.shape[1]
        for b, length in enumerate(lengths):
            rows = np.arange(starts[b], starts[b + 1])
            blocks = tables[b][: -(-length // cache.shape[1])]
            both = cache[blocks].reshape(-1, *cache.shape[2:])[:length].repeat(group, axis=1)
            keys, values = np.split(both, [k.shape[2]], axis=2)
            scores = np.einsum("qhd,khd->hqk", q[rows], keys) * scale
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            position, at = length - len(rows) + np.arange(len(rows))[:, None], np.arange(length)
            if adds == "slopes":
                scores = scores + per_head[0][:, None, None] * (at - position)
            if adds == "buckets":
                bucket = np.array(buckets(len(per_head[0]), reach, causal=causal))
                near = bucket[np.clip(at - position, -reach, reach) + reach]
                scores = scores + per_head[0].T[:, near]
            visible = at <= position if causal else np.full((len(rows), length), fill_value=True)
            if window:
                visible &= position - at < window if causal else abs(position - at) <= window // 2
            if chunk:
                visible &= at // chunk == position // chunk
            scores = np.where(visible, scores, -np.inf)
            if adds == "sinks":
                sinks = np.broadcast_to(per_head[0][:, None, None], (*scores.shape[:2], 1))
                scores = np.concatenate([scores, sinks], axis=2)
            weights = _softmax(scores)[:, :, :length]
            out[rows] = np.einsum("hqk,khd->qhd", weights, values)
        return out

    @staticmethod
    def causal_conv(
        x: Array,
        weight: Array,
        state: Array,
        starts: Array,
        lengths: Array,
        tables: Array,
        *bias: Array,
        act: str,
    ) -> Array:
        out = np.empty_like(x)
        for t, last, home in _rows_in_turn(state, starts, lengths, tables):
            inputs = np.concatenate([last, x[t : t + 1]])
            out[t] = np.einsum("kc,ck->c", inputs, weight) + (bias[0] if bias else 0)
            home[...] = inputs[1:]
        return getattr(Meaning, act)(out) if act else out

    @staticmethod
    def scan(
        x: Array,
        dt: Array,
        a: Array,
        b: Array,
        c: Array,
        d: Array,
        state: Array,
        starts: Array,
        lengths: Array,
        tables: Array,
    ) -> Array:
        out, group = np.empty_like(x), x.shape[1] // b.shape[1]
        step = Meaning.softplus(dt)[:, :, None]
        keys, queries = b.repeat(group, axis=1), c.repeat(group, axis=1)
        for t, last, home in _rows_in_turn(state, starts, lengths, tables):
            home[...] = np.exp(step[t] * a)[:, None] * last + np.einsum("hp,hn->hpn", step[t] * x[t], keys[t])
            out[t] = np.einsum("hpn,hn->hp", home, queries[t]) + d[:, None] * x[t]
        return out

    @staticmethod
    def linear_attention(
        q: Array,
        k: Array,
        v: Array,
        w: Array,
        state: Array,
        starts: Array,
        lengths: Array,
        tables: Array,
        *more: Array,
        rule: str,
    ) -> Array:
        out = np.empty_like(v)
        for t, last, home in _rows_in_turn(state, starts, lengths, tables):
            if rule == "delta":
                s = np.exp(w[t])[:, None, None] * last
                change = more[0][t][:, None] * (v[t] - np.einsum("hkv,hk->hv", s, k[t]))
                home[...] = s + np.einsum("hk,hv->hkv", k[t], change)
            elif rule == "bonus":
                now = np.einsum("hk,hk,hk->h", q[t], more[0], k[t])[:, None] * v[t]
                out[t] = np.einsum("hkv,hk->hv", last, q[t]) + now
                home[...] = np.exp(-np.exp(w[t]))[:, :, None] * last + np.einsum("hk,hv->hkv", k[t], v[t])
                continue
            else:
                removed = np.einsum("hk,hv->hkv", more[1][t], np.einsum("hkv,hk->hv", last, more[0][t]))
                added = np.einsum("hk,hv->hkv", k[t], v[t])
                home[...] = np.exp(w[t])[:, :, None] * last + removed + added
            out[t] = np.einsum("hkv,hk->hv", home, q[t])
        return out

    @staticmethod
    def take_rows(x: Array, rows: Array) -> Array:
        return np.asarray(x[rows])


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _gate(act: str, gate: Array, up: Array) -> Array:
    if act == "swiglu_clamped":
        gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
        return np.asarray(gate * Meaning.sigmoid(1.702 * gate) * (up + 1))
    return np.asarray(getattr(Meaning, act)(gate) * up)


def _sparsemixer(logits: Array) -> Array:
    out, left, rows = np.zeros_like(logits), logits.copy(), np.arange(len(logits))
    for _ in range(2):
        chosen = left.argmax(axis=1)
        most = left[rows, chosen, None]
        near = most - logits <= 0.02 * np.maximum(np.abs(logits), most)
        out[rows, chosen] = _softmax(np.where(near, left, -np.inf))[rows, chosen]
        left[rows, chosen] = -np.inf
    return out


def _rows_in_turn(
    state: Array, starts: Array, lengths: Array, tables: Array
) -> Iterator[tuple[int, Array, Array]]:
    """(row, state before it, where to put the state after it) of every row, sequence by sequence, in order.

    state: [num_blocks, block_size, ...] of `_room`.
    """
    size = state.shape[1]
    for b, length in enumerate(lengths):
        for t in range(starts[b], starts[b + 1]):
            position = length - starts[b + 1] + t
            before = position - 1
            last = state[tables[b][before // size], 0].copy() if position else np.zeros_like(state[0, 0])
            yield t, last, state[tables[b][position // size], 0]
