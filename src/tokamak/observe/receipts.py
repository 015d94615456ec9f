"""Receipts: a JSON file that says what ran where, as counted by the code that ran.

Kernels come from `Program.records()` and nowhere else; a receipt without kernels cannot be made. Files are written
atomically: a reader sees the old one or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokamak.errors import CheckFailed
from tokamak.observe.machine import Machine, peak_nbytes
from tokamak.settings import VARIABLES

SCHEMA_VERSION = 1
SECRET = frozenset({"HF_TOKEN"})


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file, read in pieces of 1 MB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def environment(threads: int) -> dict[str, object]:
    """The machine, this build, and the variables that were set; secrets only as set."""
    machine = Machine.here()
    values = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    return {
        **machine.facts(),
        "threads": threads,
        "accelerator": None,
        "variables": {name: "(set)" if name in SECRET else value for name, value in values.items()},
    }


def make(
    *,
    executor: str,
    executor_reason: str,
    kernels: Sequence[Mapping[str, object]],
    threads: int,
    model: Mapping[str, object],
    tokenizer: Mapping[str, object],
    results: Mapping[str, object],
    samples: Sequence[Mapping[str, object]],
    overrides: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, Any]:
    """A receipt as plain data.

    tokenizer: its digest and the strategy that gave it; with a mock the receipt is one of a mock.
    kernels: id, calls, nanoseconds, nbytes of each, from the program's records. results: totals and rates.
    samples: every repetition. overrides: options that change what the model's file says or how it is run, by name. Raises: CheckFailed if no kernel was recorded or no token counted.
    """
    if not kernels:
        raise CheckFailed("no kernel was recorded, so there is nothing to give a receipt for")
    if not any(results.get(name) for name in ("prompt_tokens", "generated_tokens")):
        raise CheckFailed("no token was counted, so there is nothing to give a receipt for")
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "compute_path": "mock" if tokenizer.get("strategy") == "mock" else "real",
        "executor": {"name": executor, "reason": executor_reason},
        "kernels": [dict(k) for k in kernels],
        "deterministic": True,  # by construction: no mode changes the order of additions
        "environment": environment(threads),
        "model": dict(model),
        "overrides": dict(overrides),
        "tokenizer": dict(tokenizer),
        "results": {**results, "peak_memory_nbytes": peak_nbytes()},
        "parity": {"status": "native_only", "peer": None},
        "samples": [dict(s) for s in samples],
    }


def write(path: str | os.PathLike[str], receipt: Mapping[str, Any]) -> None:
    """Write a receipt atomically: temporary file beside it, fsync, rename, fsync of the folder."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(receipt, file, ensure_ascii=False, allow_nan=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
