"""Executors: `reference` is the oracle, `cpu` the fast one. `get` makes one by name."""

from __future__ import annotations

from tokamak.errors import InvalidParams
from tokamak.types import Executor, PackedBytes

__all__ = ["NAMES", "check_layout", "get"]

NAMES = ("cpu", "reference")


def get(name: str = "auto") -> Executor:
    """The executor called `name`; "auto" is the fastest that runs here.

    Raises: InvalidParams for an unknown name.
    """
    if name in ("auto", "cpu"):
        from tokamak.executors.cpu import Cpu

        return Cpu()
    if name == "reference":
        from tokamak.executors.reference import Reference

        return Reference()
    raise InvalidParams(f"executor {name!r} is unknown; known: auto, {', '.join(NAMES)}")


def check_layout(packed: PackedBytes, format_: str, isa: str) -> None:
    """Whether the kernels here read packed bytes.  Raises: UnsupportedError if not."""
    from tokamak.executors import packing

    packing.check_layout(packed, format_, isa)
