"""`tokamak bench verify`: does a receipt hold?"""

from __future__ import annotations

import argparse

from tokamak.cli.console import print_json
from tokamak.errors import CheckFailed

SUMMARY = "Recompute what a receipt states and name everything that does not hold; exit code 5 if anything does not."
EXAMPLES = """  tokamak bench verify receipt.json
  tokamak bench verify receipt.json --model model.gguf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The receipt, and the file it is about."""
    parser.add_argument("receipt", metavar="RECEIPT", help="a file that `tokamak bench --receipt` wrote")
    parser.add_argument("--model", metavar="FILE", help="the model file, whose hash must be the recorded one")


def execute(args: argparse.Namespace) -> int:
    """Read, check, tell."""
    from tokamak.observe import verify

    receipt = verify.read(args.receipt)
    found = verify.faults(receipt, args.model)
    if args.json:
        print_json({"receipt": args.receipt, "holds": not found, "faults": found})
    if found:
        text = f"{args.receipt}: {'; '.join(found)}"
        if args.json:
            return CheckFailed.exit_code
        raise CheckFailed(text)
    if not args.json:
        kernels = ", ".join(str(k["kernel"]) for k in receipt["kernels"][:3])
        print(
            f"{args.receipt}: holds ({receipt['model'].get('name')}; {len(receipt['kernels'])} kernels: {kernels}, ...)"
        )
    return 0
