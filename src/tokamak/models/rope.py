"""Rotary frequencies: what each scaling does to them, once, at load.

Every function returns f32[rotary_dim / 2], radians per position, and `frequencies` adds the factor on sine and
cosine. Sources: RoPE (Su et al. 2021), NTK-aware and dynamic scaling, YaRN (Peng et al. 2023), the Llama 3.1
model card, LongRoPE (Ding et al. 2024); the arithmetic is that of transformers' rope utilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models.config import Rope
from tokamak.nn import Step
from tokamak.types import Array, Floats


def rotate(
    step: Step, rope: Rope, head_dim: int, *heads: Value, name: str = "rope.inv_freq"
) -> tuple[Value, ...]:
    """Each of `heads` [T, H, head_dim], turned by its row's position. name: of the table, one per kind of layer."""
    inv_freq, mscale = frequencies(rope, head_dim)
    table = step.const(name, inv_freq)
    return tuple(ops.rope(x, step.positions, table, mscale=mscale) for x in heads)


def sharpened(step: Step, q: Value, scales: Array) -> Value:
    """q [T, H, D] times the scale of its position; scales: f64[context]. Nothing where all of them are 1."""
    if (scales == 1).all():
        return q
    table = step.const("query.scales", scales.astype(np.float32)[:, None])
    scaled = ops.mul(ops.merge_heads(q), ops.embed(step.positions, table))
    return ops.split_heads(scaled, heads=q.type.tail[0])


def slopes(step: Step, q: Value, most: float = 8.0) -> Value:
    """f32[H] for q [T, H, D]: how fast scores fall with distance, 2^(-most i / H) for head i = 1 .. H.

    Where H is no power of two, the next smaller power has its slopes and the rest every other one of the next larger.
    Source: Press et al. 2022, section 3 and appendix A.
    """
    heads = q.type.tail[0]
    power = 1 << (heads.bit_length() - 1)
    first = 2.0 ** (-most * np.arange(1, power + 1) / power)
    rest = 2.0 ** (-most * np.arange(1, 2 * (heads - power), 2) / (2 * power))
    return step.const("alibi.slopes", np.concatenate([first, rest]).astype(np.float32))


def frequencies(rope: Rope, head_dim: int) -> tuple[Floats, float]:
    """(inv_freq, mscale) of a configuration.

    Raises: UnsupportedError for an unknown rope_type; ModelFileError for inconsistent values.
    """
    size = rope.rotary_dim or head_dim
    if size % 2 or size > head_dim:
        raise ModelFileError(f"rotary_dim {size} is odd or larger than head_dim {head_dim}")
    base = rope.theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    if rope.freq_factors is not None:
        base = base / _factors(rope.freq_factors, size)
    scaling = rope.scaling or {"rope_type": "default"}
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    if kind not in SCALINGS:
        raise UnsupportedError(f"rope_scaling {kind!r} is not implemented; known: {sorted(SCALINGS)}")
    inv_freq, mscale = SCALINGS[kind](base, scaling, rope, size)
    return inv_freq.astype(np.float32), float(mscale)


def _factors(values: Any, size: int) -> Array:
    array = np.asarray(values, np.float64).ravel()
    if array.shape != (size // 2,) or not np.all(array > 0):
        raise ModelFileError(f"rope factors have shape {array.shape}, expected {size // 2} positive values")
    return array


def _number(scaling: Mapping[str, Any], *keys: str, default: float | None = None) -> float:
    for key in keys:
        if scaling.get(key) is not None:
            return float(scaling[key])
    if default is None:
        raise ModelFileError(f"rope_scaling lacks {keys[0]}")
    return default


def _default(base: Array, scaling: Mapping[str, Any], rope: Rope, size: int) -> tuple[Array, float]:  # noqa: ARG001
    return base, 1.0


def _linear(base: Array, scaling: Mapping[str, Any], rope: Rope, size: int) -> tuple[Array, float]:  # noqa: ARG001
    return base / _number(scaling, "factor"), 1.0


def _dynamic(base: Array, scaling: Mapping[str, Any], rope: Rope, size: int) -> tuple[Array, float]:
    """NTK: a larger base once the context exceeds the trained one; fixed by the context the program is built for."""
    trained = _number(scaling, "original_max_position_embeddings", "max_position_embeddings")
    if rope.context <= trained:
        return base, 1.0
    factor = _number(scaling, "factor")
    grown = rope.theta * (factor * rope.context / trained - (factor - 1)) ** (size / (size - 2))
    return grown ** (-np.arange(0, size, 2, dtype=np.float64) / size), 1.0


def _llama3(base: Array, scaling: Mapping[str, Any], rope: Rope, size: int) -> tuple[Array, float]:  # noqa: ARG001
    """Low frequencies divided by `factor`, high ones kept, a linear blend between."""
    factor, trained = _number(scaling, "factor"), _number(scaling, "original_max_position_embeddings")
    low, high = _number(scaling, "low_freq_factor"), _number(scaling, "high_freq_factor")
    turns = trained * base / (2 * math.pi)  # full turns within the trained context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - smooth) * base / factor + smooth * base, 1.0


def _yarn(base: Array, scaling: Mapping[str, Any], rope: Rope, size: int) -> tuple[Array, float]:
    """Interpolate slow columns, keep fast ones, ramp between; scores sharpen by the attention factor."""
    factor, trained = _number(scaling, "factor"), _number(scaling, "original_max_position_embeddings")
    fast, slow = _number(scaling, "beta_fast", default=32.0), _number(scaling, "beta_slow", default=1.0)

    def column(turns: float) -> float:
        return size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = column(fast), column(slow)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)
    mscale = _number(scaling, "attention_factor", default=_yarn_mscale(scaling, factor))
    return base / factor * ramp + base * (1 - ramp), mscale


def _yarn_mscale(scaling: Mapping[str, Any], factor: float) -> float:
    def grow(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return grow(float(scaling["mscale"])) / grow(float(scaling["mscale_all_dim"]))
    return grow(1.0)


def _longrope(base: Array, scaling: Mapping[str, Any], rope: Rope, size: int) -> tuple[Array, float]:
    """Per-column factors: `short_factor` while the program's context is within the original one, else `long_factor`."""
    trained = _number(scaling, "original_max_position_embeddings")
    name = "long_factor" if rope.context > trained else "short_factor"
    if scaling.get(name) is None:
        raise ModelFileError(f"rope_scaling lacks {name}")
    if scaling.get("attention_factor") is not None:
        mscale = float(scaling["attention_factor"])
    else:
        factor = scaling.get("factor") or _number(scaling, "max_position_embeddings") / trained
        mscale = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return base / _factors(scaling[name], size), mscale


SCALINGS = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
