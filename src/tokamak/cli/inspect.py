"""`tokamak inspect`: what a model file holds, without packing a weight."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from tokamak.cli.arguments import add_model
from tokamak.cli.console import human_nbytes, print_json, table

SUMMARY = "Show metadata, tensors, weight formats, memory and graph of a model file."
EXAMPLES = """  tokamak inspect
  tokamak inspect model.gguf --tensors
  tokamak inspect model.gguf --graph
  tokamak inspect model.gguf --json | python -m json.tool
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and how much of it."""
    add_model(parser)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--graph", action="store_true", help="print the optimised graph")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens to state cache memory for (default: as loaded)"
    )


def findings(args: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, as plain data."""
    from tokamak.engine.contents import contents

    found = contents(args.model, args.context)
    for name, wanted in (("tensors", args.tensors), ("graph", args.graph)):
        if not wanted:
            del found[name]
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
    if caches:
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
