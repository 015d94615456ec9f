"""`tokamak convert`: a model in another form: a Hugging Face directory as GGUF, or packed for this machine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tokamak.cli.console import human_nbytes, loading_bar, print_json, remark
from tokamak.errors import InvalidParams

SUMMARY = (
    "Write a directory with safetensors as a GGUF file, or a model as the kernels of this machine read it."
)
EXAMPLES = """  tokamak convert directory model.gguf
  tokamak convert directory model-q4_k_m.gguf --to q4_k_m
  tokamak convert model.gguf model.packed.gguf --optimize-layout
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source, target, form."""
    parser.add_argument("source", metavar="IN", help="a directory with safetensors, or a .gguf file")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to", metavar="MIX", help="a mix of weight formats, as for quantize (default: as they are)"
    )
    parser.add_argument("--imatrix", metavar="FILE", help="an importance matrix for --to")
    parser.add_argument(
        "--mmproj", action="store_true", help="write the directory's image encoder instead of its model"
    )
    parser.add_argument(
        "--optimize-layout",
        action="store_true",
        help="as the kernels of this machine read it: loading maps the file and packs nothing",
    )


def execute(args: argparse.Namespace) -> int:
    """Write the file."""
    if args.optimize_layout and args.to is not None:
        raise InvalidParams(
            "--to and --optimize-layout are two steps: convert with --to, then pack the result"
        )
    if args.imatrix is not None and args.to is None:
        raise InvalidParams("--imatrix needs --to: formats that stay are not rounded")
    if args.mmproj:
        if args.to is not None or args.optimize_layout:
            raise InvalidParams(
                "--mmproj writes an image encoder as it is, without --to and --optimize-layout"
            )
        from tokamak.loaders.vision import write_image_encoder

        nbytes = write_image_encoder(args.source, args.out)
        print_json({"out": args.out, "nbytes": nbytes}) if args.json else print(
            f"{args.out}: {human_nbytes(nbytes)}"
        )
        return 0
    return packed(args) if args.optimize_layout else written(args)


def packed(args: argparse.Namespace) -> int:
    """Write the packed file."""
    from tokamak.engine.packing import optimize_layout

    began = time.perf_counter()
    with loading_bar(f"packing {args.source}", quiet=args.quiet) as progress:
        isa = optimize_layout(args.source, args.out, threads=args.threads, progress=progress)
    nbytes = Path(args.out).stat().st_size
    if args.json:
        print_json({"out": args.out, "isa": isa, "nbytes": nbytes, "seconds": time.perf_counter() - began})
    else:
        print(f"{args.out}: {human_nbytes(nbytes)}, for {isa} kernels")
    return 0


def written(args: argparse.Namespace) -> int:
    """Write a GGUF file."""
    import tokamak
    from tokamak.cli.quantize import facts, summary

    began = time.perf_counter()
    with loading_bar(f"writing {args.out}", quiet=args.quiet) as progress:
        plan = tokamak.quantize(
            args.source, args.out, args.to, imatrix=args.imatrix, threads=args.threads, progress=progress
        )
    seconds = time.perf_counter() - began
    for note in plan.notes:
        remark(f"tokamak: {note}", quiet=args.quiet)
    if args.json:
        print_json({"out": args.out, **facts(plan, seconds)})
    else:
        print(f"{args.out}: {summary(plan)}, in {seconds:.1f} s")
    return 0
