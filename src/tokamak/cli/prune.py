"""`tokamak prune`: a model without its smallest weights."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import file_text
from tokamak.cli.console import counting_bar, human_nbytes, loading_bar, print_json

if TYPE_CHECKING:
    from tokamak.loaders.prune import Pruned

SUMMARY = """Leave the smallest weights of a model out: single ones become zero, or, structured, whole feed-forward
channels and heads go and the file shrinks. With --file the perplexity before and after is measured."""
EXAMPLES = """  tokamak prune model-f16.gguf sparse.gguf --sparsity 0.1
  tokamak prune model-f16.gguf smaller.gguf --sparsity 0.1 --structured --file wiki.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, how much, what kind, and a text to measure on."""
    parser.add_argument("source", metavar="IN", help="an f32, f16 or bf16 .gguf file or a directory")
    parser.add_argument("target", metavar="OUT", help="the .gguf file to write")
    parser.add_argument(
        "--sparsity", type=float, default=0.1, metavar="X", help="share left out (default 0.1)"
    )
    parser.add_argument(
        "--structured", action="store_true", help="leave out channels and heads: shapes shrink"
    )
    parser.add_argument("--file", metavar="F", help="measure perplexity before and after on this text")
    parser.add_argument(
        "--window", type=int, default=512, metavar="N", help="tokens per window (default 512)"
    )
    parser.add_argument("--chunks", type=int, metavar="N", help="how many windows (default: all of the text)")


def measured(args: argparse.Namespace, path: str, text: str) -> float:
    """Perplexity of a model on the text."""
    import tokamak
    from tokamak.engine.quality import perplexity

    with (
        tokamak.load(path, threads=args.threads, context=args.window) as llm,
        counting_bar(path, quiet=args.quiet) as progress,
    ):
        found = perplexity(llm, text, context=args.window, chunks=args.chunks, progress=progress)
    return found.perplexity


def summary(result: Pruned) -> str:
    """What was left out, for people."""
    sizes = f"{human_nbytes(result.source_nbytes)} to {human_nbytes(result.nbytes)}"
    if not result.structured:
        return f"{100 * result.zeros:.2f} % of the weights of layers are zero, {sizes}"
    (before, after), (heads, left) = result.channels, result.heads
    return f"channels {before} to {after}, key-value heads {heads} to {left} per layer, {sizes}"


def execute(args: argparse.Namespace) -> int:
    """Prune, and measure if asked."""
    from tokamak.loaders.prune import prune

    text = file_text(args.file) if args.file is not None else None
    with loading_bar(f"writing {args.target}", quiet=args.quiet) as progress:
        result = prune(args.source, args.target, args.sparsity, structured=args.structured, progress=progress)
    facts: dict[str, Any] = {"out": args.target, **asdict(result)}
    lines = [f"{args.target}: {summary(result)}"]
    if text is not None:
        before, after = (measured(args, path, text) for path in (args.source, args.target))
        facts |= {"perplexity_before": before, "perplexity": after}
        lines.append(f"perplexity {before:.4f} before, {after:.4f} after")
    if args.json:
        print_json(facts)
    else:
        print("\n".join(lines))
    return 0
