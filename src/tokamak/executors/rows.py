"""The bytes of a weight as the native packer takes them: rows of a matrix, and the scale of the whole if it has one.

Nothing is dequantised. Formats that belong to a whole tensor (i2_s) are cut into rows here; tl1, tl2 and i2_s_rows4, whose
order follows tiles, are rewritten as rows of i2_s_arm, code by code; i2_f16 and qk256 as rows of q4_0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.quant import FORMATS, crumbs
from tokamak.quant.bitnet import decode_rows4, encode_i2_s_arm
from tokamak.quant.lookup import decode_tl1, decode_tl2
from tokamak.types import Array, Floats, Weight

PIECE = 1 << 16  # words of 8 bytes that are looked at together
# Formats whose bytes are codes of a matrix in an order of their own: how to bring them into rows.
REORDERED: dict[str, Callable[[Array, tuple[int, int]], Array]] = {
    "tl1": decode_tl1,
    "tl2": decode_tl2,
    "i2_s_rows4": decode_rows4,
}
CRUMBS = ("i2_f16", "qk256")


class Rows(NamedTuple):
    """uint8[N, row_nbytes] of `format`, times `scale`."""

    format: str
    data: Array
    scale: float


def packed_format(weight: Weight) -> str:
    """The format a weight has when it reaches the packer."""
    if weight.format in CRUMBS:
        return "q4_0"
    return "i2_s_arm" if weight.format in REORDERED else weight.format


def matrix_rows(weight: Weight, num_rows: int, num_columns: int) -> Rows:
    """The rows of a matrix, or of several that lie one after another.

    Raises: UnsupportedError for a whole-tensor format whose groups do not end with the rows, and for tl1 and tl2 of
    shapes without known tiles; ModelFileError if bytes are missing.
    """
    data = np.ascontiguousarray(weight.rows())
    if weight.format in REORDERED:
        codes = REORDERED[weight.format](data.reshape(-1), (num_rows, num_columns))
        groups = encode_i2_s_arm(codes.reshape(-1, 128).astype(np.float32), np.ones(1, np.float32))
        scale = _scale(data, num_rows * num_columns // 4) if weight.format == "i2_s_rows4" else 1.0
        return Rows("i2_s_arm", groups.view(np.uint8).reshape(num_rows, -1), scale)
    fmt = FORMATS[weight.format]
    if weight.format in CRUMBS:
        return Rows("q4_0", crumbs.to_q4_0(data, fmt.dtype), 1.0)
    if not fmt.tail:
        return Rows(weight.format, data, 1.0)
    body = num_rows * num_columns // 4
    if data.size != body + fmt.tail:
        raise ModelFileError(f"{weight.format} needs {body + fmt.tail} bytes and has {data.size}")
    if num_columns % fmt.block_size:
        raise UnsupportedError(
            f"{weight.format} with rows of {num_columns} columns: a group of {fmt.block_size} would span two rows"
        )
    rows = data.reshape(-1)[:body]
    _check_ternary(rows, weight.format)
    return Rows(weight.format, rows.reshape(num_rows, -1), _scale(data, body))


def _scale(data: Array, body: int) -> float:
    """The f32 behind the codes of a tensor."""
    if data.size < body + 4:
        raise ModelFileError(f"needs {body + 4} bytes of codes and scale and has {data.size}")
    return float(data.reshape(-1)[body : body + 4].view("<f4")[0])


def _check_ternary(codes: Array, name: str) -> None:
    """Three layouts share one type id: the code 3, which none of them writes, tells most of the mistakes."""
    words = codes[: len(codes) // 8 * 8].view(np.uint64)
    for i in range(0, len(words), PIECE):
        piece = words[i : i + PIECE]
        if (piece & (piece >> np.uint64(1)) & np.uint64(0x5555555555555555)).any():
            raise ModelFileError(
                f"{name} codes hold the value 3, which bitnet.cpp never writes: the tensor has another layout"
            )


def decoded(weight: Weight) -> Floats:
    """A parameter as f32 of its shape, exactly what its bytes mean. Raises: as `matrix_rows`."""
    data = np.ascontiguousarray(weight.rows())
    if weight.format in REORDERED:
        rows, columns = weight.shape
        codes = REORDERED[weight.format](data.reshape(-1), (rows, columns)).astype(np.float32)
        scale = _scale(data, rows * columns // 4) if weight.format == "i2_s_rows4" else 1.0
        return codes * np.float32(scale)
    values: Floats = FORMATS[weight.format].decode(data).astype(np.float32)
    return values.reshape(weight.shape)
