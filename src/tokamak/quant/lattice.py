"""Search for the scales and lattice points of the iq formats: y = d * (2 s + 1) / unit * (point + delta), signs apart.

Every vector rounds to a cell of the full grid and is compared with the lattice points nearest to that cell, so the cost
does not grow with the lattice. Scales follow the codes by least squares, as in `fit`; errors are weighted likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from tokamak.quant import fit
from tokamak.quant.grids import lattice

if TYPE_CHECKING:
    from tokamak.types import Array, Floats

NEIGHBOURS = 10  # lattice points compared per cell
FACTORS = (1.0, 0.85, 0.7, 0.55, 1.15, 0.4)  # of peak / largest coordinate: scales to start from
DELTA = np.float32(0.125)


@dataclass(frozen=True, slots=True)
class Spec:
    """A format: its lattice, groups of a super-group, largest s, unit; even: sign bytes have even parity.

    delta: what shares one sign of delta, "group" or "vector"; "" for lattices of magnitudes, which have signs instead.
    """

    lattice: str
    groups: int
    scale_high: int
    unit: int
    even: bool = False
    delta: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Points of vectors for given scales: index [n, g, v], minus bool[n, g, v], values f32[n, g, v, dim], error f32[n, g]."""

    index: Array
    minus: Array
    values: Floats
    error: Floats

    def or_better(self, other: Choice, *, by_vector: Floats | None = None) -> Choice:
        """Per group the one of less error; by_vector: errors f32[2, n, g, v] of both to choose by instead."""
        take = other.error < self.error
        pick = take[..., None] if by_vector is None else by_vector[1] < by_vector[0]
        error = (
            np.where(take, other.error, self.error)
            if by_vector is None
            else by_vector.min(axis=0).sum(axis=-1)
        )
        return Choice(
            np.where(pick, other.index, self.index),
            np.where(pick, other.minus, self.minus),
            np.where(pick[..., None], other.values, self.values),
            error,
        )


@cache
def _neighbours(name: str) -> Array:
    """Indices [levels**dim, NEIGHBOURS] of the lattice points nearest to each cell of the full grid, which counts as base-L."""
    points = lattice(name).astype(np.float32)
    levels = np.unique(points)
    numbers = np.arange(len(levels) ** points.shape[1])
    cells = levels[numbers[:, None] // len(levels) ** np.arange(points.shape[1]) % len(levels)]
    distance = (points * points).sum(axis=1) - 2 * (cells @ points.T)
    return np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def _nearest(name: str, x: Floats, w: Floats, scale: Floats) -> tuple[Array, Floats, Floats]:
    """Best points of vectors f32[m, dim] for scales f32[m]: index, values f32[m, dim], error f32[m]."""
    points = lattice(name).astype(np.float32)
    levels = np.unique(points)
    step = (levels[-1] - levels[0]) / np.float32(len(levels) - 1)
    digits = fit.codes(
        x * fit.inverse(scale)[:, None] - levels[0], np.full_like(scale, step), 0, len(levels) - 1
    )
    cells = (digits @ (len(levels) ** np.arange(x.shape[1])).astype(np.float32)).astype(np.int64)
    near = _neighbours(name)[cells]
    miss = points[near] * scale[:, None, None] - x[:, None, :]
    errors = np.einsum("mkd,mkd,md->mk", miss, miss, w)
    best = errors.argmin(axis=1)[:, None]
    index = np.take_along_axis(near, best, axis=1)[:, 0]
    return index, points[index], np.take_along_axis(errors, best, axis=1)[:, 0]


def _choose(spec: Spec, x: Floats, w: Floats, scale: Floats) -> Choice:
    """Points for x f32[n, g, v, dim] and group scales f32[n, g]."""
    wide = np.repeat(scale.reshape(-1), x.shape[2])
    flat, weights = x.reshape(-1, x.shape[3]), w.reshape(-1, x.shape[3])
    found: list[Choice] = []
    errors = []
    for delta in (DELTA, -DELTA) if spec.delta else (np.float32(0),):
        index, values, error = _nearest(spec.lattice, flat - (wide * delta)[:, None], weights, wide)
        errors.append(error.reshape(x.shape[:3]))
        minus = np.full(x.shape[:3], delta < 0)
        found.append(
            Choice(
                index.reshape(x.shape[:3]), minus, (values + delta).reshape(x.shape), errors[-1].sum(axis=-1)
            )
        )
    if len(found) == 1:
        return found[0]
    return found[0].or_better(found[1], by_vector=np.stack(errors) if spec.delta == "vector" else None)


def _sums(x: Floats, w: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Of w * value * x and w * value**2 per group."""
    wv = w * values
    return np.einsum("ngvd,ngvd->ng", wv, x), np.einsum("ngvd,ngvd->ng", wv, values)


def split_signs(x: Floats, w: Floats, *, even: bool) -> tuple[Array, Floats]:
    """Sign bytes u8[n, 32] and magnitudes f32[n, 256]; even: where a byte would be odd its cheapest element keeps a
    magnitude of the wrong sign.
    """
    minus, magnitude = (x < 0).reshape(-1, 8), np.abs(x).reshape(-1, 8)
    if even:
        odd = np.flatnonzero(minus.sum(axis=1) & 1)
        cheapest = (w.reshape(-1, 8)[odd] * magnitude[odd] ** 2).argmin(axis=1)
        minus[odd, cheapest] ^= True
        magnitude[odd, cheapest] *= -1
    return np.packbits(minus, axis=1, bitorder="little").reshape(len(x), 32), magnitude.reshape(x.shape)


def search(spec: Spec, x: Floats, w: Floats | None) -> tuple[Floats, Array, Array, Array, Array]:
    """d f32[n] (an f16 value), s u8[n, g], index u16[n, vectors], minus of delta bool[n, vectors], signs u8[n, 32].

    x, w: f32[n, 256].
    """
    w = np.ones_like(x) if w is None else w
    signs = np.zeros((len(x), 32), dtype=np.uint8)
    if not spec.delta:
        signs, x = split_signs(x, w, even=spec.even)
    points = lattice(spec.lattice)
    shape = (len(x), spec.groups, 256 // spec.groups // points.shape[1], points.shape[1])
    x, w = x.reshape(shape), w.reshape(shape)
    scale = _start(spec, x, w, np.float32(points.max()))
    d, s, choice = _refine(spec, x, w, scale)
    flat = (len(x), -1)
    return (
        d,
        s.astype(np.uint8),
        choice.index.astype(np.uint16).reshape(flat),
        choice.minus.reshape(flat),
        signs,
    )


def _start(spec: Spec, x: Floats, w: Floats, largest: np.float32) -> Floats:
    """A scale per group f32[n, g], free of any grid."""
    top = np.abs(x).max(axis=(2, 3)) / largest
    best: Floats = np.zeros_like(top)
    best_gain = np.zeros_like(top)
    for factor in FACTORS:
        xq, qq = _sums(x, w, _choose(spec, x, w, top * np.float32(factor)).values)
        s = xq * fit.inverse(qq)
        better = (s * xq > best_gain) & (s > 0)
        best, best_gain = np.where(better, s, best), np.where(better, s * xq, best_gain)
    return best


def _refine(spec: Spec, x: Floats, w: Floats, scale: Floats) -> tuple[Floats, Floats, Choice]:
    """d, s and points: d from the largest group scale, then from least squares, the best of three."""
    unit = np.float32(spec.unit)
    d = fit.super_scale(scale.max(axis=1) / np.float32(2 * spec.scale_high + 1) * unit)
    best: tuple[Floats, Floats, Choice] | None = None
    for _ in range(3):
        start = np.clip(np.rint((scale * fit.inverse(d / unit)[:, None] - 1) / 2), 0, spec.scale_high)
        s, choice = start, _choose(spec, x, w, (d / unit)[:, None] * (2 * start + 1))
        for step in (-1, 1):
            trial = np.clip(start + np.float32(step), 0, spec.scale_high)
            other = _choose(spec, x, w, (d / unit)[:, None] * (2 * trial + 1))
            s, choice = np.where(other.error < choice.error, trial, s), choice.or_better(other)
        if best is None:
            best = (d, s, choice)
        else:
            better = choice.error.sum(axis=1) < best[2].error.sum(axis=1)
            best = (
                np.where(better, d, best[0]),
                np.where(better[:, None], s, best[1]),
                _rows(better, choice, best[2]),
            )
        xq, qq = _sums(x, w, choice.values)
        odd = 2 * s + 1
        d = fit.super_scale((odd * xq).sum(axis=1) * fit.inverse((odd * odd * qq).sum(axis=1)) * unit)
        scale = np.where(qq > 0, xq * fit.inverse(qq), scale)
    assert best is not None
    d, s, choice = best
    zeros = np.einsum("ngvd,ngvd,ngvd->n", w, x, x)  # lattices without a zero can be worse than nothing
    return np.where(choice.error.sum(axis=1) < zeros, d, np.float32(0)), s, choice


def _rows(take: Array, new: Choice, old: Choice) -> Choice:
    """`new` in the super-groups of bool[n] `take`, `old` elsewhere."""
    return Choice(
        np.where(take[:, None, None], new.index, old.index),
        np.where(take[:, None, None], new.minus, old.minus),
        np.where(take[:, None, None, None], new.values, old.values),
        np.where(take[:, None], new.error, old.error),
    )
