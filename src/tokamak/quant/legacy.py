"""Codecs of the 32-element formats: q4_0, q4_1, q5_0, q5_1, q8_0, q8_1. Groups in bytes, d, m, s in f16:

    q4_0  d, qs[16]            y = d * (q - 8)     qs: elements 0..15 in the low nibbles, 16..31 in the high ones
    q4_1  d, m, qs[16]         y = d * q + m
    q5_0  d, qh[4], qs[16]     y = d * (q - 16)    qh: bit i is the fifth bit of element i
    q5_1  d, m, qh[4], qs[16]  y = d * q + m
    q8_0  d, qs[32]            y = d * q           int8
    q8_1  d, s, qs[32]         y = d * q, s = d * sum(q); an activation format

Without importance the bytes are those of ggml's reference: scale from the extreme value, 4 and 5 bits round half up,
8 bits half away from zero. With importance scale (and minimum) are searched; the 8-bit formats ignore it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant import fit
from tokamak.quant.bits import pack, unpack

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
Q8_1 = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)])

STEPS = tuple(0.1 * i for i in range(-9, 10))  # fractions of a code around the extreme one


def decode(groups: Array) -> Floats:
    """f32[n, 32] of any of the six; which one is told by its fields."""
    names = groups.dtype.names or ()
    q = groups["qs"]
    if q.dtype == np.uint8:
        q = unpack(q, 4).reshape(-1, 32)
        if "qh" in names:
            q |= np.unpackbits(groups["qh"], axis=1, bitorder="little") << np.uint8(4)
        if "m" not in names:
            q = q.view(np.int8) - np.int8(16 if "qh" in names else 8)
    y: Floats = q * groups["d"].astype(np.float32)[:, None]
    return y + groups["m"].astype(np.float32)[:, None] if "m" in names else y


def _store(dtype: np.dtype[np.void], q: Array, **scales: Floats) -> Array:
    """Groups of `dtype` from unsigned codes [n, 32] (int8 for the 8-bit formats) and their f16 fields [n]."""
    out = np.empty(len(q), dtype=dtype)
    for name, values in scales.items():
        out[name] = values
    if "qh" in (dtype.names or ()):
        out["qh"] = np.packbits(q >> 4, axis=1, bitorder="little")
    out["qs"] = q if dtype["qs"].base == np.int8 else pack((q & 15).reshape(-1, 2, 16), 4)
    return out


def divide(x: Floats, d: Floats) -> Floats:
    """x * (1 / d) of f32[n, k] and f32[n], 0 where d is 0. Infinite where d is so small that 1 / d overflows."""
    return x * np.where(d == 0, np.float32(0), np.float32(1) / d)[:, None]


def finite(x: Floats) -> Floats:
    """x with 0 for infinities and NaN: what converting them to int8 gives on x86, hence what ggml writes there."""
    return np.where(np.isfinite(x), x, np.float32(0))


def _truncate(x: Floats, high: int) -> Array:
    return np.clip(np.trunc(finite(x)), 0, high).astype(np.uint8)


def _symmetric(dtype: np.dtype[np.void], half: int, x: Floats, w: Floats | None) -> Array:
    """Codes in [0, 2 * half): the element of largest magnitude becomes -half."""
    if w is not None:
        d = fit.to_f16(fit.scale_only(x, w, fit.linear(-half, half - 1), STEPS))
        return _store(dtype, (fit.codes(x, d, -half, half - 1) + half).astype(np.uint8), d=d)
    d = fit.peak(x) / np.float32(-half)
    q = _truncate(divide(x, d) + np.float32(half + 0.5), 2 * half - 1)
    return _store(dtype, q, d=d)


def _affine(dtype: np.dtype[np.void], high: int, x: Floats, w: Floats | None) -> Array:
    """Codes in [0, high] from minimum to maximum."""
    if w is not None:
        s, m = fit.scale_and_minimum(x, w, high, STEPS, rounds=2, any_sign=True)
        d, m = fit.to_f16(s), fit.to_f16(-m)
        return _store(dtype, fit.codes(x - m[:, None], d, 0, high).astype(np.uint8), d=d, m=m)
    low = x.min(axis=1)
    d = (x.max(axis=1) - low) / np.float32(high)
    q = _truncate(divide(x - low[:, None], d) + np.float32(0.5), high)
    return _store(dtype, q, d=d, m=low)


def encode_q4_0(x: Floats, w: Floats | None) -> Array:
    return _symmetric(Q4_0, 8, x, w)


def encode_q4_1(x: Floats, w: Floats | None) -> Array:
    return _affine(Q4_1, 15, x, w)


def encode_q5_0(x: Floats, w: Floats | None) -> Array:
    return _symmetric(Q5_0, 16, x, w)


def encode_q5_1(x: Floats, w: Floats | None) -> Array:
    return _affine(Q5_1, 31, x, w)


def _eight_bits(x: Floats) -> tuple[Floats, Array]:
    d = np.abs(x).max(axis=1) / np.float32(127)
    scaled = finite(divide(x, d))
    whole = np.trunc(scaled)
    whole += np.trunc(np.float32(2) * (scaled - whole))
    return d, np.clip(whole, -127, 127).astype(np.int8)


def encode_q8_0(x: Floats, _w: Floats | None) -> Array:
    d, q = _eight_bits(x)
    return _store(Q8_0, q, d=d)


def encode_q8_1(x: Floats, _w: Floats | None) -> Array:
    d, q = _eight_bits(x)
    return _store(Q8_1, q, d=d, s=d * q.sum(axis=1, dtype=np.int32).astype(np.float32))
