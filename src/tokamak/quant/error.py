"""How far a decoded matrix is from the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokamak.quant.format import Format
    from tokamak.types import Floats


@dataclass(frozen=True, slots=True)
class CodecError:
    """Distance of a round trip. rmse: absolute; relative: rmse over the root mean square of the input."""

    rmse: float
    relative: float
    cosine: float
    max_abs: float
    bits_per_weight: float


def rmse(x: Floats, y: Floats, importance: Floats | None = None) -> float:
    """Root of the (importance-weighted) mean squared difference of two f32[N, K], summed in float64."""
    miss = (np.asarray(x, dtype=np.float64) - y) ** 2
    return float(np.sqrt(np.average(miss.mean(axis=0), weights=importance)))


def cosine(x: Floats, y: Floats) -> float:
    """Cosine of the angle between two arrays of one shape; 1 where both are zero, 0 where one is."""
    a, b = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(not a.any() and not b.any())


def round_trip(fmt: Format, x: Floats, importance: Floats | None = None) -> CodecError:
    """Encode and decode f32[N, K] and say what it cost."""
    y = fmt.decode(fmt.encode(x, importance)).reshape(x.shape)
    size = rmse(x, np.zeros_like(x), importance)
    miss = rmse(x, y, importance)
    return CodecError(
        rmse=miss,
        relative=miss / size if size else 0.0,
        cosine=cosine(x, y),
        max_abs=float(np.abs(x - y).max(initial=0.0)),
        bits_per_weight=fmt.bits_per_weight,
    )
