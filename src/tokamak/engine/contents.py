"""What a model file holds, as plain data, without packing a weight."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from tokamak import models
from tokamak.engine.loading import default_model
from tokamak.engine.memory import CacheSize
from tokamak.ir.graph import Graph
from tokamak.ir.passes import optimize
from tokamak.ir.planner import plan
from tokamak.loaders import Checkpoint, open_checkpoint
from tokamak.loaders.vision import is_image_encoder_file, open_image_encoder
from tokamak.quant import FORMATS

LONG = 16  # elements of an array that are shown whole


def contents(path: str | os.PathLike[str] | None = None, context: int | None = None) -> dict[str, Any]:
    """File, architecture, parameters, config, formats, memory, notes, metadata, tensors and graph of a model file.

    path: None is the embedded model. context: tokens to state cache memory for (default: what was trained).
    Raises: ModelFileError, UnsupportedError, as `load` does.
    """
    source = Path(path) if path is not None else default_model()
    if is_image_encoder_file(source):
        return of_image_encoder(source)
    checkpoint = open_checkpoint(source)
    tokens = context or models.trained_context(checkpoint.config)
    graph = graph_of(checkpoint, tokens)
    by_format = formats(checkpoint.weights)
    return {
        "file": Path(checkpoint.path).name,
        "architecture": checkpoint.architecture,
        "parameters": sum(entry["parameters"] for entry in by_format),
        "config": plain(checkpoint.config),
        "formats": by_format,
        "memory": memory(checkpoint, graph, tokens),
        "notes": list(checkpoint.notes),
        "metadata": plain(checkpoint.metadata),
        "tensors": tensors(checkpoint.weights),
        "graph": str(graph),
    }


def of_image_encoder(path: Path) -> dict[str, Any]:
    """The same of an mmproj file; memory is that of one image, whose rows stand for a context."""
    checkpoint = open_image_encoder(path)
    built = models.build_image_encoder(
        checkpoint.projector, checkpoint.config, checkpoint.tower, checkpoint.weights
    )
    graphs = [optimize(graph) for graph in built]
    both = {**checkpoint.tower, **{f"projector.{name}": w for name, w in checkpoint.weights.items()}}
    by_format = formats(both)
    size, rows = checkpoint.preprocessing.size, checkpoint.num_rows
    most = checkpoint.preprocessing.tiles[1]
    tile = f", or each of its up to {most} tiles and the whole," if most > 1 else ""
    return {
        "file": path.name,
        "architecture": f"image encoder with projector {checkpoint.projector}, no model by itself (--mmproj)",
        "parameters": sum(entry["parameters"] for entry in by_format),
        "config": plain(checkpoint.config),
        "formats": by_format,
        "memory": {
            "file_nbytes": checkpoint.nbytes,
            "weights_nbytes": sum(entry["nbytes"] for entry in by_format),
            "context": rows,
            "kv_nbytes": {},
            "arena_nbytes_per_row": max(sum(plan(graph).row_nbytes.values()) for graph in graphs),
        },
        "notes": [f"an image{tile} becomes {size} x {size} pixels and takes {rows} tokens of the context"],
        "metadata": plain(checkpoint.metadata),
        "tensors": tensors(both),
        "graph": "\n\n".join(map(str, graphs)),
    }


def plain(value: Any) -> Any:
    """Metadata as JSON: numbers and text as they are, long arrays by their length."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124 NaN
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    items = list(value) if len(value) <= LONG else None
    return (
        f"[{len(value)} values]"
        if items is None
        else [plain(getattr(i, "item", lambda i=i: i)()) for i in items]
    )


def formats(weights: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per weight format: tensors, elements, bytes and bits per element; the largest first."""
    sums: dict[str, list[int]] = {}
    for weight in weights.values():
        entry = sums.setdefault(weight.format, [0, 0, 0])
        rows = prod(weight.shape[:-1])
        entry[0] += 1
        entry[1] += prod(weight.shape)
        entry[2] += rows * FORMATS[weight.format].row_nbytes(weight.shape[-1])
    return [
        {
            "format": name,
            "tensors": n,
            "parameters": size,
            "nbytes": nbytes,
            "bits_per_weight": 8 * nbytes / size,
        }
        for name, (n, size, nbytes) in sorted(sums.items(), key=lambda item: -item[1][2])
    ]


def graph_of(checkpoint: Checkpoint, context: int) -> Graph:
    """The graph as executors get it."""
    built = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)
    return optimize(built)


def memory(checkpoint: Checkpoint, graph: Graph, context: int) -> dict[str, Any]:
    """Bytes of weights, of the cache for `context` tokens by type, and of intermediates per row."""
    per_row = sum(plan(graph).row_nbytes.values())
    return {
        "file_nbytes": checkpoint.nbytes,
        "weights_nbytes": sum(entry["nbytes"] for entry in formats(checkpoint.weights)),
        "context": context,
        "kv_nbytes": {
            dtype: CacheSize.of(graph, dtype, 32, 1, 32).nbytes(context) for dtype in ("f32", "f16", "q8_0")
        },
        "arena_nbytes_per_row": per_row,
    }


def tensors(weights: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every tensor by parameter path, with its name in the file."""
    return [
        {"name": path, "file_name": weight.name, "format": weight.format, "shape": list(weight.shape)}
        for path, weight in weights.items()
    ]
