"""Codec of i2_s, the whole-tensor ternary format of bitnet.cpp, in its variants. See `lookup` for tl1 and tl2.

    i2_s      32 bytes per 128 elements: byte b holds, from its upper bits down, elements b, b + 32, b + 64, b + 96
    i2_s_arm  16 bytes per 64 elements likewise, as ARM builds write it under the same type id: nothing in a file tells
              the two apart, so this one is chosen by name only
    i2_s_rows4  a byte per column of 4 rows, the first in the upper bits, as one build option writes it; the same holds.
              It needs the shape: `decode_rows4`, `encode_rows4`

Codes are t + 1, y = scale * t; the f32 scale of the tensor follows the groups and is `Format`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.quant.bits import pack, unpack

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

I2_S = np.dtype([("qs", "u1", 32)])


def _crumbs(groups: Array, span: int) -> Array:
    """i8[n, 128] of -1, 0, 1: planes of `span` bytes, the first in the upper bits."""
    packed = groups["qs"]
    if (packed & (packed >> np.uint8(1)) & np.uint8(0x55)).any():
        raise ModelFileError(
            "i2_s codes hold the value 3, which bitnet.cpp never writes: the tensor has another layout"
        )
    q = unpack(packed.reshape(-1, 32 // span, span), 2)[:, :, ::-1].reshape(-1, 128)
    return np.subtract(q.view(np.int8), np.int8(1), out=q.view(np.int8))


def _from_crumbs(x: Floats, scale: Floats | None, span: int) -> Array:
    """Codes of x / scale, rounded half away from zero."""
    half = np.float32(0.5) * scale if scale else np.float32(np.inf)
    t = (x >= half).view(np.int8) - (x <= -half).view(np.int8)
    t += np.int8(1)
    out = np.empty(len(x), dtype=I2_S)
    out["qs"] = pack(t.reshape(-1, 32 // span, 4, span)[:, :, ::-1], 2).reshape(-1, 32)
    return out


def decode_rows4(packed: Array, shape: tuple[int, int]) -> Array:
    """Codes int8[rows, columns] of a matrix's bytes u8[rows * columns / 4].

    Raises: UnsupportedError for rows that are no multiple of 4; ModelFileError if bytes are missing.
    """
    rows, columns = shape
    if rows % 4:
        raise UnsupportedError(f"i2_s_rows4 holds rows in fours; a matrix of {rows} does not fit")
    if packed.size < rows * columns // 4:
        raise ModelFileError(f"i2_s_rows4 matrix needs {rows * columns // 4} bytes and has {packed.size}")
    fours = packed.reshape(-1)[: rows * columns // 4].reshape(rows // 4, 1, columns)
    codes = (fours >> np.array([6, 4, 2, 0], np.uint8)[:, None]) & np.uint8(3)
    return codes.reshape(rows, columns).view(np.int8) - np.int8(1)


def encode_rows4(t: Array) -> Array:
    """The inverse: u8[rows * columns / 4] of int8[rows, columns] of -1, 0, 1."""
    codes = (t + 1).astype(np.uint8).reshape(-1, 4, t.shape[1])
    shifted = codes << np.array([6, 4, 2, 0], np.uint8)[:, None]
    return np.asarray(np.bitwise_or.reduce(shifted, axis=1)).reshape(-1)


def decode_i2_s(groups: Array) -> Array:
    return _crumbs(groups, 32)


def encode_i2_s(x: Floats, scale: Floats | None) -> Array:
    return _from_crumbs(x, scale, 32)


def decode_i2_s_arm(groups: Array) -> Array:
    return _crumbs(groups, 16)


def encode_i2_s_arm(x: Floats, scale: Floats | None) -> Array:
    return _from_crumbs(x, scale, 16)
