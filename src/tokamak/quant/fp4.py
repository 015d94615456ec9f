"""Codecs of the 4-bit formats whose codes are looked up: iq4_nl, iq4_xs, mxfp4, nvfp4. Groups in bytes:

    iq4_nl  d f16, qs[16]                                      32 elements: y = d * LEVELS[q]
    iq4_xs  d f16, scales_h u16, scales_l[4], qs[128]          8 groups of 32: y = d * sc * LEVELS[q]; sc in [-32, 31], low
                                                               four bits in nibbles of scales_l, high two in scales_h
    mxfp4   e, qs[16]                                          32 elements: y = 2**(e - 128) * E2M1[q] (values doubled)
    nvfp4   d[4] in unsigned e4m3, qs[32]                      4 groups of 16: y = d / 2 * E2M1[q]

qs of 2 m elements: the first m in the low nibbles, the others in the high ones. Encoding searches scales for the least
(weighted) squared error; values round to the nearest level. An e4m3 of 0x7f (not a number) decodes to 0, as in ggml;
e beyond the range of f32 saturates there. The scale of a whole tensor that goes with nvfp4 is not in the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant import fit
from tokamak.quant.bits import pack, unpack

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
IQ4_XS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])
MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])
NVFP4 = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])

LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int8)
E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.int8)
NONLINEAR = fit.codebook(LEVELS.tolist())
FLOAT4 = fit.codebook(sorted({*E2M1.tolist()}))
STEPS = (
    0.0,
    *(sign * step for step in (3, 7, 11, 15, 20, 26) for sign in (-1, 1)),
)  # of the 127 of the lowest level


def _level_codes(values: Floats, table: Array) -> Array:
    """Codes u8 of integer values that are all in the table."""
    codes = np.zeros(256, dtype=np.uint8)
    codes[table[::-1].view(np.uint8)] = np.arange(len(table) - 1, -1, -1)  # of two zeros the first
    return codes[values.astype(np.int8).view(np.uint8)]


def _ones(x: Floats, w: Floats | None) -> Floats:
    return np.ones_like(x) if w is None else w.reshape(x.shape)


def decode_iq4_nl(groups: Array) -> Floats:
    return LEVELS[unpack(groups["qs"], 4).reshape(-1, 32)] * groups["d"].astype(np.float32)[:, None]


def encode_iq4_nl(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=IQ4_NL)
    w = _ones(x, w)
    d = fit.to_f16(fit.scale_only(x, w, NONLINEAR, STEPS))
    q = NONLINEAR.values(x, d)
    d = fit.to_f16((w * q * x).sum(axis=1) * fit.inverse((w * q * q).sum(axis=1)))
    out["d"], out["qs"] = d, pack(_level_codes(NONLINEAR.values(x, d), LEVELS).reshape(-1, 2, 16), 4)
    return out


def decode_iq4_xs(groups: Array) -> Floats:
    low = unpack(groups["scales_l"][:, :, None], 4).reshape(-1, 8)
    high = (groups["scales_h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    sc = (low | (high << 4).astype(np.uint8)).view(np.int8) - np.int8(32)
    scale: Floats = groups["d"].astype(np.float32)[:, None] * sc
    levels = LEVELS[unpack(groups["qs"].reshape(-1, 8, 16), 4)].reshape(-1, 8, 32)
    y: Floats = levels * scale[:, :, None]
    return y.reshape(-1, 256)


def encode_iq4_xs(x: Floats, w: Floats | None) -> Array:
    x = x.reshape(-1, 8, 32)
    out = np.empty(len(x), dtype=IQ4_XS)
    out["d"], sc, values = fit.symmetric(x, _ones(x, w), NONLINEAR, (-32, 31), STEPS)
    scale = (sc + np.float32(32)).astype(np.uint8)
    out["scales_l"] = pack((scale & 15).reshape(-1, 4, 2, 1), 4)[:, :, 0]
    high = (scale >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16)
    out["scales_h"] = np.bitwise_or.reduce(high, axis=1)
    out["qs"] = pack(_level_codes(values, LEVELS).reshape(-1, 8, 2, 16), 4).reshape(-1, 128)
    return out


def _best_of(x: Floats, w: Floats, scales: Array) -> tuple[Array, Floats]:
    """Index [n] of the best of candidate scales f32[c, n] and the FLOAT4 values f32[n, k] it gives."""
    errors = []
    for scale in scales:
        miss = FLOAT4.values(x, scale) * scale[:, None] - x
        errors.append(np.einsum("nk,nk->n", miss * w, miss))
    choice = np.argmin(np.nan_to_num(np.stack(errors), nan=np.inf), axis=0)
    return choice, FLOAT4.values(x, np.take_along_axis(scales, choice[None], axis=0)[0])


def power_scale(e: Array) -> Floats:
    """2**(e - 128) of u8[...], the two smallest subnormal: half of an e8m0."""
    return np.ldexp(np.float32(1), e.astype(np.int32) - 128)


def decode_mxfp4(groups: Array) -> Floats:
    return E2M1[unpack(groups["qs"], 4).reshape(-1, 32)] * power_scale(groups["e"])[:, None]


def encode_mxfp4(x: Floats, w: Floats | None) -> Array:
    out = np.empty(len(x), dtype=MXFP4)
    exponent = np.frexp(np.abs(x).max(axis=1))[1] - 1
    first = np.clip(exponent[None] - 2 + 127 + np.array([0, 1, -1])[:, None], 0, 254).astype(np.uint8)
    choice, values = _best_of(x, _ones(x, w), power_scale(first))
    out["e"] = np.take_along_axis(first, choice[None], axis=0)[0]
    out["qs"] = pack(_level_codes(values, E2M1).reshape(-1, 2, 16), 4)
    return out


_E4M3 = np.arange(128)
E4M3 = np.where(
    _E4M3 < 8, _E4M3 * 2.0**-9, (1 + (_E4M3 & 7) / 8) * 2.0 ** np.minimum((_E4M3 >> 3) - 7, 9)
).astype(np.float32) / np.float32(2)
E4M3[127] = 0


def decode_nvfp4(groups: Array) -> Floats:
    y: Floats = (
        E2M1[unpack(groups["qs"].reshape(-1, 4, 8), 4)].reshape(-1, 4, 16)
        * E4M3[groups["d"] & 127][:, :, None]
    )
    return y.reshape(-1, 64)


def encode_nvfp4(x: Floats, w: Floats | None) -> Array:
    x, w = x.reshape(-1, 16), _ones(x, w).reshape(-1, 16)
    nearest = np.searchsorted(E4M3[:127], np.abs(x).max(axis=1) / np.float32(12))
    first = np.clip(nearest[None] + np.arange(-3, 4)[:, None], 0, 126)
    choice, values = _best_of(x, w, E4M3[first])
    out = np.empty(len(x) // 4, dtype=NVFP4)
    out["d"] = np.take_along_axis(first, choice[None], axis=0)[0].reshape(-1, 4)
    out["qs"] = pack(_level_codes(values, E2M1).reshape(-1, 4, 2, 8), 4).reshape(-1, 32)
    return out
