"""Strict reading of a configuration: every field a model needs must be there, every key that is there must be read.

A key that no family reads would change the maths silently, so it is an error. `HARMLESS` lists keys that say
something about training, files or memory, but nothing about what one step computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from tokamak.errors import ModelFileError, UnsupportedError

HARMLESS = frozenset(
    {"max_position_embeddings", "torch_dtype", "transformers_version", "use_cache", "initializer_range"}
)
ROPE_KEYS = ("rope_theta", "rotary_dim", "rope_scaling", "rope_freq_factors")

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding as the checkpoint describes it; `models.rope` turns it into frequencies."""

    theta: float = 10000.0
    rotary_dim: int = 0  # columns that turn, 0: all of head_dim
    scaling: Mapping[str, Any] | None = None  # as Hugging Face's rope_scaling
    freq_factors: Any = None  # f32[rotary_dim / 2] from the file, dividing the frequencies
    context: int = 0  # positions the program is built for


def read(cls: type[C], raw: Mapping[str, Any], *, context: int) -> C:
    """An instance of the frozen dataclass `cls` from a configuration with Hugging Face names.

    context: positions the program is built for; some rope scalings depend on it.
    Raises: ModelFileError for a missing or mistyped key; UnsupportedError for one that `cls` does not know.
    """
    left = {k: v for k, v in raw.items() if k not in HARMLESS and v is not None}
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name == "rope":
            values["rope"] = _rope(left, raw, context)
        elif field.name in left:
            values[field.name] = _typed(field.name, left.pop(field.name), str(field.type))
        elif field.default is MISSING:
            raise ModelFileError(f"the configuration lacks {field.name}, which this architecture needs")
    if left:
        raise UnsupportedError(f"configuration keys {sorted(left)} are not implemented for this architecture")
    return cls(**values)


def _rope(left: dict[str, Any], raw: Mapping[str, Any], context: int) -> Rope:
    theta, rotary, scaling, factors = (left.pop(k, None) for k in ROPE_KEYS)
    if scaling is not None and scaling.get("rope_type", "linear") == "longrope":
        scaling = {"max_position_embeddings": raw.get("max_position_embeddings"), **scaling}
    theta = 10000.0 if theta is None else _typed("rope_theta", theta, "float")
    return Rope(theta, int(rotary or 0), scaling, factors, context)


def _typed(name: str, value: Any, kind: str) -> Any:
    wanted: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
    }
    allowed = wanted.get(kind)
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool")):
        raise ModelFileError(f"{name} is {value!r}, expected {kind}")
    if kind == "int" and not 0 <= value < 2**31:
        raise ModelFileError(f"{name} is {value}, expected 0 .. 2^31 - 1")
    return float(value) if kind == "float" else value
