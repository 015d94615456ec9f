"""Codecs of the plain number formats: f32, f16, bf16 and the arrays of integers a model file may hold.

One element per group, little-endian. Encoding rounds to nearest, ties to even; beyond the range of f16 is infinity;
NaN stays NaN (quiet, upper payload bits kept), and subnormals are kept in both directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

BF16 = np.dtype("<u2")


def decode_plain(groups: Array) -> Floats:
    """f32[n, 1] from any NumPy number type; f64 and wide integers round to nearest, ties to even."""
    return groups.astype(np.float32)[:, None]


def encode_f32(x: Floats, _weight: Floats | None) -> Array:
    return x[:, 0].astype("<f4")


def encode_f16(x: Floats, _weight: Floats | None) -> Array:
    return x[:, 0].astype("<f2")


def decode_bf16(groups: Array) -> Floats:
    """bf16 is the upper half of an f32."""
    return (groups.astype(np.uint32) << np.uint32(16)).view(np.float32)[:, None]


def encode_bf16(x: Floats, _weight: Floats | None) -> Array:
    bits = np.ascontiguousarray(x[:, 0]).view(np.uint32)
    upper = bits >> np.uint32(16)
    even = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x[:, 0]), upper | np.uint32(0x40), even).astype(BF16)
