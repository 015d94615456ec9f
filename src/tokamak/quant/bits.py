"""Bit planes: how every nibble, crumb and bit field of the weight formats lies in bytes.

All layouts are planar: m bytes hold 8 // bits planes of m fields, plane 0 in the lowest bits of every byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokamak.types import Array


def unpack(packed: Array, bits: int) -> Array:
    """Fields of `bits` (1, 2 or 4) from u8[..., m] as u8[..., 8 // bits, m]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    fields: Array = (packed[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)
    return fields


def pack(fields: Array, bits: int) -> Array:
    """The inverse: integers[..., 8 // bits, m], each in [0, 2**bits), to u8[..., m]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    packed: Array = np.bitwise_or.reduce(fields.astype(np.uint8) << shifts, axis=-2)
    return packed
