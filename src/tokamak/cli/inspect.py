"""`tokamak inspect`: what a model file holds, without packing a weight."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import add_model
from tokamak.cli.console import human_nbytes, print_json, table

if TYPE_CHECKING:
    from tokamak.ir.graph import Graph
    from tokamak.loaders import Checkpoint

SUMMARY = "Show metadata, tensors, weight formats, memory and graph of a model file."
EXAMPLES = """  tokamak inspect
  tokamak inspect model.gguf --tensors
  tokamak inspect model.gguf --graph
  tokamak inspect model.gguf --json | python -m json.tool
"""
LONG = 16  # elements of an array that are shown whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and how much of it."""
    add_model(parser)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--graph", action="store_true", help="print the optimised graph")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens to state cache memory for (default: as loaded)"
    )


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


def formats(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Per weight format: tensors, elements, bytes and bits per element; the largest first."""
    from tokamak.quant import FORMATS

    sums: dict[str, list[int]] = {}
    for weight in checkpoint.weights.values():
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
    from tokamak import models
    from tokamak.ir.passes import optimize

    built = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)
    return optimize(built)


def memory(checkpoint: Checkpoint, graph: Graph, context: int) -> dict[str, Any]:
    """Bytes of weights, of the cache for `context` tokens by type, and of intermediates per row."""
    from tokamak.engine.memory import kv_nbytes_per_token
    from tokamak.ir.planner import plan

    per_row = sum(plan(graph).row_nbytes.values())
    return {
        "file_nbytes": checkpoint.nbytes,
        "weights_nbytes": sum(entry["nbytes"] for entry in formats(checkpoint)),
        "context": context,
        "kv_nbytes": {dtype: context * kv_nbytes_per_token(graph, dtype) for dtype in ("f32", "f16", "q8_0")},
        "arena_nbytes_per_row": per_row,
    }


def tensors(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Every tensor by parameter path, with its name in the file."""
    return [
        {"name": path, "file_name": weight.name, "format": weight.format, "shape": list(weight.shape)}
        for path, weight in checkpoint.weights.items()
    ]


def findings(args: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, as plain data."""
    from tokamak import models
    from tokamak.engine.loading import default_model
    from tokamak.loaders import open_checkpoint

    checkpoint = open_checkpoint(default_model() if args.model is None else args.model)
    context = args.context or models.trained_context(checkpoint.config)
    graph = graph_of(checkpoint, context)
    by_format = formats(checkpoint)
    found: dict[str, Any] = {
        "file": Path(checkpoint.path).name,
        "architecture": checkpoint.architecture,
        "parameters": sum(entry["parameters"] for entry in by_format),
        "config": plain(checkpoint.config),
        "formats": by_format,
        "memory": memory(checkpoint, graph, context),
        "notes": list(checkpoint.notes),
        "metadata": plain(checkpoint.metadata),
    }
    if args.tensors:
        found["tensors"] = tensors(checkpoint)
    if args.graph:
        found["graph"] = str(graph)
    return found


def show(found: Mapping[str, Any]) -> None:
    """The findings for people."""
    print(f"{found['file']}: {found['architecture']}, {found['parameters'] / 1e6:.4g} M parameters\n")
    for title in ("metadata", "config"):
        print(f"{title}:")
        print("\n".join(f"  {key} = {shorten(value)}" for key, value in found[title].items()) + "\n")
    rows = [
        (f["format"], f["tensors"], f["parameters"], human_nbytes(f["nbytes"]), f"{f['bits_per_weight']:.3g}")
        for f in found["formats"]
    ]
    print(table(("format", "tensors", "parameters", "bytes", "bits"), rows) + "\n")
    m = found["memory"]
    caches = ", ".join(f"{human_nbytes(nbytes)} {dtype}" for dtype, nbytes in m["kv_nbytes"].items())
    print(f"memory: file {human_nbytes(m['file_nbytes'])}, weights {human_nbytes(m['weights_nbytes'])}")
    print(f"        cache of {m['context']} tokens {caches}")
    print(f"        intermediates {human_nbytes(m['arena_nbytes_per_row'])} a row")
    if found["notes"]:
        print("\n".join(f"note: {note}" for note in found["notes"]))
    if "tensors" in found:
        shown = [
            (t["name"], t["format"], "x".join(map(str, t["shape"])), t["file_name"]) for t in found["tensors"]
        ]
        print("\n" + table(("tensor", "format", "shape", "in the file"), shown))
    if "graph" in found:
        print("\n" + found["graph"])


def shorten(value: object) -> str:
    """A value on one line of at most 100 characters."""
    text = repr(value) if isinstance(value, str) and not value.endswith(" values]") else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def execute(args: argparse.Namespace) -> int:
    """Print the findings."""
    found = findings(args)
    if args.json:
        print_json(found)
    else:
        show(found)
    return 0
