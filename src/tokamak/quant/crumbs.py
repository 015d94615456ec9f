"""Codecs of two formats of four levels in rows, which one project writes under the type id of i2_s (36).

    i2_f16  qs[8], d f16   32 elements in order, lowest bits first: y = d * (q - 2), q in [0, 3] ("BitNet32-F16")
    qk256     qs[64]         256 elements likewise, q = 0, 1, 2, 3 is y = -2, -1, 1, 2: no scale ("QK256")

Neither is a layout of bitnet.cpp: a file's byte counts tell them apart from i2_s (`native/gguf/parser.cpp`), and nothing
else may choose them. Both are q4_0 with fewer levels, and run as that: `to_q4_0` changes no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant import fit
from tokamak.quant.bits import pack, unpack
from tokamak.quant.legacy import Q4_0

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

I2_F16 = np.dtype([("qs", "u1", 8), ("d", "<f2")])
QK256 = np.dtype([("qs", "u1", 64)])
LEVELS = np.array([-2, -1, 1, 2], np.int8)  # of qk256

_CRUMBS = fit.linear(-2, 1)
_STEPS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0, -0.2, -0.4)  # of the 2 of the lowest code


def _codes(groups: Array) -> Array:
    """i8[n, elements]: the values of the codes, before the scale."""
    q = unpack(groups["qs"][:, :, None], 2).reshape(len(groups), -1)
    return LEVELS[q] if groups.dtype == QK256 else q.view(np.int8) - np.int8(2)


def _packed(codes: Array, num_bytes: int) -> Array:
    return pack(codes.reshape(-1, num_bytes, 4, 1), 2)[:, :, 0]


def decode_i2_f16(groups: Array) -> Floats:
    return _codes(groups) * groups["d"].astype(np.float32)[:, None]


def encode_i2_f16(x: Floats, w: Floats | None) -> Array:
    """The scale is searched as for q2_0; exact for ternary weights up to d in f16."""
    out = np.empty(len(x), dtype=I2_F16)
    d = fit.to_f16(fit.scale_only(x, np.ones_like(x) if w is None else w, _CRUMBS, _STEPS))
    out["d"], out["qs"] = d, _packed(_CRUMBS.values(x, d) + np.float32(2), 8)
    return out


def decode_qk256(groups: Array) -> Floats:
    return _codes(groups).astype(np.float32)


def encode_qk256(x: Floats, _w: Floats | None) -> Array:
    """The nearest of -2, -1, 1, 2; the format has no scale, so weights must come in its range. Zero becomes 1."""
    out = np.empty(len(x), dtype=QK256)
    out["qs"] = _packed(np.searchsorted(np.array([-1.5, 0, 1.5], np.float32), x, side="right"), 64)
    return out


def to_q4_0(rows: Array, dtype: np.dtype[np.void]) -> Array:
    """uint8[N, K / 32 * 18] of rows of either format: the same values."""
    groups = np.ascontiguousarray(rows).reshape(-1).view(dtype)
    nibbles = (_codes(groups) + np.int8(8)).view(np.uint8).reshape(-1, 2, 16)
    out = np.empty(len(nibbles), dtype=Q4_0)
    out["d"] = groups["d"] if dtype == I2_F16 else np.float16(1)
    out["qs"] = nibbles[:, 0] | nibbles[:, 1] << 4
    return out.view(np.uint8).reshape(len(rows), -1)
