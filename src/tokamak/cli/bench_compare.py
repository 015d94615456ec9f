"""`tokamak bench compare`: which cases got slower from one run to another?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokamak.errors import CheckFailed, InvalidParams

SUMMARY = (
    "Compare two runs of `tokamak bench` on one machine; exit code 5 if a case got slower by more than noise."
)
EXAMPLES = """  tokamak bench compare before.json after.json
  tokamak bench compare before.json after.json --allowed 0.1 --format junit > report.xml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two runs and what may be lost."""
    parser.add_argument("first", metavar="A", help="receipt, or output of `tokamak bench --json`, of before")
    parser.add_argument("second", metavar="B", help="the same of after")
    parser.add_argument(
        "--allowed",
        type=float,
        default=0.05,
        metavar="X",
        help="share of the speed that may be lost (default 0.05)",
    )
    parser.add_argument(
        "--format", choices=("markdown", "json", "junit"), help="of the report (default markdown)"
    )


def execute(args: argparse.Namespace) -> int:
    """Compare, print, judge."""
    from tokamak.bench import compare
    from tokamak.observe import verify

    if not 0 <= args.allowed < 1:
        raise InvalidParams(f"--allowed is {args.allowed}; it must be at least 0 and below 1")
    rows = compare.compare(verify.read(args.first), verify.read(args.second), allowed=args.allowed)
    style = args.format or ("json" if args.json else "markdown")
    report = {"markdown": compare.markdown, "json": compare.as_json, "junit": compare.junit}[style]
    sys.stdout.write(report(rows))
    slower = [r for r in rows if r.verdict == "slower"]
    if slower:
        names = ", ".join(f"{r.name} ({r.ratio:.2f} x)" for r in slower)
        raise CheckFailed(f"{Path(args.second).name}: slower than {Path(args.first).name}: {names}")
    return 0
