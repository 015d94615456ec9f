"""Codecs of the ternary formats, y = d * t with t in {-1, 0, 1}: tq2_0.

    tq2_0  qs[64], d f16   256 elements, codes t + 1 in four planes of 32 bytes per half (see `bits`)

d is the largest magnitude of the group and t rounds x / d half away from zero, as ggml does: meant for weights that are
ternary already, where it is exact up to d in f16. Importance is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant.bits import pack, unpack
from tokamak.quant.legacy import divide, finite

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])


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
