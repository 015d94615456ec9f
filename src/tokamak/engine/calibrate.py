"""Importance matrices: how large the activations are that meet each column of each matrix, measured on a text.

The program is run over windows of the text, the inputs of its matrix products are tapped, and their squares summed. Not
measured are the embedding, which multiplies nothing, and the output projection, which recipes keep large anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tokamak import executors, models
from tokamak.engine.windows import Windows, cut
from tokamak.errors import InvalidParams
from tokamak.ir import passes
from tokamak.ir.graph import Node, T
from tokamak.loaders import Checkpoint, open_checkpoint
from tokamak.loaders.discover import find_tokenizer
from tokamak.loaders.imatrix import Importance
from tokamak.quant import FORMATS
from tokamak.settings import Settings
from tokamak.types import Array, Batch, Floats, Ints, Limits, Weight

if TYPE_CHECKING:
    from tokamak.ir.graph import Graph
    from tokamak.types import Program

__all__ = ["measure_importance"]

CONTEXT = 512
GATES: Mapping[str, Callable[[Array], Array]] = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3))),
}
Sums = dict[str, tuple[Array, Array]]
"""By tensor name: sums of squares f64[M, K] and counts f64[M]."""


def measure_importance(
    path: str | os.PathLike[str],
    text: str,
    *,
    dataset: str = "",
    context: int = CONTEXT,
    chunks: int | None = None,
    executor: str = "auto",
    threads: int | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Importance:
    """The importance matrix of the model at `path` for a text.

    dataset: the name of the text that the matrix will carry. context: tokens per window; chunks: how many windows, None: all.
    progress(done, total): windows. Write it with `loaders.imatrix.write_imatrix`.
    Raises: InvalidParams for a text shorter than a window or a model without tokenizer; what `load` raises.
    """
    checkpoint = open_checkpoint(os.fspath(path))
    found = find_tokenizer(checkpoint, tokenizer)
    if found.tokenizer is None:
        raise InvalidParams(f"{checkpoint.path}: has no tokenizer to read the text with")
    trained = models.trained_context(checkpoint.config)
    if trained and context > trained:
        raise InvalidParams(f"context is {context}, the model was trained for {trained}")
    windows = cut(text, found.tokenizer, context, chunks)
    graph = passes.optimize(
        models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)
    )
    block = Limits(0).block_size
    limits = Limits(
        -(-context // block),
        max_rows=context,
        max_sequences=1,
        kv_dtype="f32",
        threads=Settings.load(threads=threads).threads,
    )
    with closing(executors.get(executor).compile(graph, checkpoint.weights, limits)) as program:
        sums = _measure(graph, program, checkpoint, windows, progress)
    return Importance(
        path=Path(checkpoint.path).name,
        sums={name: total.astype(np.float32) for name, (total, _) in sums.items()},
        counts={name: count.astype(np.float32) for name, (_, count) in sums.items()},
        datasets=(dataset,) if dataset else (),
        num_chunks=len(windows),
        chunk_size=context,
    )


def _measure(
    graph: Graph,
    program: Program,
    checkpoint: Checkpoint,
    windows: Windows,
    progress: Callable[[int, int], None] | None,
) -> Sums:
    nodes = [n for n in graph.nodes if n.op in ("linear", "experts") and n.inputs[0].type.lead == T]
    names = {v.name for n in nodes for v in n.inputs[: 2 if n.op == "experts" else 1]}
    sums: Sums = {}
    for i, ids in enumerate(windows):
        taps = program.taps(_batch(ids, program.limits.block_size), names)
        done: set[str] = set()  # a tensor that was cut in several weights counts once
        for node in nodes:
            add = _add_experts if node.op == "experts" else _add_linear
            add(node, taps, checkpoint.weights, sums, done)
        if progress:
            progress(i + 1, len(windows))
    return sums


def _batch(ids: Ints, block_size: int) -> Batch:
    """One sequence from position 0, logits of its last row."""
    n = len(ids)
    rows = np.arange(n, dtype=np.int32)
    return Batch(
        token_ids=ids,
        positions=rows,
        slots=rows,
        starts=np.array([0, n], dtype=np.int32),
        lengths=np.array([n], dtype=np.int32),
        tables=np.arange(-(-n // block_size), dtype=np.int32)[None],
        logit_rows=rows[-1:],
    )


def _add(sums: Sums, name: str, squares: Array, count: Array) -> None:
    """squares f64[M, K], count f64[M]"""
    if name in sums:
        squares, count = squares + sums[name][0], count + sums[name][1]
    sums[name] = squares, count


def _file_name(weight: Weight, path: str) -> str:
    name: str = getattr(weight, "name", path)
    return name


def _add_linear(
    node: Node, taps: Mapping[str, Floats], weights: Mapping[str, Weight], sums: Sums, done: set[str]
) -> None:
    x = taps[node.inputs[0].name]
    squares = np.einsum("tk,tk->k", x, x, dtype=np.float64)[None]
    for value in node.inputs[1 : 1 + int(node.attrs["num_weights"])]:
        name = _file_name(weights[value.name], value.name)
        if name not in done:
            done.add(name)
            _add(sums, name, squares, np.array([float(len(x))]))


def _used(node: Node, router: Floats) -> Array:
    """bool[T, E]: which experts a row goes to."""
    if "normed" not in node.attrs:  # weights, 0 for experts that are not used
        chosen: Array = router != 0
        return chosen
    order = np.argsort(-router, axis=1, kind="stable")[:, : int(node.attrs["num_used"])]
    used = np.zeros(router.shape, dtype=bool)
    np.put_along_axis(used, order, True, axis=1)
    return used


def _add_experts(
    node: Node, taps: Mapping[str, Floats], weights: Mapping[str, Weight], sums: Sums, done: set[str]
) -> None:
    """Each expert sees the rows that are sent to it; the input of its last product is computed here, being no value."""
    x, used = taps[node.inputs[0].name], _used(node, taps[node.inputs[1].name])
    gate, up, down = (weights[v.name] for v in node.inputs[2:5])
    count = used.sum(axis=0).astype(np.float64)
    squares = used.T.astype(np.float64) @ (x.astype(np.float64) ** 2)
    for weight, value in zip((gate, up), node.inputs[2:4], strict=True):
        name = _file_name(weight, value.name)
        if name not in done:
            done.add(name)
            _add(sums, name, squares, count)
    plain = len(node.inputs) == 5 and node.attrs.get("weighs", "output") == "output"
    act = GATES.get(str(node.attrs["act"]))
    if not plain or act is None:  # no measure, then: the matrix is quantised without importance
        return
    inner = np.zeros(down.shape[0::2], dtype=np.float64)
    for e in np.flatnonzero(count).tolist():
        rows = x[used[:, e]]
        hidden = act(np.matmul(rows, _matrix(gate, e).T)) * np.matmul(rows, _matrix(up, e).T)
        inner[e] = np.einsum("tk,tk->k", hidden, hidden, dtype=np.float64)
    _add(sums, _file_name(down, node.inputs[4].name), inner, count)


def _matrix(stack: Weight, e: int) -> Floats:
    """f32[N, K] of one expert."""
    height = stack.shape[1]
    rows = stack.rows()[e * height : (e + 1) * height]
    return FORMATS[stack.format].decode(np.ascontiguousarray(rows))
