"""`tokamak convert`: a model file in another form."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tokamak.cli.console import human_nbytes, loading_bar, print_json
from tokamak.errors import InvalidParams

SUMMARY = "Write a model in another form."
EXAMPLES = """  tokamak convert model.gguf model.packed.gguf --optimize-layout
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source, target, form."""
    parser.add_argument("source", metavar="IN", help="a .gguf file")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--optimize-layout",
        action="store_true",
        help="as the kernels of this machine read it: loading maps the file and packs nothing",
    )


def execute(args: argparse.Namespace) -> int:
    """Write the packed file."""
    from tokamak.engine.packing import optimize_layout

    if not args.optimize_layout:
        raise InvalidParams("say what form to write: --optimize-layout")
    began = time.perf_counter()
    with loading_bar(f"packing {args.source}", quiet=args.quiet) as progress:
        isa = optimize_layout(args.source, args.out, threads=args.threads, progress=progress)
    nbytes = Path(args.out).stat().st_size
    if args.json:
        print_json({"out": args.out, "isa": isa, "nbytes": nbytes, "seconds": time.perf_counter() - began})
    else:
        print(f"{args.out}: {human_nbytes(nbytes)}, for {isa} kernels")
    return 0
