"""Codecs of the ternary formats, y = d * t with t in {-1, 0, 1}: tq1_0, tq2_0; and the one- and two-bit ones q1_0, q2_0.

    tq1_0  qs[48], qh[4], d f16   256 elements, five base-3 digits t + 1 a byte: 32 bytes hold elements 0..159, 16 bytes
                                  160..239 and qh 240..255 (four digits); digit n of byte b is element b + n * bytes
    tq2_0  qs[64], d f16          256 elements, codes t + 1 in four planes of 32 bytes per half (see `bits`)
    q1_0   d f16, qs[16]          128 elements in order, lowest bit first: y = d where the bit is set, else -d
    q2_0   d f16, qs[16]          64 elements in order, lowest bits first: y = d * (q - 1), q in [0, 3]

tq1_0, tq2_0: d is the largest magnitude of the group and t rounds x / d half away from zero, as ggml does: meant for
weights that are ternary already, where it is exact up to d in f16. Importance is ignored. q1_0: d is the (weighted) mean
magnitude, the least-squares answer; q2_0 searches d of either sign and is exact for ternary weights too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant import fit
from tokamak.quant.bits import pack, unpack
from tokamak.quant.legacy import divide, finite

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

TQ1_0 = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])
Q1_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q2_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

CRUMBS = fit.linear(-2, 1)
STEPS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0, -0.2, -0.4)  # of the 2 of the lowest code


def ternarize(x: Floats) -> tuple[Floats, Array]:
    """Scale f32[n] and codes t + 1 u8[n, k] of f32[n, k]."""
    d = np.abs(x).max(axis=1)
    t = np.trunc(np.float32(2) * finite(divide(x, d))).clip(-1, 1)  # |x / d| <= 1, so half and above is 1
    return d, (t + np.float32(1)).astype(np.uint8)


def decode_tq2_0(groups: Array) -> Floats:
    t = unpack(groups["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256).view(np.int8) - np.int8(1)
    return t * groups["d"].astype(np.float32)[:, None]


def encode_tq2_0(x: Floats, _w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=TQ2_0)
    out["d"], t = ternarize(x)
    out["qs"] = pack(t.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return out


def _digits(packed: Array, count: int) -> Array:
    """The first `count` base-3 digits of u8[n, m], most significant first, as u8[n, count * m].

    A byte is ceil(number * 256 / 243): multiplying by 3 moves the next digit above bit 8.
    """
    shifted = packed[:, None, :] * np.array([1, 3, 9, 27, 81], dtype=np.uint8)[:count, None]
    return ((shifted.astype(np.uint16) * np.uint16(3)) >> 8).astype(np.uint8).reshape(len(packed), -1)


def _numbers(t: Array, num_bytes: int) -> Array:
    """The inverse: bytes of u8[n, count * num_bytes] digits."""
    digits = t.reshape(len(t), -1, num_bytes).astype(np.uint16)
    powers = np.array([81, 27, 9, 3, 1], dtype=np.uint16)[: digits.shape[1], None]
    numbers: Array = (digits * powers).sum(axis=1, dtype=np.uint32)
    return (numbers * 256 + 242) // 243


def decode_tq1_0(groups: Array) -> Floats:
    qs = groups["qs"]
    parts = [_digits(qs[:, :32], 5), _digits(qs[:, 32:], 5), _digits(groups["qh"], 4)]
    t = np.concatenate(parts, axis=1).view(np.int8) - np.int8(1)
    return t * groups["d"].astype(np.float32)[:, None]


def encode_tq1_0(x: Floats, _w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=TQ1_0)
    out["d"], t = ternarize(x)
    out["qs"][:, :32], out["qs"][:, 32:] = _numbers(t[:, :160], 32), _numbers(t[:, 160:240], 16)
    out["qh"] = _numbers(t[:, 240:], 4)
    return out


def decode_q1_0(groups: Array) -> Floats:
    signs = np.unpackbits(groups["qs"], axis=1, bitorder="little").view(np.int8) * np.int8(2) - np.int8(1)
    return signs * groups["d"].astype(np.float32)[:, None]


def encode_q1_0(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=Q1_0)
    out["d"] = fit.to_f16(
        np.abs(x).mean(axis=1) if w is None else (w * np.abs(x)).sum(axis=1) / w.sum(axis=1)
    )
    out["qs"] = np.packbits(x >= 0, axis=1, bitorder="little")
    return out


def decode_q2_0(groups: Array) -> Floats:
    q = unpack(groups["qs"][:, :, None], 2).reshape(-1, 64).view(np.int8) - np.int8(1)
    return q * groups["d"].astype(np.float32)[:, None]


def encode_q2_0(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=Q2_0)
    d = fit.to_f16(fit.scale_only(x, np.ones_like(x) if w is None else w, CRUMBS, STEPS))
    out["d"] = -d  # the search puts the larger side at -2, the format has it at +2
    out["qs"] = pack((np.float32(1) - CRUMBS.values(x, d)).reshape(-1, 16, 4, 1), 2)[:, :, 0]
    return out
