"""Least-squares searches for the scales and minima of grouped formats.

All minimise sum(w * (x - y)**2), y being what decoding gives; w is the importance of each element or ones.
Codes always round to nearest, ties to even. Scales that a format stores as f16 are searched as f16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokamak.types import Floats

F16_MAX = np.float32(65504)
CLEARLY = np.float32(1 + 1e-6)  # a later candidate must beat an earlier, simpler one by more than rounding
F16_MIN = np.float32(2.0**-24)
SILENT = np.float32(
    1e-15
)  # groups whose largest magnitude is below this become zeros: no f16 scale reaches them


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that integer codes can stand for. low: the one of largest magnitude, negative."""

    low: int
    nearest: Callable[[Floats], Floats]  # may overwrite its argument

    def values(self, x: Floats, scale: Floats) -> Floats:
        """Nearest values of f32[..., k] for scales f32[...], as f32."""
        return self.nearest(x * inverse(scale)[..., None])


def to_f16(x: Floats) -> Floats:
    """Nearest f16 value, as f32; saturates, so that a scale is never infinite."""
    return np.clip(x, -F16_MAX, F16_MAX).astype(np.float16).astype(np.float32)


def super_scale(x: Floats) -> Floats:
    """`to_f16`, but what is not zero stays so: where the smallest f16 is too coarse, groups choose smaller codes."""
    nearest = to_f16(x)
    return np.where((nearest == 0) & (x != 0), np.copysign(F16_MIN, x), nearest)


def inverse(x: Floats) -> Floats:
    """1 / x, and 0 where x is (nearly) 0."""
    return np.where(np.abs(x) < SILENT, np.float32(0), np.float32(1) / np.where(x == 0, np.float32(1), x))


def peak(x: Floats) -> Floats:
    """The element of largest magnitude, with its sign, along the last axis: f32[..., k] to f32[...]."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=-1)[..., None], axis=-1)[..., 0]


def _dot(a: Floats, b: Floats) -> Floats:
    dot: Floats = np.einsum("...k,...k->...", a, b)
    return dot


def linear(low: int, high: int) -> Grid:
    """Codes low..high."""
    return Grid(low, lambda scaled: np.clip(np.rint(scaled, out=scaled), low, high, out=scaled))


def codebook(values: Sequence[int]) -> Grid:
    """Codes that stand for rising integers in [-128, 127]; ties go to the larger one."""
    table = np.asarray(values, dtype=np.float32)
    # Half-integer steps hit every midpoint exactly, so one lookup per half finds the nearest value.
    halves = table[np.searchsorted((table[1:] + table[:-1]) / 2, np.arange(-256, 257) / 2, side="right")]
    return Grid(
        values[0],
        lambda scaled: halves.take(np.floor(scaled * np.float32(2)).astype(np.int64) + 256, mode="clip"),
    )


def codes(x: Floats, scale: Floats, low: int, high: int) -> Floats:
    """Nearest codes of f32[..., k] for scales f32[...], as f32."""
    q = x * inverse(scale)[..., None]
    return np.clip(np.rint(q, out=q), low, high, out=q)


def scale_only(x: Floats, w: Floats, grid: Grid, steps: Sequence[float]) -> Floats:
    """Best s of y = s * q, q on the grid: f32[..., k] to f32[...].

    Tries peak / (grid.low + step) for each step, each followed by the least-squares scale of the codes it gives.
    """
    top = peak(x)
    best = np.zeros_like(top)
    best_gain = np.zeros_like(top)
    for step in steps:
        q = grid.values(x, top / np.float32(grid.low + step))
        wq = w * q
        xq, qq = _dot(wq, x), _dot(wq, q)
        s = xq * inverse(qq)
        gain = s * xq
        better = gain > best_gain * CLEARLY
        best = np.where(better, s, best)
        best_gain = np.where(better, gain, best_gain)
    return best


def scale_and_minimum(
    x: Floats, w: Floats, high: int, steps: Sequence[float], *, rounds: int = 1, any_sign: bool = False
) -> tuple[Floats, Floats]:
    """Best s, m of y = s * q - m, q in [0, high], m >= 0 unless any_sign: two f32[...] for f32[..., k]."""
    low = x.min(axis=-1) if any_sign else np.minimum(x.min(axis=-1), np.float32(0))
    span = x.max(axis=-1) - low
    sw, sx = w.sum(axis=-1), _dot(w, x)
    best_s, best_m = span / np.float32(high), -low
    best_gain = np.full_like(span, -np.inf)
    for step in steps:
        s, m = span / np.float32(high + step), -low
        for _ in range(rounds):
            q = codes(x + m[..., None], s, 0, high)
            wq = w * q
            sq, xq, qq = wq.sum(axis=-1), _dot(wq, x), _dot(wq, q)
            det = sw * qq - sq * sq
            scale = np.float32(1) / np.maximum(det, np.float32(1e-30))
            s, m = (sw * xq - sx * sq) * scale, (qq * sx - sq * xq) * -scale
            free = (det > 0) & (any_sign | (m >= 0))
            s, m = np.where(free, s, xq * inverse(qq)), np.where(free, m, np.float32(0))
            gain = s * xq - m * sx
            better = (gain > best_gain * CLEARLY) & (s > 0)
            best_s, best_m = np.where(better, s, best_s), np.where(better, m, best_m)
            best_gain = np.where(better, gain, best_gain)
    return best_s, best_m


def symmetric(
    x: Floats, w: Floats, grid: Grid, scales_range: tuple[int, int], steps: Sequence[float]
) -> tuple[Floats, Floats, Floats]:
    """y = d * sc * q with d f16 per super-group, integer sc per group, q on the grid.

    x, w: f32[n, g, k]. Returns d f32[n], sc f32[n, g], q f32[n, g, k].
    """
    s = scale_only(x, w, grid, steps)
    top = peak(s) / np.float32(scales_range[0])
    d = super_scale(top)
    second = super_scale(top * np.float32(scales_range[0] / (scales_range[0] + 1)))
    third = super_scale(top * np.float32(grid.low / (grid.low + 1)))
    best_d, best_sc = d, np.zeros_like(s)
    best_error = np.full(d.shape, np.inf, dtype=np.float32)
    for turn in range(3):
        start = codes(s, d, *scales_range)
        sc, error = start, np.full(s.shape, np.inf, dtype=np.float32)
        for step in (0, -1, 1):
            trial = np.clip(start + np.float32(step), *scales_range)
            scale = d[:, None] * trial
            miss = grid.values(x, scale) * scale[..., None] - x
            trial_error = _dot(miss * w, miss)
            sc = np.where(trial_error < error, trial, sc)
            error = np.minimum(error, trial_error)
        total = error.sum(axis=-1)
        better = total < best_error
        best_d, best_sc = np.where(better, d, best_d), np.where(better[:, None], sc, best_sc)
        best_error = np.minimum(best_error, total)
        q = grid.values(x, d[:, None] * sc)
        xq, qq = _dot(w * q, x), _dot(w * q, q)
        s = xq * inverse(qq)
        fitted = super_scale(_dot(sc, xq) * inverse(_dot(sc * sc, qq)))
        # Where least squares settles at once (constant groups do), another grid may fall nearer to f16 values.
        d = second if turn == 0 else np.where(fitted == d, third, fitted)
    return best_d, best_sc, grid.values(x, best_d[:, None] * best_sc)


def asymmetric(
    x: Floats, w: Floats, high: int, scale_high: int, steps: Sequence[float]
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """y = d * sc * q - dmin * m with d, dmin f16 per super-group; q in [0, high], sc and m in [0, scale_high].

    x, w: f32[n, g, k]. Returns d, dmin f32[n], sc, m f32[n, g], q f32[n, g, k].
    """
    s, shift = scale_and_minimum(x, w, high, steps)
    d = super_scale(s.max(axis=-1) / np.float32(scale_high))
    dmin = super_scale(shift.max(axis=-1) / np.float32(scale_high))
    sw, sx = w.sum(axis=-1), _dot(w, x)
    best = (d, dmin, np.zeros_like(s), np.zeros_like(s))
    best_error = np.full(d.shape, np.inf, dtype=np.float32)
    for _ in range(3):
        sc, m, error = _asymmetric_groups(x, w, (d, dmin), (s, shift), (high, scale_high))
        total = error.sum(axis=-1)
        better = total < best_error
        best_error = np.minimum(best_error, total)
        best = (
            np.where(better, d, best[0]),
            np.where(better, dmin, best[1]),
            np.where(better[:, None], sc, best[2]),
            np.where(better[:, None], m, best[3]),
        )
        q = codes(x + (dmin[:, None] * m)[..., None], d[:, None] * sc, 0, high)
        wq = w * q
        sq, xq, qq = wq.sum(axis=-1), _dot(wq, x), _dot(wq, q)
        pair = (_dot(sc * sc, qq), _dot(sc * m, sq), _dot(m * m, sw), _dot(sc, xq), _dot(m, sx))
        d, dmin = (super_scale(v) for v in _solve(pair, (d, dmin)))
        s, shift = _solve((qq, sq, sw, xq, sx), (s, shift))
    d, dmin, sc, m = best
    return d, dmin, sc, m, codes(x + (dmin[:, None] * m)[..., None], d[:, None] * sc, 0, high)


def _asymmetric_groups(
    x: Floats,
    w: Floats,
    super_scales: tuple[Floats, Floats],
    start: tuple[Floats, Floats],
    limits: tuple[int, int],
) -> tuple[Floats, Floats, Floats]:
    """Integer scales and minima of each group for given super-scales: sc, m, error, each f32[n, g]."""
    d, dmin = super_scales
    high, scale_high = limits
    sw, sx = w.sum(axis=-1), _dot(w, x)
    first_sc, first_m = codes(start[0], d, 0, scale_high), codes(start[1], dmin, 0, scale_high)
    best_sc, best_m = first_sc, first_m
    best_error = np.full(sw.shape, np.inf, dtype=np.float32)
    for step in (0, -1, 1):
        sc = np.clip(first_sc + np.float32(step), 0, scale_high)
        scale, m = d[:, None] * sc, first_m
        for _ in range(2):
            q = codes(x + (dmin[:, None] * m)[..., None], scale, 0, high)
            miss = q * scale[..., None] - (dmin[:, None] * m)[..., None] - x
            error = _dot(miss * w, miss)
            better = error < best_error
            best_sc, best_m = np.where(better, sc, best_sc), np.where(better, m, best_m)
            best_error = np.minimum(best_error, error)
            m = codes((scale * _dot(w, q) - sx) / sw, dmin, 0, scale_high)
    return best_sc, best_m, best_error


def _solve(sums: tuple[Floats, ...], old: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Least-squares u, v >= 0 of x = u * a - v * b; the old u where that has no answer.

    sums: of aa, ab, bb, ax, bx.
    """
    aa, ab, bb, ax, bx = sums
    det = aa * bb - ab * ab
    good = det > np.float32(1e-6) * aa * bb
    scale = np.float32(1) / np.where(good, det, np.float32(1))
    u, v = (bb * ax - ab * bx) * scale, (ab * ax - aa * bx) * scale
    good &= v >= 0
    alone: Floats = ax * inverse(aa)
    alone = np.where(alone > 0, alone, old[0])
    return np.where(good, u, alone), np.where(good, v, np.float32(0))
