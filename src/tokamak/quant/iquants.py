"""Codecs of the lattice formats: iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m. 256 elements, in bytes:

    iq2_xxs  d, qs[64]                                       per 32: four point bytes, then u32: four 7-bit signs, scale << 28
    iq2_xs   d, qs u16[32], scales[8]                        per 8: point | sign << 9; a scale nibble per 16
    iq2_s    d, qs[32], signs[32], qh[8], scales[8]          qh: upper two bits of four points; a scale nibble per 16
    iq3_xxs  d, qs[64], signs u32[8]                         per 4: a point byte; per 32: four 7-bit signs, scale << 28
    iq3_s    d, qs[64], qh[8], signs[32], scales[4]          qh: ninth bit of eight points; a scale nibble per 32
    iq1_s    d, qs[32], qh u16[8]                            qh: upper 3 bits of four points, scale << 12, sign of delta << 15
    iq1_m    qs[32], qh[16], scales u16[4]                   a nibble of qh per 8: upper 3 bits of a point, sign of delta

d is f16 (iq1_m: the four top nibbles of scales). y = d * (1/2 + scale) / 4 * sign * point for iq2, / 2 for iq3_xxs,
d * (1 + 2 * scale) * sign * point for iq3_s, d * (1 + 2 * scale) * (point +- 1/8) for iq1. Points: see `grids`. Seven
sign bits are completed to even parity; bit 1 means minus. Encoding: see `lattice`; no format demands an importance matrix,
but below three bits a model without one is hardly usable.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant.bits import unpack
from tokamak.quant.grids import lattice
from tokamak.quant.lattice import Spec, search

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

IQ2_XXS = np.dtype([("d", "<f2"), ("qs", "<u4", (8, 2))])
IQ2_XS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
IQ2_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)])
IQ3_XXS = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)])
IQ1_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
IQ1_M = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])

DELTA = np.float32(0.125)
_SIGNS = (1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")).astype(
    np.int8
)
_EVEN = np.array([i | (i.bit_count() & 1) << 7 for i in range(128)], dtype=np.uint8)
_SEVENS = np.array([0, 7, 14, 21], dtype=np.uint32)


def _d(groups: Array) -> Floats:
    return groups["d"].astype(np.float32)[:, None]


def _rows(table: Array, index: Array) -> Array:
    """table[index] of int8[m, 4 or 8] and [n, p] as int8[n, p * (4 or 8)], each row moved as one machine word."""
    return table.view(f"<u{table.shape[1]}")[:, 0].take(index).view(np.int8)


def _signed(name: str, points: Array, signs: Array, scale: Floats) -> Floats:
    """scale f32[n, g] * point * sign, points [n, p] and sign bytes [n, 32] in order: f32[n, 256]."""
    values = _rows(lattice(name), points) * _rows(_SIGNS, signs)
    y: Floats = values.reshape(*scale.shape, -1) * scale[:, :, None]
    return y.reshape(-1, 256)


def _four_signs(packed: Array) -> Array:
    """Sign bytes u8[n, 32] and scales u32[n, 8] of u32[n, 8]."""
    signs: Array = _EVEN[(packed[:, :, None] >> _SEVENS) & 127]
    return signs.reshape(-1, 32)


def _nibbles(packed: Array) -> Array:
    """Nibbles in order, low first: u8[n, m] to u8[n, 2 m]."""
    return unpack(packed[:, :, None], 4).reshape(len(packed), -1)


def _half_scale(groups: Array, scale: Array, factor: float) -> Floats:
    return _d(groups) * (np.float32(0.5) + scale.astype(np.float32)) * np.float32(factor)


def decode_iq2_xxs(groups: Array) -> Floats:
    packed = groups["qs"][:, :, 1]
    points = np.ascontiguousarray(groups["qs"][:, :, 0]).view(np.uint8)
    return _signed("iq2_xxs", points, _four_signs(packed), _half_scale(groups, packed >> 28, 0.25))


def decode_iq2_xs(groups: Array) -> Floats:
    qs, scale = groups["qs"], _half_scale(groups, _nibbles(groups["scales"]), 0.25)
    return _signed("iq2_xs", qs & 511, _EVEN[qs >> 9], scale)


def decode_iq2_s(groups: Array) -> Floats:
    high = unpack(groups["qh"][:, :, None], 2).reshape(-1, 32).astype(np.uint16)
    scale = _half_scale(groups, _nibbles(groups["scales"]), 0.25)
    return _signed("iq2_s", groups["qs"] | (high << 8), groups["signs"], scale)


def decode_iq3_xxs(groups: Array) -> Floats:
    packed = groups["signs"]
    return _signed("iq3_xxs", groups["qs"], _four_signs(packed), _half_scale(groups, packed >> 28, 0.5))


def decode_iq3_s(groups: Array) -> Floats:
    high = unpack(groups["qh"][:, :, None], 1).reshape(-1, 64).astype(np.uint16)
    scale = _d(groups) * (1 + 2 * _nibbles(groups["scales"])).astype(np.float32)
    return _signed("iq3_s", groups["qs"] | (high << 8), groups["signs"], scale)


@cache
def _shifted_points() -> Array:
    """int8[4096, 8]: 8 * (point + 1/8) of all points, then 8 * (point - 1/8)."""
    points = lattice("iq1") * np.int8(8)
    return np.concatenate([points + np.int8(1), points - np.int8(1)])


def _shifted(points: Array, minus: Array, scale: Floats) -> Floats:
    """scale f32[n, g] * (point +- 1/8); points u16[n, 32], minus 0 or 1 [n, 32]: f32[n, 256]."""
    values = _rows(_shifted_points(), points | (minus << 11)).reshape(*scale.shape, -1)
    y: Floats = values * (scale * np.float32(0.125))[:, :, None]
    return y.reshape(-1, 256)


def decode_iq1_s(groups: Array) -> Floats:
    qh = groups["qh"]
    high = (qh[:, :, None] >> np.array([0, 3, 6, 9], dtype=np.uint16)) & 7
    scale = _d(groups) * (2 * ((qh >> 12) & 7) + 1).astype(np.float32)
    minus = np.repeat(qh >> 15, 4, axis=1)
    return _shifted(groups["qs"] | (high.reshape(-1, 32) << 8), minus, scale)


def decode_iq1_m(groups: Array) -> Floats:
    scales, nibbles = groups["scales"], _nibbles(groups["qh"]).astype(np.uint16)
    d = np.bitwise_or.reduce((scales >> 12) << np.array([0, 4, 8, 12], dtype=np.uint16), axis=1)
    fine = (scales[:, :, None] >> np.array([0, 3, 6, 9], dtype=np.uint16)) & 7
    scale = d.view(np.float16).astype(np.float32)[:, None] * (2 * fine.reshape(-1, 16) + 1).astype(np.float32)
    return _shifted(groups["qs"] | ((nibbles & 7) << 8), nibbles >> 3, scale)


def _join(fields: Array, bits: int) -> Array:
    """Integers [n, m, k] as words u32[n, m], the first in the lowest bits, `bits` apart."""
    shifts = np.arange(fields.shape[2], dtype=np.uint32) * np.uint32(bits)
    words: Array = np.bitwise_or.reduce(fields.astype(np.uint32) << shifts, axis=2)
    return words


def _in_bytes(fields: Array, bits: int) -> Array:
    """[n, m] of `bits` in order, low first, as bytes."""
    return _join(fields.reshape(len(fields), -1, 8 // bits), bits).astype(np.uint8)


def _sevens(signs: Array, scale: Array) -> Array:
    """u32[n, 8]: four seven-bit signs and a scale."""
    words: Array = _join((signs & 127).reshape(-1, 8, 4), 7) | (scale.astype(np.uint32) << np.uint32(28))
    return words


def encode_iq2_xxs(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ2_XXS)
    out["d"], s, index, _, signs = search(Spec("iq2_xxs", 8, 15, 8, even=True), x, w)
    out["qs"][:, :, 0] = _join(index.reshape(-1, 8, 4), 8)
    out["qs"][:, :, 1] = _sevens(signs, s)
    return out


def encode_iq2_xs(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ2_XS)
    out["d"], s, index, _, signs = search(Spec("iq2_xs", 16, 15, 8, even=True), x, w)
    out["qs"] = index | ((signs & 127).astype(np.uint16) << 9)
    out["scales"] = _in_bytes(s, 4)
    return out


def encode_iq2_s(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ2_S)
    out["d"], s, index, _, out["signs"] = search(Spec("iq2_s", 16, 15, 8), x, w)
    out["qs"], out["qh"], out["scales"] = index & 255, _in_bytes(index >> 8, 2), _in_bytes(s, 4)
    return out


def encode_iq3_xxs(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ3_XXS)
    out["d"], s, out["qs"], _, signs = search(Spec("iq3_xxs", 8, 15, 4, even=True), x, w)
    out["signs"] = _sevens(signs, s)
    return out


def encode_iq3_s(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ3_S)
    out["d"], s, index, _, out["signs"] = search(Spec("iq3_s", 8, 15, 1), x, w)
    out["qs"], out["qh"], out["scales"] = index & 255, _in_bytes(index >> 8, 1), _in_bytes(s, 4)
    return out


def encode_iq1_s(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ1_S)
    out["d"], s, index, minus, _ = search(Spec("iq1", 8, 7, 1, delta="group"), x, w)
    high = _join((index >> 8).reshape(-1, 8, 4), 3)
    out["qs"] = index & 255
    out["qh"] = high | (s.astype(np.uint32) << 12) | (minus[:, ::4].astype(np.uint32) << 15)
    return out


def encode_iq1_m(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ1_M)
    d, s, index, minus, _ = search(Spec("iq1", 16, 7, 1, delta="vector"), x, w)
    top = d.astype(np.float16).view(np.uint16)[:, None] >> np.array([0, 4, 8, 12], dtype=np.uint16)
    out["qs"], out["qh"] = index & 255, _in_bytes((index >> 8) | (minus.astype(np.uint16) << 3), 4)
    out["scales"] = _join(s.reshape(-1, 4, 4), 3) | ((top & 15).astype(np.uint32) << 12)
    return out
