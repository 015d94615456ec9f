"""`tokamak embed`: vectors of texts."""

from __future__ import annotations

import argparse

from tokamak.cli.arguments import add_loading, add_model, load_model, piped_text
from tokamak.cli.console import print_json
from tokamak.errors import InvalidParams

SUMMARY = "Turn texts into vectors, pooled as the model says."
EXAMPLES = """  tokamak embed embedder.gguf -p "a text" -p "another" --json
  tokamak embed all-MiniLM-L6-v2/ < one-text-per-line.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the texts, how they are pooled."""
    add_model(parser)
    parser.add_argument(
        "-p",
        "--text",
        action="append",
        metavar="TEXT",
        help="may be given again; default: one a line from stdin",
    )
    parser.add_argument("--pooling", choices=("mean", "cls", "last"), help="instead of the model's own")
    parser.add_argument("--raw", action="store_true", help="vectors as they are, not of length 1")
    add_loading(parser)


def execute(args: argparse.Namespace) -> int:
    """Print one vector a line, numbers apart by spaces."""
    texts = args.text or [line for line in piped_text("texts").splitlines() if line.strip()]
    if not texts:
        raise InvalidParams("there is no text to embed")
    with load_model(args) as llm:
        vectors = llm.embed(texts, normalize=not args.raw, pooling=args.pooling)
    if args.json:
        print_json({"dimensions": vectors.shape[1], "embeddings": vectors.tolist()})
        return 0
    for vector in vectors:
        print(" ".join(f"{value:.6g}" for value in vector))
    return 0
