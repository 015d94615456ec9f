"""Executors: `reference` is the oracle, `cpu` the fast one. `get` makes one by name."""

from __future__ import annotations

from tokamak.errors import InvalidParams
from tokamak.types import Executor

__all__ = ["NAMES", "get"]

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
