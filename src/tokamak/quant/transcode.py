"""Rows of one weight format to another: native where both have a native codec, else through f32 in NumPy.

Either way only pieces are ever held as f32, so that memory stays near the rows that go in and come out.
"""

from __future__ import annotations

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams
from tokamak.quant.format import FORMATS, NATIVE
from tokamak.types import Array, Floats

PIECE = 1 << 24  # elements between two chances to be interrupted


def transcode(
    rows: Array, source: str, target: str, importance: Floats | None = None, *, threads: int = 1
) -> Array:
    """uint8[N, target row_nbytes] of uint8[N, source row_nbytes]; formats by name, made of rows.

    importance: f32[K], see `Format.encode`. Equal formats are copied: nothing is lost by reading and writing again.
    Raises: as `Format.decode` and `Format.encode`; InvalidParams for whole-tensor formats.
    """
    read, write = FORMATS[source], FORMATS[target]
    if read.tail or write.tail:
        raise InvalidParams(f"{source} to {target}: a format of whole tensors has no rows to go through")
    if source == target:
        return rows.copy()
    columns = rows.shape[1] // read.type_size * read.block_size
    out = np.empty((len(rows), write.row_nbytes(columns)), dtype=np.uint8)
    native = source in NATIVE and target in NATIVE
    weights = write.weights(importance, columns) if native and importance is not None else None
    step = max(1, (PIECE if native else PIECE >> 4) // columns)
    for first in range(0, len(rows), step):
        piece = np.ascontiguousarray(rows[first : first + step])
        try:
            if native:
                into = out[first : first + step].reshape(-1)
                _native.transcode(piece.reshape(-1), source, target, columns, weights, threads, out=into)
            else:
                values = read.decode(piece, threads=threads)
                out[first : first + step] = write.encode(values, importance, threads=threads)
        except InvalidParams as error:
            where = f"rows from {first} on" if first else "rows"
            raise error.located(where) from error
    return out
