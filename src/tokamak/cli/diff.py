"""`tokamak diff`: the first node of the graph where two executors differ."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_model
from tokamak.cli.console import print_json, table
from tokamak.errors import InvalidParams
from tokamak.types import KV_DTYPES, Limits

if TYPE_CHECKING:
    from tokamak.loaders import Checkpoint
    from tokamak.observe.diff import Difference

SUMMARY = "Run a text through two executors and find the first node of the graph where they differ."
EXAMPLES = """  tokamak diff model.gguf
  tokamak diff model.gguf --executors cpu,reference --text "Hello" --all
  tokamak diff model.gguf --tolerance 1e-3 --json
"""
TEXT = "Once upon a time, there was a little girl who lived in a house by the sea."
# Activations of quantised weights are rounded to 8 bits: each linear is off by about half a percent (rms), and
# the residual stream adds such errors up over the layers. Weights in 16 or 32 bits see rounding of float32 only.
TOLERANCE_QUANTISED, TOLERANCE_FLOAT = 5e-2, 1e-3
CHECK_FAILED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the two executors, the text and the tolerance."""
    add_model(parser)
    parser.add_argument("--executors", default="cpu,reference", metavar="A,B", help="default cpu,reference")
    parser.add_argument("--text", default=TEXT, help="what to compute (default: a sentence)")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="largest rms(a - b) / rms(b) that counts as equal"
    )
    parser.add_argument(
        "--kv-dtype", choices=KV_DTYPES, default="f32", help="type of the K/V cache (default f32)"
    )
    parser.add_argument(
        "--all", action="store_true", help="print every node, not the first that differs only"
    )


def default_tolerance(checkpoint: Checkpoint) -> float:
    """The tolerance for the checkpoint's weight formats."""
    quantised = {w.format for w in checkpoint.weights.values() if len(w.shape) > 1} - {"f32", "f16", "bf16"}
    return TOLERANCE_QUANTISED if quantised else TOLERANCE_FLOAT


def differences(checkpoint: Checkpoint, names: list[str], args: argparse.Namespace) -> list[Difference]:
    """Compile the model for both executors and compare every node on the text."""
    from tokamak import executors, models
    from tokamak.engine.contents import graph_of
    from tokamak.observe.diff import compare
    from tokamak.tokenizers import Tokenizer

    if checkpoint.tokenizer is None:
        raise InvalidParams(f"{checkpoint.path} has no tokenizer to read the text with")
    ids = Tokenizer.from_spec(checkpoint.tokenizer).encode(args.text)
    graph = graph_of(checkpoint, models.trained_context(checkpoint.config) or len(ids))
    blocks = -(-len(ids) // Limits(0).block_size)
    limits = Limits(blocks, max_rows=len(ids), max_sequences=1, kv_dtype=args.kv_dtype, threads=args.threads)
    first, second = (executors.get(name).compile(graph, checkpoint.weights, limits) for name in names)
    with closing(first), closing(second):
        return compare(graph, first, second, ids)


def execute(args: argparse.Namespace) -> int:
    """Print the first difference; exit code 5 if there is one."""
    from tokamak.engine.loading import default_model
    from tokamak.loaders import open_checkpoint

    names = args.executors.split(",")
    if len(names) != 2:
        raise InvalidParams(f"--executors {args.executors!r} must be two names with a comma between")
    checkpoint = open_checkpoint(default_model() if args.model is None else args.model)
    tolerance = default_tolerance(checkpoint) if args.tolerance is None else args.tolerance
    found = differences(checkpoint, names, args)
    apart = next((d for d in found if not d.error <= tolerance), None)
    if args.json:
        nodes = [d.facts() for d in found] if args.all else None
        report = {"executors": names, "tolerance": tolerance, "compared": len(found)}
        print_json(report | {"first": apart and apart.facts()} | ({"nodes": nodes} if nodes else {}))
    else:
        if args.all:
            print(
                table(
                    ("value", "op", "rms", "max"),
                    [(d.name, d.op, f"{d.error:.2e}", f"{d.worst:.2e}") for d in found],
                )
            )
        worst = max(found, key=lambda d: d.error)
        if apart is None:
            print(
                f"{len(found)} values agree to {tolerance:g}; largest error {worst.error:.2e} at {worst.name}"
            )
        else:
            print(f"first difference: {apart.name} ({apart.op}): rms error {apart.error:.2e} > {tolerance:g}")
    return 0 if apart is None else CHECK_FAILED
