"""Settings of this machine that `tokamak tune` found: a small file in the cache folder, read at load.

They decide speed only. A file that is broken, or from another processor, instruction set, number of CPUs or version,
is passed over: the defaults are always good enough to run with.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokamak import _native
from tokamak.errors import InvalidParams
from tokamak.settings import MAX_THREADS, available_cpus
from tokamak.types import TUNING_RANGES, Tuning

__all__ = ["FILE", "Tuned", "forget", "machine_key", "read", "write"]

FILE = "tuning.json"
_COUNTS = {"threads": (1, MAX_THREADS), "threads_batch": (1, MAX_THREADS), "max_batch_rows": (16, 4096)}


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found best. None: as without tuning."""

    threads: int | None = None
    threads_batch: int | None = None
    max_batch_rows: int | None = None  # in [16, 4096]
    tuning: Tuning = field(default_factory=Tuning)


def machine_key() -> str:
    """What a finding depends on: processor, kernels, CPUs of this process."""
    return f"{_cpu()} | {_native.isa()} | {available_cpus()} CPUs"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def read(cache_dir: Path) -> Tuned:
    """What was found for this machine; nothing (the defaults) if there is no finding that can be used."""
    found = _entries(cache_dir).get(machine_key())
    if not isinstance(found, dict):
        return Tuned()
    sizes = {name: found.get(name) for name in TUNING_RANGES}
    counts = {name: found.get(name) for name in _COUNTS}
    if not all(_within(sizes[name], low, high) for name, (low, high) in TUNING_RANGES.items()):
        return Tuned()
    if not all(counts[name] is None or _within(counts[name], *ends) for name, ends in _COUNTS.items()):
        return Tuned()
    return Tuned(**counts, tuning=Tuning(**{name: int(str(value)) for name, value in sizes.items()}))


def write(cache_dir: Path, tuned: Tuned) -> Path:
    """Keep a finding for this machine, beside those of others; the file is replaced whole.

    Raises: InvalidParams if the folder cannot be written.
    """
    entries = _entries(cache_dir)
    entries[machine_key()] = {
        **{name: getattr(tuned, name) for name in _COUNTS},
        **dataclasses.asdict(tuned.tuning),
    }
    return _replace(cache_dir, entries)


def forget(cache_dir: Path) -> bool:
    """Drop the finding for this machine; says whether there was one."""
    entries = _entries(cache_dir)
    if entries.pop(machine_key(), None) is None:
        return False
    _replace(cache_dir, entries)
    return True


def _replace(cache_dir: Path, entries: Mapping[str, object]) -> Path:
    path = cache_dir / FILE
    partial = path.with_name(f".{FILE}.{os.getpid()}.partial")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InvalidParams(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _entries(cache_dir: Path) -> dict[str, object]:
    try:
        found = json.loads((cache_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _within(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
