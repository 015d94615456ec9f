"""Codec of i2_s, the whole-tensor ternary format of bitnet.cpp, in its two variants. See `lookup` for tl1 and tl2.

    i2_s      32 bytes per 128 elements: byte b holds, from its upper bits down, elements b, b + 32, b + 64, b + 96
    i2_s_arm  16 bytes per 64 elements likewise, as ARM builds write it under the same type id: nothing in a file tells
              the two apart, so this one is chosen by name only

Codes are t + 1, y = scale * t; the f32 scale of the tensor follows the groups and is `Format`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.errors import ModelFileError
from tokamak.quant.bits import pack, unpack

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

I2_S = np.dtype([("qs", "u1", 32)])


def _crumbs(groups: Array, span: int) -> Floats:
    """f32[n, 128] of -1, 0, 1: planes of `span` bytes, the first in the upper bits."""
    q = unpack(groups["qs"].reshape(-1, 32 // span, span), 2)[:, :, ::-1]
    if (q == 3).any():
        raise ModelFileError(
            "i2_s codes hold the value 3, which bitnet.cpp never writes: the tensor has another layout"
        )
    return (q.reshape(-1, 128).view(np.int8) - np.int8(1)).astype(np.float32)


def _from_crumbs(x: Floats, span: int) -> Array:
    """Codes of x in [-1, 1], rounded half away from zero."""
    t = (np.trunc(np.float32(2) * x).clip(-1, 1) + np.float32(1)).reshape(-1, 32 // span, 4, span)
    out = np.empty(len(x), dtype=I2_S)
    out["qs"] = pack(t[:, :, ::-1], 2).reshape(-1, 32)
    return out


def decode_i2_s(groups: Array) -> Floats:
    return _crumbs(groups, 32)


def encode_i2_s(x: Floats, _w: Floats | None) -> Array:
    return _from_crumbs(x, 32)


def decode_i2_s_arm(groups: Array) -> Floats:
    return _crumbs(groups, 16)


def encode_i2_s_arm(x: Floats, _w: Floats | None) -> Array:
    return _from_crumbs(x, 16)
