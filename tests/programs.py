"""Programs of the CPU executor from graphs and arrays, without files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokamak.executors.cpu import Cpu, CpuProgramHandle
from tokamak.ir.graph import Graph
from tokamak.quant import FORMATS
from tokamak.types import Limits

BLOCK = 32  # positions of a cache block of the CPU executor


@dataclass
class ArrayWeight:
    """A `types.Weight` from an array, encoded once."""

    format: str
    shape: tuple[int, ...]
    bytes_: np.ndarray
    released: bool = False

    def rows(self) -> np.ndarray:
        return self.bytes_

    def release(self) -> None:
        self.released = True


def weight(array: np.ndarray, fmt: str = "f32") -> ArrayWeight:
    rows = np.ascontiguousarray(array, np.float32).reshape(-1, array.shape[-1])
    return ArrayWeight(fmt, array.shape, FORMATS[fmt].encode(rows))


def weights(params: dict[str, np.ndarray], fmt: str = "f32") -> dict[str, ArrayWeight]:
    """Matrices in `fmt`, vectors in f32."""
    return {n: weight(a, fmt if a.ndim > 1 else "f32") for n, a in params.items()}


def decoded(params: dict[str, ArrayWeight]) -> dict[str, np.ndarray]:
    """What the formats kept of the arrays."""
    return {n: FORMATS[w.format].decode(w.bytes_).reshape(w.shape) for n, w in params.items()}


def compiled(
    graph: Graph, params: dict[str, ArrayWeight], isa: str = "", **limits: int | str
) -> CpuProgramHandle:
    return Cpu(isa).compile(graph, params, Limits(**{"num_blocks": 32, "kv_dtype": "f32", **limits}))
