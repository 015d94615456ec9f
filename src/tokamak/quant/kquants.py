"""Codecs of the 256-element super-groups with two levels of scales: q2_k .. q6_k, and the activation format q8_k.

    q2_k  scales[16], qs[64], d, dmin            y = d * sc * q - dmin * m   16 groups of 16; scales: sc low nibble, m high
    q3_k  hmask[32], qs[64], scales[12], d       y = d * sc * q              16 groups of 16; q in [-4, 3], sc in [-32, 31]
    q4_k  d, dmin, scales[12], qs[128]           y = d * sc * q - dmin * m   8 groups of 32; sc, m in [0, 63]
    q5_k  d, dmin, scales[12], qh[32], qs[128]   the same with q in [0, 31]
    q6_k  ql[128], qh[64], scales[16], d         y = d * sc * q              16 groups of 16; q in [-32, 31], sc int8
    q8_k  d f32, qs[256] int8, bsums[16] int16   y = d * q                   bsums: sums of q over 16 elements

d, dmin are f16 unless noted. Planes (see `bits`): qs of q4_k, q5_k run over 32 bytes, of q2_k, q3_k and qh of q6_k over
32 bytes of each half, ql of q6_k over 64 bytes of each half, qh of q5_k and hmask over all 32 bytes.
Encoding searches scales for the least (weighted) squared error; codes round to nearest, ties to even. Scales beyond f16
saturate. q8_k is ggml's to the byte: the extreme value becomes -127.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant import fit
from tokamak.quant.bits import pack, unpack

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
Q8_K = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])

AFFINE_STEPS = (0.0, -1.0, -0.7, -0.4, -0.2, 0.2, 0.4, 0.7)
SYMMETRIC_STEPS = (0.0, -0.8, -0.6, -0.4, -0.2, 0.2, 0.4, 0.6, 0.8)


def _scale(d: Array, sc: Array) -> Floats:
    """d * sc as f32[n, groups, 1]."""
    return (d.astype(np.float32)[:, None] * sc.astype(np.float32))[:, :, None]


def _affine(groups: Array, q: Array, sc: Array, m: Array) -> Floats:
    y = q.reshape(*sc.shape, -1) * _scale(groups["d"], sc)
    y -= _scale(groups["dmin"], m)
    return y.reshape(-1, 256)


def _scaled(groups: Array, q: Array, sc: Array) -> Floats:
    y: Floats = q.reshape(-1, 16, 16) * _scale(groups["d"], sc)
    return y.reshape(-1, 256)


def unpack_scales(packed: Array) -> tuple[Array, Array]:
    """Eight 6-bit scales and eight minima from 12 bytes: the last four of each have their upper bits in bytes 0..7."""
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    sc = np.concatenate([first & 63, (rest & 15) | ((first >> 6) << 4)], axis=1)
    return sc, np.concatenate([second & 63, (rest >> 4) | ((second >> 6) << 4)], axis=1)


def pack_scales(sc: Floats, m: Floats) -> Array:
    s, t = sc.astype(np.uint8), m.astype(np.uint8)
    parts = [
        s[:, :4] | ((s[:, 4:] >> 4) << 6),
        t[:, :4] | ((t[:, 4:] >> 4) << 6),
        (s[:, 4:] & 15) | (t[:, 4:] << 4),
    ]
    return np.concatenate(parts, axis=1)


def decode_q4_k(groups: Array) -> Floats:
    return _affine(groups, unpack(groups["qs"].reshape(-1, 4, 32), 4), *unpack_scales(groups["scales"]))


def decode_q5_k(groups: Array) -> Floats:
    q = unpack(groups["qs"].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    q |= unpack(groups["qh"], 1) << np.uint8(4)
    return _affine(groups, q, *unpack_scales(groups["scales"]))


def _weights(x: Floats, w: Floats | None) -> Floats:
    return np.ones_like(x) if w is None else w.reshape(x.shape)


def _encode_affine(dtype: np.dtype[np.void], high: int, x: Floats, w: Floats | None) -> Array:
    x = x.reshape(-1, 8, 32)
    out = np.empty(len(x), dtype=dtype)
    out["d"], out["dmin"], sc, m, q = fit.asymmetric(x, _weights(x, w), high, 63, AFFINE_STEPS)
    out["scales"] = pack_scales(sc, m)
    code = q.astype(np.uint8)
    out["qs"] = pack((code & 15).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    if high > 15:
        out["qh"] = pack(code >> 4, 1)
    return out


def encode_q4_k(x: Floats, w: Floats | None) -> Array:
    return _encode_affine(Q4_K, 15, x, w)


def encode_q5_k(x: Floats, w: Floats | None) -> Array:
    return _encode_affine(Q5_K, 31, x, w)


def decode_q2_k(groups: Array) -> Floats:
    scales = groups["scales"]
    return _affine(groups, unpack(groups["qs"].reshape(-1, 2, 32), 2), scales & 15, scales >> 4)


def encode_q2_k(x: Floats, w: Floats | None) -> Array:
    x = x.reshape(-1, 16, 16)
    out = np.empty(len(x), dtype=Q2_K)
    out["d"], out["dmin"], sc, m, q = fit.asymmetric(x, _weights(x, w), 3, 15, AFFINE_STEPS)
    out["scales"] = sc.astype(np.uint8) | (m.astype(np.uint8) << 4)
    out["qs"] = pack(q.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return out


def decode_q3_k(groups: Array) -> Floats:
    q = unpack(groups["qs"].reshape(-1, 2, 32), 2).reshape(-1, 8, 32) | (
        unpack(groups["hmask"], 1) << np.uint8(2)
    )
    low, high = unpack(groups["scales"][:, :8], 4), unpack(groups["scales"][:, 8:], 2)
    sc = low.reshape(-1, 16) | (high.reshape(-1, 16) << np.uint8(4))
    return _scaled(groups, q.view(np.int8) - np.int8(4), sc.view(np.int8) - np.int8(32))


def encode_q3_k(x: Floats, w: Floats | None) -> Array:
    x = x.reshape(-1, 16, 16)
    out = np.empty(len(x), dtype=Q3_K)
    out["d"], sc, q = fit.symmetric(x, _weights(x, w), fit.linear(-4, 3), (-32, 31), SYMMETRIC_STEPS)
    code, scale = (q + np.float32(4)).astype(np.uint8), (sc + np.float32(32)).astype(np.uint8)
    out["hmask"] = pack((code >> 2).reshape(-1, 8, 32), 1)
    out["qs"] = pack((code & 3).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    out["scales"][:, :8] = pack((scale & 15).reshape(-1, 2, 8), 4)
    out["scales"][:, 8:] = pack((scale >> 4).reshape(-1, 4, 4), 2)
    return out


def decode_q6_k(groups: Array) -> Floats:
    q = unpack(groups["ql"].reshape(-1, 2, 64), 4).reshape(-1, 2, 4, 32)
    q |= unpack(groups["qh"].reshape(-1, 2, 32), 2) << np.uint8(4)
    return _scaled(groups, q.view(np.int8) - np.int8(32), groups["scales"])


def encode_q6_k(x: Floats, w: Floats | None) -> Array:
    x = x.reshape(-1, 16, 16)
    out = np.empty(len(x), dtype=Q6_K)
    out["d"], out["scales"], q = fit.symmetric(
        x, _weights(x, w), fit.linear(-32, 31), (-128, 127), SYMMETRIC_STEPS
    )
    code = (q + np.float32(32)).astype(np.uint8)
    out["ql"] = pack((code & 15).reshape(-1, 2, 2, 64), 4).reshape(-1, 128)
    out["qh"] = pack((code >> 4).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return out


def decode_q8_k(groups: Array) -> Floats:
    return groups["qs"] * groups["d"].astype(np.float32)[:, None]


def encode_q8_k(x: Floats, _w: Floats | None) -> Array:
    out = np.zeros(len(x), dtype=Q8_K)
    inverse = np.float32(-127) / fit.peak(x)
    inverse = np.where(np.isfinite(inverse), inverse, np.float32(0))
    q = np.minimum(np.rint(x * inverse[:, None]), 127).astype(np.int8)
    out["d"], out["qs"] = np.where(inverse == 0, np.float32(0), np.float32(1) / inverse), q
    out["bsums"] = q.reshape(-1, 16, 16).sum(axis=2, dtype=np.int16)
    return out
