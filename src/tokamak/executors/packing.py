"""Packed form ahead of time: which parameters of a graph are packed, and into what.

A layout is known by its fingerprint, what packing a fixed matrix gives: whoever changes a kernel's layout makes old
packed files foreign without having to remember a version number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from math import prod
from typing import TypeGuard

import numpy as np

from tokamak import _native
from tokamak.errors import UnsupportedError
from tokamak.executors.rows import matrix_rows, packed_format
from tokamak.ir.graph import Graph, Node, Value
from tokamak.quant import FORMATS
from tokamak.types import Array, PackedBytes, PackedMatrix, PackedWeight, Weight

SAMPLE_ROWS = 16  # a panel of the widest instruction set
SAMPLE_COLS = 512


def is_packed(weight: Weight) -> TypeGuard[PackedWeight]:
    """Whether a weight is there in packed form only."""
    return hasattr(weight, "packed")


def matrix_inputs(node: Node) -> tuple[Value, ...]:
    """The inputs that are read as packed matrices."""
    if node.op == "embed":
        return node.inputs[1:2]
    if node.op == "experts":
        return node.inputs[2:5]
    if node.op == "heads_linear":
        return node.inputs[1:]
    return node.inputs[1 : 1 + int(node.attrs["num_weights"])] if node.op == "linear" else ()


@cache
def fingerprint(isa: str, format_: str) -> str:
    """Hex digest of how the kernels of `isa` lay `format_` out. Raises: UnsupportedError without a kernel."""
    nbytes = SAMPLE_COLS // FORMATS[format_].block_size * FORMATS[format_].type_size
    rows = np.random.default_rng(1).integers(0, 256, (SAMPLE_ROWS, nbytes), np.uint8)
    packed = _native.pack_matrix(isa, format_, rows, SAMPLE_ROWS, SAMPLE_COLS)
    return hashlib.sha256(packed.tobytes()).hexdigest()[:32]


def packed_matrices(
    graph: Graph, weights: Mapping[str, Weight], isa: str, threads: int
) -> Iterator[tuple[str, PackedMatrix]]:
    """(parameter name, how to pack it) of every matrix of a graph.

    Raises: UnsupportedError for a format without kernel, and for tl1 and tl2.
    """
    wanted = {value for node in graph.nodes for value in matrix_inputs(node)}
    for name, value in graph.params.items():
        if value not in wanted:
            continue
        weight = weights[name]
        *count, rows, cols = value.type.shape
        format_ = packed_format(weight)
        if format_ != weight.format:
            raise UnsupportedError(f"tensor {name}: {weight.format} cannot be packed ahead of time")
        one = _native.packed_nbytes(isa, format_, rows, cols)
        form = fingerprint(isa, format_)

        def read(
            weight: Weight = weight, count: int = prod(count), rows: int = rows, cols: int = cols
        ) -> Array:
            name, stack, scale = matrix_rows(weight, count * rows, cols)
            parts = [
                _native.pack_matrix(isa, name, stack[i * rows : (i + 1) * rows], rows, cols, threads, scale)
                for i in range(count)
            ]
            weight.release()
            return np.concatenate(parts) if count > 1 else parts[0]

        yield name, PackedMatrix(format_, form, prod(count) * one, read)


def check_layout(packed: PackedBytes, format_: str, isa: str) -> None:
    """Raises: UnsupportedError if packed bytes are for another instruction set or another layout of it."""
    again = "Make the packed file again from its source with 'tokamak convert --optimize-layout'"
    if packed.isa != isa:
        raise UnsupportedError(f"is packed for {packed.isa}, and the kernels in use are {isa}. {again}")
    if packed.fingerprint != fingerprint(isa, format_):
        raise UnsupportedError(f"is packed in a layout of {format_} that these kernels do not read. {again}")
