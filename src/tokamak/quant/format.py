"""The registry of weight formats: name, ggml type id, layout, and the codec where there is one.

A codec is two functions of its family's module over structured NumPy groups, and for most formats a native one that does
the same (`native/quant`). `Format` checks shapes, takes the native codec where there is one, else walks the rows in bounded
pieces, and hides NumPy's warnings about infinities, which are legal values here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.quant import bitnet, crumbs, fp4, iquants, kquants, legacy, ternary
from tokamak.quant import float as plain
from tokamak.types import Array, Floats

Decoder = Callable[[Array], Floats]  # groups [n] -> f32[n, block_size]
Encoder = Callable[
    [Floats, "Floats | None"], Array
]  # f32[n, block_size], weights of that shape -> groups [n]

NATIVE = frozenset(_native.codec_formats())
PIECE = 1 << 16  # elements per call of a codec: its temporaries stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Format:
    """A weight format. block_size: elements per group of type_size bytes; a row is a whole number of groups.

    A whole-tensor format (tail > 0) is one row for the tensor: unit groups, then `tail` bytes that begin with an f32 scale.
    """

    name: str
    type_id: int
    block_size: int
    type_size: int
    dtype: np.dtype[Any] = field(repr=False)
    decoder: Decoder | None = field(default=None, repr=False)
    encoder: Encoder | None = field(default=None, repr=False)
    tail: int = 0

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.type_size / self.block_size

    def row_nbytes(self, num_elements: int) -> int:
        """Bytes of a row of K elements. Raises: InvalidParams if K is no multiple of block_size."""
        if num_elements < 0 or num_elements % self.block_size:
            raise InvalidParams(
                f"{self.name} stores rows in groups of {self.block_size} elements; a row of {num_elements} does not fit. "
                "Choose another format for this tensor, f16 for instance"
            )
        return num_elements // self.block_size * self.type_size + self.tail

    def decode(self, rows: Array, *, threads: int = 1) -> Floats:
        """f32[N, K] of uint8[N, row_nbytes], bit-equal to ggml. N = 1 for a whole-tensor format, and K all its elements.

        Raises: UnsupportedError without a codec; InvalidParams for another shape or dtype.
        """
        if self.name in NATIVE:
            self._check_rows(rows)
            columns = rows.shape[1] // self.type_size * self.block_size
            if not rows.size:
                return np.empty((len(rows), columns), dtype=np.float32)
            flat = np.ascontiguousarray(rows).reshape(-1)
            out = _native.transcode(flat, self.name, "f32", columns, threads=threads)
            return out.view(np.float32).reshape(len(rows), columns)
        return self.decode_plain(rows)

    def decode_plain(self, rows: Array) -> Floats:
        """What `decode` returns, in NumPy. Raises: as `decode`."""
        if self.decoder is None:
            raise UnsupportedError(
                f"weight format {self.name} (type {self.type_id}) is known but cannot be decoded"
            )
        self._check_rows(rows)
        body = rows.shape[1] - self.tail
        groups = np.ascontiguousarray(rows[:, :body]).reshape(-1).view(self.dtype)
        out = np.empty((len(groups), self.block_size), dtype=np.float32)
        with np.errstate(all="ignore"):
            for piece in self._pieces(len(groups)):
                if self.tail:
                    np.multiply(
                        self.decoder(groups[piece]), rows[0, body : body + 4].view("<f4"), out=out[piece]
                    )
                else:
                    out[piece] = self.decoder(groups[piece])
        return out.reshape(len(rows), body // self.type_size * self.block_size)

    def encode(self, x: Floats, importance: Floats | None = None, *, threads: int = 1) -> Array:
        """uint8[N, row_nbytes] of f32[N, K], every value finite (the float formats take any); one row if whole-tensor.

        importance: f32[K], how much the squared error of each column counts; finite, not negative, not all zero.
        Raises: UnsupportedError without a codec; InvalidParams for anything else.
        """
        if self.name not in NATIVE or x.ndim != 2 or not x.size:
            return self.encode_plain(x, importance)
        nbytes, columns = self.row_nbytes(x.shape[1]), x.shape[1]
        flat = np.ascontiguousarray(x, dtype=np.float32).reshape(-1).view(np.uint8)
        weights = None if importance is None else self.weights(importance, columns)
        out = _native.transcode(flat, "f32", self.name, columns, weights, threads)
        return out.reshape(len(x), nbytes)

    def encode_plain(self, x: Floats, importance: Floats | None = None) -> Array:
        """What `encode` returns, in NumPy: the same search; sums of floats in another order may choose another code.

        Raises: as `encode`.
        """
        if self.encoder is None:
            raise UnsupportedError(
                f"weight format {self.name} (type {self.type_id}) is known but cannot be written"
            )
        if x.ndim != 2:
            raise InvalidParams(f"{self.name} encodes a matrix [N, K], not an array of shape {x.shape}")
        x = np.ascontiguousarray(x, dtype=np.float32)
        if self.block_size > 1:
            self._check_finite(x)
        if self.tail:
            return self._encode_tensor(x)
        nbytes = self.row_nbytes(x.shape[1])
        weights = None
        if importance is not None:
            weights = self.weights(importance, x.shape[1]).reshape(-1, self.block_size)
        groups = x.reshape(-1, self.block_size)
        out = np.empty(len(groups), dtype=self.dtype)
        with np.errstate(all="ignore"):
            for piece in self._pieces(len(groups)):
                w = None
                if weights is not None:
                    w = weights[np.arange(piece.start, piece.stop) % len(weights)]
                out[piece] = self.encoder(groups[piece], w)
        return out.view(np.uint8).reshape(len(x), nbytes)

    def _encode_tensor(self, x: Floats) -> Array:
        assert self.encoder is not None
        row = np.zeros((1, self.row_nbytes(x.size)), dtype=np.uint8)
        scale = np.abs(np.maximum(x.max(initial=0), -x.min(initial=0))).astype("<f4")
        groups, body = x.reshape(-1, self.block_size), row.shape[1] - self.tail
        out = row[0, :body].view(self.dtype)
        for piece in self._pieces(len(groups)):
            out[piece] = self.encoder(groups[piece], scale)
        row[0, body : body + 4] = scale.reshape(1).view(np.uint8)
        return row

    def _check_rows(self, rows: Array) -> None:
        body = rows.shape[-1] - self.tail
        if (
            rows.ndim != 2
            or rows.dtype != np.uint8
            or body < 0
            or body % self.type_size
            or (self.tail and len(rows) != 1)
        ):
            plus = f" and {self.tail}" if self.tail else ""
            raise InvalidParams(
                f"{self.name} decodes uint8 rows of a multiple of {self.type_size} bytes{plus}, not {rows.dtype}{rows.shape}"
            )

    def _check_finite(self, x: Floats) -> None:
        if x.size and not (np.isfinite(x.min()) and np.isfinite(x.max())):  # both carry NaN on
            row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
            raise InvalidParams(f"row {row} has a value that is not finite; {self.name} cannot hold it")

    def _pieces(self, num_groups: int) -> Iterator[slice]:
        step = max(1, PIECE // self.block_size)
        return (slice(i, min(i + step, num_groups)) for i in range(0, num_groups, step))

    @staticmethod
    def weights(importance: Floats, num_elements: int) -> Floats:
        """Importance as f32[K] of mean 1, with a floor that keeps every group solvable.

        Raises: InvalidParams unless it is K finite values >= 0, not all zero.
        """
        w = np.asarray(importance, dtype=np.float64)
        if w.shape != (num_elements,) or not np.isfinite(w).all() or (w < 0).any() or not w.any():
            raise InvalidParams(
                f"importance must be {num_elements} finite values >= 0, not all zero; got shape {w.shape}"
            )
        scaled: Floats = np.maximum(w / w.mean(), 1e-6).astype(np.float32)
        return scaled


# Every tensor type id of ggml, and those bitnet.cpp adds (i2_s, tl1, tl2). Ids 4, 5, 31..33 and 37 were removed upstream and
# are kept by name so that an old file is refused by name. tl2 shares id 39 with mxfp4: `by_type_id` answers mxfp4.
_TABLE: tuple[tuple[str, int, int, Any, Decoder | None, Encoder | None], ...] = (
    ("f32", 0, 1, "<f4", plain.decode_plain, plain.encode_f32),
    ("f16", 1, 1, "<f2", plain.decode_plain, plain.encode_f16),
    ("q4_0", 2, 32, legacy.Q4_0, legacy.decode, legacy.encode_q4_0),
    ("q4_1", 3, 32, legacy.Q4_1, legacy.decode, legacy.encode_q4_1),
    ("q4_2", 4, 16, 10, None, None),
    ("q4_3", 5, 16, 12, None, None),
    ("q5_0", 6, 32, legacy.Q5_0, legacy.decode, legacy.encode_q5_0),
    ("q5_1", 7, 32, legacy.Q5_1, legacy.decode, legacy.encode_q5_1),
    ("q8_0", 8, 32, legacy.Q8_0, legacy.decode, legacy.encode_q8_0),
    ("q8_1", 9, 32, legacy.Q8_1, legacy.decode, legacy.encode_q8_1),
    ("q2_k", 10, 256, kquants.Q2_K, kquants.decode_q2_k, kquants.encode_q2_k),
    ("q3_k", 11, 256, kquants.Q3_K, kquants.decode_q3_k, kquants.encode_q3_k),
    ("q4_k", 12, 256, kquants.Q4_K, kquants.decode_q4_k, kquants.encode_q4_k),
    ("q5_k", 13, 256, kquants.Q5_K, kquants.decode_q5_k, kquants.encode_q5_k),
    ("q6_k", 14, 256, kquants.Q6_K, kquants.decode_q6_k, kquants.encode_q6_k),
    ("q8_k", 15, 256, kquants.Q8_K, kquants.decode_q8_k, kquants.encode_q8_k),
    ("iq2_xxs", 16, 256, iquants.IQ2_XXS, iquants.decode_iq2_xxs, iquants.encode_iq2_xxs),
    ("iq2_xs", 17, 256, iquants.IQ2_XS, iquants.decode_iq2_xs, iquants.encode_iq2_xs),
    ("iq3_xxs", 18, 256, iquants.IQ3_XXS, iquants.decode_iq3_xxs, iquants.encode_iq3_xxs),
    ("iq1_s", 19, 256, iquants.IQ1_S, iquants.decode_iq1_s, iquants.encode_iq1_s),
    ("iq4_nl", 20, 32, fp4.IQ4_NL, fp4.decode_iq4_nl, fp4.encode_iq4_nl),
    ("iq3_s", 21, 256, iquants.IQ3_S, iquants.decode_iq3_s, iquants.encode_iq3_s),
    ("iq2_s", 22, 256, iquants.IQ2_S, iquants.decode_iq2_s, iquants.encode_iq2_s),
    ("iq4_xs", 23, 256, fp4.IQ4_XS, fp4.decode_iq4_xs, fp4.encode_iq4_xs),
    ("i8", 24, 1, "<i1", plain.decode_plain, None),
    ("i16", 25, 1, "<i2", plain.decode_plain, None),
    ("i32", 26, 1, "<i4", plain.decode_plain, None),
    ("i64", 27, 1, "<i8", plain.decode_plain, None),
    ("f64", 28, 1, "<f8", plain.decode_plain, None),
    ("iq1_m", 29, 256, iquants.IQ1_M, iquants.decode_iq1_m, iquants.encode_iq1_m),
    ("bf16", 30, 1, plain.BF16, plain.decode_bf16, plain.encode_bf16),
    ("q4_0_4_4", 31, 32, 18, None, None),
    ("q4_0_4_8", 32, 32, 18, None, None),
    ("q4_0_8_8", 33, 32, 18, None, None),
    ("tq1_0", 34, 256, ternary.TQ1_0, ternary.decode_tq1_0, ternary.encode_tq1_0),
    ("tq2_0", 35, 256, ternary.TQ2_0, ternary.decode_tq2_0, ternary.encode_tq2_0),
    ("i2_s", 36, 128, bitnet.I2_S, bitnet.decode_i2_s, bitnet.encode_i2_s),
    ("i2_s_arm", 36, 128, bitnet.I2_S, bitnet.decode_i2_s_arm, bitnet.encode_i2_s_arm),
    ("i2_s_rows4", 36, 128, 32, None, None),
    ("i2_f16", 36, 32, crumbs.I2_F16, crumbs.decode_i2_f16, crumbs.encode_i2_f16),
    ("qk256", 36, 256, crumbs.QK256, crumbs.decode_qk256, crumbs.encode_qk256),
    ("iq4_nl_4_8", 37, 32, 18, None, None),
    ("tl1", 38, 4, 1, None, None),
    ("mxfp4", 39, 32, fp4.MXFP4, fp4.decode_mxfp4, fp4.encode_mxfp4),
    ("tl2", 39, 256, 54, None, None),
    ("nvfp4", 40, 64, fp4.NVFP4, fp4.decode_nvfp4, fp4.encode_nvfp4),
    ("q1_0", 41, 128, ternary.Q1_0, ternary.decode_q1_0, ternary.encode_q1_0),
    ("q2_0", 42, 64, ternary.Q2_0, ternary.decode_q2_0, ternary.encode_q2_0),
)


def _format(row: tuple[str, int, int, Any, Decoder | None, Encoder | None]) -> Format:
    name, type_id, block_size, layout, decoder, encoder = row
    dtype: np.dtype[Any] = np.dtype(("V", layout)) if isinstance(layout, int) else np.dtype(layout)
    tail = 32 if name.startswith("i2_s") else 0
    return Format(name, type_id, block_size, dtype.itemsize, dtype, decoder, encoder, tail)


FORMATS: dict[str, Format] = {row[0]: _format(row) for row in _TABLE}
_BY_ID: dict[int, Format] = {f.type_id: f for f in reversed(FORMATS.values())}


def by_type_id(type_id: int) -> Format:
    """The format of a ggml type id. Raises: UnsupportedError for an id that no release of ggml has used."""
    if type_id not in _BY_ID:
        raise UnsupportedError(f"weight type id {type_id} is not known (known: 0 to {max(_BY_ID)})")
    return _BY_ID[type_id]
