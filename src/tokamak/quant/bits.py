"""Bit planes: how every nibble, crumb and bit field of the weight formats lies in bytes.

All layouts are planar: m bytes hold 8 // bits planes of m fields, plane 0 in the lowest bits of every byte. Shifts run
over whole planes as machine words and rows of m bytes move as one item: two to nine times the plain broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokamak.types import Array


def _words(planes: Array) -> Array:
    """u8[..., n] as u64[..., n / 8] where n allows."""
    return planes.view(np.uint64) if planes.shape[-1] % 8 == 0 else planes


def unpack(packed: Array, bits: int) -> Array:
    """Fields of `bits` (1, 2 or 4) from u8[..., m] as u8[..., 8 // bits, m]."""
    count, m = 8 // bits, packed.shape[-1]
    words = _words(np.ascontiguousarray(packed).reshape(-1))
    planes = np.empty((count, words.size), dtype=words.dtype)
    for i in range(count):
        np.right_shift(words, words.dtype.type(i * bits), out=planes[i])
    planes &= np.frombuffer(bytes([(1 << bits) - 1]) * words.itemsize, dtype=words.dtype)[0]
    rows = np.dtype((np.void, m))
    out = np.empty((packed.size // m, count), dtype=rows)
    out[...] = planes.view(rows).reshape(count, -1).T
    fields: Array = out.view(np.uint8)
    return fields.reshape(*packed.shape[:-1], count, m)


def pack(fields: Array, bits: int) -> Array:
    """The inverse: numbers[..., 8 // bits, m], each whole and in [0, 2**bits), to u8[..., m]."""
    count, m = fields.shape[-2:]
    rows = (
        np.ascontiguousarray(fields.astype(np.uint8, copy=False))
        .reshape(-1, count * m)
        .view(np.dtype((np.void, m)))
    )
    planes = _words(np.ascontiguousarray(rows.T).view(np.uint8).reshape(count, -1))
    packed: Array = planes[0].copy()
    for i in range(1, count):
        packed |= planes[i] << planes.dtype.type(i * bits)
    return packed.view(np.uint8).reshape(*fields.shape[:-2], m)
