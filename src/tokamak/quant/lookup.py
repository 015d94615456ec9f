"""Codecs of tl1 and tl2, the matrix layouts of bitnet.cpp's table-lookup kernels: -1, 0, 1 in 2 and 1.67 bits.

    tl1  nibbles 3 a + b + 4 of column pairs (a, b), the first of two pairs in the upper half of a byte
    tl2  nibbles |9 a + 3 b + c| of column triples likewise, then a sign bit each, then tl1 nibbles of the columns past
         the last whole tile

Their order follows the tiles of the kernel that reads them, and tile sizes are not in a file: `TL1_TILES` and
`TL2_TILES` hold those bitnet.cpp ships, by shape; other shapes need them as an argument. The scale is another tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokamak.errors import InvalidParams, ModelFileError, UnsupportedError

if TYPE_CHECKING:
    from tokamak.types import Array


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tile of a lookup kernel: rows x columns, worked through in strips of `strip` rows."""

    rows: int
    columns: int
    strip: int = 32


_LARGE = ((1536, 4096), (1536, 1536), (4096, 1536))  # bitnet_b1_58-large
_3B = ((3200, 8640), (3200, 3200), (8640, 3200))  # bitnet_b1_58-3B
_8B = ((14336, 4096), (4096, 14336), (1024, 4096), (4096, 4096))  # Llama3-8B-1.58
TL1_TILES = {
    **dict(zip(_LARGE, (Tiles(256, 128), Tiles(128, 64, 64), Tiles(256, 128)), strict=True)),
    **dict(zip(_3B, (Tiles(160, 64), Tiles(320, 128, 64), Tiles(320, 64)), strict=True)),
    **dict(zip(_8B, (Tiles(256, 128), Tiles(128, 64, 64)) * 2, strict=True)),
}
TL2_TILES = {
    **dict(zip(_LARGE, (Tiles(256, 96), Tiles(128, 192), Tiles(256, 96)), strict=True)),
    **dict(zip(_3B, (Tiles(160, 96), Tiles(320, 96), Tiles(320, 96)), strict=True)),
    **dict(zip(_8B, (Tiles(256, 96), Tiles(128, 96)) * 2, strict=True)),
}
TAIL_COLUMNS = 32  # columns of a tile past the last whole one


def _tiles(
    name: str, known: dict[tuple[int, int], Tiles], shape: tuple[int, int], tiles: Tiles | None
) -> Tiles:
    found = tiles or known.get(shape)
    if found is None:
        raise UnsupportedError(
            f"{name} has no preset tile sizes for a {shape[0]} x {shape[1]} matrix: name them"
        )
    whole = name == "tl2" or shape[1] % found.columns == 0
    if shape[0] % found.rows or found.rows % found.strip or not whole or shape[1] % TAIL_COLUMNS:
        raise UnsupportedError(
            f"{name} tiles of {found.rows} x {found.columns} do not fit {shape[0]} x {shape[1]}"
        )
    return found


def _part(packed: Array, nbytes: int, name: str) -> Array:
    if packed.size < nbytes:
        raise ModelFileError(f"{name} matrix needs {nbytes} bytes and has {packed.size}")
    return packed.reshape(-1)[:nbytes]


# Every layout is a reshape and a transposition. `_pairs_axes` and `_strips_axes` give the shape of the bytes and the
# order of axes that puts rows before columns; reading applies it, writing undoes it.
Axes = tuple[tuple[int, ...], tuple[int, ...]]


def _pairs_axes(rows: int, columns: int, tiles: Tiles) -> Axes:
    across = 64 // tiles.strip  # bytes of one row side by side
    shape = (
        rows // tiles.rows,
        columns // tiles.columns,
        tiles.rows // tiles.strip,
        tiles.columns // 4 // across,
    )
    return (*shape, tiles.strip // 16, across, 16), (0, 2, 4, 6, 1, 3, 5)


def _strips_axes(rows: int, columns: int, tiles: Tiles, across: int) -> Axes:
    """`across`: columns to a byte. Rows 8..15 and 16..23 of a strip change places."""
    shape = (rows // tiles.rows, columns // tiles.columns, tiles.rows // 32, tiles.columns // across)
    return (*shape, 2, 2, 8), (0, 2, 5, 4, 6, 1, 3)


def _signs_axes(rows: int, columns: int, tiles: Tiles) -> Axes:
    """Bits: the 16-bit word of row r has, from its upper bit down, eight triples of rows r and r + 16."""
    shape = (rows // tiles.rows, columns // tiles.columns, tiles.rows // 32, tiles.columns // 24)
    return (*shape, 16, 8, 2), (0, 2, 6, 4, 1, 3, 5)


def _read(packed: Array, axes: Axes, rows: int) -> Array:
    shape, order = axes
    return packed.reshape(shape).transpose(order).reshape(rows, -1)


def _write(matrix: Array, axes: Axes) -> Array:
    shape, order = axes
    back = tuple(int(i) for i in np.argsort(order))
    return matrix.reshape([shape[i] for i in order]).transpose(back).reshape(-1)


def _trits(numbers: Array, count: int) -> Array:
    """int8[..., count] of -1, 0, 1 from base-3 numbers, most significant first."""
    powers = 3 ** np.arange(count - 1, -1, -1)
    return (numbers[..., None] // powers % 3 - 1).astype(np.int8)


def _words(table: Array) -> Array:
    """A table int8[n, m] whose rows move as one item."""
    return np.ascontiguousarray(table).view(np.dtype((np.void, table.shape[1])))[:, 0]


_BYTES = np.arange(256)
_SIGNS = np.arange(4)[:, None]  # bit 0: the first triple is negative, bit 1: the second
# tl1: two pairs of a byte; tl2: two triples of a byte and two sign bits. Nibbles that are never written wrap around.
_TWO_PAIRS = _words(np.concatenate([_trits(_BYTES >> 4, 2), _trits(_BYTES & 15, 2)], axis=1))
_FIRST = np.where(_SIGNS & 1, -1, 1) * (_BYTES >> 4) + 13
_SECOND = np.where(_SIGNS & 2, -1, 1) * (_BYTES & 15) + 13
_TWO_TRIPLES = _words(np.concatenate([_trits(_FIRST, 3), _trits(_SECOND, 3)], axis=2).reshape(1024, 6))


def _expand(table: Array, index: Array) -> Array:
    """int8[rows, n * m] of table rows of m codes by index [rows, n]."""
    return np.ascontiguousarray(table[index]).view(np.int8)


def _quads(t: Array) -> Array:
    """Bytes u8[rows, n / 4] of tl1 codes: one multiplication puts 48 a + 16 b + 3 c + d (of t + 1) into the upper byte."""
    words = np.ascontiguousarray(t + np.int8(1)).view("<u4") * np.uint32(48 << 24 | 16 << 16 | 3 << 8 | 1)
    return (words >> np.uint32(24)).astype(np.uint8)


def _matrix(name: str, t: Array) -> Array:
    if t.ndim != 2 or t.dtype != np.int8 or t.min(initial=0) < -1 or t.max(initial=0) > 1:
        raise InvalidParams(
            f"{name} stores an int8 matrix of -1, 0 and 1, not {t.dtype}{t.shape} of other values"
        )
    return t


def decode_tl1(packed: Array, shape: tuple[int, int], tiles: Tiles | None = None) -> Array:
    """Codes int8[rows, columns] of a matrix's bytes u8[nbytes].

    Raises: UnsupportedError without known or fitting tile sizes; ModelFileError if bytes are missing.
    """
    axes = _pairs_axes(*shape, _tiles("tl1", TL1_TILES, shape, tiles))
    return _expand(_TWO_PAIRS, _read(_part(packed, shape[0] * shape[1] // 4, "tl1"), axes, shape[0]))


def encode_tl1(t: Array, tiles: Tiles | None = None) -> Array:
    """The inverse. Raises: UnsupportedError as `decode_tl1`; InvalidParams for other values than -1, 0, 1."""
    rows, columns = _matrix("tl1", t).shape
    axes = _pairs_axes(rows, columns, _tiles("tl1", TL1_TILES, (rows, columns), tiles))
    return _write(_quads(t), axes)


def decode_tl2(packed: Array, shape: tuple[int, int], tiles: Tiles | None = None) -> Array:
    """Codes int8[rows, columns]; unused room at the end of the bytes is allowed, as bitnet.cpp's converter leaves some.

    Raises: as `decode_tl1`.
    """
    found = _tiles("tl2", TL2_TILES, shape, tiles)
    rows, whole, rest = shape[0], shape[1] // found.columns * found.columns, shape[1] % found.columns
    ends = np.cumsum([rows * whole // 6, rows * whole // 24, rows * rest // 4])
    magnitudes, signs, tail = np.split(_part(packed, int(ends[-1]), "tl2"), ends[:2])
    index = _read(magnitudes, _strips_axes(rows, whole, found, 6), rows).astype(np.uint16)
    bits = np.unpackbits(signs.reshape(-1, 2)[:, ::-1])  # words are little-endian
    minus = _read(bits, _signs_axes(rows, whole, found), rows).view("<u2")  # first triple low, second high
    index |= ((minus & 1) << 8) | ((minus >> 8) << 9)
    last = _read(tail, _strips_axes(rows, rest, Tiles(found.rows, TAIL_COLUMNS), 4), rows)
    return np.concatenate([_expand(_TWO_TRIPLES, index), _expand(_TWO_PAIRS, last)], axis=1)


def encode_tl2(t: Array, tiles: Tiles | None = None) -> Array:
    """The inverse, without unused room. Raises: as `encode_tl1`."""
    rows, columns = _matrix("tl2", t).shape
    found = _tiles("tl2", TL2_TILES, (rows, columns), tiles)
    whole, rest = columns // found.columns * found.columns, columns % found.columns
    code = t[:, 0:whole:3] * np.int8(9) + t[:, 1:whole:3] * np.int8(3) + t[:, 2:whole:3]
    magnitude = np.abs(code).view(np.uint8)
    magnitudes = _write(magnitude[:, 0::2] << 4 | magnitude[:, 1::2], _strips_axes(rows, whole, found, 6))
    bits = _write((code < 0).astype(np.uint8), _signs_axes(rows, whole, found))
    signs = np.packbits(bits).reshape(-1, 2)[:, ::-1].reshape(-1)
    tail = _write(_quads(t[:, whole:]), _strips_axes(rows, rest, Tiles(found.rows, TAIL_COLUMNS), 4))
    return np.concatenate([magnitudes, signs, tail])
