"""`tokamak quantize`: a GGUF file in another mix of weight formats."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tokamak.cli.console import human_nbytes, loading_bar, print_json, remark, table
from tokamak.errors import InvalidParams

if TYPE_CHECKING:
    from tokamak.loaders.quantize import Plan

SUMMARY = "Write a GGUF file in another mix of weight formats, as llama.cpp names them."
EXAMPLES = """  tokamak quantize model-f16.gguf model-q4_k_m.gguf --to q4_k_m
  tokamak quantize model-f16.gguf small.gguf --to iq3_xxs --imatrix imatrix.gguf
  tokamak quantize model-f16.gguf out.gguf --to q4_k_m --tensor-type 'ffn_down=q8_0' --output-type q8_0
  tokamak quantize model-f16.gguf out.gguf --to q5_k_m --dry-run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, the mix, and what differs from it."""
    parser.add_argument("source", metavar="IN", help="a .gguf file, best in f16, bf16 or f32")
    parser.add_argument("target", metavar="OUT", help="the .gguf file to write")
    parser.add_argument("--to", default="q4_k_m", metavar="MIX", help="a named mix (default q4_k_m)")
    parser.add_argument("--imatrix", metavar="FILE", help="an importance matrix, see 'tokamak imatrix'")
    parser.add_argument(
        "--tensor-type",
        action="append",
        default=[],
        metavar="PATTERN=TYPE",
        help="a format for tensors whose name has this regular expression; may be repeated, the first wins",
    )
    parser.add_argument("--output-type", metavar="TYPE", help="format of output.weight")
    parser.add_argument("--token-embedding-type", metavar="TYPE", help="format of token_embd.weight")
    parser.add_argument("--pure", action="store_true", help="all matrices in the main format of the mix")
    parser.add_argument(
        "--allow-requantize", action="store_true", help="also read formats that lost precision already"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and sizes, write nothing")


def override(text: str) -> tuple[str, str]:
    """PATTERN and TYPE of one --tensor-type. Raises: InvalidParams."""
    pattern, equals, name = text.rpartition("=")
    if not (pattern and equals and name):
        raise InvalidParams(f"--tensor-type {text!r} must be PATTERN=TYPE, for instance ffn_down=q8_0")
    return pattern, name


def facts(plan: Plan, seconds: float | None) -> dict[str, Any]:
    """The plan as plain data; seconds: None for a dry run."""
    return {
        "to": plan.recipe,
        "source_nbytes": plan.source_nbytes,
        "nbytes": plan.nbytes,
        "bits_per_weight": plan.bits_per_weight,
        "formats": dict(Counter(t.target for t in plan.tensors)),
        "notes": list(plan.notes),
        "seconds": seconds,
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "from": t.source, "to": t.target, "nbytes": t.nbytes}
            for t in plan.tensors
        ],
    }


def summary(plan: Plan) -> str:
    """One line: sizes before and after."""
    return (
        f"{plan.recipe}: {human_nbytes(plan.source_nbytes)} to {human_nbytes(plan.nbytes)}, "
        f"{plan.bits_per_weight:.2f} bits per weight"
    )


def execute(args: argparse.Namespace) -> int:
    """Quantise, or print what would be done."""
    import tokamak

    overrides = [override(text) for text in args.tensor_type]
    began = time.perf_counter()
    with loading_bar(f"writing {args.target}", quiet=args.quiet or args.dry_run) as progress:
        plan = tokamak.quantize(
            args.source,
            args.target,
            args.to,
            imatrix=args.imatrix,
            tensor_types=overrides,
            output_type=args.output_type,
            token_embedding_type=args.token_embedding_type,
            pure=args.pure,
            allow_requantize=args.allow_requantize,
            dry_run=args.dry_run,
            threads=args.threads,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    for note in plan.notes:
        remark(f"tokamak: {note}", quiet=args.quiet)
    if args.json:
        print_json(facts(plan, None if args.dry_run else seconds))
    elif args.dry_run:
        rows = [
            (t.name, "x".join(map(str, t.shape)), t.source, t.target, human_nbytes(t.nbytes))
            for t in plan.tensors
        ]
        print(table(("tensor", "shape", "from", "to", "size"), rows))
        print(summary(plan))
    else:
        print(f"{summary(plan)}, in {seconds:.1f} s")
    return 0
