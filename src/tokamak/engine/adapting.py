"""Adapters of an LLM: what is loaded with the model, and how much each counts for a request."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokamak import models
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.ir.adapters import LowRank, low_rank, steered
from tokamak.loaders.adapters import Adapter, Delta, OpenedAdapter, open_adapter
from tokamak.types import Array, Floats, Weight

if TYPE_CHECKING:
    from tokamak.ir.graph import Graph
    from tokamak.loaders import Checkpoint

AdapterLike = str | os.PathLike[str] | tuple[str | os.PathLike[str], float] | Adapter


@dataclass(frozen=True, slots=True)
class ArrayWeight:
    """A `types.Weight` in memory: f32."""

    array: Floats

    @property
    def format(self) -> str:
        """Always "f32"."""
        return "f32"

    @property
    def shape(self) -> tuple[int, ...]:
        """As the array."""
        return self.array.shape

    def rows(self) -> Array:
        """uint8[rows, row_nbytes]."""
        return np.ascontiguousarray(self.array).view(np.uint8).reshape(-1, 4 * self.array.shape[-1])

    def release(self) -> None:
        """Nothing: it is no file."""


class Adapters:
    """The adapters of an LLM, in the order they were given."""

    def __init__(self, given: Sequence[Adapter]) -> None:
        self.given = tuple(given)
        self._index: dict[int | str, int] = {}
        for i, adapter in enumerate(given):
            if self._index.setdefault(adapter.title, i) != i:
                raise InvalidParams(f"two adapters are called {adapter.title!r}; give one another name")
            self._index[i] = i

    def gates(self, asked: Mapping[int | str, float] | None) -> Floats | None:
        """How much each counts, f32[A]: as asked for and else 0; None: as loaded. None without adapters.

        Raises: InvalidParams for an adapter that is not loaded.
        """
        for key in asked or ():
            if key not in self._index:
                known = ", ".join(repr(a.title) for a in self.given) or "none"
                raise InvalidParams(f"adapters has {key!r}, which is not loaded; loaded are {known}")
        if not self.given:
            return None
        if asked is None:
            return np.array([a.scale for a in self.given], dtype=np.float32)
        gates = np.zeros(len(self.given), dtype=np.float32)
        for key, scale in asked.items():
            gates[self._index[key]] = scale
        return gates

    def as_dicts(self) -> list[dict[str, Any]]:
        """Number, name, file and scale of each."""
        return [
            {"id": i, "name": a.title, "path": Path(a.path).name, "scale": a.scale}
            for i, a in enumerate(self.given)
        ]


def named(adapters: Sequence[AdapterLike] | Mapping[str, AdapterLike]) -> Adapters:
    """Adapters from paths, (path, scale) pairs or `Adapter`s; a mapping gives them names."""
    pairs = adapters.items() if isinstance(adapters, Mapping) else [(None, a) for a in adapters]
    found = []
    for name, one in pairs:
        if isinstance(one, Adapter):
            found.append(Adapter(one.path, one.scale, name or one.name, one.layers))
        elif isinstance(one, tuple):
            found.append(Adapter(os.fspath(one[0]), float(one[1]), name))
        else:
            found.append(Adapter(os.fspath(one), 1.0, name))
    return Adapters(found)


def adapted(graph: Graph, checkpoint: Checkpoint, adapters: Adapters) -> tuple[Graph, Mapping[str, Weight]]:
    """The graph with its adapters in it, and the weights of both.  Raises: as `open_adapter` and `ir.adapters`."""
    if not adapters.given:
        return graph, checkpoint.weights
    if models.is_encoder(checkpoint.architecture):
        raise UnsupportedError("adapters of encoders are not implemented")
    opened = [open_adapter(adapter, checkpoint) for adapter in adapters.given]
    weights: dict[str, Weight] = dict(checkpoint.weights)
    parts, directions = _low_ranks(opened, weights), _steps(opened, weights)
    count = len(opened)
    if parts:
        graph = low_rank(graph, parts, count)
    if directions:
        graph = steered(graph, directions, count)
    return graph, weights


def _low_ranks(opened: Sequence[OpenedAdapter], weights: dict[str, Weight]) -> dict[str, list[LowRank]]:
    parts: dict[str, list[LowRank]] = {}
    deltas: dict[str, list[Delta]] = {}
    for gate, one in enumerate(opened):
        for path, delta in one.deltas.items():
            looks_up, rank = delta.looks_up, delta.b.shape[1]
            name = f"{path}.lora_a" if looks_up else f"{path}.lora_a.{gate}"
            if not looks_up:
                weights[name] = ArrayWeight(np.ascontiguousarray(delta.a, dtype=np.float32))
            parts.setdefault(path, []).append(LowRank(gate, rank, name, looks_up))
            deltas.setdefault(path, []).append(delta)
    for path, several in deltas.items():
        if several[0].looks_up:
            table = np.concatenate([d.a for d in several], axis=1)
            weights[f"{path}.lora_a"] = ArrayWeight(np.ascontiguousarray(table, dtype=np.float32))
        wide = np.concatenate([d.b for d in several], axis=1)
        weights[f"{path}.lora_b"] = ArrayWeight(np.ascontiguousarray(wide, dtype=np.float32))
    return parts


def _steps(opened: Sequence[OpenedAdapter], weights: dict[str, Weight]) -> dict[int, list[tuple[int, str]]]:
    steps: dict[int, list[tuple[int, str]]] = {}
    for gate, one in enumerate(opened):
        for layer, direction in one.directions.items():
            name = f"layers.{layer}.direction.{gate}"
            weights[name] = ArrayWeight(np.ascontiguousarray(direction, dtype=np.float32))
            steps.setdefault(layer, []).append((gate, name))
    return steps
