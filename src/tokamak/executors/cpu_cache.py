"""Cache blocks of the CPU executor as arrays: reading and writing them, and turning their keys to other positions.

For what happens once in thousands of steps (context shifts, saved prompts); a step never comes here. Layout:
native/cpu/cache.h, heads one after another, each its keys [head_dim][32 positions], then its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tokamak.errors import UnsupportedError
from tokamak.ir.graph import Graph, Node, Value
from tokamak.ir.ops import VIEWS
from tokamak.types import Array, Floats

BLOCK = 32
GROUP = 32  # dims of a scale in the quantised types
PASSED = {*VIEWS, "rms_norm", "layer_norm"}  # between the projection of keys and the cache, besides rope


def shapes(graph: Graph) -> dict[Value, tuple[int, int, int]]:
    """(heads, width of a key, width of a value) of every cache of keys and values, in the graph's order."""
    widths = {n.inputs[3]: n.inputs[2].type.tail[1] for n in graph.nodes if n.op == "attention"}
    found = {}
    for value in graph.states.values():
        if value.type.dtype == "kv":
            both = value.type.nrows * value.type.tail[1]
            wide = widths.get(value, both // 2)
            found[value] = (value.type.tail[0], both - wide, wide)
    return found


def turning(graph: Graph) -> Mapping[Value, Floats | None]:
    """Per cache the frequencies by which its keys turn with their position, None for keys that do not turn.

    Raises: UnsupportedError for positions that keys hold in another way.
    """
    if any(n.op == "embed" and n.inputs[0] is graph.inputs.get("positions") for n in graph.nodes):
        raise UnsupportedError("the model adds learned positions to its input, so what is cached cannot move")
    made_by = {value: node for node in graph.nodes for value in node.outputs}
    constants = dict(graph.consts.values())
    found: dict[Value, Floats | None] = {}
    for node in graph.nodes:
        if node.op == "attention":
            found[node.inputs[3]] = _frequencies(node.inputs[1], made_by, constants)
    if set(found) != set(graph.states.values()):
        raise UnsupportedError(
            "the model has a state that is no cache of keys and values, and it cannot move"
        )
    return found


def _frequencies(
    key: Value, made_by: Mapping[Value, Node], constants: Mapping[Value, Array]
) -> Floats | None:
    node, direct = made_by.get(key), True
    while node is not None and node.op in PASSED:
        direct = direct and node.op in VIEWS
        node = made_by.get(node.inputs[0])
    if node is not None and node.op == "linear":
        return None
    if node is None or node.op != "rope" or not direct:
        raise UnsupportedError("the model changes keys after they are turned, so what is cached cannot move")
    return np.asarray(constants[node.inputs[2]], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the keys of one layer lie in uint8[n, block_nbytes], and how they are written."""

    kv_dtype: str
    heads: int
    head_dim: int

    def of(self, raw: Array) -> Floats:
        """f32[n, heads, head_dim, 32]."""
        half = self._half(raw)
        shape = (len(raw), self.heads, self.head_dim, BLOCK)
        if self.kv_dtype == "f32":
            return np.ascontiguousarray(half).view(np.float32).reshape(shape)
        if self.kv_dtype in ("f16", "bf16"):
            words = np.ascontiguousarray(half).view(np.uint16).reshape(shape)
            wide = (words.astype(np.uint32) << 16).view(np.float32)
            return wide if self.kv_dtype == "bf16" else words.view(np.float16).astype(np.float32)
        size = self._scales_nbytes()
        scales = np.ascontiguousarray(half[..., -size:]).view(np.float16)
        codes = np.ascontiguousarray(half[..., :-size])
        groups = (len(raw), self.heads, self.head_dim // GROUP, GROUP, BLOCK)
        if self.kv_dtype == "q8_0":
            values = codes.view(np.int8).reshape(groups).astype(np.float32)
        else:
            pairs = codes.reshape(*groups[:3], GROUP // 2, BLOCK)
            values = np.concatenate([pairs & 15, pairs >> 4], axis=3).astype(np.float32) - 8.0
        scaled: Floats = values * scales.reshape(*groups[:3], 1, BLOCK).astype(np.float32)
        return scaled.reshape(shape)

    def put(self, raw: Array, keys: Floats) -> None:
        """Writes f32[n, heads, head_dim, 32] back."""
        half, flat = self._half(raw), (len(raw), self.heads, -1)
        if self.kv_dtype in ("q8_0", "q4_0"):
            grouped = keys.reshape(*flat[:2], self.head_dim // GROUP, GROUP, BLOCK)
            codes, scales = (_q8_0 if self.kv_dtype == "q8_0" else _q4_0)(grouped)
            size = self._scales_nbytes()
            half[..., :-size] = codes.reshape(flat).view(np.uint8)
            half[..., -size:] = scales.astype(np.float16).reshape(flat).view(np.uint8)
            return
        plain = {"f32": lambda x: x, "f16": lambda x: x.astype(np.float16), "bf16": _bf16}[self.kv_dtype]
        half[...] = np.ascontiguousarray(plain(keys)).reshape(flat).view(np.uint8)

    def _half(self, raw: Array) -> Array:
        """The keys of each head, a view uint8[n, heads, keys_nbytes]."""
        size = {"f32": 4, "f16": 2, "bf16": 2}.get(self.kv_dtype)
        if size is not None:
            nbytes = size * self.head_dim * BLOCK
        else:
            codes = self.head_dim * BLOCK // (1 if self.kv_dtype == "q8_0" else 2)
            nbytes = codes + self._scales_nbytes()
        view: Array = raw.reshape(len(raw), self.heads, -1)[:, :, :nbytes]
        return view

    def _scales_nbytes(self) -> int:
        return self.head_dim // GROUP * BLOCK * 2


def turned(keys: Floats, inv_freq: Floats, delta: int) -> Floats:
    """Keys f32[..., head_dim, 32] as if their positions were larger by delta; pairs are i and i + R / 2."""
    angles = delta * inv_freq.astype(np.float64)
    cosine, sine = (f(angles).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    half = len(inv_freq)
    first, second = keys[..., :half, :], keys[..., half : 2 * half, :]
    out = keys.copy()
    out[..., :half, :] = first * cosine - second * sine
    out[..., half : 2 * half, :] = second * cosine + first * sine
    return out


def _bf16(x: Floats) -> Array:
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def _q8_0(x: Floats) -> tuple[Array, Floats]:
    most = np.abs(x).max(axis=3, keepdims=True)
    inverse = np.divide(127.0, most, out=np.zeros_like(most), where=most > 0)
    return np.clip(np.rint(x * inverse), -127, 127).astype(np.int8), most / np.float32(127.0)


def _q4_0(x: Floats) -> tuple[Array, Floats]:
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=3, keepdims=True), axis=3)
    scale = largest / np.float32(-8.0)
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.clip(x * inverse + 8.5, 0, 15).astype(np.uint8)
    packed: Array = codes[:, :, :, : GROUP // 2] | codes[:, :, :, GROUP // 2 :] << 4
    return packed, scale
